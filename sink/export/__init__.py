"""What finished runs have left, as a data set to train on: filtered, balanced and told of.

Example:
    export([Path("out")], Path("out/dpo"), "dpo", Filters(dedupe=0.8, balance="median"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbitrage.errors import ArbitrageError
from sink.export import card
from sink.export.files import Target, Writer
from sink.export.filters import Filters
from sink.export.provenance import sources
from sink.export.report import Ledger, Report
from sink.export.rows import SCHEMAS, Kind
from sink.export.selection import Selection
from sink.log import Log
from sink.quality.diversity import Alarms

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from arbitrage.types import TeacherInfo

__all__ = ["Alarms", "Filters", "Kind", "Report", "export"]

_ALL = Filters()
_USUAL = Alarms()


def export(
    roots: Sequence[Path],
    to: Path,
    kind: Kind,
    filters: Filters = _ALL,
    *,
    teachers: Sequence[TeacherInfo] = (),
    alarms: Alarms = _USUAL,
    command: str | None = None,
) -> Report:
    """Writes what finished runs have left as a data set to train on. Blocks.

    The log is read twice, and a third time where a filter is relative to all of it; of the
    samples a byte each is held, and what the filters say that they hold.

    Args:
        roots: output folders of runs.
        to: a folder, which gets a file a language; or a file whose name ends in `.jsonl`
            or `.parquet`. It is replaced as a whole, or stays as it was.
        kind: `sft`, `dpo` or `scored`.
        filters: what is left out.
        teachers: tells of their licences, above what the runs' cards say.
        alarms: when answers are called too much alike.
        command: what was typed, for the card.

    Raises:
        SinkError: a run cannot be read, or `to` cannot be written or holds something that
            no export has written.
        ConfigError: an eval set cannot be read, or a setting is wrong.
        ArbitrageError: nothing is left.
    """
    target = Target(to)
    known = sources(roots, teachers)
    selection = Selection(Log(roots), kind, filters, known)
    if not selection.kept:
        raise ArbitrageError(f"nothing is left to export: {selection.summary}; filter less")
    with target.staged() as stage:
        ledger = Ledger(filters.seed)
        with Writer(stage, target, SCHEMAS[kind]) as writer:
            for line in selection.lines():
                writer.add(line.sample.prompt.language, line.row())
                ledger.add(line)
        report = ledger.close(
            selection,
            known,
            alarms,
            to=to,
            kind=kind,
            roots=tuple(roots),
            filters=filters,
            command=command,
        )
        writer.describe(card=card.render(report, target), record=report.plain())
    return report
