"""One run of a job, from its place in the queue to its end, and where it may write."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import assembly
from arbitrage import prompts, wire
from arbitrage.digests import changes, digests
from arbitrage.errors import BudgetSpent, ConfigError, InvalidPrompt, SinkError, Stopping
from arbitrage.job import Job
from arbitrage.meter import Meter
from arbitrage.prompts.count import rows_of
from arbitrage.registry import FILE
from arbitrage.spec import confined, told
from sink.layout import Layout
from sink.quality.screen import screened

if TYPE_CHECKING:
    from pathlib import Path

    from arbitrage import config
    from arbitrage.engine import Engine
    from arbitrage.journal import Journal
    from arbitrage.ports import Sink
    from arbitrage.registry import Record, State
    from arbitrage.spec import Spec
    from arbitrage.types import Prompt, Routing, Sample
    from service.admission import Admission


def place(settings: config.Config, name: str) -> str:
    """The folder of a new job's dataset, from the job folder on. Blocks.

    Args:
        settings: the service's.
        name: the folder, as the caller calls it.

    Raises:
        InvalidPrompt: it is not one in which a job may write.
    """
    root, field = settings.service.jobs.resolve(), "spec.output"
    output = confined(root, name, field)
    if output.relative_to(root).parts[0].startswith(FILE):
        raise InvalidPrompt(field, f"{name}: is the registry's; choose another folder")
    own = settings.sink.path.resolve()
    clash = output == own or output in own.parents or own in output.parents
    if clash and own.is_relative_to(root):
        raise InvalidPrompt(field, f"{name}: is the service's own; choose another folder")
    try:
        if not next(folder for folder in (output, *output.parents) if folder.exists()).is_dir():
            raise InvalidPrompt(field, f"{name}: is no folder, or in none; choose another")
        Layout(output).check(settings.sink.format)
    except (SinkError, OSError) as error:
        raise InvalidPrompt(field, told(root, str(error))) from error
    return output.relative_to(root).as_posix()


async def _compare(journal: Journal, settings: config.Config) -> None:
    """Refuses to mix rewards that do not compare, as `arbitrage run` does.

    Raises:
        ConfigError: the reward is not what it was when the job began.
    """
    keys, facts = digests(settings), await journal.facts()
    changed = changes(json.loads(facts["config"]), keys) if "config" in facts else ()
    if reward := [key for key in changed if key.startswith("reward.")]:
        raise ConfigError(
            f"{', '.join(reward)}: has changed since the job began, and its rewards would not "
            "compare; create another job"
        )
    await journal.note("config", json.dumps(keys))


class Run:
    """A job that waits or runs.

    Attributes:
        record: where it stands, as the registry has it.
        told: is set when there is more to tell, and then another takes its place.
        ended: is set when nothing more will happen to it here.
        meter: counts what it does; None while it does nothing.
        sink: where its samples go; None until it runs.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.told, self.ended = asyncio.Event(), asyncio.Event()
        self.meter: Meter | None = None
        self.sink: Sink | None = None
        self._job: Job | None = None
        self._stopped = self._abandoned = self._cancelled = False

    @property
    def now(self) -> Record:
        """Where it stands this moment."""
        return replace(self.record, progress=self.meter.progress) if self.meter else self.record

    def tell(self) -> None:
        """Wakes those who watch it."""
        before, self.told = self.told, asyncio.Event()
        before.set()

    def stop(self) -> None:
        """Begins no other prompt; the job is to go on in another run."""
        self._stopped = True
        if self._job:
            self._job.stop()
        self.tell()

    def abandon(self) -> None:
        """Gives up what is under way, too."""
        self._stopped = self._abandoned = True
        if self._job:
            self._job.abandon()

    def cancel(self) -> None:
        """Has the job end, at once."""
        self._cancelled = True
        self.abandon()

    async def answer(
        self, engine: Engine, settings: config.Config, admission: Admission
    ) -> State | None:
        """Answers the job's prompts, and publishes their samples.

        Args:
            engine: the service's.
            settings: what it was made from.
            admission: room for prompts, which the job shares with all others.

        Returns:
            How the job has ended; None where it is to go on in another run.

        Raises:
            ArbitrageError: it cannot go on.
        """
        root, record = settings.service.jobs.resolve(), self.record
        spec = await asyncio.to_thread(wire.spec_of, record.spec)
        files = await asyncio.to_thread(spec.located, root)
        folder = root / record.output
        if await asyncio.to_thread(folder.resolve) != folder:
            raise ConfigError(f"{record.output}: leads elsewhere since the job was created")
        total = await asyncio.to_thread(rows_of, files) if files else len(spec.prompts)
        if total is not None and spec.limit is not None:
            total = min(total, spec.limit)
        if self._abandoned:
            return self._end
        async with assembly.for_job(engine, settings, record.job_id, folder) as its:
            self.sink = its.sink
            journal = assembly.journal_of(its)
            await _compare(journal, settings)
            budget = spec.budget_usd
            meter = await Meter.open(journal, record.progress, self.tell, total, budget)
            rejections = prompts.Rejections(folder)
            job = self._job_of(spec, files, settings, rejections)
            meter.follow(job)
            self._job, self.meter = job, meter
            if self._stopped:
                job.abandon()
            try:
                metered = replace(its, observers=[*its.observers, meter])
                await job.run(partial(self._admitted, metered, admission, spec.routing), meter)
            except BudgetSpent:
                if job.abandoned:
                    return self._end
                if not meter.over_budget or await job.has_more(meter):
                    raise
                return "succeeded"
            finally:
                self._job = None
                await asyncio.to_thread(rejections.close)
            return self._end if job.stopping else "succeeded"

    async def _admitted(
        self, engine: Engine, admission: Admission, routing: Routing, prompt: Prompt
    ) -> Sample:
        client = f"job {self.record.job_id}"
        try:
            await admission.wait_unmetered(client)
        except Stopping:  # it has not begun, and goes on in another run
            raise asyncio.CancelledError from None
        try:
            return await engine.arbitrate(prompt, routing=routing)
        finally:
            admission.leave(client)

    @property
    def _end(self) -> State | None:
        return "cancelled" if self._cancelled else None

    def _job_of(
        self, spec: Spec, files: list[Path], settings: config.Config, rejections: prompts.Rejections
    ) -> Job:
        root, most = settings.service.jobs, settings.job.max_in_flight

        def reject(row: prompts.Rejected) -> None:
            rejections.add(replace(row, source=told(root, row.source)))

        return Job(
            screened(islice(spec.rows(files), spec.limit), settings.job),
            name=self.record.job_id,
            max_in_flight=min(spec.max_in_flight or most, most),
            reject=reject,
        )
