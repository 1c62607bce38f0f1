"""`arbitrage demo` on scripted teachers: what it shows, and where it writes."""

from __future__ import annotations

import json
from io import StringIO
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from commands import demo
from tests.processes import published, write_config

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    folder = tmp_path / "examples"
    folder.mkdir()
    write_config(folder, "[reward]", "[reward]\ngates = []").rename(folder / "embedded.toml")
    return folder


def write_prompts(folder: Path, *texts: str) -> None:
    rows = (
        {"id": f"{language}-{number}", "language": language, "domain": "daily", "prompt": text}
        for number, text in enumerate(texts)
        for language in ("de", "ja")
    )
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "prompts.jsonl").write_text("".join(lines), "utf-8")


def console() -> Console:
    return Console(file=StringIO(), width=120, highlight=False, markup=False)


def said(where: Console) -> str:
    assert isinstance(where.file, StringIO)
    return where.file.getvalue()


async def test_prompts_become_a_dataset_and_what_was_learned_is_shown(
    tmp_path: Path, examples: Path
) -> None:
    write_prompts(examples, "Warum ist das so?", "Wo liegt Lima?")
    out = console()
    assert await demo.run(tmp_path / "demo", out, examples) == 4
    assert len(published(tmp_path / "demo")) == 4
    told = said(out)
    assert "4/4 prompts in" in told
    assert "8 calls (0% fewer than asking all 2)" in told
    assert "what policy 'best_of' learned from 4 prompts" in told
    assert f"4 samples are in {tmp_path / 'demo'}/data" in told
    assert "no sample" not in told


async def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, examples: Path) -> None:
    write_prompts(examples, "Warum ist das so?")
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "mine.txt").write_text("mine")
    assert await demo.run(tmp_path / "demo", console(), examples) == 2
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["mine.txt"]
    assert len(published(tmp_path / "demo-2")) == 2


async def test_prompts_that_nobody_answered_are_told(tmp_path: Path, examples: Path) -> None:
    file = examples / "embedded.toml"
    text = file.read_text("utf-8")
    failing = 'kind = "scripted"\nfailure_rate = 1.0\nmax_attempts = 1\nquality'
    file.write_text(text.replace('kind = "scripted"\nquality', failing), "utf-8")
    write_prompts(examples, "Warum ist das so?")
    out = console()
    assert await demo.run(tmp_path / "demo", out, examples) == 0
    assert "2/2 prompts in" in said(out)
    assert said(out).count("no sample: de-0: ") == 1
    assert said(out).count("no sample: ja-0: ") == 1


def test_the_examples_are_where_it_looks() -> None:
    assert (demo._examples() / "embedded.toml").is_file()
