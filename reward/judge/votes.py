"""Votes: what a judge says to a question, asked through its pool."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arbitrage.events import Answered
from arbitrage.types import Prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from arbitrage import config
    from arbitrage.events import Event
    from arbitrage.ports import Pool
    from arbitrage.types import Candidate, Completion

    _Read = Callable[[Completion], float | None]

_LOG = logging.getLogger(__name__)
_CUT_OFF = "length"
_QUOTED = 60
_WAITING_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Votes:
    """Those on one question, and why some are missing, if they are."""

    values: list[float]
    missing: str = ""


class Voter:
    """A judge that is asked for votes.

    Args:
        teacher: who judges.
        pool: asks it; retries, limits, budget and metrics are the pool's.
        wanted: votes on each question. The pool brings so many answers to one call.
        hear: is told of each reply, and so of what it cost.
    """

    def __init__(
        self,
        teacher: config.AnyTeacher,
        pool: Pool,
        wanted: int,
        hear: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self._name = teacher.name
        self._pool = pool
        self._wanted = wanted
        self._hear = hear
        # a judge that is busy is waited for: none of the others can speak for it
        self._others = tuple(info.name for info in pool.describe())
        # who waits here has no deadline yet, however many prompts are under way
        self._permits = asyncio.Semaphore(teacher.max_concurrency)
        # waiting for its limits is not among what a judge's calls may take
        self._patience = _WAITING_SECONDS + teacher.timeout_seconds * teacher.max_attempts

    async def votes(
        self,
        prompt_id: str,
        questions: Iterable[str],
        again: Callable[[str], str],
        read: _Read,
    ) -> list[Votes]:
        """The votes on each question, all asked side by side.

        Args:
            prompt_id: of the prompt whose answers are judged.
            questions: what is asked.
            again: makes of a question what is asked once more, for votes that are unread.
            read: a vote of a reply; None for one that cannot be read.
        """
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._vote(prompt_id, (question, again(question)), read))
                for question in questions
            ]
        return [task.result() for task in tasks]

    async def _vote(self, prompt_id: str, attempts: Sequence[str], read: _Read) -> Votes:
        values: list[float] = []
        wanted, reason = self._wanted, ""
        for question in attempts:
            unread: list[Completion] = []
            for reply in (await self._ask(prompt_id, question))[:wanted]:
                if reply.completion is None:
                    return Votes(values, _why_it_failed(reply))
                value = read(reply.completion)
                if value is None:
                    unread.append(reply.completion)
                else:
                    values.append(value)
            if not unread:
                return Votes(values)
            wanted, reason = len(unread), _why_it_is_unread(unread[0])
        return Votes(values, reason)

    async def _ask(self, prompt_id: str, question: str) -> Sequence[Candidate]:
        prompt = Prompt.of(question, prompt_id=prompt_id)
        async with self._permits:
            deadline = asyncio.get_running_loop().time() + self._patience
            replies = await self._pool.ask(
                self._name, prompt, tried=self._others, deadline=deadline
            )
        for reply in replies:
            self._hear(Answered(prompt, reply))
        return replies


def _why_it_failed(reply: Candidate) -> str:
    failure = reply.failure
    return f"{failure.outcome}: {failure.message}" if failure else "it did not reply"


def _why_it_is_unread(reply: Completion) -> str:
    if reply.finish_reason == _CUT_OFF:
        return "its reply was cut off; raise its sampling.max_tokens"
    # which may repeat what it was to judge
    _LOG.debug("a judge's reply that cannot be read: %r", reply.text[:_QUOTED])
    return "its reply cannot be read"
