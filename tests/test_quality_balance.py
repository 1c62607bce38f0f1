"""How many samples a language keeps, and the least that they have to be."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arbitrage.errors import ConfigError
from sink.quality.balance import Balance, Most, chance, share
from sink.quality.floors import Floor, Level

LANGUAGES = st.lists(st.sampled_from(["de", "fr", "sw"]), max_size=60)
MOST = st.sampled_from(["min", "median"]) | st.integers(1, 30)


def kept(languages: list[str], most: Most, ranks: list[float]) -> list[int]:
    balance = Balance()
    for number, (language, rank) in enumerate(zip(languages, ranks, strict=True)):
        balance.add(language, number, rank)
    lost = {number for numbers in balance.left_out(most).values() for number in numbers}
    return [number for number in range(len(languages)) if number not in lost]


@given(languages=LANGUAGES, most=MOST, seed=st.integers(0, 3))
def test_no_language_keeps_more_than_its_share_nor_loses_more_than_it_must(
    languages: list[str], most: Most, seed: int
) -> None:
    ranks = [chance(str(number), seed) for number in range(len(languages))]
    before = Counter(languages)
    after = Counter(languages[number] for number in kept(languages, most, ranks))
    limit = share(before, most)
    assert after == {language: min(count, limit) for language, count in before.items()}


@given(languages=LANGUAGES, small=st.integers(1, 10), more=st.integers(0, 10))
def test_a_smaller_share_is_part_of_a_larger_one(
    languages: list[str], small: int, more: int
) -> None:
    ranks = [chance(str(number), 7) for number in range(len(languages))]
    assert set(kept(languages, small, ranks)) <= set(kept(languages, small + more, ranks))


def test_the_best_ranks_are_kept_and_of_equal_ones_the_first() -> None:
    assert kept(["de"] * 5, 3, [0.0, 2.0, 1.0, 1.0, 1.0]) == [1, 2, 3]


def test_chance_depends_on_the_name_and_the_seed_and_is_spread_evenly() -> None:
    drawn = [chance(f"{n:032x}", 1) for n in range(4_000)]
    assert drawn == [chance(f"{n:032x}", 1) for n in range(4_000)]
    assert drawn != [chance(f"{n:032x}", 2) for n in range(4_000)]
    assert all(0.0 <= one < 1.0 for one in drawn)
    tenths = Counter(int(10 * one) for one in drawn)
    assert all(300 < tenths[tenth] < 500 for tenth in range(10))


@given(
    figures=st.lists(st.tuples(st.sampled_from("ab"), st.floats(-9, 9)), max_size=60),
    lowest=st.floats(0.0, 0.99),
)
def test_a_share_leaves_out_no_more_than_that_of_each_language(
    figures: list[tuple[str, float]], lowest: float
) -> None:
    level = Level(Floor(lowest, share=True))
    for language, figure in figures:
        level.add(language, figure)
    for language in "ab":
        own = [figure for name, figure in figures if name == language]
        lost = [figure for figure in own if not level.reached(language, figure)]
        assert len(lost) <= lowest * len(own) + 1e-6
        assert all(low < high for low in lost for high in own if level.reached(language, high))


def test_without_a_floor_everything_is_enough_and_without_a_figure_nothing() -> None:
    assert Level(None).reached("de", None)
    assert not Level(Floor(-9.0)).reached("de", None)
    assert Level(Floor(-9.0)).reached("de", -9.0)


@pytest.mark.parametrize("text", ["", "%", "x", "nan", "inf", "100%", "-1%", "5 %%"])
def test_a_floor_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no least value; give one such as"):
        Floor.parse(text)


@pytest.mark.parametrize("text", ["0.5", "25%", "0%", "-3", "7.5%"])
def test_a_floor_reads_what_it_writes(text: str) -> None:
    assert str(Floor.parse(text)) == text
