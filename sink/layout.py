"""Where things lie in the folder of a run, and how a file gets there whole."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from arbitrage.disk import sync_folder
from arbitrage.errors import SinkError
from arbitrage.language import UNDETERMINED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KINDS = ("data", "unanswered")
"""The folders, or tables, of samples: those with a winner, and those without."""

_TAG = re.compile(r"[A-Za-z0-9]{1,8}(-[A-Za-z0-9]{1,8})*")


@dataclass(frozen=True, slots=True)
class Layout:
    """The folder of a run: `root/data/<language>/part-NNNNN.<suffix>` and what is around it.

    Attributes:
        table: for the format `delta`, where its tables lie if not in `root`: a URL such as
            `s3://bucket/name`, or another folder.
    """

    root: Path
    table: str | None = None

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.root / "journal.sqlite"

    @property
    def card(self) -> Path:
        """The dataset card."""
        return self.root / "README.md"

    @property
    def pointer(self) -> Path:
        """Where the tables of a run are, and under which name it writes to them."""
        return self.root / "table.json"

    @property
    def staging(self) -> Path:
        """Folders that are being made; outside of what readers look through."""
        return self.root / ".merging"

    @property
    def formats(self) -> list[str]:
        """Names of the formats of which something lies here."""
        tables = [self.root / kind / "_delta_log" for kind in KINDS]
        if self.pointer.exists() or any(log.is_dir() for log in tables):
            return ["delta"]
        return [
            suffix
            for suffix in ("jsonl", "parquet")
            if any(any(self.root.glob(f"{kind}/*/part-*.{suffix}")) for kind in KINDS)
        ]

    def check(self, format_: str) -> None:
        """Refuses a folder in which publishing would overwrite or mix what is not its own.

        Args:
            format_: name of the format that is to be written.

        Raises:
            SinkError: there is what no journal knows of, or another format, or the
                folder cannot be read.
        """
        try:
            known, formats = self.journal.exists(), self.formats
            names = (*KINDS, self.card.name, self.pointer.name)
            found = [name for name in names if (self.root / name).exists()]
        except OSError as error:
            reason = f"cannot be read: {error.strerror}; choose another output folder"
            raise SinkError(f"{self.root}: {reason}") from error
        if found and not known:
            raise SinkError(
                f"{self.root}: holds {found[0]!r} but no {self.journal.name}, and would be"
                " overwritten; restore the journal or choose another output folder"
            )
        if formats and format_ not in formats:
            raise SinkError(
                f"{self.root}: holds samples as {formats[0]}, not {format_}; set sink.format ="
                f" {formats[0]!r} or choose another output folder"
            )

    def clean(self) -> None:
        """Removes what a crash left of files that were being written.

        Raises:
            SinkError: the folder cannot be written.
        """
        try:
            single = (f".{file.name}.tmp" for file in (self.card, self.pointer))
            for pattern in (*single, *(f"{kind}/*/.part-*.tmp" for kind in KINDS)):
                for remains in self.root.glob(pattern):
                    remains.unlink()
        except OSError as error:
            reason = f"cannot be written: {error.strerror}; choose another output folder"
            raise SinkError(f"{self.root}: {reason}") from error

    def part(self, language: str, number: int, suffix: str, *, answered: bool) -> Path:
        """The file of one part in one language; samples without a winner lie apart."""
        return self.root / kind_of(answered=answered) / folder(language) / part_name(number, suffix)

    def put(self, path: Path, write: Callable[[IO[bytes]], object]) -> None:
        """Replaces one file by what `write` writes, all of it or nothing, durably.

        Blocks. The temporary file's name is hidden from globs and depends on
        `path` alone: what a crash leaves of it is overwritten by the next try.

        Raises:
            SinkError: it could not be written; the old file, if any, is as it was.
        """
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("wb") as file:
                    write(file)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            for level in path.relative_to(self.root).parents:
                sync_folder(self.root / level)
        except OSError as error:
            raise kept(path, error.strerror or str(error)) from error


def folder(language: str) -> str:
    """Name of a language's folder, which is also its name in the dataset card.

    What is no tag must not choose a path, and counts as undetermined; the
    `language` column keeps it.

    >>> folder("zh-Hant"), folder("../../etc"), folder("")
    ('zh-Hant', 'und', 'und')
    """
    return language if _TAG.fullmatch(language) else UNDETERMINED


def kind_of(*, answered: bool) -> str:
    """Name of the folder, or of the table, of samples with a winner or without."""
    return KINDS[0] if answered else KINDS[1]


def part_name(number: int, suffix: str, *, through: int | None = None) -> str:
    """What a file is called that holds one part, or all from one to another.

    >>> part_name(7, "jsonl"), part_name(7, "parquet", through=12)
    ('part-00007.jsonl', 'part-00007-00012.parquet')
    """
    stem = f"part-{number:05}" if through is None else f"part-{number:05}-{through:05}"
    return f"{stem}.{suffix}"


def kept(path: object, reason: str) -> SinkError:
    """The error for what could not be published."""
    return SinkError(
        f"{path}: cannot be written: {reason};"
        " make room or repair the folder, and run again: the journal kept every sample"
    )
