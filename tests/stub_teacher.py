"""A teacher that does as a test tells it, and keeps count."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from arbitrage import config
from arbitrage.types import Completion, Prompt
from teachers import Pool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from arbitrage.types import Message

PROMPT = Prompt.of("Why?", language="en")
ANSWER = Completion("Because.", prompt_tokens=1, completion_tokens=3)


class StubTeacher:
    """Answers each call by what `script` does; `script` is told the call's number, from 0.

    Attributes:
        sent: when each call came, on the loop's clock.
        under_way, most_under_way: calls at once, now and at worst.
        closed: how often it was closed.
        closed_on: calls that were under way when it was closed.
    """

    def __init__(self, script: Callable[[int], Awaitable[Sequence[Completion]]]) -> None:
        self.name = "stub"
        self.sent: list[float] = []
        self.under_way = self.most_under_way = 0
        self.closed = self.closed_on = 0
        self._script = script

    async def complete(
        self, messages: Sequence[Message], on_delta: Callable[[str], None] | None = None
    ) -> Sequence[Completion]:
        assert messages
        number = len(self.sent)
        self.sent.append(asyncio.get_running_loop().time())
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            answers = await self._script(number)
            if on_delta:
                on_delta(answers[0].text)
            return answers
        finally:
            self.under_way -= 1

    async def close(self) -> None:
        self.closed += 1
        self.closed_on += self.under_way


def settings(name: str = "a", **fields: Any) -> config.ScriptedTeacher:
    return config.ScriptedTeacher(name=name, kind="scripted", **fields)


def pool_of(teacher: StubTeacher, **fields: Any) -> Pool:
    return Pool([(settings(**fields), teacher)])


def answers(*completions: Completion, seconds: float = 0.0) -> StubTeacher:
    """Answers every call in so many seconds; at once, without giving way, in none."""

    async def script(_: int) -> Sequence[Completion]:
        if seconds:
            await asyncio.sleep(seconds)
        return completions or (ANSWER,)

    return StubTeacher(script)


def fails(*errors: Exception, seconds: float = 0.0) -> StubTeacher:
    """Fails with each error in turn, then answers; with a single error, always fails."""

    async def script(number: int) -> Sequence[Completion]:
        if seconds:
            await asyncio.sleep(seconds)
        if len(errors) == 1:
            raise errors[0]
        if number < len(errors):
            raise errors[number]
        return (ANSWER,)

    return StubTeacher(script)


async def hang(_: int) -> Sequence[Completion]:
    """The script of a teacher that takes every call and answers none."""
    await asyncio.Event().wait()
    raise AssertionError


def hangs() -> StubTeacher:
    """Takes every call and answers none."""
    return StubTeacher(hang)
