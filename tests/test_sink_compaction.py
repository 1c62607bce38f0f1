from __future__ import annotations

import os
import random
import signal
import threading
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sink
from arbitrage import config
from arbitrage.journal import Journal
from sink import compaction, schema
from sink.compaction import Piece, plan
from sink.log import Log
from tests.samples import ids, sample, start

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arbitrage.types import Sample

TARGET = 1_000
SIZES = st.lists(st.integers(1, 1_500), max_size=60)


def pieces(sizes: Sequence[int]) -> list[Piece]:
    return [Piece(n, n, size, Path(f"part-{n:05}")) for n, size in enumerate(sizes, start=1)]


def merged(files: Sequence[Piece], target: int = TARGET) -> list[Piece]:
    """The files after one round; what is merged takes what its parts took."""
    after = {piece.first: piece for piece in files}
    for group in plan(files, target):
        for piece in group:
            del after[piece.first]
        first, last = group[0].first, group[-1].last
        size = sum(piece.size for piece in group)
        after[first] = Piece(first, last, size, Path(f"part-{first}-{last}"))
    return sorted(after.values(), key=lambda piece: piece.first)


# Which files are merged


@given(SIZES)
def test_only_small_neighbours_are_merged_and_not_beyond_the_target(sizes: list[int]) -> None:
    files = pieces(sizes)
    for group in plan(files, TARGET):
        assert all(one.last + 1 == other.first for one, other in pairwise(group))
        assert len(group) > 1
        assert sum(piece.size for piece in group) <= TARGET
        assert all(2 * piece.size < TARGET for piece in group)


@given(SIZES)
def test_what_is_left_are_few_files(sizes: list[int]) -> None:
    files = pieces(sizes)
    for _ in range(10):
        files = merged(files)
    # between two files of half the target, one that found no small neighbour; at the end, sizes
    # that fall by half each
    assert len(files) <= 4 * sum(sizes) / TARGET + 12


def test_a_sample_is_copied_a_few_times_however_often_files_come() -> None:
    files: list[Piece] = []
    copied = 0
    for number in range(1, 2_001):
        files = [*files, Piece(number, number, 1, Path(str(number)))]
        copied += sum(piece.size for group in plan(files, TARGET) for piece in group)
        files = merged(files)
    assert copied / 2_000 < 12
    assert len(files) < 16


# What readers find


def made(
    count: int, languages: Sequence[str] = ("de",), *, seed: int = 0, text_bytes: int = 4
) -> list[Sample]:
    """Written a little out of the order of their making, some without a winner."""
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    return [
        replace(
            one := sample(
                number,
                language=languages[number % len(languages)],
                text=rng.randbytes(text_bytes).hex(),
                won=number % 7 != 0,
            ),
            created_at=one.created_at + timedelta(seconds=number + rng.uniform(-30.0, 30.0)),
        )
        for number in range(count)
    ]


async def store(
    out: Path,
    samples: Sequence[Sample],
    format_: str = "parquet",
    *,
    part_rows: int = 10,
    file_bytes: int = 128 << 20,
) -> None:
    settings = config.Sink(path=out, format=format_)  # type: ignore[arg-type]
    opened = await sink.open(settings, part_rows=part_rows, file_bytes=file_bytes)
    for one in samples:
        await opened.write(one)
    await opened.close()


def rows_of(path: Path) -> list[tuple[str, str]]:
    if path.suffix == ".jsonl":
        rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        return [(row["created_at"], row["sample_id"]) for row in rows]
    table = pq.ParquetFile(path).read(["created_at", "sample_id"]).to_pydict()
    times = [time.isoformat() for time in table["created_at"]]
    return list(zip(times, table["sample_id"], strict=True))


def found(out: Path) -> list[str]:
    """All sample ids in the files, as a reader who globs them finds them."""
    paths = [path for pattern in ("data/*/*", "unanswered/*/*") for path in out.glob(pattern)]
    parts = [path for path in paths if path.name.startswith("part-")]
    return sorted(name for path in parts for _, name in rows_of(path))


