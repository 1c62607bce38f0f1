"""`arbitrage run`: answers the prompts of files, each once, however often it is begun again."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import assembly
import sink
from arbitrage import config, prompts
from arbitrage.engine import JOB
from arbitrage.errors import ConfigError
from arbitrage.job import Job
from arbitrage.job_display import JobDisplay
from arbitrage.journal import Journal, answered
from arbitrage.language import UNDETERMINED
from arbitrage.prompts import Rejected
from sink.layout import Layout
from sink.quality.contamination import Contamination
from sink.quality.duplicates import Duplicates

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from arbitrage.job import Counts
    from arbitrage.types import Prompt

_GRACE_SECONDS = 30.0
_AT_ONCE = 1024  # prompts that a dry run looks up together
_TOLD = 10  # rejected rows that it names
_NEWLINES = 1 << 20  # bytes that are looked through at a time


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
            rows = _worth_answering(islice(read, options.limit), settings.job)
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
            total = await asyncio.to_thread(_total, sources, options.limit)
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
    rows = _worth_answering(islice(prompts.read(sources), limit), settings.job)
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


def _worth_answering(
    rows: Iterator[Prompt | Rejected], settings: config.Job
) -> Iterator[Prompt | Rejected]:
    """Rejects prompts that say what an earlier one has said, or what an evaluation set asks."""
    leaks = Contamination.read(settings.decontaminate) if settings.decontaminate else None
    seen = Duplicates(settings.dedupe) if settings.dedupe else None
    for number, row in enumerate(rows, 1):
        if isinstance(row, Rejected):
            yield row
            continue
        text = "\n".join(m.content for m in row.messages if m.role == "user")
        under = "\n".join(m.content for m in row.messages if m.role == "system")
        why = None
        if leaks is not None and (leak := leaks.overlap(text)):
            why = f"overlaps with {leak.file}, line {leak.line}: {leak.ngram!r}"
        elif seen is not None:
            first = seen.seen(row.language, text, row.prompt_id, under=under)
            why = f"says the same as prompt {first}" if first else None
        yield Rejected.of(f"prompt {row.prompt_id}", number, why, text) if why else row


def ending(counts: Counts, output: Path) -> str:
    """The last line of a run."""
    parts = [f"{counts.answered} prompts answered", f"{counts.known} before"]
    parts += [f"{count} ended as {reason!r}" for reason, count in counts.unanswered.most_common()]
    if counts.rejected:
        parts.append(f"{counts.rejected} rejected, see {output / prompts.Rejections.FILE}")
    return f"{', '.join(parts)}; samples are in {output}"


async def _answer(job: Job, display: JobDisplay, settings: config.Config, options: Options) -> None:
    async with assembly.open(settings, [display]) as engine:
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
    keys = _digests(settings)
    lines = []
    if "inputs" in facts:
        lines += prompts.differences(json.loads(facts["inputs"]), files)
    if "config" in facts:
        before = json.loads(facts["config"])
        changed = sorted(key for key in keys | before if keys.get(key) != before.get(key))
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


def _digests(settings: config.Config) -> dict[str, str]:
    """A digest of every setting that shapes a sample, by its key."""
    shaping: dict[str, Any] = {"reward": settings.reward, "policy": settings.policy}
    shaping |= {f"teachers.{teacher.name}": teacher for teacher in settings.teachers}
    return {
        f"{section}.{field.name}": _digest(getattr(values, field.name))
        for section, values in shaping.items()
        for field in fields(values)
    }


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:12]


def _total(sources: Sequence[str], limit: int | None) -> int | None:
    """How many rows there are, where that is told by newlines alone."""
    total = 0
    for source in sources:
        if not source.endswith((".jsonl", ".ndjson")):
            return limit
        total += _newlines(Path(source))
    return total if limit is None else min(total, limit)


def _newlines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(_NEWLINES), b""))
