"""`arbitrage run`: answers the prompts of files, each once, however often it is begun again."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TYPE_CHECKING

import assembly
import sink
from arbitrage import config, prompts
from arbitrage.digests import changes, digests
from arbitrage.display.job import JobDisplay
from arbitrage.engine import JOB
from arbitrage.errors import ConfigError
from arbitrage.garbage import collect_seldom
from arbitrage.job import Job
from arbitrage.journal import Journal, answered
from arbitrage.language import UNDETERMINED
from arbitrage.prompts import Rejected
from arbitrage.prompts.count import rows_of
from sink.layout import Layout
from sink.quality.screen import screened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rich.console import Console

    from arbitrage.job import Counts

_GRACE_SECONDS = 30.0
_AT_ONCE = 1024  # prompts that a dry run looks up together
_TOLD = 10  # rejected rows that it names


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a run is made.

    Attributes:
        limit: rows of the files that are read; None for all.
        no_cache: pay again for completions that were paid for before.
        mixed: go on where the reward has changed.
        preview: show every sample with all its candidates.
        grace_seconds: that what is in flight has when the run is interrupted.
    """

    limit: int | None = None
    no_cache: bool = False
    mixed: bool = False
    preview: bool = False
    grace_seconds: float = _GRACE_SECONDS


async def run(
    settings: config.Config, sources: Sequence[str], console: Console, options: Options
) -> tuple[Counts, bool]:
    """Answers prompts, and says how far it is.

    Args:
        settings: with the output folder as its sink's path.
        sources: files and folders of prompts; `-` for standard input.
        console: where to say it.
        options: the rest.

    Returns:
        What became of the prompts, and whether it was interrupted.

    Raises:
        ConfigError: a source cannot be read, or the reward is not what it was.
        BudgetSpent, SinkError: there was no going on; all that was accepted is kept.
    """
    layout = Layout(settings.sink.path)
    read = await asyncio.to_thread(prompts.read, sources)
    with prompts.Rejections(layout.root) as rejections:
        await asyncio.to_thread(layout.check, settings.sink.format)
        journal = await Journal.open(layout.journal)
        try:
            for line in await _changes(journal, settings, sources, mixed=options.mixed):
                console.print(line, soft_wrap=True)
            # of standard input, what was accepted is known to the journal alone
            before = await journal.unanswered() if prompts.STDIN in sources else ()
            rows = screened(islice(read, options.limit), settings.job)
            job = Job(
                chain(before, rows),
                name=JOB,
                max_in_flight=settings.job.max_in_flight,
                reject=rejections.add,
            )
            more, pending = await job.has_more(journal), journal.pending
        finally:
            await journal.close()
        if more:
            known = await asyncio.to_thread(rows_of, sources), options.limit
            total = min((count for count in known if count is not None), default=None)
            display = JobDisplay(console, job, total, preview=options.preview)
            await _answer(job, display, _paying(settings, options), options)
        elif pending:  # what an earlier run has left needs no models
            await (await sink.open(settings.sink)).close()
    return job.counts, job.stopping


def dry_run(
    settings: config.Config, sources: Sequence[str], limit: int | None = None
) -> Iterator[str]:
    """Reads the prompts and asks nobody; tells what a run would do, a line each. Blocks.

    Raises:
        ConfigError: a source cannot be read.
    """
    is_done = answered(Layout(settings.sink.path).journal, JOB)
    languages: Counter[str] = Counter()
    rejected: list[Rejected] = []
    done = 0
    rows = screened(islice(prompts.read(sources), limit), settings.job)
    while batch := list(islice(rows, _AT_ONCE)):
        asked = [row for row in batch if not isinstance(row, Rejected)]
        rejected += [row for row in batch if isinstance(row, Rejected)]
        for prompt, known in zip(asked, is_done(asked), strict=True):
            done += known
            languages[prompt.language] += not known
    yield f"{languages.total()} prompts to answer, {done} answered, {len(rejected)} rejected"
    for language, count in languages.most_common():
        name = "of a language to be detected" if language == UNDETERMINED else f"in {language}"
        yield f"  {count} {name}"
    for row in rejected[:_TOLD]:
        yield f"  {row}"
    if len(rejected) > _TOLD:
        yield f"  ... and {len(rejected) - _TOLD} more"


def ending(counts: Counts, output: Path) -> str:
    """The last line of a run."""
    parts = [f"{counts.answered} prompts answered", f"{counts.known} before"]
    parts += [f"{count} ended as {reason!r}" for reason, count in counts.unanswered.most_common()]
    if counts.rejected:
        parts.append(f"{counts.rejected} rejected, see {output / prompts.Rejections.FILE}")
    return f"{', '.join(parts)}; samples are in {output}"


async def _answer(job: Job, display: JobDisplay, settings: config.Config, options: Options) -> None:
    async with assembly.open(settings, [display]) as engine:
        collect_seldom()
        with display, _interrupts(job, display, options.grace_seconds):
            await job.run(engine.arbitrate, assembly.journal_of(engine))


def _paying(settings: config.Config, options: Options) -> config.Config:
    if not options.no_cache:
        return settings
    teachers = tuple(replace(teacher, cache=False) for teacher in settings.teachers)
    return replace(settings, teachers=teachers)


@contextmanager
def _interrupts(job: Job, display: JobDisplay, grace_seconds: float) -> Iterator[None]:
    """Ctrl-C lets what is in flight end, for so long; a second one gives it up."""
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        if job.stopping or not job.in_flight:
            job.abandon()
            return
        job.stop()
        display.say(
            f"finishing the {job.in_flight} prompts in flight, {grace_seconds:.0f} s at most; "
            "Ctrl-C again gives them up"
        )
        loop.call_later(grace_seconds, job.abandon)

    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, interrupt)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def _changes(
    journal: Journal, settings: config.Config, sources: Sequence[str], *, mixed: bool
) -> list[str]:
    """What is not as it was when this folder was run before, a line each; noted for the next.

    Raises:
        ConfigError: rewards would no longer compare.
    """
    facts = await journal.facts()
    files = await asyncio.to_thread(prompts.fingerprint, sources)
    keys = digests(settings)
    lines = []
    if "inputs" in facts:
        lines += prompts.differences(json.loads(facts["inputs"]), files)
    if "config" in facts:
        changed = changes(json.loads(facts["config"]), keys)
        reward = [key for key in changed if key.startswith("reward.")]
        if reward and not mixed:
            raise ConfigError(
                f"{', '.join(reward)}: has changed since {journal.path.parent} was begun, and its "
                f"rewards would not compare; choose another -o, with cache = "
                f'"{journal.path}" under [job] to pay for nothing twice, or go on with --mixed'
            )
        if changed:
            lines.append(
                f"changed since the last run: {', '.join(changed)}; "
                "samples that are there stay as they are"
            )
    journal.note("inputs", json.dumps(files))
    await journal.note("config", json.dumps(keys))
    return lines
