"""The journal: one SQLite file a run, in which what is accepted and paid for is durable at once.

What stands in it: prompts as they are accepted, every completion as soon as it has arrived,
what calls cost, and samples with their scores and decision. Rows are never changed or deleted.
Samples are numbered as they become durable, which is the order in which a policy learns from
them: what it had not saved is learned again, in the same order.

A part, which is what gets published as one unit, is a range of samples. The range is recorded
before anything is written under the part's number; a part that a crash left unmarked is
written again, from the same rows under the same number. That is exactly once, wherever the
crash fell.

A sample written twice is stored once. One that nobody won does not stand in the way of a later
try at the same prompt that somebody wins.
"""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import astuple, dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from arbitrage import document
from arbitrage.database import Database
from arbitrage.errors import SinkError
from arbitrage.sieve import Sieve
from arbitrage.types import Feedback

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from arbitrage.types import Candidate, Prompt, Sample

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
    """
    CREATE TABLE prompts (sample_id TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE completions (key BLOB PRIMARY KEY, document BLOB NOT NULL);
    CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID
    """,
    """
    CREATE TABLE feedback (number INTEGER PRIMARY KEY, feedback_id TEXT NOT NULL UNIQUE,
        sample_id TEXT NOT NULL, teacher TEXT NOT NULL, reward REAL NOT NULL, source TEXT NOT NULL,
        comment TEXT NOT NULL)
    """,
)
_SAMPLE = "INSERT INTO samples VALUES (NULL, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_PROMPT = "INSERT INTO prompts VALUES (?, ?) ON CONFLICT DO NOTHING"
_COMPLETION = "INSERT INTO completions VALUES (?, ?) ON CONFLICT DO NOTHING"
_FACT = "INSERT INTO facts VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
_KNOWN = "SELECT 1 FROM samples WHERE sample_id = ? AND (teacher IS NULL) = 0"  # as the index
_OF_THESE = "SELECT sample_id FROM samples WHERE (teacher IS NULL) = 0 AND sample_id IN"
_UNWON = """
    SELECT sample_id, EXISTS (SELECT 1 FROM samples WHERE sample_id = prompts.sample_id)
    FROM prompts WHERE NOT EXISTS (SELECT 1 FROM samples
        WHERE sample_id = prompts.sample_id AND (teacher IS NULL) = 0)
"""
_FEEDBACK = "INSERT INTO feedback VALUES (NULL, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_AT_ONCE = 500  # ids that are asked for in one query
_COST = "UPDATE ledger SET cost_usd = cost_usd + ?"
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


def answered(path: Path, job: str) -> Callable[[Sequence[Prompt]], Sequence[bool]]:
    """Tells of prompts whether a run has answered them, without taking its journal. Blocks.

    Raises:
        SinkError: there is such a file, and it cannot be read.
    """
    if not path.exists():
        return lambda prompts: [False] * len(prompts)
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)

    def among(prompts: Sequence[Prompt]) -> Sequence[bool]:
        ids = ((prompt.sample_id(job),) for prompt in prompts)
        try:
            return [bool(database.execute(_KNOWN, one).fetchone()) for one in ids]
        except sqlite3.Error as error:
            raise SinkError(f"{path}: cannot be read: {error}") from error

    return among


