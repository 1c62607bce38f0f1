"""Keeps what a running policy has learned in a file, so that the next run goes on from there."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from arbitrage.errors import SnapshotError
from arbitrage.events import Stored
from router.snapshots import snapshot

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from arbitrage import ports
    from arbitrage.events import Event

_LOG = logging.getLogger(__name__)
_SECONDS = 30.0

FEEDBACK = "/feedback"
"""Stands for the run's feedback among the jobs, none of which can have this name."""

FILE = "policy.json"
"""Name of the file in the folder of a run."""


class Keeper:
    """Saves a policy some time after it has learned, and when it is closed: an observer.

    The state is taken on the loop, and written in a thread, never two at a time. A failure
    to write is logged and tried again when more was learned; `close` raises it. The samples
    are the sink's, and numbered: what was learned since the last saving, and is lost when
    the process is killed, is learned again from those behind the number that was saved.
    Jobs have samples and numbers of their own, and an observer each, see `of_job`.

    Args:
        path: the file, in a folder that is this process's.
        policy: one that has just been restored, or knows nothing yet that is worth a file.
        calibration: what else has learned from the same samples.
        learned: number of the last sample that both have learned from.
        jobs: the same of the samples of jobs, by the job's name.
        seconds: from what was learned to its saving.
    """

    def __init__(
        self,
        path: Path,
        policy: ports.Policy,
        calibration: ports.Calibration | None = None,
        *,
        learned: int = 0,
        jobs: Mapping[str, int] | None = None,
        seconds: float = _SECONDS,
    ) -> None:
        self._path = path
        self._policy = policy
        self._calibration = calibration
        self._learned = learned
        self._jobs = dict(jobs or {})
        self._seconds = seconds
        self._saved = policy.version
        self._due: asyncio.TimerHandle | None = None
        self._saving: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    def observe(self, event: Event) -> None:
        """A sample that is stored was learned from, too."""
        if isinstance(event, Stored):
            self.learned(event.number)

    def of_job(self, job: str) -> ports.Observer:
        """An observer of a job, whose samples have numbers of their own."""
        return _OfJob(self, job)

    def last(self, job: str | None = None) -> int:
        """Number of the last sample that was learned from, the run's own or a job's."""
        return self._learned if job is None else self._jobs.get(job, 0)

    def learned(self, number: int, job: str | None = None) -> None:
        """The policy has learned from samples up to this number, of the run or of a job."""
        if job is None:
            self._learned = number
        else:
            self._jobs[job] = number
        self._save_later()

    def keep_jobs(self, jobs: Collection[str]) -> None:
        """Forgets the numbers of all other jobs, which are no more."""
        kept = {*jobs, FEEDBACK}
        self._jobs = {job: number for job, number in self._jobs.items() if job in kept}

    async def close(self) -> None:
        """Saves what was learned since the last time; twice is harmless.

        Raises:
            SnapshotError: it could not be written.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    def _save_later(self) -> None:
        if self._due or self._saving or self._closing or self._policy.version == self._saved:
            return
        self._due = asyncio.get_running_loop().call_later(self._seconds, self._save_now)

    def _save_now(self) -> None:
        self._due = None
        self._saving = asyncio.create_task(self._save())
        self._saving.add_done_callback(self._done)

    def _done(self, saving: asyncio.Task[None]) -> None:
        self._saving = None
        if saving.cancelled():
            return
        if error := saving.exception():
            _LOG.warning("what the policy has learned is not saved yet: %s", error)
        else:
            self._save_later()  # more may have been learned meanwhile

    async def _close(self) -> None:
        if self._due:
            self._due.cancel()
        if self._saving:
            await asyncio.wait({self._saving})
        if self._policy.version != self._saved:
            await self._save()

    async def _save(self) -> None:
        taken = replace(
            snapshot.Snapshot.of(self._policy),
            learned=self._learned,
            calibration=self._calibration.state() if self._calibration else {},
            jobs=dict(self._jobs),
        )
        await asyncio.to_thread(snapshot.save, self._path, taken)
        self._saved = taken.version


@dataclass(frozen=True, slots=True)
class _OfJob:
    keeper: Keeper
    job: str

    def observe(self, event: Event) -> None:
        if isinstance(event, Stored):
            self.keeper.learned(event.number, self.job)


async def restore(
    path: Path, policy: ports.Policy, calibration: ports.Calibration | None = None
) -> snapshot.Snapshot | None:
    """Lets a policy go on from the file that a `Keeper` has left.

    Returns:
        What was in it; None where there is no file.

    Raises:
        SnapshotError: the file cannot be read, or the policy can make nothing of it.
    """
    if not await asyncio.to_thread(path.exists):
        return None
    try:
        kept = await asyncio.to_thread(snapshot.restore, path, policy)
        if calibration:
            _restore(calibration, kept.calibration)
    except SnapshotError as error:
        raise SnapshotError(
            f"{error}; put a good copy in its place, or forget what was learned: "
            "arbitrage policy reset -c CONFIG"
        ) from error
    return kept


def _restore(calibration: ports.Calibration, state: Mapping[str, Any]) -> None:
    try:
        calibration.restore(state)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise SnapshotError(f"holds no state of this calibration: {error!r}") from error
