"""Files that are read again when they change."""

from __future__ import annotations

import logging
import time
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

from arbitrage.errors import ArbitrageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_LOG = logging.getLogger(__name__)
_CLOCK_NS = 100_000_000  # a file system's clock is coarse: a second change may bear the same time
_T = TypeVar("_T")
_Stamp = tuple[int, int, int, int, int]
_Stamps = tuple[_Stamp | None, ...]


class Watched(Generic[_T]):
    """What files say, as of now. Any thread may ask.

    While they are wrong or missing, what they said last stays true, and one line is logged.

    Args:
        files: which.
        read: reads them; raises an `ArbitrageError` that says what is wrong with them.

    Raises:
        ArbitrageError: they are wrong from the beginning.
    """

    def __init__(self, files: Sequence[Path], read: Callable[[], _T]) -> None:
        self._files = files
        self._read = read
        self._lock = Lock()
        self._complaint = ""
        before = self._stamps()
        self._value = read()
        self._seen = before if _settled(before) else None

    def latest(self) -> _T:
        """What they say; costs a `stat` of each unless one has changed."""
        with self._lock:
            before = self._stamps()
            if before != self._seen:
                self._read_again(before)
            return self._value

    def _read_again(self, before: _Stamps) -> None:
        try:
            value = self._read()
        except ArbitrageError as error:
            if str(error) != self._complaint:
                _LOG.error("what was read before stays in force: %s", error)
            self._complaint = str(error)
        else:
            # half of one state and half of the next are neither
            if self._stamps() != before:
                return
            self._value, self._complaint = value, ""
        self._seen = before if _settled(before) else None

    def _stamps(self) -> _Stamps:
        return tuple(_stamp(file) for file in self._files)


def _stamp(file: Path) -> _Stamp | None:
    """Differs whenever a file has changed, as far as its file system's clock can tell."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_ctime_ns, stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_dev


def _settled(stamps: _Stamps) -> bool:
    """Whether the next change is sure to bear another time."""
    now = time.time_ns()
    return not any(stamp and 0 <= now - stamp[0] < _CLOCK_NS for stamp in stamps)
