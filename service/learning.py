"""What jobs have taught the service's policy, when the process is gone that had learned it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import assembly
from arbitrage.errors import SinkError
from arbitrage.journal import Journal
from arbitrage.meter import Meter
from arbitrage.registry import FILE, FINAL, Registry
from sink.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arbitrage import config
    from arbitrage.engine import Engine
    from arbitrage.registry import Record

_LOG = logging.getLogger(__name__)


async def relearn(engine: Engine, settings: config.Config, registry: Registry) -> None:
    """Learns again what jobs had taught and nobody had saved.

    Only their journals are opened of which that may be so.

    Args:
        engine: as `assembly.open` has made it.
        settings: what it was made from.
        registry: that of the job folder.

    Raises:
        SinkError: the registry cannot be read.
    """
    learning = assembly.keeper_of(engine)
    begun = await registry.begun()
    learning.keep_jobs({one.job_id for one in begun})
    gone: list[str] = []
    for one in begun:
        learned = learning.last(one.job_id)
        if one.state in FINAL and one.samples <= learned:
            continue
        folder = settings.service.jobs / one.output
        if await asyncio.to_thread(Layout(folder).journal.exists):
            try:
                await assembly.relearn(engine, one.job_id, folder)
            except SinkError as error:
                _LOG.warning("what job %s has taught is not learned: %s", one.job_id, error)
        elif one.samples > learned:
            gone.append(str(folder))
            learning.learned(one.samples, one.job_id)
    if gone:
        _LOG.warning("%s: gone, with samples that were not saved as learned", ", ".join(gone))


async def brought_up_to_date(settings: config.Config, record: Record) -> Record:
    """A job with what its journal knows better: the registry may be a moment behind."""
    path = Layout(settings.service.jobs / record.output).journal
    if not await asyncio.to_thread(path.exists):
        return record
    with suppress(SinkError):  # the job itself will tell
        journal = await Journal.open(path)
        try:
            meter = await Meter.open(journal, record.progress, lambda: None)
            return replace(record, progress=meter.progress)
        finally:
            await journal.close()
    return record


async def last_samples(settings: config.Config) -> Mapping[str, int]:
    """Number of the last sample of every job of a configuration.

    Raises:
        SinkError: a service runs them, or something cannot be read.
    """
    root = settings.service.jobs
    registry = await Registry.open(root / FILE)
    numbers: dict[str, int] = {}
    try:
        for one in await registry.begun():
            numbers[one.job_id] = one.samples
            path = Layout(root / one.output).journal
            if one.state not in FINAL and path.exists():
                journal = await Journal.open(path)
                numbers[one.job_id] = await journal.last()
                await journal.close()
    finally:
        await registry.close()
    return numbers
