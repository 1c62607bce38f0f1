"""JSON Lines: a file for each part and language, a sample a line, with the contract's columns.

Plain text, since every reader takes it as it is. A time is ISO 8601, a number that JSON has no
word for (NaN, infinity) is null, and `metadata` and `scores` are lists as in the other formats:
objects whose keys differ from line to line have no schema that readers could agree on. For
columns that are null throughout a file, the dataset card says what they are.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from arbitrage.errors import SinkError
from sink import schema
from sink.files import Files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from arbitrage.types import Sample

_CHUNK_ROWS = 1_000


class Jsonl(Files):
    """Writes `data/<language>/part-NNNNN.jsonl`, and `unanswered/` alike."""

    suffix = "jsonl"
    features = schema.features()

    def encode(self, samples: Sequence[Sample], file: IO[bytes]) -> None:
        """Writes samples, at least one, in their order, as the whole of a file."""
        for sample in samples:
            file.write(_line(schema.row(sample)))

    def merge(self, sources: Sequence[Path], file: IO[bytes]) -> None:
        """Writes the rows of files as one file, in the order in which they were made.

        Raises:
            SinkError: a file cannot be read.
        """
        lines = (_keyed(path) for path in sources)
        for _, _, line in heapq.merge(*lines, key=lambda keyed: keyed[:2]):
            file.write(line if line.endswith(b"\n") else line + b"\n")

    def loading(self, language: str) -> list[str]:
        """How people load the data, as Markdown."""
        return [
            *super().loading(language),
            "",
            "For Polars, `load_dataset(...).to_polars()`: by itself, it guesses each column's type",
            "from the first file, where a column may be null throughout.",
        ]


@dataclass(frozen=True, slots=True)
class Lines:
    """A file of lines, in the order in which the samples were made.

    Attributes:
        begins: when the first of its samples was made.
        source: the file.
    """

    begins: datetime
    count: int
    source: str

    def table(self, columns: Sequence[str] | None = None) -> Any:
        """An Arrow table, with all columns or some; `decision.arms` is the whole decision.

        Raises:
            SinkError: it cannot be read.
        """
        names = {column.partition(".")[0] for column in columns or schema.SCHEMA.names}
        fields = [field for field in schema.SCHEMA if field.name in names]
        batches, rows = [], []
        for row in self.rows():
            rows.append({name: row.get(name) for name in names})
            if len(rows) == _CHUNK_ROWS:
                batches.append(pa.RecordBatch.from_pylist(rows, schema=pa.schema(fields)))
                rows = []
        batches.append(pa.RecordBatch.from_pylist(rows, schema=pa.schema(fields)))
        return pa.Table.from_batches(batches)

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """The rows as plain values, in the order in which the samples were made.

        Raises:
            SinkError: they cannot be read.
        """
        for row, _ in _rows(Path(self.source)):
            yield row


def lines(path: Path) -> Iterator[Lines]:
    """The file as one stretch of samples, if it has any.

    Raises:
        SinkError: it cannot be read, or is no part of a run.
    """
    begins, count = None, 0
    for row, _ in _rows(path):
        begins = begins or row["created_at"]
        count += 1
    if begins:
        yield Lines(begins, count, str(path))


def _line(row: Mapping[str, Any]) -> bytes:
    option = orjson.OPT_APPEND_NEWLINE
    try:
        return orjson.dumps(row, option=option)
    except orjson.JSONEncodeError:
        return orjson.dumps(schema.readable(row), option=option)


def _keyed(path: Path) -> Iterator[tuple[datetime, str, bytes]]:
    for row, line in _rows(path):
        yield row["created_at"], row["sample_id"], line


def _rows(path: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Each line as a row, with its time as such, and as it is.

    Raises:
        SinkError: the file cannot be read, or one is no sample.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield _row(line, f"{path}:{number}"), line
    except OSError as error:
        reason = error.strerror or str(error)
        raise SinkError(f"{path}: cannot be read: {reason}; restore or remove it") from None


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row: dict[str, Any] = orjson.loads(line)
        row["created_at"] = datetime.fromisoformat(row["created_at"])
    except (ValueError, TypeError, KeyError) as error:
        reason = f"cannot be read: {error!r}; restore or remove the file"
        raise SinkError(f"{where}: {reason}") from None
    return row
