"""What every sink owes the engine, whatever its format."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import duckdb
import pytest
from deltalake import DeltaTable

import sink
from arbitrage import config
from arbitrage.errors import SinkError
from tests.samples import ids, sample, start

if TYPE_CHECKING:
    from pathlib import Path

WRITE_UNTIL_KILLED = """
import asyncio, sys
from pathlib import Path
import sink
from arbitrage import config
from tests.samples import sample

async def main():
    settings = config.Sink(path=Path(sys.argv[1]), format=sys.argv[2])
    samples = map(sample, range(1_000_000))
    async with asyncio.TaskGroup() as group:
        opened = await sink.open(settings, part_rows=50)
        async def write():
            for one in samples:
                await opened.write(one)
                print(one.sample_id, flush=True)
        for _ in range(16):
            group.create_task(write())

asyncio.run(main())
"""


@pytest.fixture(params=sorted(sink.FORMATS))
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> config.Sink:
    return config.Sink(path=tmp_path / "out", format=request.param)


def stored(settings: config.Sink, folder: str = "data") -> list[str]:
    """Sample ids in one of the two places of a run, sorted, so that one stored twice shows."""
    place, name = settings.path / folder, str(settings.format)
    if name == "delta":
        if not place.is_dir() or not DeltaTable.is_deltatable(str(place)):
            return []
        found = DeltaTable(place).to_pyarrow_table(columns=["sample_id"])
        return sorted(found["sample_id"].to_pylist())
    if not any(place.glob("*/part-*")):
        return []
    query = f"SELECT sample_id FROM '{place}/**/*.{name}' ORDER BY 1"  # noqa: S608
    return [cast("str", row[0]) for row in duckdb.execute(query).fetchall()]


@pytest.mark.parametrize("acknowledged", [1, 40, 400])
async def test_what_was_acknowledged_survives_a_kill_exactly_once(
    settings: config.Sink, acknowledged: int
) -> None:
    with start(WRITE_UNTIL_KILLED, settings.path, settings.format) as process:
        assert process.stdout
        told = [process.stdout.readline().strip() for _ in range(acknowledged)]
        process.kill()
        told += process.stdout.read().split()
    reopened = await sink.open(settings)
    await reopened.close()
    found = stored(settings)
    assert set(told) <= set(found)
    assert len(found) == len(set(found))


async def test_writing_twice_stores_one(settings: config.Sink) -> None:
    first = await sink.open(settings)
    numbers = await asyncio.gather(*(first.write(sample(1)) for _ in range(10)))
    assert sorted(numbers, key=str) == [1] + [None] * 9
    assert await first.write(sample(1)) is None
    assert first.pending == 1
    await first.close()
    again = await sink.open(settings)
    assert await again.write(sample(1)) is None
    assert await again.write(sample(2)) == 2
    await again.close()
    assert stored(settings) == ids([sample(1), sample(2)])


async def test_writers_come_back_in_the_order_of_their_numbers(settings: config.Sink) -> None:
    opened = await sink.open(settings, part_rows=10)
    back: list[int | None] = []

    async def write(number: int) -> None:
        stored = await opened.write(sample(number))
        back.append(stored)  # with nothing awaited in between

    await asyncio.gather(*(write(number) for number in range(100)))
    await opened.close()
    assert back == list(range(1, 101))


async def test_close_publishes_what_is_pending(settings: config.Sink) -> None:
    opened = await sink.open(settings)
    await opened.write(sample(1))
    assert (opened.pending, opened.published) == (1, 0)
    assert stored(settings) == []
    await opened.close()
    await opened.close()
    assert (opened.pending, opened.published) == (0, 1)
    assert stored(settings) == ids([sample(1)])


async def test_a_run_without_samples_leaves_no_dataset(settings: config.Sink) -> None:
    await (await sink.open(settings)).close()
    assert [path.name for path in settings.path.iterdir() if "journal" not in path.name] == []


async def test_concurrent_writes_fill_parts_while_they_go_on(settings: config.Sink) -> None:
    samples = [sample(n, language=("de", "ar", "zh-Hant")[n % 3]) for n in range(300)]
    opened = await sink.open(settings, part_rows=20)
    await asyncio.gather(*map(opened.write, samples))
    await opened.close()
    assert opened.published == 300
    assert stored(settings) == ids(samples)


async def test_a_part_is_published_when_its_bytes_are_many(settings: config.Sink) -> None:
    opened = await sink.open(settings, part_bytes=1)
    for number in range(8):
        await opened.write(sample(number))
    assert opened.published >= 1
    await opened.close()
    assert stored(settings) == ids([sample(number) for number in range(8)])


async def test_samples_without_a_winner_lie_apart(settings: config.Sink) -> None:
    opened = await sink.open(settings)
    await opened.write(sample(1))
    await opened.write(sample(2, won=False))
    await opened.close()
    assert stored(settings) == ids([sample(1)])
    assert stored(settings, "unanswered") == ids([sample(2)])


async def test_a_prompt_that_nobody_won_can_be_won_later(settings: config.Sink) -> None:
    opened = await sink.open(settings)
    for one in (sample(1, won=False), sample(1, won=False), sample(1), sample(1)):
        await opened.write(one)
    await opened.close()
    assert stored(settings) == ids([sample(1)])
    assert stored(settings, "unanswered") == ids([sample(1)])


async def test_an_unwritable_folder_is_refused_in_one_line(
    settings: config.Sink, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(SinkError, match=r"out.*cannot be.*choose another") as refused:
        await sink.open(settings)
    assert "\n" not in str(refused.value)


async def test_a_folder_of_another_origin_is_not_overwritten(settings: config.Sink) -> None:
    settings.path.mkdir()
    (settings.path / "README.md").write_text("mine")
    with pytest.raises(SinkError, match=r"holds 'README.md' but no journal.sqlite"):
        await sink.open(settings)
    assert [path.name for path in settings.path.iterdir()] == ["README.md"]


async def test_a_folder_in_use_is_refused(settings: config.Sink) -> None:
    opened = await sink.open(settings)
    with pytest.raises(SinkError, match=r"is in use by process \d+"):
        await sink.open(settings)
    await opened.close()


async def test_what_cannot_be_published_is_kept_and_published_later(
    settings: config.Sink, caplog: pytest.LogCaptureFixture
) -> None:
    opened = await sink.open(settings, part_rows=2)
    obstacle = settings.path / "data"
    obstacle.write_text("in the way")
    samples = [sample(number) for number in range(11)]
    for one in samples:
        await opened.write(one)
    with pytest.raises(SinkError, match=r"the journal kept every sample") as failed:
        await opened.close()
    assert "\n" not in str(failed.value)
    assert "samples wait to be published" in caplog.text
    assert opened.pending == 11
    with pytest.raises(SinkError):
        await sink.open(settings)
    obstacle.unlink()
    again = await sink.open(settings)
    await again.close()
    assert stored(settings) == ids(samples)


async def test_a_closed_sink_takes_nothing(settings: config.Sink) -> None:
    opened = await sink.open(settings)
    await opened.close()
    with pytest.raises(SinkError, match="is closed"):
        await opened.write(sample(1))


async def test_a_writer_that_gives_up_spoils_nothing(settings: config.Sink) -> None:
    opened = await sink.open(settings)
    writers = [asyncio.create_task(opened.write(sample(number))) for number in range(4)]
    await asyncio.sleep(0)
    writers[0].cancel()
    await asyncio.gather(*writers[1:])
    await opened.close()
    assert set(ids([sample(1), sample(2), sample(3)])) <= set(stored(settings))
