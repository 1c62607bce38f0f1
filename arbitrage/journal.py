"""The journal: one SQLite file a run, in which an accepted sample is durable at once.

Many appends share one commit: rows gather for a few milliseconds, and while
the commit before theirs is on its way to the disk. Rows are never changed or
deleted, so a part, which is what gets published as one unit, is a range of
them. The range is recorded before anything is written under the part's
number; a part that a crash left unmarked is written again, from the same rows
under the same number. That is exactly once, wherever the crash fell.

A sample written twice is stored once. One that nobody won does not stand in
the way of a later try at the same prompt that somebody wins.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

from arbitrage.document import decode, encode
from arbitrage.errors import SinkError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from arbitrage.types import Sample

_Result = TypeVar("_Result")
_Row: TypeAlias = tuple[str, str, str, str | None, float | None, bytes, float]

# One script for each schema version: a change appends one, and older files are brought up to it.
_MIGRATIONS = (
    """
    CREATE TABLE samples (seq INTEGER PRIMARY KEY, sample_id TEXT NOT NULL,
        language TEXT NOT NULL, policy TEXT NOT NULL, teacher TEXT, reward REAL,
        document BLOB NOT NULL);
    CREATE UNIQUE INDEX one_a_prompt ON samples (sample_id, teacher IS NULL);
    CREATE TABLE parts (number INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL,
        bytes INTEGER NOT NULL, published INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE tallies (part INTEGER NOT NULL REFERENCES parts (number), language TEXT NOT NULL,
        policy TEXT NOT NULL, teacher TEXT, samples INTEGER NOT NULL, reward REAL NOT NULL)
    """,
    """
    CREATE TABLE ledger (cost_usd REAL NOT NULL);
    INSERT INTO ledger SELECT coalesce(sum(json_extract(value, '$.cost_usd')), 0.0)
        FROM samples, json_each(CAST(document AS TEXT), '$.candidates')
    """,
)
_ADVICE = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_READONLY: "is read-only; choose another output folder",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; choose another output folder",
    sqlite3.SQLITE_NOTADB: "is not a journal; move it away or choose another output folder",
    sqlite3.SQLITE_CORRUPT: "is damaged; restore it from a copy or choose another output folder",
    sqlite3.SQLITE_BUSY: "is locked by another program; close that and try again",
}


_COUNTS = """
    SELECT coalesce(sum(size) FILTER (WHERE NOT published), 0),
        coalesce(sum(bytes) FILTER (WHERE NOT published), 0),
        coalesce(sum(size) FILTER (WHERE published), 0)
    FROM (SELECT published, last - first + 1 AS size, bytes FROM parts
        UNION ALL SELECT 0, count(*), sum(length(document)) FROM samples
        WHERE seq > (SELECT coalesce(max(last), 0) FROM parts))
"""


@dataclass(frozen=True, slots=True)
class Tally:
    """Samples, among all parts, that one teacher won in one language under one policy.

    Attributes:
        teacher: None for samples that nobody won.
        reward: sum of the winners' rewards.
    """

    language: str
    policy: str
    teacher: str | None
    samples: int
    reward: float


class Journal:
    """One open journal file; `Journal.open` makes it, for one process at a time.

    Attributes:
        pending: rows that are not published yet.
        pending_bytes: size of their documents.
        published: rows that are.
        cost_usd: what the calls behind all samples appended before it was opened have
            cost, those included that were stored already.
        commits: commits of appended rows since it was opened.
    """

    def __init__(self, path: Path, *, window_seconds: float, max_waiting: int) -> None:
        self.path = path
        self.pending = self.pending_bytes = self.published = self.commits = 0
        self.cost_usd = 0.0
        self._window = window_seconds
        self._room = asyncio.Semaphore(max_waiting)
        self._turn = asyncio.Lock()
        self._rows: list[_Row] = []
        self._commit: asyncio.Task[None] | None = None
        self._closed = False
        # SQLite and the disk block, so everything that touches them runs on this one thread.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._held = ExitStack()
        self._database: sqlite3.Connection

    @classmethod
    async def open(
        cls, path: Path, *, window_seconds: float = 0.002, max_waiting: int = 1024
    ) -> Self:
        """Opens a journal, or makes a new one and its folder.

        Args:
            path: the file; its `-wal` and `.lock` lie beside it.
            window_seconds: how long a row waits for others to share its commit.
            max_waiting: rows that may wait for a commit; further appends wait for room.

        Raises:
            SinkError: it cannot be written, is damaged, was written by a newer
                version, or belongs to another live process.
        """
        journal = cls(path, window_seconds=window_seconds, max_waiting=max_waiting)
        try:
            counts = await journal._run(journal._open)
        except BaseException:
            await journal.close()
            raise
        journal.pending, journal.pending_bytes, journal.published, journal.cost_usd = counts
        return journal

    async def append(self, sample: Sample) -> None:
        """Stores a sample, unless its id is stored already; returns when it is on the disk.

        Raises:
            SinkError: it was not stored; the journal stays usable.
        """
        row = _row(sample)
        async with self._room:
            if self._closed:
                raise SinkError(f"{self.path}: is closed; open it again to store samples")
            self._rows.append(row)
            if self._commit is None:
                self._commit = asyncio.create_task(self._commit_soon())
            # A caller that gives up must not undo the commit that others wait for.
            await asyncio.shield(self._commit)

    async def assign(self, *, max_rows: int, max_bytes: int) -> int | None:
        """Records the intent to publish the oldest rows that are in no part yet.

        Returns:
            Number of the new part, of one row at least; None when there are no such rows.
        """
        return await self._run(self._assign, max_rows, max_bytes)

    async def unfinished(self) -> Sequence[int]:
        """Numbers of the parts that were assigned but not marked as published."""
        query = "SELECT number FROM parts WHERE NOT published ORDER BY number"
        return [number for (number,) in await self._run(self._all, query)]

    async def samples(self, part: int) -> Sequence[Sample]:
        """The samples of a part: always the same, in the order in which they came."""
        query = """SELECT document FROM parts JOIN samples ON seq BETWEEN first AND last
            WHERE number = ? ORDER BY seq"""
        rows = await self._run(self._all, query, part)
        # Parsing a whole part on the journal's own thread would hold up commits.
        return await asyncio.to_thread(lambda: [decode(document) for (document,) in rows])

    async def mark_published(self, part: int) -> None:
        """Records that a part is where readers find it, for good."""
        query = """UPDATE parts SET published = 1 WHERE number = ? AND NOT published
            RETURNING last - first + 1, bytes"""
        for rows, size in await self._run(self._all, query, part):
            self.pending, self.pending_bytes = self.pending - rows, self.pending_bytes - size
            self.published += rows

    async def tallies(self) -> Sequence[Tally]:
        """Who won what, over the samples of all parts, published or about to be."""
        query = """SELECT language, policy, teacher, sum(samples), sum(reward) FROM tallies
            GROUP BY language, policy, teacher"""
        return [Tally(*row) for row in await self._run(self._all, query)]

    async def close(self) -> None:
        """Stores what waits for a commit, and lets the file go; twice is harmless."""
        if self._closed:
            return
        self._closed = True
        if self._commit:
            await asyncio.wait({self._commit})
        async with self._turn:
            await self._run(self._held.close)
        self._thread.shutdown(wait=False)

    async def _commit_soon(self) -> None:
        await asyncio.sleep(self._window)
        async with self._turn:
            rows, self._rows, self._commit = self._rows, [], None
            stored, size = await self._run(self._insert, rows)
            self.commits += 1
            self.pending, self.pending_bytes = self.pending + stored, self.pending_bytes + size

    async def _run(self, work: Callable[..., _Result], *arguments: object) -> _Result:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, work, *arguments)
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            advice = _ADVICE.get(code, f"{error}; check the disk and the file system")
            raise SinkError(f"{self.path}: {advice}") from error
        except OSError as error:
            reason = f"cannot be written: {error.strerror}; choose another output folder"
            raise SinkError(f"{self.path}: {reason}") from error

    # What follows runs on the journal's thread.

    def _open(self) -> tuple[int, int, int, float]:
        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        self._held.callback(os.close, take_lock(self.path))
        self._database = sqlite3.connect(self.path, isolation_level=None)
        self._held.callback(self._database.close)
        ((version,),) = self._all("PRAGMA user_version")
        if version > len(_MIGRATIONS):
            raise SinkError(
                f"{self.path}: has schema {version}, newer than {len(_MIGRATIONS)}, the last one"
                " known here; upgrade data-arbitrage or choose another output folder"
            )
        if not version and self._all("SELECT 1 FROM sqlite_master"):
            raise SinkError(f"{self.path}: {_ADVICE[sqlite3.SQLITE_NOTADB]}")
        self._all("PRAGMA journal_mode = WAL")
        self._all("PRAGMA synchronous = FULL")
        with self._database:
            self._all("BEGIN IMMEDIATE")
            for statement in ";".join(_MIGRATIONS[version:]).split(";"):
                self._all(statement)
            self._all(f"PRAGMA user_version = {len(_MIGRATIONS)}")
        for new in (folder, folder.parent):
            sync_folder(new)
        ((pending, pending_bytes, published),) = self._all(_COUNTS)
        ((cost_usd,),) = self._all("SELECT cost_usd FROM ledger")
        return pending, pending_bytes, published, cost_usd

    def _all(self, query: str, *arguments: object) -> list[Any]:
        return self._database.execute(query, arguments).fetchall()

    def _insert(self, rows: Sequence[_Row]) -> tuple[int, int]:
        query = "INSERT INTO samples VALUES (NULL, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        with self._database as database:
            database.execute("BEGIN IMMEDIATE")
            new = [len(row[-2]) for row in rows if database.execute(query, row[:-1]).rowcount]
            # a prompt that is answered again is stored once and paid for twice
            cost_usd = sum(row[-1] for row in rows)
            database.execute("UPDATE ledger SET cost_usd = cost_usd + ?", (cost_usd,))
        return len(new), sum(new)

    def _assign(self, max_rows: int, max_bytes: int) -> int | None:
        query = "SELECT coalesce(max(number), 0) + 1, coalesce(max(last), 0) + 1 FROM parts"
        ((number, first),) = self._all(query)
        last, size = first - 1, 0
        query = "SELECT seq, length(document) FROM samples WHERE seq >= ? ORDER BY seq LIMIT ?"
        for seq, length in self._all(query, first, max_rows):
            if size and size + length > max_bytes:
                break
            last, size = seq, size + length
        if last < first:
            return None
        with self._database:
            self._all("BEGIN IMMEDIATE")
            self._all("INSERT INTO parts VALUES (?, ?, ?, ?, 0)", number, first, last, size)
            self._all(
                """INSERT INTO tallies SELECT ?, language, policy, teacher, count(*),
                coalesce(sum(reward), 0.0) FROM samples WHERE seq BETWEEN ? AND ?
                GROUP BY language, policy, teacher""",
                *(number, first, last),
            )
        return int(number)


def take_lock(path: Path, *, advice: str = "wait for it or choose another output folder") -> int:
    """Keeps every other process from a journal, and so from the folder of its run.

    Returns:
        A descriptor; closing it, or the end of the process, lets the journal go.

    Raises:
        SinkError: another live process has it; the message ends in the advice.
        OSError: the folder cannot be written.
    """
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(lock, 256).decode(errors="replace") or "another process"
        os.close(lock)
        raise SinkError(f"{path}: is in use by {owner}; {advice}") from None
    os.ftruncate(lock, 0)
    os.write(lock, f"process {os.getpid()} on {os.uname().nodename}".encode())
    return lock


def sync_folder(folder: Path) -> None:
    """Makes the names of a folder's files as durable as their contents.

    Raises:
        OSError: the folder cannot be opened or synced.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _row(sample: Sample) -> _Row:
    teacher, reward = (
        (sample.winner.teacher, sample.winner.reward) if sample.winner else (None,) * 2
    )
    language, policy = sample.prompt.language, sample.decision.policy
    cost_usd = sum(candidate.cost_usd for candidate in sample.candidates)
    return sample.sample_id, language, policy, teacher, reward, encode(sample), cost_usd
