"""A full disk: what needs room waits for it, and goes on by itself."""

from __future__ import annotations

import asyncio
import errno
import logging
import shutil
import sqlite3
from typing import TYPE_CHECKING, TypeVar

from arbitrage.errors import SinkError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

_LOG = logging.getLogger(__name__)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FIRST_SECONDS = 2.0
_MOST_SECONDS = 30.0
_Result = TypeVar("_Result")


class Room:
    """The disk of one folder.

    However many wait, one line tells of it when the first does, and one when none does
    any more.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: set[object] = set()

    @property
    def waited_for(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

    async def within(self, work: Callable[[], Awaitable[_Result]], *, needed: int) -> _Result:
        """Does something that needs room on the disk, as soon as there is enough.

        Nothing is awaited between the end of `work` and the return.

        Args:
            work: done again until the disk is not full; must bear that.
            needed: bytes that it may take, to be told to people.

        Raises:
            SinkError: what `work` raises for another reason.
        """
        caller, pause = object(), _FIRST_SECONDS
        try:
            while True:
                try:
                    return await work()
                except SinkError as error:
                    if not full(error):
                        raise
                self._wait(caller, needed)
                await asyncio.sleep(pause)
                pause = min(2.0 * pause, _MOST_SECONDS)
        finally:
            self._leave(caller)

    def _wait(self, caller: object, needed: int) -> None:
        if not self._waiting:
            _LOG.warning(
                "%s: the disk is full, with %s free where about %s are needed; nothing is lost,"
                " and writing goes on by itself when there is room",
                self._folder,
                _size(shutil.disk_usage(self._folder).free),
                _size(needed),
            )
        self._waiting.add(caller)

    def _leave(self, caller: object) -> None:
        if caller in self._waiting:
            self._waiting.remove(caller)
            if not self._waiting:
                _LOG.info("%s: the disk is not waited for any more", self._folder)


def full(error: BaseException | None) -> bool:
    """Whether a disk without room, or an exceeded quota, is behind an error."""
    match error:
        case None:
            return False
        case sqlite3.Error() if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
            return True
        case OSError() if error.errno in _FULL:
            return True
        case _:
            # Libraries in Rust tell it in words.
            return any(f"(os error {code})" in str(error) for code in _FULL) or full(
                error.__cause__ or error.__context__
            )


def _size(count: int) -> str:
    """Bytes as people read them.

    >>> _size(0), _size(2_500), _size(64 << 20)
    ('0 KiB', '3 KiB', '64.0 MiB')
    """
    return f"{-(-count // 1024)} KiB" if count < 1 << 20 else f"{count / (1 << 20):.1f} MiB"
