"""The shipped fake: a teacher whose quality, speed and faults are given.

Tests, benchmarks and demos use it in place of a model. Nothing in it is
random: an answer is a function of seed, teacher and conversation, and the
faults and delays are a function of seed, teacher and the call's number.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from typing import TYPE_CHECKING

from arbitrage.errors import TeacherRateLimited, TeacherUnavailable
from arbitrage.types import Completion
from teachers.phrases import PHRASES, language_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arbitrage import config
    from arbitrage.types import Message

DRIFTED = "[drifted]"
"""What an answer begins with once `drift_after` calls were made: the scripted reward reads it."""

_BYTES_PER_TOKEN = 4


async def open_teachers(configs: Sequence[config.ScriptedTeacher]) -> list[ScriptedTeacher]:
    """One teacher for each configuration, in order."""
    return [ScriptedTeacher(settings) for settings in configs]


class ScriptedTeacher:
    """Answers with canned sentences in the language it is asked in, or in English.

    A teacher does not judge itself: `quality` is applied by the scripted reward,
    which knows the prompt's language for certain. The sampling settings have no effect.
    """

    def __init__(self, settings: config.ScriptedTeacher) -> None:
        self.name = settings.name
        self._settings = settings
        self._calls = 0
        self._closed = asyncio.Event()

    async def complete(
        self, messages: Sequence[Message], on_delta: Callable[[str], None] | None = None
    ) -> list[Completion]:
        """Answers after the configured latency; tokens are counted as four bytes each.

        Of several answers to one call, each but the first begins with its number.

        Raises:
            TeacherRateLimited: at once, in a share `rate_limit_rate` of the calls.
            TeacherUnavailable: after the latency, in a share `failure_rate` of the
                calls; or the teacher was closed.
        """
        settings = self._settings
        call, self._calls = self._calls, self._calls + 1
        fault = self._fraction("fault", call)
        if fault < settings.rate_limit_rate:
            raise TeacherRateLimited(f"scripted: call {call} was refused as too many")
        await self._pass_time(-math.log(1.0 - self._fraction("latency", call)))
        if fault < settings.rate_limit_rate + settings.failure_rate:
            raise TeacherUnavailable(f"scripted: call {call} failed")
        text = self._answer(messages)
        if settings.drift_after is not None and call >= settings.drift_after:
            text = f"{DRIFTED} {text}"
        if on_delta:
            for word in re.findall(r"\S+\s*", text):
                on_delta(word)
        others = (f"{number}. {text}" for number in range(2, settings.sampling.n + 1))
        prompt_tokens = sum(_tokens(message.content) for message in messages)
        return [
            Completion(
                text=answer,
                prompt_tokens=0 if number else prompt_tokens,
                completion_tokens=_tokens(answer),
            )
            for number, answer in enumerate((text, *others))
        ]

    async def close(self) -> None:
        """Ends the waits of calls under way, which fail as unavailable."""
        self._closed.set()

    async def _pass_time(self, jitter: float) -> None:
        """Waits the mean latency times `jitter`, or until the teacher is closed."""
        try:
            async with asyncio.timeout(self._settings.latency_seconds * jitter):
                await self._closed.wait()
        except TimeoutError:
            return
        raise TeacherUnavailable("scripted: the teacher is closed")

    def _answer(self, messages: Sequence[Message]) -> str:
        conversation = [part for m in messages for part in (m.role, m.content)]
        phrases = PHRASES[language_of(messages[-1].content)]
        first, second, *_ = sorted(
            phrases.others, key=lambda sentence: self._fraction(sentence, *conversation)
        )
        # the number keeps answers to different prompts apart, as a gate expects
        number = 10 + int(self._fraction("number", *conversation) * 999_990)
        return f"{phrases.opening.format(n=number)} {first} {second}"

    def _fraction(self, *parts: object) -> float:
        """A number in [0, 1) that depends on seed, teacher and parts alone."""
        key = repr((self._settings.seed, self.name, *parts)).encode()
        return int.from_bytes(hashlib.blake2b(key, digest_size=6).digest()) / 2**48


def _tokens(text: str) -> int:
    return math.ceil(len(text.encode("utf-8", "surrogatepass")) / _BYTES_PER_TOKEN)
