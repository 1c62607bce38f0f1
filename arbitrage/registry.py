"""The registry: which jobs there are, and where each stands, in one SQLite file.

Every change is durable before anyone hears of it. Jobs are numbered as they were created. The
file is made with the first job.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, get_args

from arbitrage.database import Database

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Sequence
    from pathlib import Path

FILE = "jobs.sqlite"
"""Name of the file in the job folder."""

State = Literal["pending", "running", "succeeded", "failed", "cancelled"]
STATES: tuple[State, ...] = get_args(State)
FINAL = frozenset[State]({"succeeded", "failed", "cancelled"})

_MIGRATIONS = (
    """
    CREATE TABLE jobs (number INTEGER PRIMARY KEY, job_id TEXT NOT NULL UNIQUE,
        spec BLOB NOT NULL, output TEXT NOT NULL, created TEXT NOT NULL, state TEXT NOT NULL,
        started TEXT, ended TEXT, error BLOB, progress TEXT NOT NULL);
    CREATE INDEX by_state ON jobs (state, number);
    CREATE INDEX by_output ON jobs (output)
    """,
)
_ALL = "SELECT job_id, spec, output, created, state, started, ended, error, progress, number"
_INSERT = "INSERT INTO jobs VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_UPDATE = """UPDATE jobs SET state = ?, started = ?, ended = ?, error = ?, progress = ?
    WHERE job_id = ?"""
_IN_USE = """SELECT job_id FROM jobs WHERE job_id <> ?
    AND (output IN (SELECT value FROM json_each(?)) OR output > ? AND output < ?) LIMIT 1"""
_PAGE_BYTES = 2 << 20  # of specifications: what clients take of a response ends at 4 MB


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job has come, over all its runs.

    Attributes:
        total: rows of its source; None while nobody has counted them.
        accepted: prompts that were taken from it.
        rejected: rows that were not.
        failed: accepted prompts that ended without a winner.
        samples: that are stored, those without a winner included.
        calls: of teachers.
        cached: answers that were paid for before.
        cost_usd: of the calls.
        remaining_usd: that is still to be spent, as far as that can be told.
        remaining_seconds: that it will still run, as far as that can be told.
    """

    total: int | None = None
    accepted: int = 0
    rejected: int = 0
    failed: int = 0
    samples: int = 0
    calls: int = 0
    cached: int = 0
    cost_usd: float = 0.0
    remaining_usd: float | None = field(default=None, compare=False)
    remaining_seconds: float | None = field(default=None, compare=False)

    @property
    def settled(self) -> Progress:
        """The same without what remains, which is an estimate of the moment."""
        return replace(self, remaining_usd=None, remaining_seconds=None)


@dataclass(frozen=True, slots=True)
class Record:
    """One job, as it stands.

    Attributes:
        spec: what it runs, as bytes that say the same whenever they are the same.
        output: folder of its dataset, from the job folder on.
        error: why it failed, as bytes; None in any other state.
        number: in the order of creation; 0 until it is in the registry.
    """

    job_id: str
    spec: bytes
    output: str
    created: datetime
    state: State = "pending"
    started: datetime | None = None
    ended: datetime | None = None
    error: bytes | None = None
    progress: Progress = field(default_factory=Progress)
    number: int = 0


@dataclass(frozen=True, slots=True)
class Begun:
    """What a job that has begun to run has left.

    Attributes:
        samples: number of its last one; of a job that has not ended, there may be more.
    """

    job_id: str
    output: str
    state: State
    samples: int


