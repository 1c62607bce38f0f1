"""Tokens of every script, and texts that say nearly the same as an earlier one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arbitrage.errors import ConfigError
from sink.quality.duplicates import Duplicates
from sink.quality.tokens import in_letters, tokens

WORDS = st.sampled_from(["der", "die", "katze", "hund", "fliegt", "läuft", "12", "13", "+", "-"])
TEXTS = st.lists(st.lists(WORDS, min_size=1, max_size=12).map(" ".join), max_size=25)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("L'été, ça va?", ["l", "été", "ça", "va"]),
        ("ＡＢＣ１２", ["abc12"]),
        ("STRASSE straße", ["strasse", "strasse"]),
        ("日本語テスト。", list("日本語テスト")),
        ("한국어 문장", ["한국어", "문장"]),
        ("กิน", ["ก", "ิ", "น"]),
        ("हिन्दी", ["हिन्दी"]),
        ("می‌خواهم", ["میخواهم"]),
        ("བོད་སྐད", ["བོད", "སྐད"]),
        ("?!", []),
    ],
)
def test_words_are_found_in_every_script(text: str, parts: list[str]) -> None:
    assert tokens(text) == [part for text in parts for part in tokens(text)] == parts


def test_a_text_is_in_letters_where_no_spaces_part_its_words() -> None:
    spaceless = ["机器学习是什么", "これは何ですか", "สวัสดีครับ", "ខ្មែរ", "မြန်မာ"]
    assert all(in_letters(tokens(text)) for text in spaceless)
    spaced = ["Was ist das", "한국어 문장", "हिन्दी में", "Tiếng Việt", "العربية", ""]
    assert not any(in_letters(tokens(text)) for text in spaced)


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        (
            "en",
            "Write a short story about a robot who learns to paint in an old town by the sea.",
            "Write a short story about a robot that learns to paint in an old town by the sea.",
        ),
        (
            "zh",
            "请写一篇关于机器人在海边小镇学习绘画的短篇故事并说明它为什么喜欢蓝色的天空和大海",
            "请写一篇关于机器人在海边小镇学习绘画的短篇故事并说明他为什么喜欢蓝色的天空和大海",
        ),
        (
            "th",
            "เขียนเรื่องสั้นเกี่ยวกับหุ่นยนต์ที่เรียนวาดรูปในเมืองเก่าริมทะเลแห่งหนึ่ง",
            "เขียนเรื่องสั้นเกี่ยวกับหุ่นยนต์ที่เรียนวาดภาพในเมืองเก่าริมทะเลแห่งหนึ่ง",
        ),
    ],
)
def test_a_changed_word_is_still_the_same_prompt_but_not_in_another_language(
    language: str, one: str, other: str
) -> None:
    seen = Duplicates(0.6)
    assert seen.seen(language, one, "one") is None
    assert seen.seen(language, other, "other") == "one"
    assert seen.seen("fr", other, "other") is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 2+2?", "What is 2-2?"),
        ("What is the capital of France?", "What is the capital of Peru?"),
        ("?", "!"),
        ("日本の首都はどこですか", "中国の首都はどこですか"),
    ],
)
def test_prompts_of_one_pattern_are_not_duplicates(one: str, other: str) -> None:
    seen = Duplicates(0.8)
    assert seen.seen("xx", one, "one") is None
    assert seen.seen("xx", other, "other") is None


def test_only_the_same_is_a_duplicate_at_a_threshold_of_one() -> None:
    seen = Duplicates(1.0)
    text = "eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn"
    assert seen.seen("de", text, "a") is None
    assert seen.seen("de", f"{text} vierzehn", "b") is None
    assert seen.seen("de", f"  {text.upper()}!", "c") == "a"


def test_texts_under_different_system_prompts_are_apart() -> None:
    seen = Duplicates(0.7)
    assert seen.seen("de", "Wo liegt Lima?", "a", under="Sei knapp.") is None
    assert seen.seen("de", "Wo liegt Lima?", "b", under="Reime!") is None
    assert seen.seen("de", "Wo liegt denn Lima?", "c", under="Reime!") is None
    assert seen.seen("de", "wo liegt lima", "d", under="Sei knapp.") == "a"


@pytest.mark.parametrize("threshold", [0.7, 0.8, 0.9])
def test_what_is_well_above_the_threshold_is_found_and_what_is_well_below_is_not(
    threshold: float,
) -> None:
    rng = random.Random(0)  # noqa: S311 - not for secrets
    found = {"above": 0, "below": 0}
    for _ in range(200):
        text = [str(rng.random()) for _ in range(200)]
        for place, similarity in (("above", threshold + 0.07), ("below", threshold - 0.15)):
            # the last words change, and with each of them one shingle: (n - c) / (n + c) alike
            changed = round(198 * (1 - similarity) / (1 + similarity))
            seen = Duplicates(threshold)
            seen.seen("en", " ".join(text), "a")
            other = text[:-changed] + [str(rng.random()) for _ in range(changed)]
            found[place] += seen.seen("en", " ".join(other), "b") is not None
    assert found["above"] >= 180
    assert found["below"] <= 4


@given(texts=TEXTS, threshold=st.sampled_from([0.5, 0.8, 1.0]))
def test_what_was_kept_is_kept_again(texts: list[str], threshold: float) -> None:
    def kept(texts: list[str]) -> list[str]:
        seen = Duplicates(threshold)
        return [text for n, text in enumerate(texts) if seen.seen("de", text, str(n)) is None]

    once = kept(texts)
    assert kept(once) == once
    assert kept(texts) == once, "it depends on the texts and their order alone"


@given(texts=TEXTS)
def test_every_duplicate_is_of_an_earlier_text_that_was_kept(texts: list[str]) -> None:
    seen, first = Duplicates(0.6), set()
    for number, text in enumerate(texts):
        earlier = seen.seen("de", text, str(number))
        if earlier is None:
            first.add(str(number))
        assert earlier is None or earlier in first
    assert len(seen) == len(first)
    assert all(seen.seen("de", text, "again") in first for text in texts)


@given(text=st.text())
def test_any_text_is_the_same_as_itself(text: str) -> None:
    seen = Duplicates(0.8)
    assert seen.seen("en", text + "\ud800", "a") is None
    assert seen.seen("en", text + "\ud800", "b") == "a"


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.5, float("nan")])
def test_a_threshold_that_is_none_is_refused(threshold: float) -> None:
    with pytest.raises(ConfigError, match=r"choose one in \(0, 1\]"):
        Duplicates(threshold)
