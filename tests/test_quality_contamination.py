"""Which texts hold a part of an eval set."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arbitrage.errors import ConfigError
from sink.quality.contamination import Contamination, Match
from sink.quality.tokens import tokens

if TYPE_CHECKING:
    from pathlib import Path

LONG = "Janet’s ducks lay 16 eggs per day. She eats three for breakfast every morning, and bakes."
CHINESE = (
    "珍妮特的鸭子每天下十六个蛋，她每天早上早餐时吃三个，然后用四个蛋为朋友们烤松饼，"
    "剩下的鸭蛋她每天都拿到农贸市场去卖，每个新鲜鸭蛋卖两美元。"
)


def of(folder: Path, *texts: str) -> Contamination:
    path = folder / "eval.jsonl"
    path.write_text("".join(json.dumps({"question": text}) + "\n" for text in texts))
    return Contamination.read([path])


def test_thirteen_words_in_common_are_a_match_and_twelve_are_none(tmp_path: Path) -> None:
    tests, words = of(tmp_path, "Ein anderer Test.", LONG), LONG.split()
    found = tests.overlap("Now: " + " ".join(words[2:15]).upper() + " Why?")
    assert found is not None
    assert found.file.endswith("eval.jsonl")
    assert found.line == 2
    assert found.ngram.split() == tokens(LONG)[3:16], "janet's is two words"
    assert tests.overlap("Now: " + " ".join(words[2:14])) is None


def test_fifty_letters_in_common_are_a_match_where_no_spaces_part_words(tmp_path: Path) -> None:
    tests, letters = of(tmp_path, CHINESE), "".join(tokens(CHINESE))
    assert tests.overlap(f"Translate this: {letters[3:53]} please") is not None
    assert tests.overlap(f"Translate this: {letters[3:52]} please") is None


def test_a_short_test_is_found_as_a_whole(tmp_path: Path) -> None:
    question = "What is the capital city of Burkina Faso?"
    tests = of(
        tmp_path, question, "法国的首都是哪一座城市，它位于哪一条河流的两岸，人口一共有多少万呢？"
    )
    assert tests.overlap(f"Answer in French. {question.lower()} Thanks!") is not None
    assert tests.overlap("What is the capital city of Burkina?") is None
    assert (
        tests.overlap("请回答：法国的首都是哪一座城市，它位于哪一条河流的两岸，人口一共有多少万？")
        is not None
    )


def test_a_test_of_a_few_words_has_to_be_the_whole_text(tmp_path: Path) -> None:
    tests = of(tmp_path, "Paris", "What is 2+2?")
    assert tests.overlap("paris.") is not None
    assert tests.overlap("The capital is Paris.") is None
    assert tests.overlap("what is 2+2") is not None
    assert tests.overlap("What is 2-2?") is None


def test_the_first_place_in_the_text_is_told(tmp_path: Path) -> None:
    other = " ".join(f"w{n}" for n in range(8))
    tests = of(tmp_path, other, LONG)
    assert tests.overlap(f"{LONG} {other}") == Match(
        str(tmp_path / "eval.jsonl"), 2, " ".join(tokens(LONG)[:13])
    )


def test_every_kind_of_file_is_read_with_its_lines(tmp_path: Path) -> None:
    texts = {name: " ".join(f"{name}{n}" for n in range(14)) for name in "abcdef"}
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "q"], ["1", "zwei\nZeilen"], ["2", texts["a"]]])
    (tmp_path / "b.txt").write_text(f"\n{texts['b']}\n")
    (tmp_path / "deep").mkdir()
    nested = [{"turns": [{"content": texts["c"]}, None, 7]}]
    (tmp_path / "deep" / "c.jsonl").write_text("\n" + json.dumps(nested) + "\n")
    pq.write_table(pa.table({"q": ["x", texts["d"]]}), tmp_path / "d.parquet")
    (tmp_path / "notes.md").write_text(texts["e"])
    tests = Contamination.read([tmp_path, tmp_path / "b.txt"])
    lines = {"a": ("a.csv", 4), "b": ("b.txt", 2), "c": ("deep/c.jsonl", 2), "d": ("d.parquet", 2)}
    for name, (where, line) in lines.items():
        found = tests.overlap(f"see {texts[name]}")
        assert found is not None
        assert (found.file, found.line) == (str(tmp_path / where), line)
    assert tests.overlap(texts["e"]) is None
    assert len(tests.files) == 4


@given(
    words=st.lists(
        st.sampled_from(["ja", "nein", "中", "文", "ok", "7"]), min_size=1, max_size=120
    ),
    start=st.integers(0, 120),
)
def test_a_test_within_a_text_is_found(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], start: int
) -> None:
    tests = of(tmp_path_factory.getbasetemp(), " ".join(words))
    assert tests.overlap(" ".join(words)) is not None
    longer = ["anders", *words, "davor"]
    few = len(words) < 8
    letters = 2 * sum(word in "中文" for word in words) > len(words)
    if not few and not (letters and len(words) < 30):
        assert tests.overlap(" ".join(longer[start % 2 :])) is not None


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("e.jsonl", b"{}\n{", "e.jsonl:2: is not JSON"),
        ("e.jsonl", b"[1, null]", "holds no text"),
        ("e.jsonl", b'"\xff"', "cannot be read"),
        ("e.parquet", b"PAR1", "cannot be read"),
        ("e.csv", b"a\0b\xff", "cannot be read"),
        ("e.xlsx", b"", "is no eval set that can be read; one ends in .jsonl, .csv"),
        ("e.txt", b" \n", "holds no text"),
    ],
)
def test_a_wrong_file_is_told_on_one_line(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Contamination.read([tmp_path / name])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_an_empty_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or folder"):
        Contamination.read([tmp_path / "none.jsonl"])
    with pytest.raises(ConfigError, match="holds no eval set"):
        Contamination.read([tmp_path])


def test_without_tests_nothing_is_contaminated() -> None:
    assert Contamination.read([]).overlap(LONG) is None
    assert len(Contamination.read([])) == 0
