"""Jobs: many prompts each, answered beside what clients ask, by the service's own engine."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from contextvars import Context
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import uuid4

from arbitrage.errors import (
    AlreadyExists,
    ArbitrageError,
    InvalidPrompt,
    NotFound,
    Overloaded,
    SinkError,
    Stopping,
)
from arbitrage.registry import FINAL, Record
from arbitrage.spec import told
from arbitrage.status import status_of
from service import learning
from service.request import Request, current, internal
from service.run import Run, place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Coroutine

    from arbitrage import config
    from arbitrage.engine import Engine
    from arbitrage.ports import Sink
    from arbitrage.registry import Registry, State
    from arbitrage.spec import Spec
    from service.admission import Admission

_LOG = logging.getLogger(__name__)
_AT_ONCE = 4  # jobs that run
_WAITING = 100  # jobs that wait for it
_STORED_SECONDS = 1.0  # from a job's progress to its being stored
_TOLD_SECONDS = 0.1  # between two changes that a watcher hears of
_SENT_BYTES = 4 << 20  # a second, to a watcher
_AGAIN_SECONDS = 5.0  # until what could not be stored is tried again
_Result = TypeVar("_Result")


class Jobs:
    """The jobs of a server; `Jobs.open` makes it.

    Some run side by side, others wait. What a job is and where it stands is in the registry
    before anybody hears of it, so that they go on after whatever has ended the server.
    """

    def __init__(
        self, engine: Engine, settings: config.Config, registry: Registry, admission: Admission
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._admission = admission
        self._registry = registry
        self._root = settings.service.jobs.resolve()
        self._active: dict[str, Run] = {}
        self._waiting: deque[Run] = deque()
        self._running = 0
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = asyncio.Event()

    @classmethod
    async def open(
        cls, engine: Engine, settings: config.Config, registry: Registry, admission: Admission
    ) -> Self:
        """Takes up the jobs of a registry; they run once `start` is called.

        What they have taught, and nobody has saved, is learned again.

        Args:
            engine: as `assembly.open` has made it.
            settings: what it was made from.
            registry: that of the job folder.
            admission: room for their prompts, which they share with all others.

        Raises:
            SinkError: the registry cannot be read.
        """
        self = cls(engine, settings, registry, admission)
        await learning.relearn(engine, settings, registry)
        for stored in await registry.unfinished():
            record = await learning.brought_up_to_date(settings, stored)
            active = self._active[record.job_id] = Run(record)
            self._waiting.append(active)
        return self

    @property
    def sinks(self) -> list[Sink]:
        """Where the samples go of those that run."""
        return [run.sink for run in self._active.values() if run.sink]

    def start(self) -> None:
        """Lets those run that may."""
        while self._waiting and self._running < _AT_ONCE and not self._stopping.is_set():
            self._running += 1
            active = self._waiting.popleft()
            about = Context()  # not that of whoever has created it, or of the job before
            about.run(current.set, Request(job=active.record.job_id))
            self._begin(self._run(active), about)

    async def create(self, job_id: str, raw: bytes, spec: Spec) -> Record:
        """Creates a job, or lets one go on that failed or was cancelled; durable on return.

        Args:
            job_id: its name; empty for one that is chosen here.
            raw: what it is to do, as bytes that say the same whenever they are the same.
            spec: the same, to be read.

        Raises:
            AlreadyExists: a job of this name is to do something else.
            InvalidPrompt: its files or its output are wrong.
            Overloaded: too many jobs wait.
            SinkError: it was not stored.
        """
        return await asyncio.shield(self._begin(self._create(job_id, raw, spec)))

    async def get(self, job_id: str) -> Record:
        """A job as it is now.

        Raises:
            NotFound: there is none of this name.
        """
        if active := self._active.get(job_id):
            return active.now
        if record := await self._registry.get(job_id):
            return record
        raise NotFound(f"no job is named {job_id!r}")

    async def page(
        self, states: Collection[State], *, before: int | None, most: int
    ) -> tuple[list[Record], bool]:
        """Some jobs, the newest first, and whether there are more; see `Registry.page`."""
        records, more = await self._registry.page(states, before=before, most=most)
        active = self._active
        return [active[r.job_id].now if r.job_id in active else r for r in records], more

    async def watch(self, job_id: str) -> AsyncIterator[Record]:
        """A job as it is now, and again as it changes, until it has ended.

        Raises:
            NotFound: there is none of this name.
            Stopping: it will change no more before the server has begun anew.
        """
        active = self._active.get(job_id)
        if active is None:
            yield await self.get(job_id)
            return
        while True:
            changes, record = active.told, active.now
            yield record
            if record.state in FINAL:
                return
            if not self._stopping.is_set():
                await changes.wait()
                # a job is sent with all its prompts each time
                await asyncio.sleep(_TOLD_SECONDS + len(record.spec) / _SENT_BYTES)
            if self._stopping.is_set() and active.now.state not in FINAL:
                raise Stopping("the server stops; the job goes on when it has begun again")

    async def cancel(self, job_id: str) -> Record:
        """Ends a job, and returns when it has published what it had accepted.

        Raises:
            NotFound: there is none of this name.
            SinkError: that it ends could not be stored.
        """
        active = await asyncio.shield(self._begin(self._cancel(job_id)))
        if active is None:
            return await self.get(job_id)
        await active.ended.wait()
        return active.record

    async def stop(self, grace_seconds: float) -> None:
        """Begins no other prompt, and ends what is under way; twice is harmless.

        Jobs stay as they are, and go on when the server has begun again.

        Args:
            grace_seconds: that what is under way has.
        """
        self._stopping.set()
        for active in self._active.values():
            active.stop()
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=grace_seconds)
        for active in self._active.values():
            active.abandon()
        if late:
            await asyncio.wait(late)

    async def _create(self, job_id: str, raw: bytes, spec: Spec) -> Record:
        async with self._turn:
            known = await self._known(job_id)
            if known and known.spec != raw:
                raise AlreadyExists(
                    f"{job_id}: is a job with another specification; choose another id"
                )
            if known and known.state not in {"failed", "cancelled"}:
                return known
            if self._stopping.is_set():
                raise Stopping("the server stops; create the job when it has begun again")
            if len(self._waiting) >= _WAITING:
                raise Overloaded(f"{_WAITING} jobs wait, which is the limit; try again later")
            await asyncio.to_thread(spec.located, self._root)
            if known:
                record = replace(known, state="pending", ended=None, error=None)
                await self._registry.update(record)
            else:
                job_id = job_id or f"job-{uuid4().hex[:16]}"
                output = await asyncio.to_thread(place, self._settings, spec.output or job_id)
                if user := await self._registry.user_of(output, job_id):
                    raise InvalidPrompt("spec.output", f"{output}: is in use by job {user!r}")
                new = Record(job_id, raw, output, datetime.now(UTC))
                record = await self._registry.add(new)
            active = self._active[job_id] = Run(record)
            self._waiting.append(active)
            self.start()
            return record

    async def _cancel(self, job_id: str) -> Run | None:
        """Has a job end, if it has not."""
        async with self._turn:
            active = self._active.get(job_id)
            if active and active in self._waiting:
                ended = replace(active.record, state="cancelled", ended=datetime.now(UTC))
                self._waiting.remove(active)
                try:
                    await self._registry.update(ended)
                except SinkError:
                    self._waiting.appendleft(active)
                    raise
                active.record = ended
                self._leave(active)
            elif active:
                active.cancel()
            return active

    async def _known(self, job_id: str) -> Record | None:
        with suppress(NotFound):
            return await self.get(job_id)
        return None

    async def _run(self, active: Run) -> None:
        record = active.record
        if record.state == "pending":
            started = record.started or datetime.now(UTC)
            await self._store(active, replace(record, state="running", started=started))
        storing = asyncio.create_task(self._store_now_and_then(active))
        state, error = None, None
        try:
            state = await active.answer(self._engine, self._settings, self._admission)
        except ArbitrageError as failure:
            _LOG.warning("job %s: %s", record.job_id, failure)
            state, error = "failed", status_of(failure)
            error.message = told(self._root, error.message)
        except Exception:  # noqa: BLE001 - a bug that one job meets must not end the others
            _LOG.exception("job %s failed", record.job_id)
            bug = ArbitrageError(internal())
            state, error = "failed", status_of(bug)
        finally:
            storing.cancel()
        ended = replace(active.now, progress=active.now.progress.settled)
        if state:
            reason = error and error.SerializeToString()
            ended = replace(ended, state=state, error=reason, ended=datetime.now(UTC))
        active.meter = None  # it has told all
        await self._store(active, ended)
        self._running -= 1
        self._leave(active)
        self.start()

    async def _store(self, active: Run, record: Record) -> None:
        """Changes where a job stands, as soon as that can be stored."""
        while True:
            try:
                await self._registry.update(record)
            except SinkError as error:
                _LOG.error("job %s is %s, which is not stored: %s",
                           record.job_id, record.state, error)  # fmt: skip
            else:
                active.record = record
                active.tell()
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _AGAIN_SECONDS)
            if self._stopping.is_set():
                return

    async def _store_now_and_then(self, active: Run) -> None:
        stored = active.now
        while True:
            await asyncio.sleep(_STORED_SECONDS)
            if (now := active.now) != stored:
                with suppress(SinkError):  # who changes the state will tell
                    await self._registry.update(now)
                    stored = now

    def _leave(self, active: Run) -> None:
        del self._active[active.record.job_id]
        active.ended.set()
        active.tell()

    def _begin(
        self, work: Coroutine[Any, Any, _Result], context: Context | None = None
    ) -> asyncio.Task[_Result]:
        """Does something to its end, whether or not a client waits for it."""
        task = asyncio.create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
