"""Rows that are no prompts, and the file that tells of them."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TextIO

from arbitrage.disk import sync_folder
from arbitrage.errors import SinkError

if TYPE_CHECKING:
    from pathlib import Path

_EXCERPT = 200  # characters
_REASON = 400


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that is no prompt.

    Attributes:
        source: the file, as it was named; `-` for standard input.
        line: number from 1: of a line, a record's first one in CSV; of an element in a
            JSON list, or of a row in Parquet and Arrow.
        reason: what is wrong, with the field, and what would be right.
        raw: how the row begins; what is no text in it is escaped.
    """

    source: str
    line: int
    reason: str
    raw: str

    @classmethod
    def of(cls, source: str, line: int, reason: str, raw: object) -> Self:
        """Takes the beginning of what stood there: bytes, a text or values by name."""
        return cls(source, line, _shown(reason, _REASON), _shown(raw, _EXCERPT))

    def __str__(self) -> str:
        """One line.

        >>> str(Rejected.of("p.jsonl", 7, "prompt: is empty; give a text to answer", b"{}"))
        'p.jsonl:7: prompt: is empty; give a text to answer'
        """
        return f"{self.source}:{self.line}: {self.reason}"


class Rejections:
    """`rejected.jsonl` in the folder of a run: a JSON object for each row rejected.

    The file tells of the rows that the last run has read, and is replaced as a whole when
    that run is closed, however it ends: the same command again, which reads everything
    again, doubles nothing. Without rejections there is no file. Meanwhile they are in
    `.rejected.jsonl.partial`, which is all that a killed process leaves, beside the file of
    the run before.

    Attributes:
        count: how many there were.

    Args:
        folder: the output folder of the run; it is made when the first one comes.
    """

    FILE = "rejected.jsonl"

    def __init__(self, folder: Path) -> None:
        self.count = 0
        self._path = folder / self.FILE
        self._temporary = folder / f".{self.FILE}.partial"
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, rejected: Rejected) -> None:
        """Writes one down.

        Raises:
            SinkError: the folder cannot be written.
        """
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._temporary.open("w", encoding="utf-8")
            line = json.dumps(dataclasses.asdict(rejected), ensure_ascii=False)
            self._file.write(f"{line}\n")
        except OSError as error:
            raise self._unwritten(error) from error
        self.count += 1

    def close(self) -> None:
        """Puts the file in its place, durably; twice is harmless.

        Raises:
            SinkError: the folder cannot be written.
        """
        try:
            if self._file is None:
                if not self.count:
                    self._temporary.unlink(missing_ok=True)
                    self._path.unlink(missing_ok=True)
                return
            with self._file as file:
                self._file = None
                file.flush()
                os.fsync(file.fileno())
            self._temporary.replace(self._path)
            sync_folder(self._path.parent)
        except OSError as error:
            raise self._unwritten(error) from error

    def _unwritten(self, error: OSError) -> SinkError:
        reason = f"cannot be written: {error.strerror or error}; choose another output folder"
        return SinkError(f"{self._path}: {reason}")


def _shown(value: object, characters: int) -> str:
    """The beginning of it as text that any file can hold."""
    if isinstance(value, bytes):
        # a character takes four bytes at most
        text = value[: 4 * characters].decode(errors="backslashreplace")
        more = len(value) > 4 * characters
    else:
        text = value if isinstance(value, str) else _json(value)
        more = False
    text = text.rstrip("\r\n")
    more = more or len(text) > characters
    text = text[:characters].encode("utf-8", "backslashreplace").decode()
    return f"{text}…" if more else text


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
