"""Many small files of a language made into few large ones, exactly once.

A plain folder has no switch for several files at once, and readers who glob it must not see
a sample in the small file and in the large one, or in neither. So a language's folder is made
anew beside the data (`.merging/`), with the merged files and hard links to all others, and
changes places with the old one in one step of the file system (Linux's `renameat2` with
`RENAME_EXCHANGE`). Whatever lies in `.merging/` after a crash is then either not in use yet or
not any more, and the next start removes it.

A reader that has listed the old folder and opens its files after the exchange is told that
they are gone, and lists again; it never reads a sample twice. What a name says does not
change: `part-00001-00012` has the language's samples of these parts, ever.

File systems without such an exchange (NFS, macOS) get two renames. Between them, for some
microseconds, the language is missing; a crash just then is undone by the next start.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from arbitrage.disk import sync_folder
from arbitrage.errors import SinkError
from sink.layout import KINDS, part_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sink.layout import Layout

_NAME = re.compile(r"part-(\d{5,})(?:-(\d{5,}))?")
_ASIDE = ".old"
_CHEAP_SHARE = 64
_MOST_PIECES = 256  # some formats have all of them open at once
_RELATIVE_TO_HERE, _RENAME_EXCHANGE = -100, 2
_NO_EXCHANGE = frozenset({errno.ENOSYS, errno.EINVAL, errno.EXDEV, errno.EOPNOTSUPP})


@dataclass(frozen=True, slots=True)
class Piece:
    """A file with the samples of one language in the parts from `first` to `last`.

    Attributes:
        size: in bytes.
    """

    first: int
    last: int
    size: int
    path: Path


def plan(pieces: Sequence[Piece], target: int) -> list[list[Piece]]:
    """Which pieces to merge with which: neighbours, each group into at most `target` bytes.

    What has half the target is left alone. Among the newest, which do not fill a file yet, an
    older one joins only if it is at most twice as large as those after it together, or hardly
    costs anything: so a byte is copied a number of times that grows with the logarithm of the
    target, and not with the number of rounds.

    Args:
        pieces: those of one folder, in their order.
        target: size of a merged file, in bytes.
    """
    groups: list[list[Piece]] = [[]]
    size = 0
    for piece in pieces:
        full = 2 * piece.size >= target
        if full or size + piece.size > target or len(groups[-1]) == _MOST_PIECES:
            groups.append([])
            size = 0
        if not full:
            groups[-1].append(piece)
            size += piece.size
    groups = [*groups[:-1], *_graded(groups[-1], target // _CHEAP_SHARE)]
    return [group for group in groups if len(group) > 1]


def _graded(pieces: Sequence[Piece], cheap: int) -> list[list[Piece]]:
    """Groups in which no piece is much larger than those after it together."""
    groups: list[list[Piece]] = []
    size = 0
    for piece in reversed(pieces):
        if not groups or piece.size > max(2 * size, cheap):
            groups.append([])
            size = 0
        groups[-1].insert(0, piece)
        size += piece.size
    return groups[::-1]


class Compaction:
    """Merges the files of a run.

    Args:
        layout: the folder of the run.
        suffix: how the files' names end.
        merge: writes the rows of some files as one, ordered as they were made.
        target: size up to which small files are merged, in bytes.
    """

    def __init__(
        self,
        layout: Layout,
        suffix: str,
        merge: Callable[[Sequence[Path], IO[bytes]], None],
        target: int,
    ) -> None:
        self._layout = layout
        self._suffix = suffix
        self._merge = merge
        self._target = target

    def recover(self) -> None:
        """Finishes or undoes what a crash interrupted.

        Raises:
            SinkError: the folder cannot be written.
        """
        staging = self._layout.staging
        try:
            for aside in staging.glob(f"*/*{_ASIDE}"):
                home = self._layout.root / aside.parent.name / aside.name.removesuffix(_ASIDE)
                if not home.exists():
                    aside.rename(home)
                    sync_folder(home.parent)
            if staging.exists():
                shutil.rmtree(staging)
        except OSError as error:
            reason = f"cannot be removed: {error.strerror}; remove it, and run again"
            raise SinkError(f"{staging}: {reason}") from error

    def run(self, through: int) -> None:
        """Merges what is worth it among the parts up to a number, all of them published.

        Raises:
            SinkError: it is not possible here or now; nothing has changed for readers.
        """
        self.recover()
        try:
            for kind in KINDS:
                for folder in sorted(self._layout.root.glob(f"{kind}/*/")):
                    if groups := plan(self._pieces(folder, through), self._target):
                        self._rebuild(folder, groups)
        except OSError as error:
            reason = error.strerror or str(error)
            raise SinkError(
                f"{self._layout.root}: small files stay unmerged: {reason}; they are read as they"
                " are, and the next run merges them"
            ) from error

    def _pieces(self, folder: Path, through: int) -> list[Piece]:
        pieces = []
        for path in folder.glob(f"part-*.{self._suffix}"):
            if match := _NAME.fullmatch(path.stem):
                first, last = int(match[1]), int(match[2] or match[1])
                pieces.append(Piece(first, last, path.stat().st_size, path))
        pieces = [piece for piece in pieces if piece.last <= through]
        return sorted(pieces, key=lambda piece: piece.first)

    def _rebuild(self, folder: Path, groups: Sequence[Sequence[Piece]]) -> None:
        """Puts a new folder in the place of this one, in which each group is one file."""
        new = self._layout.staging / folder.parent.name / folder.name
        new.mkdir(parents=True)
        shutil.copymode(folder, new)
        for group in groups:
            first, last = group[0].first, group[-1].last
            whole = new / part_name(first, self._suffix, through=last)
            with whole.open("xb") as file:
                self._merge([piece.path for piece in group], file)
                file.flush()
                os.fsync(file.fileno())
        merged = {piece.path for group in groups for piece in group}
        for other in folder.iterdir():
            if other not in merged:
                os.link(other, new / other.name)
        for level in (new, new.parent, self._layout.staging, self._layout.root):
            sync_folder(level)
        exchange(new, folder)
        sync_folder(folder.parent)
        sync_folder(new.parent)
        shutil.rmtree(self._layout.staging)


def exchange(new: Path, old: Path) -> None:
    """Puts a folder in the place of another, whose own place is then beside the new one's.

    Raises:
        OSError: they are where they were.
    """
    if _swap(new, old):
        return
    aside = new.with_name(f"{new.name}{_ASIDE}")
    old.rename(aside)
    try:
        new.rename(old)
    except OSError:
        aside.rename(old)
        raise


def _swap(one: Path, other: Path) -> bool:
    """Exchanges two folders in one step; False where that is not possible."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    here, paths = _RELATIVE_TO_HERE, (os.fsencode(one), os.fsencode(other))
    if libc.renameat2(here, paths[0], here, paths[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))