class Journal:
    """One open journal file; `Journal.open` makes it, for one process at a time.

    Attributes:
        pending: samples that are not published yet.
        pending_bytes: size of their documents.
        published: samples that are.
        cost_usd: what the calls of the runs before this one have cost.
    """

    def __init__(self, database: Database, *, max_waiting: int, shared: bool) -> None:
        self.path = database.path
        self.pending = self.pending_bytes = self.published = 0
        self.cost_usd = 0.0
        self._database = database
        self._room = asyncio.Semaphore(max_waiting)
        self._wanted: list[tuple[bytes, asyncio.Future[bytes | None]]] = []
        self._lookups: set[asyncio.Task[None]] = set()
        # most keys are new: for these, no thread has to be asked; others may add to a shared file
        self._sieve = None if shared else Sieve()
        self._sieving: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        window_seconds: float = 0.002,
        max_waiting: int = 1024,
        shared: bool = False,
    ) -> Self:
        """Opens a journal, or makes a new one and its folder.

        Args:
            path: the file; its `-wal` and `.lock` lie beside it.
            window_seconds: from one commit to the next, in which rows gather.
            max_waiting: samples that may wait for a commit; further appends wait for room.
            shared: whether other processes may have it open, too, as those that only keep
                completions there may.

        Raises:
            SinkError: it cannot be written, is damaged, was written by a newer
                version, or belongs to another live process.
        """
        database = await Database.open(
            path, _MIGRATIONS, window_seconds=window_seconds, shared=shared
        )
        self = cls(database, max_waiting=max_waiting, shared=shared)
        try:
            ((self.pending, self.pending_bytes, self.published),) = await database.rows(_COUNTS)
            ((self.cost_usd,),) = await database.rows("SELECT cost_usd FROM ledger")
        except BaseException:
            await database.close()
            raise
        return self

    @property
    def commits(self) -> int:
        """Commits of rows since it was opened."""
        return self._database.commits

    async def append(self, sample: Sample) -> int | None:
        """Stores a sample, unless its id is stored already; returns when it is on the disk.

        Those who wait are answered in the order of the numbers, with nothing in between.

        Returns:
            Its number, from 1; None if it was stored before.

        Raises:
            SinkError: it was not stored; the journal stays usable.
        """
        row = _row(sample)
        async with self._room:
            return await self._database.insert(
                _SAMPLE, *row, hear=partial(self._count, len(row[-1]))
            )

    def accept(self, sample_id: str, prompt: Prompt) -> asyncio.Future[int | None]:
        """Stores a prompt that is to be answered; awaiting what it returns means durable."""
        return self._database.write(_PROMPT, sample_id, document.encode_prompt(prompt))

    def keep(self, key: bytes, answers: Sequence[Candidate]) -> asyncio.Future[int | None]:
        """Stores what a teacher was paid for, for `kept` to find; awaiting it means durable.

        Args:
            key: what was asked of whom, see `arbitrage.cache`.
            answers: to one call, before they were gated and scored.
        """
        if self._sieve:
            self._sieve.add(key)
        return self._database.write(_COMPLETION, key, document.encode_answers(answers))

    def charge(self, usd: float) -> asyncio.Future[int | None]:
        """Adds to what the calls have cost; awaiting what it returns means durable."""
        return self._database.write(_COST, usd)

    def note(self, name: str, value: str) -> asyncio.Future[int | None]:
        """Stores a fact of the run, in place of one of that name; awaiting it means durable."""
        return self._database.write(_FACT, name, value)

    async def kept(self, key: bytes) -> Sequence[Candidate] | None:
        """What `keep` was given for this key, in this run or one before; None for nothing."""
        loop = asyncio.get_running_loop()
        if self._sieve:
            # not at once: a run that has nothing left to ask needs none
            sieving = self._sieving = self._sieving or loop.create_task(self._fill(self._sieve))
            if not sieving.done():
                await asyncio.wait({sieving})
            if error := sieving.exception():
                self._sieving = None  # whoever comes next tries again
                raise error
            if key not in self._sieve:
                return None
        if not self._wanted:
            loop.call_soon(self._look_up)  # all that are wanted in one turn share a trip
        found: asyncio.Future[bytes | None] = loop.create_future()
        self._wanted.append((key, found))
        answers = await found
        return None if answers is None else document.decode_answers(answers)

    async def known(self, sample_ids: Collection[str]) -> set[str]:
        """Those of some ids of which a sample is stored that somebody has won."""

        def among(database: sqlite3.Connection) -> set[str]:
            found: set[str] = set()
            left = iter(sample_ids)
            while some := list(islice(left, _AT_ONCE)):
                query = f"{_OF_THESE} ({', '.join('?' * len(some))})"
                found.update(one for (one,) in database.execute(query, some))
            return found

        return await self._database.read(among)

    async def unanswered(self) -> Sequence[Prompt]:
        """The prompts that were accepted, and of which no sample is stored."""
        query = """SELECT document FROM prompts
            WHERE sample_id NOT IN (SELECT sample_id FROM samples)"""
        rows = await self._database.rows(query)
        return await asyncio.to_thread(lambda: [document.decode_prompt(row) for (row,) in rows])

    async def unwon(self) -> tuple[int, Mapping[str, bool]]:
        """How many prompts were accepted; of those that nobody has won, whether one has tried.

        Returns:
            The count; and by the ids of their samples, whether one without a winner is stored.
        """
        ((accepted,),) = await self._database.rows("SELECT count(*) FROM prompts")
        rows = await self._database.rows(_UNWON)
        return accepted, {sample_id: bool(tried) for sample_id, tried in rows}

    async def completions(self) -> int:
        """How many calls were answered whose completions are kept here."""
        ((count,),) = await self._database.rows("SELECT count(*) FROM completions")
        return int(count)

    async def after(self, number: int, most: int) -> Sequence[tuple[int, Sample]]:
        """The samples behind a number, each with its own, at most so many."""
        query = "SELECT seq, document FROM samples WHERE seq > ? ORDER BY seq LIMIT ?"
        rows = await self._database.rows(query, number, most)
        return await asyncio.to_thread(lambda: [(seq, document.decode(row)) for seq, row in rows])

    async def sample(self, sample_id: str) -> Sample | None:
        """The sample of this id: the one that somebody has won, if there is one."""
        query = """SELECT document FROM samples WHERE sample_id = ?
            ORDER BY teacher IS NULL LIMIT 1"""
        rows = await self._database.rows(query, sample_id)
        return document.decode(rows[0][0]) if rows else None

    def record(self, feedback: Feedback) -> asyncio.Future[int | None]:
        """Stores feedback; awaiting it means durable.

        Returns:
            Resolves to its number, from 1; to None where its id has been used before.
        """
        return self._database.insert(_FEEDBACK, *astuple(feedback))

    async def recorded(self, feedback_id: str) -> Feedback | None:
        """The feedback of this id."""
        query = "SELECT * FROM feedback WHERE feedback_id = ?"
        rows = await self._database.rows(query, feedback_id)
        return Feedback(*rows[0][1:]) if rows else None

    async def feedback_after(self, number: int, most: int) -> Sequence[tuple[int, Feedback]]:
        """The feedback behind a number, each with its own, at most so many."""
        query = "SELECT * FROM feedback WHERE number > ? ORDER BY number LIMIT ?"
        rows = await self._database.rows(query, number, most)
        return [(number, Feedback(*row)) for number, *row in rows]

    async def last_feedback(self) -> int:
        """The number of the newest feedback; 0 while there is none."""
        query = "SELECT coalesce(max(number), 0) FROM feedback"
        ((number,),) = await self._database.rows(query)
        return int(number)

    async def last(self) -> int:
        """The number of the newest sample; 0 while there is none."""
        ((number,),) = await self._database.rows("SELECT coalesce(max(seq), 0) FROM samples")
        return int(number)

    async def facts(self) -> Mapping[str, str]:
        """What `note` was given."""
        return dict(await self._database.rows("SELECT name, value FROM facts"))

    async def assign(self, *, max_rows: int, max_bytes: int) -> int | None:
        """Records the intent to publish the oldest samples that are in no part yet.

        Returns:
            Number of the new part, of one sample at least; None when there are none.
        """
        return await self._database.change(
            partial(_assigned, max_rows=max_rows, max_bytes=max_bytes)
        )

    async def unfinished(self) -> Sequence[int]:
        """Numbers of the parts that were assigned but not marked as published."""
        query = "SELECT number FROM parts WHERE NOT published ORDER BY number"
        return [number for (number,) in await self._database.rows(query)]

    async def samples(self, part: int) -> Sequence[Sample]:
        """The samples of a part: always the same, in the order in which they came."""
        query = """SELECT document FROM parts JOIN samples ON seq BETWEEN first AND last
            WHERE number = ? ORDER BY seq"""
        rows = await self._database.rows(query, part)
        return await asyncio.to_thread(lambda: [document.decode(row) for (row,) in rows])

    async def mark_published(self, part: int) -> None:
        """Records that a part is where readers find it, for good."""
        query = """UPDATE parts SET published = 1 WHERE number = ? AND NOT published
            RETURNING last - first + 1, bytes"""
        marked = await self._database.change(
            lambda database: database.execute(query, (part,)).fetchall()
        )
        for rows, size in marked:
            self.pending, self.pending_bytes = self.pending - rows, self.pending_bytes - size
            self.published += rows

    async def tallies(self) -> Sequence[Tally]:
        """Who won what, over the samples of all parts, published or about to be."""
        query = """SELECT language, policy, teacher, sum(samples), sum(reward) FROM tallies
            GROUP BY language, policy, teacher"""
        return [Tally(*row) for row in await self._database.rows(query)]

    async def close(self) -> None:
        """Stores what waits for a commit, and lets the file go; twice is harmless."""
        if self._lookups:
            await asyncio.wait(self._lookups)
        await self._database.close()

    def _count(self, size: int, number: int | None) -> None:
        if number is not None:
            self.pending, self.pending_bytes = self.pending + 1, self.pending_bytes + size

    async def _fill(self, sieve: Sieve) -> None:
        def add_all(database: sqlite3.Connection) -> None:
            for (key,) in database.execute("SELECT key FROM completions"):
                sieve.add(key)

        await self._database.read(add_all)

    def _look_up(self) -> None:
        wanted, self._wanted = self._wanted, []
        task = asyncio.get_running_loop().create_task(self._find(wanted))
        self._lookups.add(task)
        task.add_done_callback(self._lookups.discard)

    async def _find(self, wanted: Sequence[tuple[bytes, asyncio.Future[bytes | None]]]) -> None:
        query = "SELECT document FROM completions WHERE key = ?"

        def among(database: sqlite3.Connection) -> list[Any]:
            return [database.execute(query, (key,)).fetchone() for key, _ in wanted]

        try:
            rows = await self._database.read(among)
        except Exception as error:  # noqa: BLE001 - whoever waits hears of it
            for _, found in wanted:
                if not found.done():
                    found.set_exception(error)
            return
        for (_, found), row in zip(wanted, rows, strict=True):
            if not found.done():
                found.set_result(row[0] if row else None)


