"""Where things lie in the folder of a run, and how a file gets there whole."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from arbitrage.errors import SinkError
from arbitrage.journal import sync_folder
from arbitrage.language import UNDETERMINED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_TAG = re.compile(r"[A-Za-z0-9]{1,8}(-[A-Za-z0-9]{1,8})*")


@dataclass(frozen=True, slots=True)
class Layout:
    """The folder of a run: `root/data/<language>/part-NNNNN.<suffix>` and what is around it."""

    root: Path

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.root / "journal.sqlite"

    @property
    def card(self) -> Path:
        """The dataset card."""
        return self.root / "README.md"

    def check(self) -> None:
        """Refuses a folder in which publishing would overwrite what a journal knows nothing of.

        Raises:
            SinkError: there is such a thing, or the folder cannot be read.
        """
        try:
            if self.journal.exists():
                return
            names = ("data", "unanswered", self.card.name)
            found = [name for name in names if (self.root / name).exists()]
        except OSError as error:
            reason = f"cannot be read: {error.strerror}; choose another output folder"
            raise SinkError(f"{self.root}: {reason}") from error
        if found:
            raise SinkError(
                f"{self.root}: holds {found[0]!r} but no {self.journal.name}, and would be"
                " overwritten; restore the journal or choose another output folder"
            )

    def part(self, language: str, number: int, suffix: str, *, answered: bool) -> Path:
        """The file of one part in one language; samples without a winner lie apart."""
        kind = "data" if answered else "unanswered"
        return self.root / kind / folder(language) / f"part-{number:05}.{suffix}"

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
            raise SinkError(
                f"{path}: cannot be written: {error.strerror or error};"
                " make room or repair the folder, and run again: the journal kept every sample"
            ) from error


def folder(language: str) -> str:
    """Name of a language's folder, which is also its name in the dataset card.

    What is no tag must not choose a path, and counts as undetermined; the
    `language` column keeps it.

    >>> folder("zh-Hant"), folder("../../etc"), folder("")
    ('zh-Hant', 'und', 'und')
    """
    return language if _TAG.fullmatch(language) else UNDETERMINED
