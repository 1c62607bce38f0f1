from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sink
from arbitrage import config
from arbitrage.errors import SinkError
from sink import schema
from sink.log import Log
from tests.samples import ids, sample, start

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from arbitrage.types import Sample

deltalake = pytest.importorskip("deltalake")

LANGUAGES = ("de", "fr", "ko")
EXACT = [
    "sample_id",
    "language",
    "completion",
    "created_at",
    "candidates",
    "decision",
    "messages",
    "metadata",
]


async def store(
    out: Path,
    samples: Sequence[Sample],
    *,
    part_rows: int = 10,
    table: str | None = None,
    **options: Any,
) -> None:
    settings = config.Sink(path=out, format="delta", table=table)
    opened = await sink.open(settings, part_rows=part_rows, **options)
    for one in samples:
        await opened.write(one)
    await opened.close()


def made(count: int, first: int = 0) -> list[Sample]:
    numbers = range(first, first + count)
    return [sample(number, language=LANGUAGES[number % 3]) for number in numbers]


def rows_of(place: Path | str, name: str = "data") -> list[str]:
    if not deltalake.DeltaTable.is_deltatable(f"{place}/{name}"):
        return []
    table = deltalake.DeltaTable(f"{place}/{name}").to_pyarrow_table(columns=["sample_id"])
    return sorted(table["sample_id"].to_pylist())


def files_of(place: Path) -> set[str]:
    table = place / "data"
    return {str(path.relative_to(table)) for path in table.rglob("*.parquet")}


async def test_a_table_has_the_columns_of_the_contract_and_a_partition_a_language(
    tmp_path: Path,
) -> None:
    samples = [*made(7), sample(50, won=False)]
    await store(tmp_path, samples)
    answered, apart = (deltalake.DeltaTable(tmp_path / name) for name in ("data", "unanswered"))
    assert pa.schema(answered.schema()).equals(schema.SCHEMA)
    assert answered.metadata().partition_columns == ["language"]
    assert {part["language"] for part in answered.partitions()} == set(LANGUAGES)
    found = answered.to_pyarrow_table().select(EXACT).sort_by("sample_id").to_pylist()
    expected = schema.table(samples[:-1]).select(EXACT).sort_by("sample_id").to_pylist()
    assert found == expected
    assert apart.to_pyarrow_table()["sample_id"].to_pylist() == [samples[-1].sample_id]
    (file, *_) = files_of(tmp_path)
    assert pq.ParquetFile(tmp_path / "data" / file).metadata.row_group(0).column(0).compression == (
        "ZSTD"
    )


