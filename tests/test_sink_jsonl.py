from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

import sink
from arbitrage import config
from arbitrage.types import Score
from sink import schema
from tests.samples import ROOT, ids, sample

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from arbitrage.types import Sample

PLAIN = [replace(one, prompt=replace(one.prompt, domain=None)) for one in map(sample, range(3))]
OTHERS = [sample(number, language="zh-Hant", text="繁體 🗼\u2028\0") for number in range(10, 13)]


async def store(out: Path, samples: Sequence[Sample]) -> None:
    settings = config.Sink(path=out, format="jsonl")
    opened = await sink.open(settings)
    for one in samples:
        await opened.write(one)
    await opened.close()


def lines(out: Path, pattern: str = "data/*/*.jsonl") -> list[dict[str, Any]]:
    def number(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    files = sorted(out.glob(pattern))
    texts = [line for file in files for line in file.read_bytes().decode().split("\n") if line]
    return [json.loads(text, parse_constant=number) for text in texts]


@pytest.fixture
async def dataset(tmp_path: Path) -> Path:
    await store(tmp_path / "out", [*PLAIN, *OTHERS, sample(50, won=False)])
    return tmp_path / "out"


async def test_a_line_says_what_the_sample_says_in_the_columns_of_the_contract(
    dataset: Path,
) -> None:
    by_id = {row["sample_id"]: row for row in lines(dataset)}
    row = by_id[OTHERS[0].sample_id]
    assert list(row) == schema.SCHEMA.names
    assert row["created_at"] == "2026-01-02T03:04:05.678901+00:00"
    expected = dict(schema.table([OTHERS[0]]).to_pylist()[0], created_at=row["created_at"])
    assert row == expected
    assert row["metadata"] == [{"key": "source", "value": "x"}]
    (unanswered,) = lines(dataset, "unanswered/*/*.jsonl")
    assert unanswered["completion"] is None


async def test_a_lone_surrogate_and_a_number_that_is_none_become_readable(tmp_path: Path) -> None:
    one = sample(1, text="cut \ud83d here")
    score = Score(0.5, {"embedded": float("nan"), "other": float("inf"), "length": 1.0})
    odd = replace(one.candidates[0], score=score, latency_seconds=float("inf"))
    await store(tmp_path, [replace(one, candidates=(odd, *one.candidates[1:]), winner=odd)])
    (row,) = lines(tmp_path)
    assert row["completion"] == "cut \ufffd here"
    values = {part["name"]: part["value"] for part in row["candidates"][0]["scores"]}
    assert values == {"embedded": None, "other": None, "length": 1.0}


async def test_duckdb_takes_the_folder_as_it_is(dataset: Path) -> None:
    found = duckdb.execute(
        "SELECT language, count(*), max(candidates[1].scores[1].value), max(decision.waves[3]),"
        " typeof(min(created_at)) FROM read_json_auto($glob) GROUP BY ALL ORDER BY ALL",
        {"glob": f"{dataset}/data/**/*.jsonl"},
    ).fetchall()
    assert found == [
        ("de", 3, 1.25, 1, "TIMESTAMP WITH TIME ZONE"),
        ("zh-Hant", 3, 1.25, 1, "TIMESTAMP WITH TIME ZONE"),
    ]


LOAD = """
import json, sys
import pyarrow
from datasets import Features, get_dataset_config_names, load_dataset
from sink import schema

names = get_dataset_config_names(sys.argv[1])
rows = {name: load_dataset(sys.argv[1], name, split="train") for name in names}
contract = Features.from_arrow_schema(schema.SCHEMA)
try:
    frame = rows["all"].to_polars()
    polars = [frame.height, str(frame["created_at"].dtype), frame["domain"].null_count()]
except ImportError:
    polars = None
print(json.dumps({
    "ids": {name: sorted(part["sample_id"]) for name, part in rows.items()},
    "as in the contract": {name: part.features == contract for name, part in rows.items()},
    "created_at": rows["de"][0]["created_at"].isoformat(),
    "domain": rows["de"][0]["domain"],
    "polars": polars,
}))
"""


def test_load_dataset_takes_the_folder_as_it_is(dataset: Path, tmp_path: Path) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_DATASETS_OFFLINE": "1"}
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, str(dataset)],
        env=os.environ | offline,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    told = json.loads(loaded.stdout)
    assert told["ids"] == {
        "all": ids([*PLAIN, *OTHERS]),
        "de": ids(PLAIN),
        "zh-Hant": ids(OTHERS),
    }
    assert told["as in the contract"] == {"all": True, "de": True, "zh-Hant": True}
    assert told["created_at"] == "2026-01-02T03:04:05.678901+00:00"
    assert told["domain"] is None, "though no line of its file says of which type it is"
    assert told["polars"] in (None, [6, "Datetime(time_unit='us', time_zone='UTC')", 3])
