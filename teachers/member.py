"""A teacher as the pool knows it: how it is called within its limits and its means."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from decimal import Decimal
from time import monotonic
from typing import TYPE_CHECKING

import tenacity

from arbitrage.errors import (
    TeacherAnswerInvalid,
    TeacherError,
    TeacherLeftAlone,
    TeacherOverBudget,
    TeacherRateLimited,
    TeacherTimeout,
    TeacherUnavailable,
)
from arbitrage.events import Called
from arbitrage.language import UNDETERMINED, normalise, same
from teachers.budget import Account, Tariff
from teachers.health import Health
from teachers.hedge import hedged
from teachers.identity import asked
from teachers.limits import Rate
from teachers.patience import Patience

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from arbitrage import config
    from arbitrage.ports import Teacher
    from arbitrage.types import Completion, Prompt
    from teachers.budget import Budget
    from teachers.call import Call
    from teachers.limits import Taken

_PASSING = (TeacherUnavailable, TeacherAnswerInvalid)
_POLL_SECONDS = 0.05
_NO_ANSWER = "no answer before the prompt's time was over"
_BACKOFF = tenacity.wait_exponential(multiplier=0.1, max=5.0) + tenacity.wait_random(0.0, 0.25)


class Member:
    """One teacher of the pool, held to its limits.

    A call passes, in this order: the circuit breaker, a permit, the cooldown, the
    requests and the tokens a minute, the budget. Most calls wait for none of these,
    and are sent at once; the deadline of one that waits is watched all the while.

    Attributes:
        settings: its configuration.
        asked: what of that shapes its answers, as one text.
        teacher: its adapter.
        languages: normalised tags it may be asked in; empty for all.
    """

    def __init__(
        self,
        settings: config.AnyTeacher,
        teacher: Teacher,
        budget: Budget,
        hear: Callable[[Called], None],
    ) -> None:
        self.teacher = teacher
        self._budget = budget
        self._hear = hear
        self._health = Health(settings.max_concurrency)
        self._requests: Rate | None = None
        self._tokens: Rate | None = None
        self._next = asyncio.Lock()
        self._look: asyncio.Event | None = None  # when the open circuit is looked at again
        self._asked = 0
        self.configure(settings)

    def configure(self, settings: config.AnyTeacher) -> None:
        """Takes a configuration, the first or a later one; calls under way go on."""
        self.settings = settings
        self.asked = asked(settings)
        self.languages = tuple(dict.fromkeys(normalise(tag) for tag in settings.languages))
        price = settings.price_per_million or getattr(self.teacher, "price", None)
        self.account = Account(Tariff.of(price), settings.sampling, self._budget)
        self._health.concurrency.allow(settings.max_concurrency)
        self._requests = _rate(Rate.of_requests, settings.requests_per_minute, self._requests)
        self._tokens = _rate(Rate.of_tokens, settings.tokens_per_minute, self._tokens)

    def speaks(self, language: str) -> bool:
        """Whether it may be asked in a language; yes where that is not known."""
        if not self.languages or language == UNDETERMINED:
            return True
        return any(same(tag, language) for tag in self.languages)

    @property
    def well(self) -> bool:
        """Whether a call would be let through, as far as its health goes."""
        return self._health.breaker.ready

    @property
    def idle(self) -> bool:
        """Whether no prompt waits for its answer."""
        return not self._asked

    @property
    def available(self) -> bool:
        """Whether it answers as usual: no open circuit, no cooldown, and means to pay it."""
        health = self._health
        well = health.breaker.closed and not health.cooldown.remaining_seconds
        return well and self.account.within_budget

    @property
    def returns_in_seconds(self) -> float:
        """When the open circuit lets the next call through."""
        return self._health.breaker.remaining_seconds

    def affordable(self, prompt: Prompt) -> bool:
        """Whether the budget allows a call."""
        return self.account.affordable(prompt)

    def limited(self, prompt: Prompt) -> bool:
        """Whether a prompt would wait for what the provider allows."""
        return self._health.limited or self._rates_taken(prompt)

    def why_left_alone(self) -> str:
        """What the open circuit is about."""
        return str(self._health.refusal())

    async def answer(self, call: Call) -> list[tuple[Completion, Decimal]]:
        """Calls the teacher, again where that is worth it, until the call's deadline.

        Returns:
            Each answer with its cost in US dollars.

        Raises:
            TeacherError: there is no answer.
        """
        self._asked += 1
        try:
            if self._free_for(call):
                return await self._send_at_once(call)
            return await self._in_turn(call)
        finally:
            self._asked -= 1

    def _free_for(self, call: Call) -> bool:
        """Whether a call would wait for nothing."""
        health = self._health
        return (
            self._requests is None
            and self._tokens is None
            and health.breaker.closed
            and not health.cooldown.remaining_seconds
            and health.concurrency.free
            and self.affordable(call.prompt)
            and _remaining(call) > 0.0
        )

    async def _send_at_once(self, call: Call) -> list[tuple[Completion, Decimal]]:
        permits = self._health.concurrency
        permits.try_acquire()
        try:
            return await self._send(call)
        except TeacherError as error:
            failure = error
        finally:
            permits.release()
        return await self._in_turn(call, failure)

    async def _in_turn(
        self, call: Call, failure: TeacherError | None = None
    ) -> list[tuple[Completion, Decimal]]:
        """Makes attempts, after one that failed if there was one, for as long as the prompt has."""
        try:
            with Patience(_remaining(call)) as deadline:
                try:
                    return await self._attempt(call, failure)
                except TeacherError as error:
                    return await self._try_again(call, error)
        except TimeoutError:
            if not deadline.over:
                raise
        if call.seconds:
            raise TeacherTimeout(_NO_ANSWER)
        raise TeacherTimeout(
            "not asked before the prompt's time was over; raise the teacher's limits or "
            "job.deadline_seconds, or lower the prompts in flight"
        )

    async def _try_again(
        self, call: Call, failure: TeacherError | None
    ) -> list[tuple[Completion, Decimal]]:
        """Goes on after the first attempt, if what it failed of may pass."""
        retries = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(lambda error: self._worth_another(call, error)),
            stop=tenacity.stop_after_attempt(self.settings.max_attempts),
            wait=_BACKOFF,
            reraise=True,
        )
        async for attempt in retries:
            with attempt:
                if failure:
                    first, failure = failure, None
                    raise first
                return await self._attempt(call)
        raise AssertionError("tenacity ends with an answer or its error")

    async def _attempt(
        self, call: Call, failure: TeacherError | None = None
    ) -> list[tuple[Completion, Decimal]]:
        """Sends the call once; again only where it was sent too early and may wait.

        Args:
            call: what is asked.
            failure: what became of it, where it was sent at once.
        """
        permits = self._health.concurrency
        refused = False
        while True:
            try:
                if failure:
                    first, failure = failure, None
                    raise first
                await self._recovery(call)
                await permits.acquire(first=refused)
                try:
                    await self._clear(call)
                    return await self._send(call)
                finally:
                    permits.release()
            except (TeacherRateLimited, TeacherLeftAlone) as error:
                if not self._worth_waiting(call):
                    raise
                refused = isinstance(error, TeacherRateLimited)

    async def _recovery(self, call: Call) -> None:
        """Returns when the circuit lets a call through, and at once where it is worth no wait."""
        while not self.well and self._worth_waiting(call):
            if self._look is None:
                self._look = asyncio.Event()
                pause = max(self.returns_in_seconds, _POLL_SECONDS)
                asyncio.get_running_loop().call_later(pause, self._look_again)
            await self._look.wait()  # all look together, so that they keep their order
        if not self.well:
            raise self._health.refusal()

    def _look_again(self) -> None:
        look, self._look = self._look, None
        if look:
            look.set()

    async def _clear(self, call: Call) -> None:
        """Waits until the provider takes another call, and the budget allows it."""
        await self._pause(call)
        if self._rates_taken(call.prompt) and not self._worth_waiting(call):
            raise TeacherRateLimited("not asked, since its calls of this minute are taken")
        # one at a time: those that wait for a cooldown must not save up what is sent after it
        async with self._next:
            if not self.well:
                raise self._health.refusal()
            request, call.tokens = await self._take(call.prompt)
            # another prompt's call may have been refused while this one waited
            await self._pause(call)
            for taken in (request, call.tokens):
                if taken:
                    taken.at = asyncio.get_running_loop().time()
        # what is only reserved may come back
        while not self.affordable(call.prompt) and self.account.payable(call.prompt):  # noqa: ASYNC110 - rare
            await asyncio.sleep(_POLL_SECONDS)

    async def _take(self, prompt: Prompt) -> tuple[Taken | None, Taken | None]:
        request = await self._requests.take() if self._requests else None
        tokens = await self._tokens.take(self._expected_tokens(prompt)) if self._tokens else None
        return request, tokens

    async def _pause(self, call: Call) -> None:
        cooldown = self._health.cooldown
        if (seconds := cooldown.remaining_seconds) and not self._worth_waiting(call):
            raise TeacherRateLimited(
                f"not asked, since its provider takes no calls for another {seconds:.1f} s"
            )
        await cooldown.wait()

    async def _send(self, call: Call) -> list[tuple[Completion, Decimal]]:
        if not self.affordable(call.prompt):
            raise TeacherOverBudget("not called, since the budget is spent; raise budget_usd")
        circuit = self._health.enter()
        started, outcome = monotonic(), "cancelled"
        try:
            with self.account.reserved(call.prompt):
                answers = await self._in_time(call)
                tokens, costs = self.account.settle(call.prompt, answers)
        except TeacherTimeout as error:
            outcome = error.outcome
            self._health.silent(circuit, monotonic() - started, self.settings.timeout_seconds)
            raise
        except TeacherError as error:
            outcome = error.outcome
            call.billed += self.account.charge(error)
            self._health.failed(circuit, error, started)
            raise
        except BaseException:
            self._health.silent(circuit, monotonic() - started, self.settings.timeout_seconds)
            raise
        else:
            outcome = "ok"
            self._health.answered(circuit, started, monotonic() - started)
        finally:
            seconds = monotonic() - started
            call.seconds += seconds
            self._hear(Called(self.settings.name, outcome, seconds))
        if call.tokens:
            call.tokens.rate.correct(call.tokens, tokens)
        return list(zip(answers, costs, strict=True))

    async def _in_time(self, call: Call) -> Sequence[Completion]:
        allowed, remaining = self.settings.timeout_seconds - call.seconds, _remaining(call)
        try:
            with Patience(min(allowed, remaining)) as limit:
                return await self._complete(call)
        except TimeoutError:
            if not limit.over:
                raise
        if remaining < allowed:
            raise TeacherTimeout(_NO_ANSWER)
        raise TeacherTimeout(
            f"no answer within {allowed:.3g} s; raise timeout_seconds if that is too short"
        )

    async def _complete(self, call: Call) -> Sequence[Completion]:
        messages = call.prompt.messages
        if call.on_delta:
            return await self.teacher.complete(messages, call.tell)
        percentile = self.settings.hedge_percentile
        after_seconds = percentile and self._health.latencies.percentile(percentile)
        if not after_seconds:
            return await self.teacher.complete(messages)
        failures: list[TeacherError] = []
        try:
            return await hedged(
                lambda: self._overheard(call, failures),
                after_seconds,
                lambda: self._second(call, failures),
            )
        except TeacherError as error:
            failures.remove(error)  # the caller accounts for it
            raise
        finally:
            call.billed += sum((self.account.charge(error) for error in failures), Decimal(0))

    def _second(
        self, call: Call, failures: list[TeacherError]
    ) -> Awaitable[Sequence[Completion]] | None:
        """Another call of the same, if there is room for one at once."""
        permits = self._health.concurrency
        if self.limited(call.prompt) or not self.affordable(call.prompt):
            return None
        if not permits.try_acquire():
            return None
        held = ExitStack()
        held.callback(permits.release)
        held.enter_context(self.account.reserved(call.prompt))

        async def send() -> Sequence[Completion]:
            async with self._next:
                await self._take(call.prompt)
            return await self._overheard(call, failures)

        task = asyncio.create_task(send())
        # not in the task, which may be cancelled before it has begun
        task.add_done_callback(lambda _: held.close())
        return task

    async def _overheard(self, call: Call, failures: list[TeacherError]) -> Sequence[Completion]:
        """One of two calls: what it says of the provider is learned even if the other answers."""
        started = monotonic()
        try:
            return await self.teacher.complete(call.prompt.messages)
        except TeacherError as error:
            self._health.limited_by(error, started)
            failures.append(error)
            raise

    def _worth_another(self, call: Call, error: BaseException) -> bool:
        """Whether an attempt that failed should be followed by one more."""
        return (
            isinstance(error, _PASSING)
            and not error.completion_tokens  # nobody pays twice for thoughts without an answer
            and (self.well or self._worth_waiting(call))
            and not call.drafted
            and call.seconds < self.settings.timeout_seconds
            and (not self._health.cooldown.remaining_seconds or self._worth_waiting(call))
        )

    def _worth_waiting(self, call: Call) -> bool:
        """Whether a call that came too early should be sent again when it may."""
        return (
            not call.drafted
            and call.seconds < self.settings.timeout_seconds
            and self._back_in_time(call)
            and (not call.may_leave() or (self.settings.when_limited == "wait" and self.well))
        )

    def _back_in_time(self, call: Call) -> bool:
        pause = max(self._health.cooldown.remaining_seconds, self.returns_in_seconds)
        return pause < _remaining(call)

    def _rates_taken(self, prompt: Prompt) -> bool:
        return bool(
            self._next.locked()
            or (self._requests and not self._requests.ready())
            or (self._tokens and not self._tokens.ready(self._expected_tokens(prompt)))
        )

    def _expected_tokens(self, prompt: Prompt) -> int:
        return sum(self.account.expected_tokens(prompt))


def _remaining(call: Call) -> float:
    """Seconds until the prompt's time is over."""
    return call.deadline - asyncio.get_running_loop().time()


def _rate(make: Callable[[int], Rate], per_minute: int | None, before: Rate | None) -> Rate | None:
    """The rate of a configuration: the one before if that is the same."""
    if per_minute is None:
        return None
    return before if before and before.per_minute == per_minute else make(per_minute)