async def test_polars_takes_the_table_as_it_is(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    samples = made(9)
    await store(tmp_path, samples)
    frame = polars.scan_delta(str(tmp_path / "data")).filter(polars.col("language") == "fr")
    names = frame.select("sample_id").collect()["sample_id"].to_list()
    assert sorted(names) == ids([one for one in samples if one.prompt.language == "fr"])


async def test_the_same_part_written_twice_is_there_once(tmp_path: Path) -> None:
    from sink.delta import Delta  # noqa: PLC0415 - where deltalake is
    from sink.layout import Layout  # noqa: PLC0415

    samples = [*made(9), sample(50, won=False)]
    Delta(Layout(tmp_path), 1 << 20).write(1, samples)
    version = deltalake.DeltaTable(tmp_path / "data").version()
    for _ in range(2):
        Delta(Layout(tmp_path), 1 << 20).write(1, samples)
    assert deltalake.DeltaTable(tmp_path / "data").version() == version
    assert rows_of(tmp_path) == ids(samples[:-1])
    assert rows_of(tmp_path, "unanswered") == ids(samples[-1:])
    Delta(Layout(tmp_path), 1 << 20).write(2, made(3, first=100))
    assert rows_of(tmp_path) == ids([*samples[:-1], *made(3, first=100)])


WRITE = """
import asyncio, pathlib, sys
import sink
from arbitrage import config
from tests.test_sink_delta import made

async def main():
    out, table, first, parts = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    settings = config.Sink(path=pathlib.Path(out), format="delta", table=table)
    opened = await sink.open(settings, part_rows=3)
    print("ready", flush=True)
    sys.stdin.readline()
    for one in made(3 * parts, first=first):
        await opened.write(one)
    await opened.close()

asyncio.run(main())
"""


async def test_processes_that_write_to_one_table_at_once_lose_nothing(tmp_path: Path) -> None:
    place, parts = tmp_path / "lake", 10
    firsts = [0, 1_000, 2_000]
    writers = [
        start(WRITE, tmp_path / f"out-{first}", place, str(first), str(parts)) for first in firsts
    ]
    for writer in writers:
        assert writer.stdout
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    samples = [one for first in firsts for one in made(3 * parts, first=first)]
    assert rows_of(place) == ids(samples)
    roots = [tmp_path / f"out-{first}" for first in firsts]
    assert ids(list(Log(roots))) == ids(samples), "a table that runs share is read once"
    assert sorted(path.name for path in roots[0].iterdir() if "journal" not in path.name) == [
        "README.md",
        "table.json",
    ]


KILL = """
import asyncio, os, pathlib, signal, sys
import sink
from arbitrage import config
from arbitrage.journal import Journal
from sink.table import Table
from tests.test_sink_delta import made, deltalake

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def on_call(count, original):
    calls = []
    def counted(*arguments, **options):
        calls.append(arguments)
        return die() if len(calls) == count else original(*arguments, **options)
    return counted

match sys.argv[2]:
    case "between two files":
        Table._put = on_call(5, Table._put)
    case "before the commit":
        Table._sync = lambda *_: None
        import sink.table
        class Dying(deltalake.DeltaTable):
            def create_write_transaction(self, *arguments, **options):
                if self.version() == 1:
                    die()
                super().create_write_transaction(*arguments, **options)
        sink.table.DeltaTable = Dying
    case "after the commit":
        Table._sync = on_call(3, Table._sync)
    case "before the mark":
        Journal.mark_published = on_call(2, Journal.mark_published)
    case "after merging":
        Table._sync = on_call(4, Table._sync)

async def main():
    settings = config.Sink(path=pathlib.Path(sys.argv[1]), format="delta")
    opened = await sink.open(settings, part_rows=9)
    for one in made(18):
        await opened.write(one)
    await opened.close()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("moment", "visible"),
    [
        ("between two files", 9),
        ("before the commit", 9),
        ("after the commit", 18),
        ("before the mark", 18),
        ("after merging", 18),
    ],
)
async def test_a_kill_while_committing_leaves_no_part_of_a_part_and_no_orphans(
    tmp_path: Path, moment: str, visible: int
) -> None:
    with start(KILL, tmp_path, moment) as process:
        pass
    assert process.returncode == -signal.SIGKILL
    assert rows_of(tmp_path) == ids(made(visible))
    await store(tmp_path, [sample(1_000)])
    assert rows_of(tmp_path) == ids([*made(18), sample(1_000)])
    written = {path for path in files_of(tmp_path) if "-c000." not in path}
    known = set()
    for log in (tmp_path / "data" / "_delta_log").glob("*.json"):
        actions = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
        known |= {action["add"]["path"] for action in actions if "add" in action}
    assert written <= known, "what the killed try had left was overwritten"


async def test_small_files_are_merged_and_orphans_vacuumed_after_a_week(tmp_path: Path) -> None:
    await store(tmp_path, made(60))
    table = deltalake.DeltaTable(tmp_path / "data")
    assert len(table.file_uris()) == len(LANGUAGES)
    orphan = tmp_path / "data" / "language=de" / "part-of-a-run-that-never-came-back.parquet"
    fresh = orphan.with_name("part-of-a-run-under-way.parquet")
    for path in (orphan, fresh):
        path.write_bytes(b"PAR1")
    week = 8 * 24 * 3600
    os.utime(orphan, (orphan.stat().st_atime - week, orphan.stat().st_mtime - week))
    await store(tmp_path, made(30, first=100))
    assert rows_of(tmp_path) == ids([*made(60), *made(30, first=100)])
    assert not orphan.exists()
    assert fresh.exists()


@pytest.mark.parametrize("step", ["_put", "_commit"])
async def test_a_merge_that_somebody_elses_optimize_overtakes_changes_nothing(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sink.table import Table  # noqa: PLC0415 - where deltalake is

    await store(tmp_path, made(30), file_bytes=0)
    original = getattr(Table, step)

    def overtaken(self: Table, *arguments: Any, **options: Any) -> Any:
        deltalake.DeltaTable(self.uri).optimize.compact()
        return original(self, *arguments, **options)

    monkeypatch.setattr(Table, step, overtaken)
    await store(tmp_path, [])
    assert rows_of(tmp_path) == ids(made(30))


async def test_statistics_let_readers_skip_files(tmp_path: Path) -> None:
    late = replace(sample(9), created_at=sample(9).created_at.replace(year=2030))
    await store(tmp_path, [sample(1), sample(2), late], part_rows=2, file_bytes=0)
    adds = pa.table(deltalake.DeltaTable(tmp_path / "data").get_add_actions(flatten=True))
    told = adds.select(["num_records", "min.created_at", "max.reward", "null_count.reward"])
    assert sorted(told.to_pylist(), key=lambda row: row["min.created_at"]) == [
        {
            "num_records": 2,
            "min.created_at": sample(1).created_at,
            "max.reward": 0.502,
            "null_count.reward": 0,
        },
        {
            "num_records": 1,
            "min.created_at": late.created_at,
            "max.reward": 0.509,
            "null_count.reward": 0,
        },
    ]


@pytest.mark.parametrize(
    ("columns", "partition", "reason"),
    [
        (schema.SCHEMA.remove(1), "language", "'prompt_id' is missing, not string"),
        (schema.SCHEMA.append(pa.field("more", pa.int64())), "language", "a column 'more'"),
        (schema.SCHEMA.set(7, pa.field("reward", pa.string())), "language", "is string, not doub"),
        (schema.SCHEMA, "teacher", "partitioned by \\['teacher'\\]"),
    ],
)
async def test_a_table_of_another_shape_is_refused_at_once(
    tmp_path: Path, columns: Any, partition: str, reason: str
) -> None:
    place = tmp_path / "lake"
    deltalake.DeltaTable.create(f"{place}/data", columns, partition_by=[partition])
    with pytest.raises(SinkError, match=f"lake/data: .*{reason}.*choose another") as refused:
        await store(tmp_path / "out", [sample(1)], table=str(place))
    assert "\n" not in str(refused.value)


async def test_a_run_does_not_go_on_in_another_table(tmp_path: Path) -> None:
    await store(tmp_path / "out", [sample(1)], table=str(tmp_path / "lake"))
    with pytest.raises(SinkError, match=r"samples of this run are in .*lake, not in \."):
        await store(tmp_path / "out", [sample(2)])
    await store(tmp_path / "out", [sample(2)], table=str(tmp_path / "lake"))
    assert rows_of(tmp_path / "lake") == ids([sample(1), sample(2)])


async def test_a_run_whose_folder_was_moved_goes_on(tmp_path: Path) -> None:
    await store(tmp_path / "out", made(3))
    (tmp_path / "out").rename(tmp_path / "moved")
    await store(tmp_path / "moved", made(6))
    assert rows_of(tmp_path / "moved") == ids(made(6))


async def test_an_address_that_nobody_knows_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"nowhere://bucket/data: cannot be read") as refused:
        await store(tmp_path / "out", [sample(1)], table="nowhere://bucket")
    assert "\n" not in str(refused.value)


async def test_without_the_package_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "deltalake"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("sink.delta", "sink.table"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(SinkError, match=r"needs the package deltalake.*; pip install") as refused:
        await store(tmp_path / "out", [sample(1)])
    assert "\n" not in str(refused.value)