def inodes(folder: Path) -> dict[str, int]:
    """Which files lie in a folder, by name."""
    return {path.name: path.stat().st_ino for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("format_", ["jsonl", "parquet"])
async def test_small_files_become_one_in_the_order_of_the_samples_making(
    tmp_path: Path, format_: str
) -> None:
    samples = made(200, ("de", "fr"))
    await store(tmp_path, samples, format_)
    name = f"part-00001-00020.{format_}"
    for language in ("de", "fr"):
        assert list(inodes(tmp_path / "data" / language)) == [name]
        assert len(inodes(tmp_path / "unanswered" / language)) == 1
    rows = rows_of(tmp_path / "data" / "de" / name)
    assert rows == sorted(rows)
    assert found(tmp_path) == ids(samples)


@pytest.mark.parametrize("format_", ["jsonl", "parquet"])
async def test_a_run_that_goes_on_merges_what_is_new_and_leaves_what_is_full(
    tmp_path: Path, format_: str
) -> None:
    samples = made(300, text_bytes=2_000)
    await store(tmp_path, samples[:150], format_, file_bytes=400_000)
    folder = tmp_path / "data" / "de"
    before = inodes(folder)
    full = {name for name in before if (folder / name).stat().st_size >= 200_000}
    assert 1 <= len(full) <= len(before) < 10
    await store(tmp_path, samples[150:], format_, file_bytes=400_000)
    after = inodes(folder)
    assert {name: before[name] for name in full}.items() <= after.items()
    assert len(after) < 40
    assert found(tmp_path) == ids(samples)
    expected = sorted(samples, key=lambda one: (one.created_at, one.sample_id))
    assert [one.sample_id for one in Log([tmp_path])] == [one.sample_id for one in expected]


async def test_row_groups_are_of_a_size_that_readers_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sink.parquet._GROUP_BYTES", 30_000)
    monkeypatch.setattr("sink.parquet._SETTLED_BYTES", 60_000)
    samples = made(150, text_bytes=1_000)
    await store(tmp_path, samples)
    (path,) = (tmp_path / "data" / "de").iterdir()
    metadata = pq.ParquetFile(path).metadata
    groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
    assert len(groups) > 5
    assert max(group.total_byte_size for group in groups) < 60_000
    rows = rows_of(path)
    assert rows == sorted(rows)
    assert found(tmp_path) == ids(samples)


async def test_files_of_an_earlier_version_are_merged_with_new_ones(tmp_path: Path) -> None:
    """They are in the order of arrival, and without the column `reasoning`."""
    samples = made(30)
    await store(tmp_path, samples[:10], file_bytes=0)
    path = tmp_path / "data" / "de" / "part-00001.parquet"
    rows = pq.ParquetFile(path).read().to_pylist()
    candidate = schema.SCHEMA.field("candidates").type.value_type
    older = pa.list_(pa.struct([field for field in candidate if field.name != "reasoning"]))
    columns = [
        field.with_type(older) if field.name == "candidates" else field for field in schema.SCHEMA
    ]
    for row in rows:
        for fields in row["candidates"]:
            del fields["reasoning"]
    pq.write_table(pa.Table.from_pylist(rows[::-1], schema=pa.schema(columns)), path)
    await store(tmp_path, samples[10:])
    (whole,) = (tmp_path / "data" / "de").iterdir()
    assert whole.name == "part-00001-00003.parquet"
    assert rows_of(whole) == sorted(rows_of(whole))
    assert found(tmp_path) == ids(samples)
    assert sorted(Log([tmp_path]), key=lambda one: one.sample_id) == sorted(
        samples, key=lambda one: one.sample_id
    )


async def test_a_part_that_may_be_written_again_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = made(30)
    opened = await sink.open(config.Sink(path=tmp_path), part_rows=10)
    for one in samples:
        await opened.write(one)
    marked = Journal.mark_published

    async def mark_but_the_last(self: Journal, part: int) -> None:
        if part < 3:
            await marked(self, part)

    monkeypatch.setattr(Journal, "mark_published", mark_but_the_last)
    await opened.close()
    names = {path.name for path in (tmp_path / "data" / "de").iterdir()}
    assert names == {"part-00001-00002.parquet", "part-00003.parquet"}
    monkeypatch.undo()
    await (await sink.open(config.Sink(path=tmp_path))).close()
    assert found(tmp_path) == ids(samples)


@pytest.mark.parametrize("exchanging", [True, False])
async def test_whoever_reads_meanwhile_sees_each_sample_once_or_is_told_to_look_again(
    tmp_path: Path, *, exchanging: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [one for one in made(200) if one.winner]
    await store(tmp_path, samples, file_bytes=0)
    expected = found(tmp_path)
    assert len(inodes(tmp_path / "data" / "de")) > 15
    if not exchanging:
        monkeypatch.setattr(compaction, "_swap", lambda *_: False)
    seen: list[list[str]] = []
    done = threading.Event()

    def read() -> Iterator[list[str]]:
        while not done.is_set():
            try:
                yield found(tmp_path)
            except FileNotFoundError:
                continue

    reader = threading.Thread(target=lambda: seen.extend(read()))
    reader.start()
    for size in (2_000, 40_000, 80_000, 160_000, 128 << 20):
        await store(tmp_path, [], file_bytes=size)
    done.set()
    reader.join()
    assert seen
    if exchanging:
        assert all(names == expected for names in seen)
    assert all(len(names) == len(set(names)) for names in seen)
    assert found(tmp_path) == expected
    assert len(list((tmp_path / "data" / "de").iterdir())) == 1


async def test_where_nothing_can_be_linked_files_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    samples = [*made(20), *made(40)[20:]]
    await store(tmp_path, samples[:20])
    kept = tmp_path / "data" / "de" / "notes.txt"
    kept.write_text("mine")

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    await store(tmp_path, samples[20:])
    assert "small files stay unmerged: Operation not permitted" in caplog.text
    assert found(tmp_path) == ids(samples)
    monkeypatch.undo()
    await store(tmp_path, [])
    assert len(list(kept.parent.glob("part-*"))) == 1
    assert kept.read_text() == "mine"
    assert found(tmp_path) == ids(samples)


# A kill at any moment

KILL = """
import asyncio, os, pathlib, signal, sys
import sink
from arbitrage import config
from sink import compaction
from sink.compaction import Compaction

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def after(original):
    def both(*arguments):
        original(*arguments)
        die()
    return both

rename, merge, link = pathlib.Path.rename, sys.argv[2], os.link
match sys.argv[2]:
    case "while a file is merged":
        def half(self, sources, file):
            file.write(sources[0].read_bytes()[:1_000])
            file.flush()
            die()
        from sink.jsonl import Jsonl
        from sink.parquet import Parquet
        Jsonl.merge = Parquet.merge = half
    case "before the exchange":
        compaction.exchange = die
    case "after the exchange":
        compaction.exchange = after(compaction.exchange)
    case "while the old is removed":
        compaction.shutil.rmtree = lambda path: (
            next(path.glob("*/*/*")).unlink(), die()) if path.glob("*/*/*") else None
    case "between two renames":
        compaction._swap = lambda *_: False
        pathlib.Path.rename = after(rename)
    case "after two renames":
        compaction._swap = lambda *_: False
        compaction.exchange = after(compaction.exchange)

async def main():
    opened = await sink.open(config.Sink(path=pathlib.Path(sys.argv[1]), format=sys.argv[3]))
    await opened.close()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("moment", "format_"),
    [
        ("while a file is merged", "parquet"),
        ("while a file is merged", "jsonl"),
        ("before the exchange", "parquet"),
        ("after the exchange", "parquet"),
        ("while the old is removed", "parquet"),
        ("between two renames", "parquet"),
        ("after two renames", "parquet"),
    ],
)
async def test_a_kill_while_merging_leaves_every_sample_once(
    tmp_path: Path, moment: str, format_: str
) -> None:
    out = tmp_path / "out"
    samples = [one for one in made(60, ("de", "fr")) if one.winner]
    await store(out, samples, format_, part_rows=12, file_bytes=0)
    with start(KILL, out, moment, format_) as process:
        pass
    assert process.returncode == -signal.SIGKILL
    if moment != "between two renames":
        assert found(out) == ids(samples), "a reader does not notice"
    await store(out, [sample(1_000)], format_)
    assert found(out) == ids([*samples, sample(1_000)])
    assert [path for path in out.rglob("*") if path.name.startswith(".")] == []
    assert {path.name for path in (out / "data" / "fr").iterdir()} == {
        f"part-00001-00005.{format_}"
    }
