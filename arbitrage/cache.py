"""Pays for no completion twice: what a teacher has answered is asked of the journal first."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from arbitrage.errors import SinkError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from arbitrage.errors import NoTeacherAvailable
    from arbitrage.ports import Pool
    from arbitrage.types import Candidate, Prompt, TeacherInfo

_LOG = logging.getLogger(__name__)


class Kept(Protocol):
    """Where completions are kept, such as a journal."""

    def keep(self, key: bytes, answers: Sequence[Candidate]) -> asyncio.Future[int | None]:
        """Stores answers; awaiting what it returns means durable."""

    async def kept(self, key: bytes) -> Sequence[Candidate] | None:
        """What was stored under a key.

        Raises:
            SinkError: it cannot be read.
        """


def key_of(asked: str, prompt: Prompt) -> bytes:
    """128 bits that stand for a call: who is asked, with which model and sampling, and what.

    Args:
        asked: all of a teacher's configuration that shapes its answers, as one text.
        prompt: its messages alone count, not its id or language.
    """
    digest = hashlib.sha256()
    for part in (asked, *(text for m in prompt.messages for text in (m.role, m.content))):
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.digest()[:16]


class CachedPool:
    """A `Pool` that answers from what was paid for, in this run or one before.

    What is found has cost nothing and says so (`cached`); it has the latency that it had.
    Calls for one key wait for the first of them. Failures are not kept. A completion is
    durable soon after it has arrived, and before any sample that it is part of.

    Args:
        pool: who is asked for the rest.
        kept: where completions are.
        asked: what of a teacher's configuration shapes its answers, as one text; None for
            one of whom nothing is to be kept or found.
    """

    def __init__(self, pool: Pool, kept: Kept, asked: Callable[[str], str | None]) -> None:
        self.pool = pool
        self._kept = kept
        self._asked = asked
        self._under_way: dict[bytes, list[asyncio.Future[None]]] = {}  # with those who wait

    def available(self, prompt: Prompt) -> Sequence[str]:
        """Arms that may be asked for this prompt now, in the configuration's order."""
        return self.pool.available(prompt)

    async def another(self, prompt: Prompt, asked: Collection[str], deadline: float) -> bool:
        """Waits until an arm not yet asked may be asked again; False if none will be in time."""
        return await self.pool.another(prompt, asked, deadline)

    def expected_cost(self, arm: str, prompt: Prompt) -> float:
        """What a call is likely to cost by the teacher's price, in US dollars."""
        return self.pool.expected_cost(arm, prompt)

    def refusal(self, prompt: Prompt) -> NoTeacherAvailable:
        """Why nobody may be asked for this prompt now, and when to try again."""
        return self.pool.refusal(prompt)

    def describe(self) -> Sequence[TeacherInfo]:
        """Every teacher of the configuration, available or not."""
        return self.pool.describe()

    async def ask(
        self,
        arm: str,
        prompt: Prompt,
        *,
        tried: Collection[str] = (),
        deadline: float | None = None,
        on_delta: Callable[[str], None] | None = None,
    ) -> Sequence[Candidate]:
        """The answers that are kept, or else the teacher's, which are kept from now on."""
        asked = self._asked(arm)
        if asked is None:
            return await self._ask(arm, prompt, tried, deadline, on_delta)
        key = key_of(asked, prompt)
        while key in self._under_way:
            if not await self._another_is_done(key, deadline):  # and nor will the teacher be
                return await self._ask(arm, prompt, tried, deadline, on_delta)
        self._under_way[key] = []
        stored: asyncio.Future[Any] | None = None
        try:
            found = await self._found(key)
            if found is not None:
                if on_delta and found[0].completion:
                    on_delta(found[0].completion.text)
                return [_unpaid(candidate, arm) for candidate in found]
            answers = await self._ask(arm, prompt, tried, deadline, on_delta)
            if all(candidate.completion for candidate in answers):
                stored = self._kept.keep(key, answers)
            return answers
        finally:
            # who asks the same meanwhile finds it only once it is durable
            if stored:
                stored.add_done_callback(partial(self._end, key))
            else:
                self._end(key)

    async def _another_is_done(self, key: bytes, deadline: float | None) -> bool:
        """Waits for who asks the same; False if that takes longer than there is time."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        self._under_way[key].append(over)
        seconds = None if deadline is None else deadline - loop.time()
        done, _ = await asyncio.wait({over}, timeout=seconds)
        return bool(done)

    def _end(self, key: bytes, _: object = None) -> None:
        for over in self._under_way.pop(key):
            over.set_result(None)

    async def _ask(
        self,
        arm: str,
        prompt: Prompt,
        tried: Collection[str],
        deadline: float | None,
        on_delta: Callable[[str], None] | None,
    ) -> Sequence[Candidate]:
        return await self.pool.ask(arm, prompt, tried=tried, deadline=deadline, on_delta=on_delta)

    async def _found(self, key: bytes) -> Sequence[Candidate] | None:
        try:
            return await self._kept.kept(key)
        except SinkError as error:
            # paying again is better than no answer
            _LOG.warning("asking the teacher again: %s", error)
            return None


def _unpaid(candidate: Candidate, arm: str) -> Candidate:
    completion = candidate.completion and replace(candidate.completion, cached=True)
    return replace(candidate, teacher=arm, completion=completion, cost_usd=0.0)
