"""What a running policy has learned, kept in a file."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from arbitrage.errors import SnapshotError
from arbitrage.events import Accepted, Stored
from router.snapshots import keeper, snapshot
from router.snapshots.keeper import Keeper
from router.snapshots.snapshot import Snapshot
from tests.policies import fake
from tests.samples import sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Disk:
    """Stands in for `snapshot.save`: counts who writes, and can be slow or broken."""

    def __init__(self) -> None:
        self.saved: list[int] = []
        self.writing = self.most_writing = 0
        self.free = threading.Event()
        self.free.set()
        self.broken = False

    def save(self, path: Path, taken: Snapshot) -> None:
        assert threading.current_thread() is not threading.main_thread()
        self.writing += 1
        self.most_writing = max(self.most_writing, self.writing)
        self.free.wait(30)
        self.writing -= 1
        if self.broken:
            raise SnapshotError(f"{path}: cannot be written: it is broken")
        self.saved.append(taken.version)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(snapshot, "save", disk.save)
    return disk


def learn(policy: Any, keeping: Keeper, updates: int = 1) -> None:
    for _ in range(updates):
        policy.version += 1
        keeping.observe(Stored(sample(), 1))


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 - what it waits for is another thread's
            await asyncio.sleep(0.001)


async def test_what_was_learned_is_saved_when_it_is_closed(tmp_path: Path) -> None:
    policy = fake(state={"experience": {"x": 1.5}})
    keeping = Keeper(tmp_path / keeper.FILE, policy)
    learn(policy, keeping, 3)
    assert not (tmp_path / keeper.FILE).exists()
    await keeping.close()
    await keeping.close()
    again = fake()
    assert await keeper.restore(tmp_path / keeper.FILE, again)
    assert again.held == {"experience": {"x": 1.5}, "version": 3}
    assert policy.threads == ["MainThread"]


async def test_nothing_learned_is_nothing_saved(tmp_path: Path) -> None:
    policy = fake()
    policy.version = 7  # a warm start
    keeping = Keeper(tmp_path / keeper.FILE, policy, seconds=0.0)
    keeping.observe(Stored(sample(), 1))
    await keeping.close()
    assert not (tmp_path / keeper.FILE).exists()
    assert not await keeper.restore(tmp_path / keeper.FILE, fake())


async def test_it_saves_beside_the_work_and_never_twice_at_a_time(
    tmp_path: Path, disk: Disk
) -> None:
    policy = fake()
    keeping = Keeper(tmp_path / keeper.FILE, policy, seconds=0.0)
    disk.free.clear()
    learn(policy, keeping)
    await until(lambda: disk.writing == 1)
    learn(policy, keeping, 5)
    await asyncio.sleep(0.02)
    assert disk.writing == 1
    disk.free.set()
    await until(lambda: disk.saved == [1, 6])  # without another prompt
    disk.free.clear()
    learn(policy, keeping)
    await until(lambda: disk.writing == 1)
    learn(policy, keeping)
    closing = asyncio.create_task(keeping.close())
    await asyncio.sleep(0.02)
    disk.free.set()
    await closing
    assert disk.saved == [1, 6, 7, 8]
    assert disk.most_writing == 1


async def test_many_prompts_are_saved_once(tmp_path: Path, disk: Disk) -> None:
    policy = fake()
    keeping = Keeper(tmp_path / keeper.FILE, policy, seconds=0.0)
    learn(policy, keeping, 20)
    await until(lambda: bool(disk.saved))
    assert disk.saved == [20]
    await keeping.close()
    assert disk.saved == [20]


async def test_a_failure_is_logged_and_tried_again(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    policy = fake()
    keeping = Keeper(tmp_path / keeper.FILE, policy, seconds=0.0)
    disk.broken = True
    learn(policy, keeping)
    await until(lambda: bool(caplog.records))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "is not saved yet" in record.getMessage()
    assert "it is broken" in record.getMessage()
    disk.broken = False
    learn(policy, keeping)
    await until(lambda: disk.saved == [2])
    await keeping.close()


async def test_a_failure_at_the_end_is_raised(tmp_path: Path, disk: Disk) -> None:
    policy = fake()
    keeping = Keeper(tmp_path / keeper.FILE, policy)
    learn(policy, keeping)
    disk.broken = True
    with pytest.raises(SnapshotError, match="it is broken"):
        await keeping.close()


async def test_only_stored_samples_count(tmp_path: Path, disk: Disk) -> None:
    policy = fake()
    keeping = Keeper(tmp_path / keeper.FILE, policy, seconds=0.0)
    policy.version = 1
    keeping.observe(Accepted(sample().prompt))
    await asyncio.sleep(0.02)
    assert disk.saved == []
    await keeping.close()
    assert disk.saved == [1]


async def test_jobs_have_numbers_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / keeper.FILE
    policy = fake()
    keeping = Keeper(path, policy, jobs={"old": 7, "gone": 3})
    learn(policy, keeping)
    policy.version += 1
    keeping.of_job("new").observe(Stored(sample(), 40))
    keeping.of_job("old").observe(Accepted(sample().prompt))
    keeping.keep_jobs({"old", "new"})
    assert [keeping.last(job) for job in (None, "old", "new", "gone")] == [1, 7, 40, 0]
    await keeping.close()
    again = await keeper.restore(path, fake())
    assert again
    assert (again.learned, dict(again.jobs)) == (1, {"old": 7, "new": 40})


def test_a_file_of_before_there_were_jobs_is_read() -> None:
    taken = Snapshot("fake", 2, {}, learned=5)
    assert b"jobs" not in taken.encode()
    assert Snapshot.decode(taken.encode()).jobs == {}


async def test_a_damaged_file_stops_the_start_and_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / keeper.FILE
    path.write_bytes(Snapshot("thompson", 12, {}).encode()[:-10])
    with pytest.raises(SnapshotError) as caught:
        await keeper.restore(path, fake())
    message = str(caught.value)
    assert message.startswith(f"{path}: is damaged")
    assert message.endswith("arbitrage policy reset -c CONFIG")
    assert "\n" not in message
