from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any, Self

import pytest

from arbitrage.document import encode
from arbitrage.errors import SinkError
from arbitrage.journal import _MIGRATIONS, Journal, Tally
from arbitrage.types import Candidate, Completion
from tests.samples import ids, sample, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from arbitrage.database import _Write


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out" / "journal.sqlite"


@pytest.fixture
async def journal(path: Path) -> AsyncIterator[Journal]:
    opened = await Journal.open(path)
    yield opened
    await opened.close()


def execute(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchall()


def overwrite(path: Path, content: bytes, start: int = 0) -> None:
    path.parent.mkdir(exist_ok=True)
    kept = path.read_bytes()[:start] if start else b""
    path.write_bytes(kept + content)


def read(path: Path) -> bytes:
    return path.read_bytes()


async def pragma(journal: Journal, what: str) -> object:
    """A setting of the connection that writes."""
    database = journal._database

    def ask() -> object:
        told, *_ = database._written.execute(f"PRAGMA {what}").fetchone()
        return told

    return await database._on(database._writer, ask)


class Gate:
    """Holds up every commit of a journal until it is opened, as a slow disk would."""

    def __init__(self, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.entered = threading.Event()
        self._open = threading.Event()
        database = journal._database
        insert = database._insert

        def held(rows: list[_Write]) -> list[int | None]:
            self.entered.set()
            self._open.wait()
            self.sizes.append(len(rows))
            return insert(rows)

        monkeypatch.setattr(database, "_insert", held)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.set()


async def test_appends_share_commits(journal: Journal) -> None:
    await asyncio.gather(*(journal.append(sample(number)) for number in range(500)))
    assert journal.pending == 500
    assert 1 <= journal.commits <= 50


async def test_rows_gather_behind_a_commit_and_the_loop_goes_on(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Gate(journal, monkeypatch) as gate:
        first = asyncio.create_task(journal.append(sample(0)))
        await asyncio.to_thread(gate.entered.wait)
        others = [asyncio.create_task(journal.append(sample(number))) for number in range(1, 100)]
        for _ in range(50):  # a loop that the disk blocked would never get here
            await asyncio.sleep(0.001)
        assert not any(task.done() for task in (first, *others))
    await asyncio.gather(first, *others)
    assert gate.sizes == [1, 99]


async def test_rows_that_wait_are_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = await Journal.open(path, max_waiting=4)
    with Gate(journal, monkeypatch) as gate:
        appends = [asyncio.create_task(journal.append(sample(number))) for number in range(20)]
        await asyncio.to_thread(gate.entered.wait)
    await asyncio.gather(*appends)
    assert max(gate.sizes) <= 4
    assert journal.pending == 20
    await journal.close()


async def test_close_stores_what_waits(path: Path) -> None:
    journal = await Journal.open(path)
    waiting = asyncio.create_task(journal.append(sample(1)))
    await asyncio.sleep(0)
    await journal.close()
    await waiting
    again = await Journal.open(path)
    assert again.pending == 1
    await again.close()


async def test_every_commit_is_synced(journal: Journal) -> None:
    assert await pragma(journal, "journal_mode") == "wal"
    assert await pragma(journal, "synchronous") == 2


async def test_a_part_keeps_its_rows_and_its_number(path: Path) -> None:
    journal = await Journal.open(path)
    for number in range(5):
        await journal.append(sample(number))
    part = await journal.assign(max_rows=3, max_bytes=1 << 20)
    assert part is not None
    before = await journal.samples(part)
    await journal.close()

    journal = await Journal.open(path)
    await journal.append(sample(9))
    assert await journal.unfinished() == [part]
    assert before == [sample(0), sample(1), sample(2)]
    assert await journal.samples(part) == before
    assert (journal.pending, journal.published) == (6, 0)
    await journal.mark_published(part)
    await journal.mark_published(part)
    assert (journal.pending, journal.published) == (3, 3)
    rest = await journal.assign(max_rows=100, max_bytes=1 << 20)
    assert rest is not None
    assert rest != part
    assert ids(await journal.samples(rest)) == ids([sample(3), sample(4), sample(9)])
    assert await journal.assign(max_rows=1, max_bytes=1) is None
    await journal.close()


async def test_a_part_is_bounded_by_bytes_and_never_empty(journal: Journal) -> None:
    for number in range(3):
        await journal.append(sample(number))
    sizes = []
    while part := await journal.assign(max_rows=100, max_bytes=1):
        sizes.append(len(await journal.samples(part)))
    assert sizes == [1, 1, 1]
    assert journal.pending_bytes == sum(len(encode(sample(number))) for number in range(3))


async def test_tallies_count_the_samples_of_parts(journal: Journal) -> None:
    for one in (sample(0), sample(2), sample(1), sample(4, won=False)):
        await journal.append(one)
    assert await journal.tallies() == []
    await journal.assign(max_rows=2, max_bytes=1 << 20)
    await journal.assign(max_rows=2, max_bytes=1 << 20)
    assert set(await journal.tallies()) == {
        Tally("de", "thompson", "alpha", 2, 0.5 + 0.502),
        Tally("de", "thompson", "beta", 1, 0.501),
        Tally("de", "thompson", None, 1, 0.0),
    }


async def test_a_full_disk_is_told_and_survived(journal: Journal) -> None:
    pages = await pragma(journal, "page_count")
    await pragma(journal, f"max_page_count = {pages}")
    with pytest.raises(SinkError, match=r"journal\.sqlite: the disk is full; free some space$"):
        await journal.append(sample(1, text="x" * 100_000))
    assert journal.pending == 0
    await pragma(journal, "max_page_count = 1000000")
    await journal.append(sample(1))
    assert journal.pending == 1


async def test_a_newer_file_is_refused_and_left_alone(path: Path) -> None:
    await (await Journal.open(path)).close()
    execute(path, "PRAGMA user_version = 99")
    with pytest.raises(SinkError, match=r"has schema 99, newer than \d+.*; upgrade"):
        await Journal.open(path)
    assert execute(path, "PRAGMA user_version") == [(99,)]


async def test_what_is_no_database_is_refused(path: Path) -> None:
    overwrite(path, b"something else, long enough to be looked at" * 100)
    with pytest.raises(SinkError, match=r"is not a journal; move it away"):
        await Journal.open(path)


async def test_the_database_of_another_program_is_refused(path: Path) -> None:
    overwrite(path, b"")
    execute(path, "CREATE TABLE theirs (x)")
    with pytest.raises(SinkError, match=r"is not a journal; move it away"):
        await Journal.open(path)


async def test_a_damaged_file_is_refused(path: Path) -> None:
    journal = await Journal.open(path)
    await journal.append(sample(1))
    await journal.close()
    overwrite(path, b"\xff" * 20_000, start=4096)
    with pytest.raises(SinkError, match=r"is damaged; restore it"):
        await Journal.open(path)


OPEN_AND_WAIT = """
import asyncio, sys
from pathlib import Path
from arbitrage.journal import Journal

async def main():
    await Journal.open(Path(sys.argv[1]))
    print("open", flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


async def test_a_live_owner_is_named_and_a_dead_one_does_not_matter(path: Path) -> None:
    with start(OPEN_AND_WAIT, path) as owner:
        assert owner.stdout
        assert owner.stdout.readline() == "open\n"
        with pytest.raises(SinkError, match=rf"in use by process {owner.pid} on ") as refused:
            await Journal.open(path)
        assert "\n" not in str(refused.value)
        owner.kill()
    await (await Journal.open(path)).close()
    assert f"process {os.getpid()} " in path.with_name("journal.sqlite.lock").read_text()


async def test_what_json_cannot_say_fails_its_own_caller_alone(journal: Journal) -> None:
    good, bad = sample(1), sample(2)
    bad.prompt.metadata["x"] = object()  # type: ignore[index]
    results = await asyncio.gather(
        journal.append(good), journal.append(bad), return_exceptions=True
    )
    assert results[0] == 1
    assert isinstance(results[1], TypeError)
    assert journal.pending == 1


async def test_what_was_paid_is_summed_also_over_a_file_of_the_first_version(path: Path) -> None:
    costs = [sum(c.cost_usd for c in sample(n).candidates) for n in range(3)]
    assert all(costs)
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as database:
        database.executescript(_MIGRATIONS[0])
        database.execute("PRAGMA user_version = 1")
        rows = [(f"id {n}", "de", "p", "t", 0.0, encode(sample(n))) for n in range(2)]
        database.executemany("INSERT INTO samples VALUES (NULL, ?, ?, ?, ?, ?, ?)", rows)
        database.commit()
    first = await Journal.open(path)
    assert first.cost_usd == pytest.approx(costs[0] + costs[1])
    await first.append(sample(2))
    await first.charge(costs[2])
    await first.close()
    second = await Journal.open(path)
    assert second.cost_usd == pytest.approx(sum(costs))
    assert second.pending == 3
    await second.close()


# What is durable before there is a sample


def answers(*texts: str) -> list[Candidate]:
    return [
        Candidate("ada", Completion(text), cost_usd=0.25, latency_seconds=1.5) for text in texts
    ]


async def test_a_completion_is_found_by_its_key_also_by_the_next_run(path: Path) -> None:
    journal = await Journal.open(path)
    assert await journal.kept(b"k" * 16) is None
    stored = journal.keep(b"k" * 16, answers("one", "two \ud800"))
    await journal.keep(b"o" * 16, answers("three"))
    assert stored.done()
    assert await journal.kept(b"k" * 16) == answers("one", "two \ud800")
    await journal.keep(b"k" * 16, answers("late"))
    await journal.close()
    again = await Journal.open(path)
    found = await asyncio.gather(*(again.kept(key) for key in (b"k" * 16, b"n" * 16, b"o" * 16)))
    assert found == [answers("one", "two \ud800"), None, answers("three")]
    await again.close()


async def test_who_is_wanted_together_is_looked_up_in_one_trip(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.gather(*(journal.keep(bytes([i]) * 16, answers(str(i))) for i in range(50)))
    assert await journal.kept(b"n" * 16) is None  # from then on it knows what it does not have
    trips = 0
    read = journal._database.read

    async def counted(work: Any) -> Any:
        nonlocal trips
        trips += 1
        return await read(work)

    monkeypatch.setattr(journal._database, "read", counted)
    found = await asyncio.gather(*(journal.kept(bytes([i]) * 16) for i in range(50)))
    assert found == [answers(str(i)) for i in range(50)]
    assert trips == 1


async def test_an_accepted_prompt_is_unanswered_until_its_sample_is_stored(path: Path) -> None:
    journal = await Journal.open(path)
    samples = [sample(number) for number in range(3)]
    for one in samples:
        journal.accept(one.sample_id, one.prompt)
    await journal.accept(samples[0].sample_id, samples[0].prompt)  # twice is once
    await journal.append(samples[1])
    await journal.close()
    again = await Journal.open(path)
    unanswered = await again.unanswered()
    assert {one.prompt_id for one in unanswered} == {samples[n].prompt.prompt_id for n in (0, 2)}
    assert samples[0].prompt in unanswered
    await again.close()


async def test_samples_are_numbered_in_the_order_in_which_their_callers_go_on(
    journal: Journal,
) -> None:
    order: list[int | None] = []

    async def append(number: int) -> None:
        order.append(await journal.append(sample(number)))

    async with asyncio.TaskGroup() as group:
        for number in range(300):
            group.create_task(append(number))
            if number % 40 == 0:
                await asyncio.sleep(0.003)
    assert order == list(range(1, 301))
    assert await journal.append(sample(5)) is None
    assert await journal.last() == 300
    behind = await journal.after(297, 2)
    assert [(number, one.sample_id) for number, one in behind] == [
        (298, sample(297).sample_id),
        (299, sample(298).sample_id),
    ]


async def test_a_sample_that_nobody_won_is_not_known(journal: Journal) -> None:
    won, lost = sample(1), sample(2, won=False)
    for one in (won, lost):
        await journal.append(one)
    assert await journal.known([won.sample_id, lost.sample_id, "none"]) == {won.sample_id}


async def test_facts_are_kept_and_replaced(path: Path) -> None:
    journal = await Journal.open(path)
    journal.note("inputs", "a")
    journal.note("config", "b")
    await journal.note("inputs", "c")
    await journal.close()
    again = await Journal.open(path)
    assert await again.facts() == {"inputs": "c", "config": "b"}
    await again.close()


async def test_what_is_written_after_the_end_says_so_and_hurts_nobody(journal: Journal) -> None:
    await journal.close()
    late = journal.charge(1.0)
    with pytest.raises(SinkError, match="is closed"):
        await late


# Power cuts


async def test_whatever_a_power_cut_leaves_of_the_newest_writes_opens(
    path: Path, tmp_path: Path
) -> None:
    journal = await Journal.open(path)
    await journal.append(sample(0))
    checkpoint = await pragma(journal, "wal_checkpoint(TRUNCATE)")
    assert checkpoint == 0
    for number in range(1, 40):
        journal.keep(bytes([number]) * 16, answers(str(number)))
        await journal.append(sample(number))
    whole, log = read(path), read(path.with_name(f"{path.name}-wal"))
    assert len(log) > 100_000
    found = []
    for share in (0.0, 0.001, 0.25, 0.5, 0.731, 0.999, 1.0):
        folder = tmp_path / f"cut at {share}"
        folder.mkdir()
        (folder / path.name).write_bytes(whole)
        cut = log[: int(share * len(log))]
        # what was not synced may also have become something else
        rest = bytes(reversed(log[len(cut) : len(cut) + 5000]))
        (folder / f"{path.name}-wal").write_bytes(cut + rest)
        again = await Journal.open(folder / path.name)
        stored = [one for _, one in await again.after(0, 1000)]
        assert stored == [sample(number) for number in range(len(stored))], "a beginning of it all"
        assert again.pending == len(stored)
        for number in range(1, len(stored)):
            assert await again.kept(bytes([number]) * 16) == answers(str(number))
        assert await again.append(sample(len(stored))) == len(stored) + 1
        await again.close()
        found.append(len(stored))
    await journal.close()
    assert found[0] == 1
    assert found == sorted(found)
    assert found[-1] == 40
