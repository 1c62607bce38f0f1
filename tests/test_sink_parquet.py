from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import duckdb
import pyarrow.parquet as pq
import pytest

import sink
from arbitrage import config
from tests.samples import ROOT, ids, sample

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from arbitrage.types import Sample

COLUMNS = {
    "sample_id": "string",
    "prompt_id": "string",
    "language": "string",
    "domain": "string",
    "messages": "list<element: struct<role: string, content: string>>",
    "completion": "string",
    "teacher": "string",
    "reward": "double",
    "margin": "double",
    "decision": "struct<policy: string, version: int64, arms: list<element: string>,"
    " propensities: list<element: double>, waves: list<element: int32>>",
    "candidates": "list<element: struct<teacher: string, completion: string, error: string,"
    " finish_reason: string, gates: list<element: struct<gate: string, reason: string>>,"
    " scores: list<element: struct<name: string, value: double>>, reward: double,"
    " advantage: double, prompt_tokens: int64, completion_tokens: int64,"
    " latency_seconds: double, cost_usd: double, cached: bool, reasoning: string>>",
    "metadata": "list<element: struct<key: string, value: string>>",
    "created_at": "timestamp[us, tz=UTC]",
}
TEXTS = {
    "ar": "مرحبا بالعالم، ١٢٣",
    "he": "שלום עולם",
    "ja": "東京タワー 🗼",
    "zh-Hant": "繁體中文",
    "no": "blåbærsyltetøy",
    "en": "family: 👩‍👩‍👧‍👦\0 and a nul",
}


async def store(out: Path, samples: Sequence[Sample]) -> None:
    opened = await sink.open(config.Sink(path=out))
    for one in samples:
        await opened.write(one)
    await opened.close()


def read(out: Path, pattern: str = "data/*/*.parquet") -> list[dict[str, object]]:
    rows = [pq.ParquetFile(file).read().to_pylist() for file in sorted(out.glob(pattern))]
    return [row for file in rows for row in file]


@pytest.fixture
async def dataset(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    answers = [
        sample(number, language=language, text=text)
        for number, (language, text) in enumerate(TEXTS.items())
    ]
    await store(out, [*answers, sample(50, language="ar", won=False), sample(51, language="ar")])
    return out


@pytest.mark.parametrize("folder", ["data", "unanswered"])
async def test_the_columns_are_the_contract(dataset: Path, folder: str) -> None:
    file = pq.ParquetFile(dataset / folder / "ar" / "part-00001.parquet")
    assert {field.name: str(field.type) for field in file.schema_arrow} == COLUMNS
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


async def test_a_row_says_what_the_sample_says(tmp_path: Path) -> None:
    one = sample(7)
    await store(tmp_path / "out", [one])
    (row,) = read(tmp_path / "out")
    assert one.winner
    assert row == {
        "sample_id": one.sample_id,
        "prompt_id": one.prompt.prompt_id,
        "language": "de",
        "domain": "chat",
        "messages": [{"role": "user", "content": "Frage 7"}],
        "completion": "Antwort",
        "teacher": "beta",
        "reward": 0.507,
        "margin": None,
        "decision": {
            "policy": "thompson",
            "version": 7,
            "arms": ["beta", "gamma", "delta"],
            "propensities": [0.5, 0.25, 1.0],
            "waves": [0, 0, 1],
        },
        "candidates": [
            {
                "teacher": "beta",
                "completion": "Antwort",
                "error": None,
                "finish_reason": "stop",
                "gates": [],
                "scores": [{"name": "embedded", "value": 1.25}, {"name": "length", "value": -0.5}],
                "reward": 0.507,
                "advantage": 0.0,
                "prompt_tokens": 7,
                "completion_tokens": 3,
                "latency_seconds": 0.25,
                "cost_usd": 0.001,
                "cached": False,
                "reasoning": None,
            },
            {
                "teacher": "gamma",
                "completion": "",
                "error": None,
                "finish_reason": "length",
                "gates": [{"gate": "empty", "reason": "has no text"}],
                "scores": [],
                "reward": None,
                "advantage": None,
                "prompt_tokens": None,
                "completion_tokens": None,
                "latency_seconds": 0.0,
                "cost_usd": 0.0,
                "cached": False,
                "reasoning": None,
            },
            {
                "teacher": "delta",
                "completion": None,
                "error": "timeout: no answer in 60 s",
                "finish_reason": None,
                "gates": [],
                "scores": [],
                "reward": None,
                "advantage": None,
                "prompt_tokens": None,
                "completion_tokens": None,
                "latency_seconds": 0.0,
                "cost_usd": 0.0,
                "cached": None,
                "reasoning": None,
            },
        ],
        "metadata": [{"key": "source", "value": "x"}],
        "created_at": one.created_at,
    }


async def test_every_script_comes_back_as_it_was(dataset: Path) -> None:
    for language, text in TEXTS.items():
        rows = read(dataset, f"data/{language}/*.parquet")
        assert {row["language"] for row in rows} == {language}
        assert text in {row["completion"] for row in rows}


async def test_a_lone_surrogate_becomes_readable(tmp_path: Path) -> None:
    await store(tmp_path / "out", [sample(1, text="cut \ud83d here"), sample(2, text="🗼")])
    assert {row["completion"] for row in read(tmp_path / "out")} == {"cut \ufffd here", "🗼"}


async def test_samples_that_nobody_won_have_no_answer(dataset: Path) -> None:
    (row,) = read(dataset, "unanswered/*/*.parquet")
    assert (row["completion"], row["teacher"], row["reward"], row["margin"]) == (None,) * 4
    assert len(row["candidates"]) == 3  # type: ignore[arg-type]


async def test_duckdb_takes_the_folder_as_it_is(dataset: Path) -> None:
    found = duckdb.execute(
        "SELECT language, count(*), max(candidates[1].scores[1].value), max(decision.waves[3])"
        " FROM read_parquet($glob) GROUP BY language ORDER BY language",
        {"glob": f"{dataset}/data/**/*.parquet"},
    ).fetchall()
    counts = dict.fromkeys(sorted(TEXTS), 1) | {"ar": 2}
    assert found == [(language, count, 1.25, 1) for language, count in counts.items()]


LOAD = """
import json, sys
from datasets import get_dataset_config_names, load_dataset

names = get_dataset_config_names(sys.argv[1])
rows = {name: load_dataset(sys.argv[1], name, split="train") for name in names}
default = load_dataset(sys.argv[1], split="train")
print(json.dumps({
    "ids": {name: sorted(part["sample_id"]) for name, part in rows.items()},
    "default": len(default),
    "japanese": rows["ja"][0]["completion"],
    "candidate": rows["ja"][0]["candidates"][0],
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
    assert set(told["ids"]) == {"all", *TEXTS}
    answers = {tag: sample(number, language=tag) for number, tag in enumerate(TEXTS)}
    later = sample(51, language="ar")
    assert told["ids"]["no"] == ids([answers["no"]])
    assert told["ids"]["ar"] == ids([answers["ar"], later])
    assert told["ids"]["all"] == ids([*answers.values(), later])
    assert told["default"] == len(TEXTS) + 1
    assert told["japanese"] == TEXTS["ja"]
    assert told["candidate"]["scores"][0] == {"name": "embedded", "value": 1.25}
