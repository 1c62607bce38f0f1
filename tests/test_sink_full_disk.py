from __future__ import annotations

import asyncio
import errno
import logging
import os
import sqlite3
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import sink
from arbitrage import config
from arbitrage.errors import SinkError
from sink import room
from sink.journaled import JournaledSink
from sink.log import Log
from tests.samples import ids, sample

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOM_BYTES = 6 << 20


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_FIRST_SECONDS", 0.01)
    monkeypatch.setattr(room, "_MOST_SECONDS", 0.05)


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    size = f"size={ROOM_BYTES}"
    try:
        mount("-t", "tmpfs", "-o", size, "none", str(folder))
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("may not mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, *, but: int = 0) -> Path:
    """Takes all room but some bytes."""
    ballast = disk / "ballast"
    free = os.statvfs(disk)
    with ballast.open("wb") as file:
        file.write(bytes(max(free.f_bavail * free.f_frsize - but, 0)))
    return ballast


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def told(caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(30):
        while not complaints(caplog):  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("format_", sorted(sink.FORMATS))
async def test_a_full_disk_is_waited_for_and_costs_no_sample(
    disk: Path, format_: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings = config.Sink(path=disk / "out", format=format_)  # type: ignore[arg-type]
    opened = await sink.open(settings, part_rows=20)
    await opened.write(sample(1_000))
    ballast = fill(disk)
    samples = [sample(number, text=os.urandom(4_000).hex()) for number in range(60)]
    writers = [asyncio.create_task(opened.write(one)) for one in samples]
    await told(caplog)
    await asyncio.sleep(0.2)
    assert not all(writer.done() for writer in writers)
    (line,) = complaints(caplog)
    assert line.startswith(f"{disk / 'out'}: the disk is full, with 0 KiB free where about ")
    assert "\n" not in line
    ballast.unlink()
    await asyncio.gather(*writers)
    await opened.close()
    assert ids(list(Log([disk / "out"]))) == ids([*samples, sample(1_000)])
    assert len(complaints(caplog)) == 1
    assert "is not waited for any more" in caplog.text


@pytest.mark.parametrize("format_", sorted(sink.FORMATS))
async def test_publishing_waits_for_room_and_close_with_it(
    disk: Path, format_: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config.Sink(path=disk / "out", format=format_)  # type: ignore[arg-type]
    opened = await sink.open(settings)
    samples = [sample(number, text=os.urandom(8_000).hex()) for number in range(60)]
    for one in samples:
        await opened.write(one)
    ballast = fill(disk, but=100_000)
    closing = asyncio.create_task(opened.close())
    await told(caplog)
    assert not closing.done()
    assert opened.pending == 60
    ballast.unlink()
    await closing
    assert len(complaints(caplog)) == 1
    assert ids(list(Log([disk / "out"]))) == ids(samples)


async def test_a_close_that_is_given_up_leaves_what_waits_to_the_next_run(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config.Sink(path=disk / "out")
    opened = await sink.open(settings)
    for number in range(60):
        await opened.write(sample(number, text=os.urandom(8_000).hex()))
    ballast = fill(disk, but=100_000)
    closing = asyncio.create_task(opened._close())
    await told(caplog)
    closing.cancel()
    await asyncio.wait({closing})
    with pytest.raises(SinkError, match=r"No space left on device|disk is full"):
        await sink.open(settings)
    ballast.unlink()
    await (await sink.open(settings)).close()
    assert len(Log([disk / "out"])) == 60


async def test_files_are_not_merged_on_a_full_disk_and_stay_as_they_were(
    disk: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config.Sink(path=disk / "out")
    samples = [sample(number, text=os.urandom(8_000).hex()) for number in range(60)]
    opened = await sink.open(settings, part_rows=20)
    compact = JournaledSink._compact

    async def compact_when_full(self: JournaledSink) -> None:
        ballast = fill(disk, but=100_000)
        await compact(self)
        ballast.unlink()

    monkeypatch.setattr(JournaledSink, "_compact", compact_when_full)
    for one in samples:
        await opened.write(one)
    await opened.close()
    (line,) = complaints(caplog)
    assert "small files stay unmerged: No space left on device" in line
    assert ids(list(Log([disk / "out"]))) == ids(samples)
    assert len(list((disk / "out" / "data" / "de").iterdir())) > 1
    monkeypatch.undo()
    await (await sink.open(settings)).close()
    assert ids(list(Log([disk / "out"]))) == ids(samples)
    assert [path.name for path in (disk / "out" / "data" / "de").iterdir()] == [
        "part-00001-00003.parquet"
    ]
    assert not (disk / "out" / ".merging").exists()


async def test_a_read_only_folder_is_refused_in_one_line(disk: Path) -> None:
    (disk / "out").mkdir()
    await asyncio.to_thread(mount, "-o", "remount,ro", str(disk))
    with pytest.raises(SinkError, match=r"out.*cannot be.*choose another output folder") as refused:
        await sink.open(config.Sink(path=disk / "out"))
    assert "\n" not in str(refused.value)


def test_what_a_full_disk_looks_like() -> None:
    def caused(cause: BaseException) -> SinkError:
        error = SinkError("cannot be written")
        error.__cause__ = cause
        return error

    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    assert room.full(caused(full))
    assert room.full(caused(OSError(errno.ENOSPC, "No space left on device")))
    assert room.full(caused(OSError(errno.EDQUOT, "Disk quota exceeded")))
    assert room.full(caused(ValueError("Generic error: No space left (os error 28)")))
    assert not room.full(caused(OSError(errno.EROFS, "Read-only file system")))
    assert not room.full(caused(ValueError("Generic error: (os error 281)")))
    assert not room.full(SinkError("is closed"))


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_a_run_that_could_not_begin_begins_when_there_is_room(disk: Path) -> None:
    settings = config.Sink(path=disk / "run")
    settings.path.mkdir()
    before = open_files()
    ballast = fill(disk)
    with pytest.raises(SinkError):
        await sink.open(settings)
    assert open_files() == before
    ballast.unlink()
    await (await sink.open(settings)).close()
