"""The texts of evaluation sets, from the files that they come in."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from arbitrage.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

_BATCH_ROWS = 1_000


def texts_of(paths: Sequence[Path]) -> Iterator[tuple[Path, int, str]]:
    """Every text of these files, and of those in these folders, with its file and line.

    Raises:
        ConfigError: a file is missing, of another kind, damaged, or holds no text.
    """
    for path in dict.fromkeys(file for named in paths for file in _files(named)):
        empty = True
        try:
            for line, row in _READERS[path.suffix.lower()](path):
                for text in _texts(row):
                    empty = False
                    yield path, line, text
        except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise ConfigError(
                f"{path}: cannot be read: {reason}; restore or leave it out"
            ) from None
        if empty:
            raise ConfigError(f"{path}: holds no text, so nothing can be compared with it")


def _files(named: Path) -> list[Path]:
    """The files of a folder; a file is its own.

    Raises:
        ConfigError: there are none that can be read.
    """
    kinds = ", ".join(_READERS)
    if named.is_dir():
        files = sorted(path for path in named.rglob("*") if path.suffix.lower() in _READERS)
        if not files:
            raise ConfigError(f"{named}: holds no eval set; one ends in {kinds}")
        return files
    if not named.exists():
        raise ConfigError(f"{named}: no such file or folder; name an eval set")
    if named.suffix.lower() not in _READERS:
        raise ConfigError(f"{named}: is no eval set that can be read; one ends in {kinds}")
    return [named]


def _jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except ValueError as error:
                    raise ConfigError(f"{path}:{number}: is not JSON: {error}") from None


def _csv(path: Path) -> Iterator[tuple[int, Any]]:
    # The first row, too: whether it is a header, only its author knows.
    with path.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.reader(lines)
        begins = 1
        for row in rows:
            yield begins, row
            begins = rows.line_num + 1


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield number, row


def _txt(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8-sig") as lines:
        yield from enumerate(lines, start=1)


_READERS: Mapping[str, Callable[[Path], Iterator[tuple[int, Any]]]] = {
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
    ".txt": _txt,
}


def _texts(value: Any) -> Iterator[str]:
    """Every text in a row, however deep."""
    if isinstance(value, str):
        if value.strip():
            yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)
