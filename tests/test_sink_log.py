from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

import sink
from arbitrage import config
from arbitrage.errors import SinkError
from sink import parquet
from sink.log import Log
from tests.samples import ids, sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from arbitrage.types import Sample

FORMATS = sorted(sink.FORMATS)


def made(count: int, seed: int = 0) -> list[Sample]:
    """In several languages, some without a winner, written a little out of order."""
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    return [
        replace(
            one := sample(number, language=("de", "fr", "ar")[number % 3], won=number % 5 != 0),
            created_at=one.created_at + timedelta(seconds=number + rng.uniform(-5.0, 5.0)),
        )
        for number in range(count)
    ]


async def store(
    out: Path, samples: Sequence[Sample], format_: str, *, part_rows: int = 7, **options: Any
) -> None:
    settings = config.Sink(path=out, format=format_)  # type: ignore[arg-type]
    opened = await sink.open(settings, part_rows=part_rows, **options)
    for one in samples:
        await opened.write(one)
    await opened.close()


def ordered(samples: Sequence[Sample]) -> list[Sample]:
    return sorted(samples, key=lambda one: (one.created_at, one.sample_id))


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("file_bytes", [0, 128 << 20])
async def test_what_was_stored_comes_back_in_the_order_of_its_making(
    tmp_path: Path, format_: str, file_bytes: int
) -> None:
    samples = made(40)
    await store(tmp_path, samples, format_, file_bytes=file_bytes)
    log = Log([tmp_path])
    assert list(log) == ordered(samples)
    assert list(log) == ordered(samples), "it can be read again"
    assert len(log) == 40
    assert log.teachers == ("alpha", "beta", "delta", "gamma")


async def test_runs_in_several_formats_are_one_log(tmp_path: Path) -> None:
    runs = {format_: made(20, seed) for seed, format_ in enumerate(FORMATS)}
    for format_, samples in runs.items():
        await store(tmp_path / format_, samples, format_)
    log = Log([tmp_path / format_ for format_ in FORMATS])
    expected = ordered([one for samples in runs.values() for one in samples])
    assert [one.created_at for one in log] == [one.created_at for one in expected]
    assert ids(list(log)) == ids(expected)


@pytest.mark.parametrize("format_", FORMATS)
async def test_columns_are_read_without_the_rest(tmp_path: Path, format_: str) -> None:
    samples = made(40)
    await store(tmp_path, samples, format_)
    tables = list(Log([tmp_path]).tables(["language", "reward"]))
    assert {tuple(sorted(table.column_names)) for table in tables} == {("language", "reward")}
    found = [(row["language"], row["reward"]) for table in tables for row in table.to_pylist()]
    expected = [(one.prompt.language, one.winner.reward if one.winner else None) for one in samples]
    assert sorted(found, key=str) == sorted(expected, key=str)


async def test_of_a_large_file_only_what_overlaps_in_time_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_GROUP_BYTES", 20_000)
    monkeypatch.setattr(parquet, "_SETTLED_BYTES", 20_000)
    samples = [replace(one, prompt=replace(one.prompt, language="de")) for one in made(200)]
    await store(tmp_path, samples, "parquet", part_rows=15)
    (path,) = (tmp_path / "data" / "de").iterdir()
    begun: list[object] = []
    rows = parquet.RowGroup.rows

    def counted(self: parquet.RowGroup) -> Iterator[Any]:
        begun.append(self)
        return rows(self)

    monkeypatch.setattr(parquet.RowGroup, "rows", counted)
    log = Log([tmp_path])
    groups = len(list(parquet.row_groups(path)))
    assert groups > 5
    iterator = iter(log)
    for _ in range(20):
        next(iterator)
    assert len(begun) <= 4
    assert len(list(iterator)) == 180


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "cannot be read"),
        (b"[]\n", "cannot be read"),
        (b"{}\n", "cannot be read: KeyError"),
        (b'{"created_at": "2026-01-01T00:00:00+00:00"}\n', "is no part of a run"),
        (b'{"created_at": "yesterday"}\n', "cannot be read: ValueError"),
    ],
)
async def test_a_line_that_is_no_sample_is_named(tmp_path: Path, line: bytes, reason: str) -> None:
    await store(tmp_path, made(3), "jsonl")
    (path,) = (tmp_path / "data" / "fr").iterdir()
    with path.open("ab") as file:
        file.write(line)
    with pytest.raises(SinkError, match=f"{path}.*{reason}") as refused:
        list(Log([tmp_path]))
    assert "\n" not in str(refused.value)


async def test_a_run_goes_on_in_its_own_format_only(tmp_path: Path) -> None:
    for format_ in FORMATS:
        out = tmp_path / format_
        await store(out, made(3), format_)
        for other in FORMATS:
            if other != format_:
                with pytest.raises(SinkError, match=f"holds samples as {format_}, not {other}"):
                    await store(out, [], other)


async def test_a_folder_without_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="holds no samples"):
        Log([tmp_path])
    with pytest.raises(SinkError, match="is no folder"):
        Log([tmp_path / "none"])
