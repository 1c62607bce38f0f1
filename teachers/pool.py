"""The pool: who may be asked for a prompt, and what became of asking."""

from __future__ import annotations

import asyncio
import logging
import math
from time import perf_counter
from typing import TYPE_CHECKING

from arbitrage.errors import BudgetSpent, NoTeacherAvailable, TeacherError
from arbitrage.types import Candidate, Failure, TeacherInfo
from teachers.budget import Budget
from teachers.call import Call
from teachers.member import Member

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from arbitrage import config
    from arbitrage.events import Called
    from arbitrage.ports import Teacher
    from arbitrage.types import Prompt

_LOG = logging.getLogger(__name__)
_DAY_SECONDS = 86_400.0
_LAST_ASKS_SECONDS = 0.1
_POLL_SECONDS = 0.05


class Pool:
    """The teachers of a configuration, each within its limits, all within one budget.

    Attributes:
        budget: what all calls may cost together.
    """

    def __init__(
        self,
        entries: Sequence[tuple[config.AnyTeacher, Teacher]],
        *,
        budget: Budget | None = None,
        only_trainable: bool = False,
        hear: Callable[[Called], None] = lambda _: None,
    ) -> None:
        """Takes opened teachers.

        Args:
            entries: each with its configuration, in the configuration's order.
            budget: by default, there is no limit.
            only_trainable: ask only those whose outputs may train other models.
            hear: is told of every attempt.
        """
        self.budget = budget or Budget()
        self._only_trainable = only_trainable
        self._hear = hear
        self._members: dict[str, Member] = {}
        self._leaving: list[Member] = []
        self._drains: set[asyncio.Task[None]] = set()
        self._take(entries)

    @property
    def entries(self) -> list[tuple[config.AnyTeacher, Teacher]]:
        """Each teacher with its configuration, in the configuration's order."""
        return [(member.settings, member.teacher) for member in self._members.values()]

    def asked(self, arm: str) -> str | None:
        """What shapes an arm's answers; None where none are to be kept, or there is no such arm."""
        member = self._members.get(arm)
        return member.asked if member and member.settings.cache else None

    def available(self, prompt: Prompt) -> list[str]:
        """Arms that may be asked for this prompt now, in the configuration's order.

        Those whose languages include the prompt's, whose circuit is closed or due for
        a probe, and which the budget allows. One that its provider limits is left out
        if its configuration says so, unless nobody else is left.
        """
        able = [m for m in self._eligible(prompt) if m.well and m.affordable(prompt)]
        free = [m for m in able if m.settings.when_limited == "wait" or not m.limited(prompt)]
        return [member.settings.name for member in free or able]

    async def another(self, prompt: Prompt, asked: Collection[str], deadline: float) -> bool:
        """Waits until an arm not yet asked may be asked again; False if none will be in time.

        Args:
            prompt: what would be asked.
            asked: arms that were.
            deadline: time of the loop's clock.
        """
        seconds = min(
            (
                member.returns_in_seconds
                for member in self._eligible(prompt)
                if member.settings.name not in asked and member.account.payable(prompt)
            ),
            default=math.inf,
        )
        if asyncio.get_running_loop().time() + seconds >= deadline:
            return False
        await asyncio.sleep(max(seconds, _POLL_SECONDS))
        return True

    def expected_cost(self, arm: str, prompt: Prompt) -> float:
        """What a call is likely to cost, in US dollars: by its tokens so far, or by its limits."""
        return float(self._members[arm].account.expected_cost(prompt))

    def refusal(self, prompt: Prompt) -> NoTeacherAvailable:
        """Why nobody may be asked for this prompt now, teacher by teacher."""
        eligible = self._eligible(prompt)
        if not eligible:
            which = " whose outputs may train others" if self._only_trainable else ""
            return NoTeacherAvailable(
                f"no teacher{which} is configured for {prompt.language!r}; add it to languages"
            )
        sick = [member for member in eligible if member.affordable(prompt)]
        if not sick:
            return BudgetSpent(
                f"the budget of {self.budget.limit} USD allows no other call ("
                f"{self.budget.spent:.6f} USD spent so far); raise policy.budget_usd"
            )
        reasons = "; ".join(f"{m.settings.name} is {m.why_left_alone()}" for m in sick)
        return NoTeacherAvailable(
            f"no teacher may be asked in {prompt.language!r} now: {reasons}",
            retry_after_seconds=min(member.returns_in_seconds for member in sick),
        )

    async def ask(
        self,
        arm: str,
        prompt: Prompt,
        *,
        tried: Collection[str] = (),
        deadline: float | None = None,
        on_delta: Callable[[str], None] | None = None,
    ) -> list[Candidate]:
        """Asks one teacher, within its limits, and again where a failure may pass.

        A `TeacherError` comes back as a failed candidate; any other exception is a bug
        in the adapter, and is raised.

        Args:
            arm: who is asked.
            prompt: what is asked.
            tried: arms that have had no good answer to this prompt, so that a call which
                would have to wait is not left to them.
            deadline: time of the loop's clock at which to give up; None for a day from now.
            on_delta: hears the answer piece by piece, where the teacher streams.

        Returns:
            One candidate an answer, or one that failed.

        Raises:
            KeyError: no teacher has this name.
        """
        leaving = {member.settings.name: member for member in self._leaving}
        member = self._members[arm] if arm in self._members else leaving[arm]
        started = perf_counter()
        call = Call(
            prompt,
            deadline=deadline or asyncio.get_running_loop().time() + _DAY_SECONDS,
            on_delta=on_delta,
            may_leave=lambda: self._another_may_answer(prompt, {arm, *tried}),
        )
        try:
            answers = await member.answer(call)
        except TeacherError as error:
            failure = Failure(error.outcome, str(error))
            latency, cost = perf_counter() - started, float(call.billed)
            return [Candidate(arm, failure=failure, latency_seconds=latency, cost_usd=cost)]
        latency = perf_counter() - started
        return [
            Candidate(
                arm,
                completion=completion,
                latency_seconds=latency,
                cost_usd=float(cost if number else cost + call.billed),
            )
            for number, (completion, cost) in enumerate(answers)
        ]

    def describe(self) -> list[TeacherInfo]:
        """Every teacher of the configuration, in its order."""
        return [self._info(member) for member in self._members.values()]

    def replace(self, entries: Sequence[tuple[config.AnyTeacher, Teacher]]) -> None:
        """Takes another configuration's teachers, without dropping a call.

        A teacher that stays is only configured anew. One that goes is asked no more;
        it is closed when its last call has ended.
        """
        before = self._members
        self._members = {}
        self._take(entries, before)
        stay = {id(member.teacher) for member in self._members.values()}
        for member in before.values():
            if id(member.teacher) not in stay:
                self._leaving.append(member)
                drain = asyncio.create_task(self._drain(member))
                self._drains.add(drain)
                drain.add_done_callback(self._drains.discard)

    async def close(self) -> None:
        """Closes all teachers side by side; calls under way fail.

        Raises:
            ExceptionGroup: some did not close; the others are closed all the same.
        """
        for drain in self._drains:
            drain.cancel()
        members = [*self._members.values(), *self._leaving]
        teachers = {id(member.teacher): member.teacher for member in members}
        ends = await asyncio.gather(
            *(teacher.close() for teacher in teachers.values()), return_exceptions=True
        )
        if errors := [end for end in ends if isinstance(end, BaseException)]:
            raise BaseExceptionGroup("teachers did not close", errors)

    def _take(
        self,
        entries: Sequence[tuple[config.AnyTeacher, Teacher]],
        before: dict[str, Member] | None = None,
    ) -> None:
        known = {id(member.teacher): member for member in (before or {}).values()}
        for settings, teacher in entries:
            member = known.get(id(teacher))
            if member and member.settings.name == settings.name:
                member.configure(settings)
            else:
                member = Member(settings, teacher, self.budget, self._hear)
            self._members[settings.name] = member

    async def _drain(self, member: Member) -> None:
        # a prompt may have chosen it a moment ago, and not yet asked
        await asyncio.sleep(_LAST_ASKS_SECONDS)
        while not member.idle:  # noqa: ASYNC110 - rare, and nobody waits for it
            await asyncio.sleep(_POLL_SECONDS)
        try:
            await member.teacher.close()
        except Exception:  # noqa: BLE001 - whatever it is, the pool goes on without it
            _LOG.exception("teacher %r did not close", member.settings.name)
        # not before: if the pool is closed meanwhile, it ends what this one has begun
        self._leaving.remove(member)

    def _eligible(self, prompt: Prompt) -> list[Member]:
        return [
            member
            for member in self._members.values()
            if member.speaks(prompt.language)
            and (member.settings.trainable or not self._only_trainable)
        ]

    def _another_may_answer(self, prompt: Prompt, tried: Collection[str]) -> bool:
        return any(
            member.settings.name not in tried
            and member.well
            and member.affordable(prompt)
            and not member.limited(prompt)
            for member in self._eligible(prompt)
        )

    def _info(self, member: Member) -> TeacherInfo:
        settings, tariff = member.settings, member.account.tariff
        may_be_asked = settings.trainable or not self._only_trainable
        return TeacherInfo(
            name=settings.name,
            kind=settings.kind,
            model=settings.model,
            available=bool(may_be_asked and member.available),
            languages=member.languages,
            license=settings.license,
            prompt_price=float(tariff.prompt),
            completion_price=float(tariff.completion),
            max_concurrency=settings.max_concurrency,
            trainable=settings.trainable,
        )