class Registry:
    """The jobs of one job folder, for one process at a time; `Registry.open` makes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database: Database | None = None
        self._opening = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path) -> Registry:
        """Opens the file, if there is one yet.

        Raises:
            SinkError: it cannot be written, is damaged, was written by a newer version, or
                belongs to another live process.
        """
        self = cls(path)
        if await asyncio.to_thread(path.exists):
            self._database = await Database.open(path, _MIGRATIONS)
        return self

    async def add(self, record: Record) -> Record:
        """Stores a new job, durably, and returns it with its number.

        Raises:
            SinkError: it was not stored.
        """
        async with self._opening:
            if self._database is None:
                self._database = await Database.open(self.path, _MIGRATIONS)
        first = record.job_id, record.spec, record.output, record.created.isoformat()
        number = await self._database.insert(_INSERT, *first, *_standing(record))
        return replace(record, number=number or 0)

    async def update(self, record: Record) -> None:
        """Stores where a job stands, durably.

        Raises:
            SinkError: it was not stored.
        """
        if self._database:
            await self._database.write(_UPDATE, *_standing(record), record.job_id)

    async def get(self, job_id: str) -> Record | None:
        """A job by its id.

        Raises:
            SinkError: the file cannot be read.
        """
        rows = await self._rows(f"{_ALL} FROM jobs WHERE job_id = ?", job_id)
        return _record(rows[0]) if rows else None

    async def page(
        self, states: Collection[State], *, before: int | None, most: int
    ) -> tuple[list[Record], bool]:
        """Some jobs, the newest first: fewer where they would be too large to send.

        Args:
            states: only jobs in one of these; empty for all.
            before: only jobs of a lower number.
            most: how many.

        Returns:
            At least one if there is any, and whether there are more.

        Raises:
            SinkError: the file cannot be read.
        """
        marks = ", ".join("?" * len(states)) if states else "state"
        number = (1 << 63) - 1 if before is None else before
        query = f"""{_ALL} FROM jobs WHERE number < ? AND state IN ({marks})
            ORDER BY number DESC LIMIT ?"""

        def some(database: sqlite3.Connection) -> tuple[list[Record], bool]:
            found: list[Record] = []
            size = 0
            for row in database.execute(query, (number, *sorted(states), most + 1)):
                size += len(row[1])
                if found and (len(found) == most or size > _PAGE_BYTES):
                    return found, True
                found.append(_record(row))
            return found, False

        return await self._database.read(some) if self._database else ([], False)

    async def unfinished(self) -> list[Record]:
        """The jobs that are to run: first those that did, then in the order of creation.

        Raises:
            SinkError: the file cannot be read.
        """
        query = f"""{_ALL} FROM jobs WHERE state IN ('pending', 'running')
            ORDER BY state DESC, number"""
        return [_record(row) for row in await self._rows(query)]

    async def begun(self) -> list[Begun]:
        """The jobs that have run, however they ended.

        Raises:
            SinkError: the file cannot be read.
        """
        query = """SELECT job_id, output, state, json_extract(progress, '$.samples') FROM jobs
            WHERE started IS NOT NULL ORDER BY number"""
        return [Begun(*row) for row in await self._rows(query)]

    async def user_of(self, output: str, besides: str) -> str | None:
        """The job, other than one, to which a folder belongs, or one in it or around it.

        Raises:
            SinkError: the file cannot be read.
        """
        around = [str(folder) for folder in (PurePosixPath(output), *PurePosixPath(output).parents)]
        within = f"{output}/", f"{output}0"  # which is what follows upon a slash
        rows = await self._rows(_IN_USE, besides, json.dumps(around), *within)
        return rows[0][0] if rows else None

    async def close(self) -> None:
        """Lets the file go; twice is harmless."""
        if self._database:
            await self._database.close()

    async def _rows(self, query: str, *arguments: object) -> Sequence[Any]:
        return await self._database.rows(query, *arguments) if self._database else ()


def _standing(record: Record) -> tuple[object, ...]:
    started, ended = (at and at.isoformat() for at in (record.started, record.ended))
    progress = json.dumps(asdict(record.progress.settled))
    return record.state, started, ended, record.error, progress


def _record(row: tuple[Any, ...]) -> Record:
    job_id, spec, output, created, state, started, ended, error, progress, number = row
    return Record(
        job_id,
        spec,
        output,
        datetime.fromisoformat(created),
        state,
        started and datetime.fromisoformat(started),
        ended and datetime.fromisoformat(ended),
        error,
        Progress(**json.loads(progress)),
        number,
    )
