"""An SQLite file that many tasks write to, with one commit for many rows.

Rows gather while the commit before theirs is on its way to the disk, and, where several wait for
theirs, for a few milliseconds after it (group commit; DeWitt et al. 1984, SIGMOD); those for which
nobody waits, for as long in any case. What is committed is durable.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

from arbitrage.disk import sync_folder, take_lock
from arbitrage.errors import SinkError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_Result = TypeVar("_Result")

_PATIENCE_SECONDS = 60.0  # with others that write to the same file
_ADVICE = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_READONLY: "is read-only; choose another output folder",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; choose another output folder",
    sqlite3.SQLITE_NOTADB: "is not a journal; move it away or choose another output folder",
    sqlite3.SQLITE_CORRUPT: "is damaged; restore it from a copy or choose another output folder",
    sqlite3.SQLITE_BUSY: "is locked by another program; close that and try again",
}


@dataclass(frozen=True, slots=True)
class _Write:
    """A row on its way to the disk.

    Attributes:
        numbered: whether anybody wants to know its number.
        hear: is told that once it is there, whether or not somebody still waits.
        stored: resolved to the number then.
    """

    query: str
    row: tuple[Any, ...]
    numbered: bool
    hear: Callable[[int | None], None] | None
    stored: asyncio.Future[int | None]


class Database:
    """One open file; `Database.open` makes it.

    SQLite and the disk block, so what touches them runs on two threads: a commit that waits
    for the disk keeps nobody from reading.

    Attributes:
        commits: of rows, since it was opened.
    """

    def __init__(self, path: Path, migrations: Sequence[str], *, window_seconds: float) -> None:
        self.path = path
        self.commits = 0
        self._migrations = migrations
        self._window = window_seconds
        self._turn = asyncio.Lock()
        self._writes: list[_Write] = []
        self._commit: asyncio.Task[None] | None = None
        self._urgent = asyncio.Event()  # somebody waits for what is to be committed
        self._gather_until = 0.0  # by the loop's clock
        self._closed = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="journal-reader")
        self._held = ExitStack()
        self._written: sqlite3.Connection
        self._readable: sqlite3.Connection

    @classmethod
    async def open(
        cls,
        path: Path,
        migrations: Sequence[str],
        *,
        window_seconds: float = 0.002,
        shared: bool = False,
    ) -> Self:
        """Opens a file, or makes a new one and its folder.

        Args:
            path: the file; its `-wal` and `.lock` lie beside it.
            migrations: one script for each schema version, in order; an older file is
                brought up to the last.
            window_seconds: from one commit to the next, in which rows gather.
            shared: whether other processes may have it open, too.

        Raises:
            SinkError: it cannot be written, is damaged, was written by a newer
                version, or belongs to another live process.
        """
        self = cls(path, migrations, window_seconds=window_seconds)
        try:
            await self._on(self._writer, self._open, shared)
        except BaseException:
            await self.close()
            raise
        return self

    def insert(
        self, query: str, *row: Any, hear: Callable[[int | None], None] | None = None
    ) -> asyncio.Future[int | None]:
        """Has a numbered row written, at once; awaiting what it returns means durable.

        Those who wait are answered in the order in which they asked, with nothing in between.

        Args:
            query: an SQL statement that inserts a row, or none where that is there already.
            row: what stands for its question marks.
            hear: is told the outcome even if nobody waits any more.

        Returns:
            Resolves to the number of the row that was inserted, None where none was; or to
            the SinkError for which it was not. The file stays usable.
        """
        return self._queue(query, row, numbered=True, hear=hear)

    def write(self, query: str, *row: Any) -> asyncio.Future[int | None]:
        """Has something changed, soon; awaiting what it returns means durable.

        Within a commit, changes by one statement are made in their order, but those by
        another may be made before them.

        Returns:
            Resolves to None, or to the SinkError for which it was not made.
        """
        return self._queue(query, row)

    async def change(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Runs `work` in a transaction of its own.

        Raises:
            SinkError: the file cannot be changed; it is as it was.
        """

        def changed() -> _Result:
            with self._written as database:
                database.execute("BEGIN IMMEDIATE")
                return work(database)

        self._check_open()
        return await self._on(self._writer, changed)

    async def read(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Runs `work` on what is committed, beside those who write.

        Raises:
            SinkError: the file cannot be read.
        """
        self._check_open()
        return await self._on(self._reader, lambda: work(self._readable))

    async def rows(self, query: str, *arguments: object) -> list[Any]:
        """All rows of a query, on what is committed.

        Raises:
            SinkError: the file cannot be read.
        """
        return await self.read(lambda database: database.execute(query, arguments).fetchall())

    async def close(self) -> None:
        """Stores what waits for a commit, and lets the file go; twice is harmless."""
        if self._closed:
            return
        self._closed = True
        if self._commit:
            await asyncio.wait({self._commit})
        async with self._turn:
            await self._on(self._reader, lambda: None)  # who reads has done so
            await self._on(self._writer, self._held.close)
        self._writer.shutdown(wait=False)
        self._reader.shutdown(wait=False)

    def _check_open(self) -> None:
        if self._closed:
            raise self._closed_error()

    def _closed_error(self) -> SinkError:
        return SinkError(f"{self.path}: is closed; open it again")

    def _queue(
        self,
        query: str,
        row: tuple[Any, ...],
        *,
        numbered: bool = False,
        hear: Callable[[int | None], None] | None = None,
    ) -> asyncio.Future[int | None]:
        stored: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        if self._closed:
            _fail(stored, self._closed_error())
            return stored
        self._writes.append(_Write(query, row, numbered, hear, stored))
        if numbered:
            self._urgent.set()
        if self._commit is None:
            self._commit = asyncio.create_task(self._commit_soon())
        return stored

    async def _commit_soon(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._urgent.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._window):
                    await self._urgent.wait()
        if (pause := self._gather_until - loop.time()) > 0.0:
            await asyncio.sleep(pause)
        async with self._turn:
            writes, self._writes, self._commit = self._writes, [], None
            self._urgent.clear()
            try:
                numbers = await self._on(self._writer, self._insert, writes)
            except SinkError as error:
                for write in writes:
                    if not write.stored.done():
                        _fail(write.stored, error)
                return
            finally:
                # one who waits alone would gain nothing by waiting for others
                if sum(write.numbered for write in writes) > 1:
                    self._gather_until = loop.time() + self._window
            self.commits += 1
            for write, number in zip(writes, numbers, strict=True):
                if write.hear:
                    write.hear(number)
                if not write.stored.done():  # whoever gave up does not undo it
                    write.stored.set_result(number)

    async def _on(
        self, thread: ThreadPoolExecutor, work: Callable[..., _Result], *arguments: object
    ) -> _Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, work, *arguments)
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            advice = _ADVICE.get(code, f"{error}; check the disk and the file system")
            raise SinkError(f"{self.path}: {advice}") from error
        except OSError as error:
            reason = f"cannot be written: {error.strerror}; choose another output folder"
            raise SinkError(f"{self.path}: {reason}") from error

    # What follows runs on the writer's thread.

    def _open(self, shared: bool) -> None:
        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        if not shared:
            self._held.callback(os.close, take_lock(self.path))
        self._written = database = sqlite3.connect(
            self.path, timeout=_PATIENCE_SECONDS if shared else 5.0, isolation_level=None
        )
        self._held.callback(database.close)
        ((version,),) = database.execute("PRAGMA user_version").fetchall()
        if version > len(self._migrations):
            raise SinkError(
                f"{self.path}: has schema {version}, newer than {len(self._migrations)}, the last"
                " one known here; upgrade data-arbitrage or choose another output folder"
            )
        if not version and database.execute("SELECT 1 FROM sqlite_master").fetchall():
            raise SinkError(f"{self.path}: {_ADVICE[sqlite3.SQLITE_NOTADB]}")
        database.execute("PRAGMA journal_mode = WAL").fetchall()
        database.execute("PRAGMA synchronous = FULL")
        with database:
            database.execute("BEGIN IMMEDIATE")
            # another process may have brought it up to date meanwhile
            ((version,),) = database.execute("PRAGMA user_version").fetchall()
            for statement in ";".join(self._migrations[version:]).split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {len(self._migrations)}")
        for new in (folder, folder.parent):
            sync_folder(new)
        self._readable = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self._held.callback(self._readable.close)
        self._readable.execute("PRAGMA query_only = ON")

    def _insert(self, writes: Sequence[_Write]) -> list[int | None]:
        numbers: list[int | None] = []
        others: dict[str, list[tuple[Any, ...]]] = {}
        with self._written as database:
            database.execute("BEGIN IMMEDIATE")
            for write in writes:
                number = None
                if write.numbered:
                    cursor = database.execute(write.query, write.row)
                    number = cursor.lastrowid if cursor.rowcount else None
                else:
                    others.setdefault(write.query, []).append(write.row)
                numbers.append(number)
            for query, rows in others.items():
                database.executemany(query, rows)
        return numbers


def _fail(stored: asyncio.Future[int | None], error: SinkError) -> None:
    stored.set_exception(error)
    stored.exception()  # whoever does not wait hears of it from those that do