def _assigned(database: sqlite3.Connection, *, max_rows: int, max_bytes: int) -> int | None:
    query = "SELECT coalesce(max(number), 0) + 1, coalesce(max(last), 0) + 1 FROM parts"
    number, first = database.execute(query).fetchone()
    last, size = first - 1, 0
    query = "SELECT seq, length(document) FROM samples WHERE seq >= ? ORDER BY seq LIMIT ?"
    for seq, length in database.execute(query, (first, max_rows)):
        if size and size + length > max_bytes:
            break
        last, size = seq, size + length
    if last < first:
        return None
    database.execute("INSERT INTO parts VALUES (?, ?, ?, ?, 0)", (number, first, last, size))
    database.execute(
        """INSERT INTO tallies SELECT ?, language, policy, teacher, count(*),
        coalesce(sum(reward), 0.0) FROM samples WHERE seq BETWEEN ? AND ?
        GROUP BY language, policy, teacher""",
        (number, first, last),
    )
    return int(number)


def _row(sample: Sample) -> tuple[str, str, str, str | None, float | None, bytes]:
    teacher, reward = (
        (sample.winner.teacher, sample.winner.reward) if sample.winner else (None,) * 2
    )
    language, policy = sample.prompt.language, sample.decision.policy
    return sample.sample_id, language, policy, teacher, reward, document.encode(sample)
