from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import sink
from arbitrage import config
from arbitrage.types import TeacherInfo
from tests.samples import sample

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from arbitrage.types import Sample

TEACHERS = [
    TeacherInfo(
        "alpha", "openai", "alpha-7b", available=True, license="apache-2.0", trainable=True
    ),
    TeacherInfo("beta", "openai", "beta|9b", available=True),
]
ANSWERS = [
    sample(0, language="ar"),
    sample(51, language="ar"),
    sample(50, language="ar", won=False),
    sample(4, language="no"),
]


async def card_of(out: Path, samples: Sequence[Sample], format_: Any = "parquet") -> str:
    settings = config.Sink(path=out, format=format_)
    opened = await sink.open(settings, teachers=lambda: TEACHERS)
    for one in samples:
        await opened.write(one)
    await opened.close()
    return (out / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("format_", sorted(sink.FORMATS))
async def test_the_card_tells_what_is_there(tmp_path: Path, format_: str) -> None:
    card = await card_of(tmp_path / "out", ANSWERS, format_)
    assert "3 samples in 2 languages." in card
    assert f"| ar | 2 | {(0.5 + 0.551) / 2:.3f} | alpha 1, beta 1 | 1 |" in card
    assert "| no | 1 | 0.504 | alpha 1 | 0 |" in card
    assert "| alpha | alpha-7b | apache-2.0 | yes | 2 |" in card
    assert "| beta | beta\\|9b | not stated | not stated | 1 |" in card
    assert "| thompson | 4 |" in card
    assert '"ar"' in card.partition("## Load")[2]


async def test_the_card_says_how_each_format_is_loaded(tmp_path: Path) -> None:
    parquet, jsonl, delta = [
        await card_of(tmp_path / format_, ANSWERS, format_)
        for format_ in ("parquet", "jsonl", "delta")
    ]
    for card, suffix in ((parquet, "parquet"), (jsonl, "jsonl")):
        assert 'load_dataset("path/of/this/folder", "ar", split="train")' in card
        assert f'data_files: "data/*/*.{suffix}"' in card
        assert f"FROM 'data/**/*.{suffix}'" in card
    assert "features" not in parquet
    header = jsonl.split("---")[1].splitlines()
    (columns,) = [line for line in header if "&columns" in line]
    assert json.loads(columns.partition("&columns ")[2])[0] == {
        "name": "sample_id",
        "dtype": "string",
    }
    assert header.count("  features: *columns") == 2
    assert "config" not in delta.split("---")[1], "load_dataset reads no Delta table"
    assert 'DeltaTable("data")' in delta
    assert 'to_pyarrow_table(filters=[("language", "=", "ar")])' in delta
    assert "FROM delta_scan('data')" in delta


async def test_the_card_of_a_table_elsewhere_says_where_it_is(tmp_path: Path) -> None:
    table = str(tmp_path / "lake")
    opened = await sink.open(config.Sink(path=tmp_path / "out", format="delta", table=table))
    await opened.write(sample(1))
    await opened.close()
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f'DeltaTable("{tmp_path / "lake" / "data"}")' in card


async def test_the_card_grows_with_the_data(tmp_path: Path) -> None:
    await card_of(tmp_path / "out", ANSWERS)
    more = [sample(60, language="ar"), sample(61, language="fi")]
    card = await card_of(tmp_path / "out", more)
    assert "| ar | 3 | 0.537 | alpha 2, beta 1 | 1 |" in card
    assert '- config_name: "fi"\n  data_files: "data/fi/*.parquet"' in card


async def test_a_run_that_nobody_won_has_a_card_without_configs(tmp_path: Path) -> None:
    card = await card_of(tmp_path / "out", [sample(1, won=False)])
    assert "config" not in card.split("---")[1]
    assert "| de | 0 |  |  | 1 |" in card


async def test_the_language_named_all_does_not_hide_everything(tmp_path: Path) -> None:
    card = await card_of(tmp_path / "out", [sample(1, language="all"), sample(2)])
    names = [line for line in card.splitlines() if "config_name" in line]
    assert [name.split('"')[1] for name in names] == ["all", "all-alone", "de"]
