"""Parquet: a file for each part and language, zstd, in the contract's columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from arbitrage.errors import SinkError
from sink import schema
from sink.files import Files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from arbitrage.types import Sample

_GROUP_BYTES = 8 << 20
"""Size of a row group before it is compressed: what a reader holds at least of a file."""
_SETTLED_BYTES = 32 << 20
_CHUNK_ROWS = 64
_ORDER = [("created_at", "ascending"), ("sample_id", "ascending")]


class Parquet(Files):
    """Writes `data/<language>/part-NNNNN.parquet`, and `unanswered/` alike."""

    suffix = "parquet"

    def encode(self, samples: Sequence[Sample], file: IO[bytes]) -> None:
        """Writes samples, at least one, in their order, as the whole of a file."""
        encode(schema.table(samples), file)

    def merge(self, sources: Sequence[Path], file: IO[bytes]) -> None:
        """Writes the rows of files as one file, in the order in which they were made.

        Raises:
            SinkError: a file cannot be read.
        """
        merge(
            [group for path in sources for group in row_groups(path)], file, columns=schema.SCHEMA
        )


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows of a Parquet file that are read together.

    Attributes:
        begins: when the first of its samples was made.
        source: the file, for people.
        files: the file system that it lies on; None for this machine's.
        language: of a partitioned table, whose files have no such column.
    """

    begins: datetime
    count: int
    source: str
    number: int
    files: Any = field(default=None, compare=False)
    language: str | None = None

    def table(self, columns: Sequence[str] | None = None) -> Any:
        """An Arrow table, with all columns or some; `decision.arms` is one, too.

        Raises:
            SinkError: it cannot be read.
        """
        with _open(self.source, self.files) as file:
            table = _checked(self.source, lambda: file.read_row_group(self.number, columns))
        if self.language is not None and (columns is None or "language" in columns):
            table = table.append_column("language", pa.array([self.language] * len(table)))
        return table

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """The rows as plain values, in the order in which the samples were made.

        Raises:
            SinkError: they cannot be read.
        """
        table = self.table().sort_by(_ORDER)
        for start in range(0, table.num_rows, _CHUNK_ROWS):
            yield from table.slice(start, _CHUNK_ROWS).to_pylist()


def row_groups(
    path: Path | str, *, files: Any = None, language: str | None = None
) -> Iterator[RowGroup]:
    """The row groups of a file that have rows.

    Raises:
        SinkError: it cannot be read, or is no part of a run.
    """
    with _open(str(path), files) as file:
        missing = {"created_at", "decision"} - set(file.schema_arrow.names)
        if missing:
            raise SinkError(f"{path}: is no part of a run: it has no column {min(missing)!r}")
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            if group.num_rows:
                begins = _begins(file, number, str(path))
                yield RowGroup(begins, group.num_rows, str(path), number, files, language)


def merge(groups: Sequence[RowGroup], file: IO[bytes], *, columns: Any) -> None:
    """Writes row groups as the whole of a Parquet file, in the order of the samples' making.

    Of the rows, only those are held that overlap in time.

    Args:
        groups: in any order.
        file: where to.
        columns: the schema of the file.

    Raises:
        SinkError: one of the groups cannot be read.
    """
    groups = sorted(groups, key=lambda group: group.begins)
    waiting, enough = columns.empty_table(), _SETTLED_BYTES
    with pq.ParquetWriter(file, columns, compression="zstd") as writer:
        for number, group in enumerate(groups, start=1):
            waiting = pa.concat_tables([waiting, group.table().cast(columns)])
            if number < len(groups) and waiting.nbytes < enough:
                continue
            waiting = waiting.sort_by(_ORDER)
            done = waiting.num_rows
            if number < len(groups):
                earlier = pc.less(waiting["created_at"], groups[number].begins)
                done = pc.sum(earlier).as_py() or 0
            if done:
                settled = waiting.slice(0, done)
                writer.write_table(settled, row_group_size=group_rows(settled))
            waiting = waiting.slice(done)
            # What overlaps all is sorted when it has doubled, not with every group.
            enough = max(_SETTLED_BYTES, 2 * waiting.nbytes)


def encode(table: Any, file: IO[bytes]) -> None:
    """Writes a table as the whole of a Parquet file."""
    pq.write_table(table, file, compression="zstd", row_group_size=group_rows(table))


def group_rows(table: Any) -> int:
    """How many rows of a table make a row group of a size that readers like."""
    return max(1, int(table.num_rows * _GROUP_BYTES / max(table.nbytes, 1)))


def _begins(file: Any, number: int, source: str) -> datetime:
    group = file.metadata.row_group(number)
    for index in range(group.num_columns):
        column = group.column(index)
        if column.path_in_schema == "created_at" and column.statistics is not None:
            return column.statistics.min  # type: ignore[no-any-return]
    table = _checked(source, lambda: file.read_row_group(number, ["created_at"]))
    return pc.min(table["created_at"]).as_py()  # type: ignore[no-any-return]


def _open(source: str, files: Any) -> Any:
    return _checked(source, lambda: pq.ParquetFile(source, filesystem=files))


def _checked(source: str, read: Any) -> Any:
    try:
        return read()
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise SinkError(f"{source}: cannot be read: {reason}; restore or remove it") from None
