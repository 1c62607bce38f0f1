"""Delta Lake: a table partitioned by language, and another for what nobody answered.

A part is one commit, which carries the part's number as an application transaction (`txn`)
under the run's name: a part that is tried again finds its number in the table and is not added
twice, and any number of runs may write to one table at once. Commits that meet are tried again
on top of one another (optimistic concurrency). The files of a part have names that follow from
run and number, so that a try which a crash cut short between the files and the commit is
overwritten by the next.

The run's name and the tables' place stand in `table.json` in the run's folder. A copy of the
folder which is to go on by itself needs a name of its own: remove `table.json` from it.

A run merges its own small files, of the parts it has committed, and each merged file takes the
place of its sources in one commit. It does not use Delta's `optimize`, and leaves the files of
other runs to them: when two `optimize` a table at once, deltalake (1.6.6) lets both succeed, and
every row is there twice.

Files that no version needs any more, and those of runs that were never started again, are
vacuumed by whoever merges once they are a week old (or what the table's
`delta.deletedFileRetentionDuration` says): sooner would take them from other writers, and from
readers of older versions.
"""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from arbitrage.errors import SinkError
from sink.layout import KINDS, kind_of

try:
    from sink.table import Table
except ImportError as error:
    if (error.name or "").partition(".")[0] != "deltalake":
        raise
    raise SinkError(
        "the format 'delta' needs the package deltalake, 1.6.6 or newer; pip install"
        " 'data-arbitrage[delta]'"
    ) from None

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from arbitrage.types import Sample
    from sink.layout import Layout
    from sink.parquet import RowGroup

_HERE = "."


class Delta:
    """Commits parts to `OUT/data` and `OUT/unanswered`, or to tables elsewhere.

    Args:
        layout: the folder of the run, and where its tables are if not there.
        file_bytes: size up to which small files are merged.
    """

    features = None

    def __init__(self, layout: Layout, file_bytes: int) -> None:
        self._layout = layout
        self._file_bytes = file_bytes
        self._place = _place(layout)
        self._tables = {kind: Table(_resolved(layout, self._place), kind) for kind in KINDS}

    def recover(self) -> None:
        """Holds the tables, where there are any, against what is written here. Blocks.

        Raises:
            SinkError: one has other columns or cannot be read, or this run's samples lie
                in another.
        """
        place = _pointer(self._layout).get("place", self._place)
        if place != self._place:
            raise SinkError(
                f"{self._layout.root}: the samples of this run are in {place}, not in"
                f" {self._place}; set sink.table to it, or choose another output folder"
            )
        for table in self._tables.values():
            table.check()

    def write(self, number: int, samples: Sequence[Sample]) -> None:
        """Stores a part durably; the same part stored again is not added again. Blocks.

        Raises:
            SinkError: it was not stored, or not all of it.
        """
        groups: defaultdict[bool, list[Sample]] = defaultdict(list)
        for sample in sorted(samples, key=lambda sample: (sample.created_at, sample.sample_id)):
            groups[sample.winner is not None].append(sample)
        for answered, rows in groups.items():
            self._tables[kind_of(answered=answered)].append(self._run, number, rows)

    def compact(self, through: int) -> None:
        """Merges small files, and removes what has not been needed for a week. Blocks.

        Raises:
            SinkError: not now; nothing has changed for readers.
        """
        if not _pointer(self._layout):
            return  # nothing was ever written
        for table in self._tables.values():
            table.compact(self._run, through, self._file_bytes)

    def data_files(self, language: str) -> None:
        """Nothing for `load_dataset`: only the table knows which of its files count."""

    def loading(self, language: str) -> list[str]:
        """How people load the data, as Markdown."""
        table = KINDS[0] if self._place == _HERE else self._tables[KINDS[0]].uri
        return [
            f"A Delta Lake table, `{table}`, through which its files have to be read.",
            "",
            "```python",
            "from datasets import Dataset",
            "from deltalake import DeltaTable",
            "",
            f'table = DeltaTable("{table}")',
            f'Dataset(table.to_pyarrow_table(filters=[("language", "=", "{language}")]))',
            "```",
            "",
            "```sql",
            "-- DuckDB",
            f"FROM delta_scan('{table}') SELECT language, teacher, avg(reward) GROUP BY ALL;",
            "```",
            "",
            f'Polars: `polars.scan_delta("{table}")`.',
        ]

    @cached_property
    def _run(self) -> str:
        """The name under which this folder's run writes, for good."""
        if known := _pointer(self._layout).get("run"):
            return known
        run = uuid.uuid4().hex
        text = json.dumps({"run": run, "place": self._place}).encode()
        self._layout.put(self._layout.pointer, lambda file: file.write(text))
        return run


def row_groups(layout: Layout) -> Iterator[RowGroup]:
    """The row groups of a run's tables, those of other runs in them included.

    Raises:
        SinkError: they cannot be read.
    """
    place = _resolved(layout, _pointer(layout).get("place", _HERE))
    for kind in KINDS:
        yield from Table(place, kind).row_groups()


def _place(layout: Layout) -> str:
    """Where the tables lie, as it is remembered: it holds wherever the folder is moved."""
    if layout.table is None:
        return _HERE
    return layout.table if "://" in layout.table else str(Path(layout.table).resolve())


def _resolved(layout: Layout, place: str) -> str:
    return str(layout.root.resolve()) if place == _HERE else place


def _pointer(layout: Layout) -> Mapping[str, str]:
    """What `table.json` says; nothing where it is not there yet."""
    try:
        return dict(json.loads(layout.pointer.read_bytes()))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = f"cannot be read: {error}; restore it or choose another output folder"
        raise SinkError(f"{layout.pointer}: {reason}") from None
