"""A job: many prompts, each answered once, however often the job is begun again."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from arbitrage.errors import (
    ArbitrageError,
    BudgetSpent,
    NoTeacherAvailable,
    NoWinner,
    RewardError,
    SinkError,
)
from arbitrage.types import Prompt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence

    from arbitrage.prompts import Rejected
    from arbitrage.types import Sample

_LOG = logging.getLogger(__name__)
_AT_ONCE = 256  # prompts read, and looked up, together
_TRIES = 3  # for one prompt, where what went wrong may pass ...
_PAUSE_SECONDS = 5.0  # ... after a pause, which doubles
_LONGEST_PAUSE_SECONDS = 60.0


class Kept(Protocol):
    """Where it stands what is answered, such as a journal."""

    async def known(self, sample_ids: Collection[str]) -> set[str]:
        """Those of which there is a sample that somebody has won."""

    def accept(self, sample_id: str, prompt: Prompt) -> asyncio.Future[int | None]:
        """Stores a prompt that is to be answered."""


@dataclass(slots=True)
class Counts:
    """How far a job is.

    Attributes:
        read: prompts that came, the rejected ones too.
        rejected: lines that were no prompt.
        known: prompts that an earlier run has answered, or that came twice.
        answered: prompts that have a winner since this run began.
        unanswered: prompts that ended without one, and why.
    """

    read: int = 0
    rejected: int = 0
    known: int = 0
    answered: int = 0
    unanswered: Counter[str] = field(default_factory=Counter)

    @property
    def done(self) -> int:
        """Prompts that nothing more will be done about in this run."""
        return self.rejected + self.known + self.answered + self.unanswered.total()


class Job:
    """Runs prompts through an engine, so many at once, and none of them twice.

    A prompt that is slow holds up no other: when one is done, the next begins. What is wrong
    for a passing reason is tried again: teachers that cannot be asked now, for as long as
    they say when; answers that all failed or could not be scored, three times. A budget that
    is spent, or a disk that takes no more, ends the job, with all that was accepted kept.

    Args:
        prompts: read in a thread, a few ahead of need.
        name: the job's, as the engine has it.
        max_in_flight: prompts under way at once.
        reject: is told of lines that are no prompt.
        pause_seconds: before what failed for a passing reason is tried again.

    Attributes:
        counts: how far it is.
        exhausted: whether the prompts were read to their end.
        abandoned: whether what was under way was given up.
    """

    def __init__(
        self,
        prompts: Iterator[Prompt | Rejected],
        *,
        name: str,
        max_in_flight: int,
        reject: Callable[[Rejected], object] = lambda _: None,
        pause_seconds: float = _PAUSE_SECONDS,
    ) -> None:
        self.counts = Counts()
        self.exhausted = self.abandoned = False
        self._prompts = prompts
        self._ready: list[tuple[str, Prompt]] = []  # to be answered, the next one last
        self._ahead: asyncio.Task[list[Prompt | Rejected]] | None = None
        self._name = name
        self._reject = reject
        self._pause = pause_seconds
        self._max_in_flight = max_in_flight
        self._changed = asyncio.Event()  # a prompt has ended, or none may begin
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()
        self._stopped_by: ArbitrageError | None = None

    @property
    def in_flight(self) -> int:
        """Prompts under way."""
        return len(self._under_way)

    @property
    def stopping(self) -> bool:
        """Whether it begins no other prompt."""
        return self._stopping.is_set()

    async def has_more(self, kept: Kept) -> bool:
        """Whether a prompt is left that is not answered; reads as far as that takes.

        A job that was abandoned reads no further, and has none.

        Args:
            kept: knows what is answered.

        Raises:
            ConfigError: of the prompts, which cannot be read further.
        """
        while not self._ready:
            if self.abandoned:
                return False
            reading, self._ahead = self._ahead or self._read(), None
            if not (batch := await reading):
                self.exhausted = True
                return False
            fresh = self._told_apart(batch)
            known = await kept.known(fresh)
            self.counts.known += len(known)
            self._ready = [item for item in fresh.items() if item[0] not in known][::-1]
        return True

    async def run(self, arbitrate: Callable[[Prompt], Awaitable[Sample]], kept: Kept) -> Counts:
        """Answers prompts until there are no more, or until it is stopped.

        Cancelling it abandons what is under way.

        Args:
            arbitrate: answers one prompt, such as `Engine.arbitrate`.
            kept: knows what is answered, and is told what is accepted.

        Raises:
            BudgetSpent, SinkError: there is no going on; what was under way has ended.
            ConfigError: of the prompts, which cannot be read further.
        """
        try:
            while await self.has_more(kept) and await self._free_slot():
                sample_id, prompt = self._ready.pop()
                if self._ahead is None and len(self._ready) < _AT_ONCE // 2:
                    self._ahead = self._read()
                kept.accept(sample_id, prompt)
                task = asyncio.create_task(self._answer(arbitrate, prompt))
                self._under_way[sample_id] = task
                task.add_done_callback(partial(self._end, sample_id))
            await self._quiet()
        except asyncio.CancelledError:
            self.abandon()
            raise
        finally:
            await self._quiet()
        if self._stopped_by:
            raise self._stopped_by
        return self.counts

    def stop(self, error: ArbitrageError | None = None) -> None:
        """Begins no other prompt; what is under way goes on, and an error is raised at the end."""
        self._stopped_by = self._stopped_by or error
        self._stopping.set()
        self._changed.set()

    def abandon(self) -> None:
        """Gives up what is under way, too; it is as if it had not begun, but for what is paid."""
        self.abandoned = True
        self.stop()
        for task in self._under_way.values():
            task.cancel()

    def _read(self) -> asyncio.Task[list[Prompt | Rejected]]:
        """Some more rows, in a thread; none at the end."""
        return asyncio.create_task(asyncio.to_thread(lambda: list(islice(self._prompts, _AT_ONCE))))

    def _told_apart(self, batch: Sequence[Prompt | Rejected]) -> dict[str, Prompt]:
        """The prompts of a batch that came for the first time, by the id of their samples."""
        self.counts.read += len(batch)
        fresh: dict[str, Prompt] = {}
        for one in batch:
            if not isinstance(one, Prompt):
                self.counts.rejected += 1
                self._reject(one)
                continue
            sample_id = one.sample_id(self._name)
            if sample_id in self._under_way or sample_id in fresh:
                self.counts.known += 1
            else:
                fresh[sample_id] = one
        return fresh

    async def _free_slot(self) -> bool:
        """Waits until another prompt may begin; False if none may any more."""
        while not self.stopping:
            if self.in_flight < self._max_in_flight:
                return True
            self._changed.clear()
            await self._changed.wait()
        return False

    async def _quiet(self) -> None:
        """Waits until nothing is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way.values())
        if self._ahead:  # what is read and not needed, or cannot be read, is nobody's loss
            await asyncio.wait({self._ahead})
            self._ahead.exception()

    def _end(self, sample_id: str, _: object) -> None:
        del self._under_way[sample_id]
        self._changed.set()

    async def _answer(
        self, arbitrate: Callable[[Prompt], Awaitable[Sample]], prompt: Prompt
    ) -> None:
        tries = 0
        while not (tries and self.stopping):
            tries += 1
            try:
                await arbitrate(prompt)
            except (BudgetSpent, SinkError) as error:
                self.stop(error)
                return
            except Exception as error:  # noqa: BLE001 - a bug that one prompt meets must not end all
                seconds = self._until_again(error, tries)
                if seconds is None:
                    self.counts.unanswered[_kind_of(error)] += 1
                    _LOG.info("no sample of prompt %s: %s", prompt.prompt_id, error)
                    return
                await self._rest(seconds)
            else:
                self.counts.answered += 1
                return

    def _until_again(self, error: Exception, tries: int) -> float | None:
        """Seconds until a prompt is tried again after so many tries; None to give it up."""
        match error:
            case NoTeacherAvailable(retry_after_seconds=float() | int() as seconds):
                return min(max(seconds, 1.0), _LONGEST_PAUSE_SECONDS)
            case NoWinner() | RewardError() if tries < _TRIES and _may_pass(error):
                return self._pause * 2.0 ** (tries - 1)
            case ArbitrageError():
                return None
        _LOG.error("a bug", exc_info=error)
        return None

    async def _rest(self, seconds: float) -> None:
        """Waits, but not for longer than it takes until the job is stopped."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


def _may_pass(error: NoWinner | RewardError) -> bool:
    """Whether another try may end otherwise: a gate would say the same of the same answer."""
    if isinstance(error, RewardError):
        return True
    return error.sample is not None and any(one.failure for one in error.sample.candidates)


def _kind_of(error: Exception) -> str:
    match error:
        case NoTeacherAvailable():
            return "no teacher"
        case NoWinner():
            return "no winner"
        case RewardError():
            return "not scored"
        case ArbitrageError():
            return "refused"
    return "bug"
