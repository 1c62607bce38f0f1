"""`arbitrage export | report`: finished runs as a data set to train on, and as a page to see."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

import router
from arbitrage import config
from arbitrage.errors import ArbitrageError, ConfigError, InvalidPrompt
from arbitrage.language import normalise
from router.explain import explain, languages
from router.snapshots import keeper, snapshot
from sink.export import Filters, Kind, Report
from sink.export import export as write
from sink.quality.floors import Floor
from sink.report import write as draw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from arbitrage.types import Estimate, TeacherInfo
    from router.explain import Explicable
    from sink.export.report import Language
    from sink.quality.balance import Most

_LOG = logging.getLogger(__name__)


async def export(
    roots: Sequence[Path],
    to: Path,
    kind: Kind,
    filters: Filters,
    *,
    teachers: Sequence[TeacherInfo] = (),
    command: str | None = None,
) -> str:
    """Writes an export; returns what was kept, and why the rest was not.

    Works on the loop's own thread: nothing else runs in this process, and Ctrl-C has to
    reach it.

    Args:
        roots: output folders of runs.
        to: a folder, or a file whose name ends in `.jsonl` or `.parquet`.
        kind: `sft`, `dpo` or `scored`.
        filters: what is left out.
        teachers: tells of their licences, above what the runs' cards say.
        command: what was typed, for the card.

    Raises:
        ArbitrageError: nothing is left, a run or an eval set cannot be read, or `to`
            cannot be written.
    """
    report = write(roots, to, kind, filters, teachers=teachers, command=command)
    return "\n".join(_lines(report))


async def report(root: Path, to: Path | None) -> Path:
    """Draws a run; returns the page.

    Args:
        root: its output folder.
        to: the file; None for `report.html` in the folder.

    Raises:
        ArbitrageError: the run cannot be read, or the page not be written.
    """
    return await draw(root, to, await asyncio.to_thread(_learned, root / keeper.FILE))


def _learned(path: Path) -> Sequence[Estimate]:
    """What the run's policy believes of its arms; nothing where that cannot be told."""
    if not path.exists():
        return ()
    try:
        kept = snapshot.load(path)
        policy = cast("Explicable", router.build(config.Policy(kind=cast("Any", kept.kind))))
        kept.restore(policy)
    except ArbitrageError as error:
        _LOG.warning("the page does not tell what was learned: %s", error)
        return ()
    arms = list(policy.experience.belief.statistics.arms)
    return [estimate for tag in languages(policy) for estimate in explain(policy, tag, arms)]


def filters(typed: Mapping[str, Any]) -> Filters:
    """The filters that a user has written.

    Args:
        typed: what was typed, by the fields of `Filters`; what else is in it has no say.
            Languages are tags in any spelling; a least reward, or margin, is `0.5`, or `25%`
            for the lowest quarter of each language; a balance is a number, `min` or `median`.

    Raises:
        ConfigError: one of them is wrong.
    """
    values = {field.name: typed.get(field.name) for field in fields(Filters)}
    return Filters(
        **{
            name: _READERS[name](value) if name in _READERS else value
            for name, value in values.items()
            if value is not None
        }
    )


def _tags(written: Sequence[str]) -> tuple[str, ...]:
    try:
        return tuple(map(normalise, written))
    except InvalidPrompt as error:
        raise ConfigError(str(error)) from None


def _most(text: str) -> Most:
    if text in ("min", "median"):
        return cast("Most", text)
    if text.isascii() and text.isdecimal() and int(text):
        return int(text)
    raise ConfigError(f"{text!r} is no balance; give a number from 1 on, 'min' or 'median'")


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "languages": _tags,
    "min_reward": Floor.parse,
    "min_margin": Floor.parse,
    "balance": _most,
    "decontaminate": tuple,
}


def _lines(report: Report) -> Iterator[str]:
    yield f"{report.to}: {report.kept:,} lines of {report.read:,} samples, format {report.kind}"
    rows = [("language", "lines", "samples", "mean reward")]
    rows += [_row(name, language) for name, language in report.languages.items()]
    first, *widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *figures in rows:
        cells = (figure.rjust(width) for figure, width in zip(figures, widths, strict=True))
        yield "  ".join(["", name.ljust(first), *cells])
    if report.left_out:
        yield "left out:"
        width = max(len(f"{count:,}") for count in report.left_out.values())
        yield from (f"  {f'{count:,}':>{width}} {why}" for why, count in report.left_out.items())
    for file, leaks in report.leaks.items():
        if leaks.samples:
            yield f"in {file}: {leaks.samples:,}"
        for sample_id, where, match in leaks.examples[:1]:
            yield f"  such as the {where} of {sample_id}, line {match.line}: {match.ngram!r}"
    for warning in report.warnings:
        yield f"mind: {warning}"


def _row(name: str, language: Language) -> tuple[str, str, str, str]:
    reward = f"{language.rewards[0]:.3f}" if language.rewards else ""
    return name, f"{language.kept:,}", f"{language.read:,}", reward
