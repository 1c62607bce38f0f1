"""The pool: who may be asked for a prompt, and how one teacher is asked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from time import perf_counter
from typing import TYPE_CHECKING

from arbitrage.errors import TeacherError, TeacherTimeout
from arbitrage.language import UNDETERMINED, normalise, same
from arbitrage.types import Candidate, Failure, TeacherInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage import config
    from arbitrage.ports import Teacher
    from arbitrage.types import Completion, Prompt

_MILLION = 1_000_000


class Pool:
    """The teachers of a configuration, each within its limits.

    Args:
        entries: each teacher with its configuration, in the configuration's order.
    """

    def __init__(self, entries: Sequence[tuple[config.AnyTeacher, Teacher]]) -> None:
        self._members = {
            settings.name: _Member.of(settings, teacher) for settings, teacher in entries
        }

    def available(self, prompt: Prompt) -> list[str]:
        """Arms whose languages include the prompt's; every arm where that is not known."""
        return [arm for arm, member in self._members.items() if member.speaks(prompt.language)]

    async def ask(self, arm: str, prompt: Prompt) -> Candidate:
        """Asks one teacher, within its `timeout_seconds` and `max_concurrency`.

        Waiting for one of its permits counts towards the timeout and the latency.
        A `TeacherError` and a timeout come back as a failed candidate; any other
        exception is a bug in the adapter, and is raised.

        Raises:
            KeyError: no teacher has this name.
        """
        member = self._members[arm]
        started = perf_counter()
        answer = await member.answer(prompt)
        latency_seconds = perf_counter() - started
        if isinstance(answer, Failure):
            return Candidate(arm, failure=answer, latency_seconds=latency_seconds)
        return Candidate(
            arm,
            completion=answer,
            latency_seconds=latency_seconds,
            cost_usd=member.cost_usd(answer),
        )

    def describe(self) -> list[TeacherInfo]:
        """Every teacher of the configuration, in its order."""
        return [member.describe() for member in self._members.values()]

    async def close(self) -> None:
        """Closes all teachers side by side; calls under way fail.

        Raises:
            ExceptionGroup: some did not close; the others are closed all the same.
        """
        teachers = {id(member.teacher): member.teacher for member in self._members.values()}
        ends = await asyncio.gather(
            *(teacher.close() for teacher in teachers.values()), return_exceptions=True
        )
        if errors := [end for end in ends if isinstance(end, BaseException)]:
            raise BaseExceptionGroup("teachers did not close", errors)


@dataclass(frozen=True, slots=True)
class _Member:
    """One teacher, with what the pool holds it to."""

    settings: config.AnyTeacher
    teacher: Teacher
    languages: tuple[str, ...]
    permits: asyncio.Semaphore
    # decimal, so that a cost is the price as written times the tokens, without binary dust
    prompt_price: Decimal
    completion_price: Decimal

    @classmethod
    def of(cls, settings: config.AnyTeacher, teacher: Teacher) -> _Member:
        return cls(
            settings=settings,
            teacher=teacher,
            languages=tuple(dict.fromkeys(normalise(tag) for tag in settings.languages)),
            permits=asyncio.Semaphore(settings.max_concurrency),
            prompt_price=Decimal(str(settings.price_per_million.prompt)),
            completion_price=Decimal(str(settings.price_per_million.completion)),
        )

    def speaks(self, language: str) -> bool:
        if not self.languages or language == UNDETERMINED:
            return True
        return any(same(tag, language) for tag in self.languages)

    async def answer(self, prompt: Prompt) -> Completion | Failure:
        deadline = asyncio.timeout(self.settings.timeout_seconds)
        asked = False
        try:
            async with deadline, self.permits:
                asked = True
                return await self.teacher.complete(prompt.messages)
        except TeacherError as error:
            return Failure(error.outcome, str(error))
        except TimeoutError:
            if not deadline.expired():
                raise
            return Failure(TeacherTimeout.outcome, self._late(asked=asked))

    def _late(self, *, asked: bool) -> str:
        seconds = f"{self.settings.timeout_seconds:g} s"
        if asked:
            return f"no answer within {seconds}; raise timeout_seconds if that is too short"
        permits = self.settings.max_concurrency
        return (
            f"not asked within {seconds}, since its {permits} concurrent calls were taken; "
            "raise max_concurrency or lower the prompts in flight"
        )

    def cost_usd(self, completion: Completion) -> float:
        if completion.cached:
            return 0.0
        prompt = (completion.prompt_tokens or 0) * self.prompt_price
        answer = (completion.completion_tokens or 0) * self.completion_price
        return float((prompt + answer) / _MILLION)

    def describe(self) -> TeacherInfo:
        return TeacherInfo(
            name=self.settings.name,
            kind=self.settings.kind,
            model=self.settings.model,
            available=True,
            languages=self.languages,
            license=self.settings.license,
            prompt_price=self.settings.price_per_million.prompt,
            completion_price=self.settings.price_per_million.completion,
            max_concurrency=self.settings.max_concurrency,
        )
