"""Hashed n-grams: the same vector everywhere, of unit length, near where texts are alike."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.features import DIMENSIONS, HashedNgrams, _buckets

NGRAMS = HashedNgrams()
# every code point, lone surrogates too
TEXTS = st.text(st.characters(exclude_categories=()))


@settings(deadline=None, derandomize=True)
@given(TEXTS)
def test_any_text_has_finite_features_of_unit_length(text: str) -> None:
    features = NGRAMS.of(text)
    assert features.shape == (DIMENSIONS,)
    assert features.dtype == np.float32
    assert np.linalg.norm(features) == pytest.approx(1.0 if text else 0.0, abs=1e-6)


@settings(deadline=None, derandomize=True)
@given(TEXTS)
def test_another_instance_has_the_same_features(text: str) -> None:
    assert np.array_equal(HashedNgrams().of(text), NGRAMS.of(text))


@settings(deadline=None, derandomize=True)
@given(st.lists(TEXTS, max_size=5))
def test_several_texts_have_the_features_that_each_has_alone(texts: list[str]) -> None:
    together = NGRAMS.of_all(texts)
    assert together.shape == (len(texts), DIMENSIONS)
    for row, text in zip(together, texts, strict=True):
        assert np.array_equal(row, NGRAMS.of(text))


async def test_it_encodes_as_an_encoder_does() -> None:
    assert np.array_equal(await NGRAMS.encode("Wie alt?"), NGRAMS.of("Wie alt?"))
    await NGRAMS.close()


def plainly(text: str) -> dict[int, float]:
    """The features that are not 0, by their definition, in Python's own numbers."""
    mask = (1 << 64) - 1
    counts: Counter[int] = Counter()
    points = [ord(character) for character in text[:2000].lower()]
    for length in (1, 2, 3):
        for start in range(len(points) - length + 1):
            value = 0
            for place in range(length):
                value = (value * 0x9E3779B97F4A7C15 + points[start + place] + place + 1) & mask
            counts[mixed(value) >> 52] += 1
    sketch: defaultdict[int, float] = defaultdict(float)
    for bucket, count in counts.items():
        negative = mixed((bucket + 1) * 0x9E3779B97F4A7C15 & mask) >> 63
        sketch[bucket % 512] += math.copysign(math.sqrt(count), -negative)
    norm = math.hypot(*sketch.values())
    return {place: value / norm for place, value in sketch.items()}


def mixed(value: int) -> int:
    for shift, multiplier in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = (value ^ value >> shift) * multiplier & ((1 << 64) - 1)
    return value


@settings(deadline=None, derandomize=True)
@given(TEXTS)
def test_the_features_are_those_of_the_definition(text: str) -> None:
    expected = np.zeros(DIMENSIONS)
    for place, value in plainly(text).items():
        expected[place] = value
    assert NGRAMS.of(text) == pytest.approx(expected, abs=1e-6)


# Of some texts, the largest features by their place, and the sum of all: what is remembered of
# prompts in a snapshot is comparable only as long as these stay.
GOLDEN = {
    "x": ({188: -1.0}, -1.0),
    "Wie alt bist du?": ({329: -0.258199, 124: 0.210819, 200: 0.210819}, -0.643665),
    "人为什么喝水？": ({1: 0.250000, 9: -0.250000, 55: 0.250000}, 1.000000),
    "\u0645\u0627 \u0647\u0648 \u0627\u0644\u0645\u0627\u0621\u061f \U0001f4a7": (
        {251: -0.284747, 329: -0.284747, 217: -0.232495},
        -1.062692,
    ),
    "Hallo \ud800!": ({266: -0.308607, 60: 0.218218, 83: 0.218218}, -0.090389),
}


@pytest.mark.parametrize("text", GOLDEN)
def test_the_features_are_the_same_on_every_machine_and_in_every_version(text: str) -> None:
    largest, total = GOLDEN[text]
    features = NGRAMS.of(text)
    assert {place: float(features[place]) for place in largest} == pytest.approx(largest, abs=1e-6)
    assert float(np.abs(features).max()) == pytest.approx(max(map(abs, largest.values())), abs=1e-6)
    assert float(features.sum()) == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize(
    ("text", "alike", "other"),
    [
        (
            "Wie viele Einwohner hat Berlin?",
            "wie viele einwohner hat Bern?",
            "Schreibe ein Gedicht über den Regen.",
        ),
        (
            "def add(a, b): return a + b",
            "def mul(a, b): return a * b",
            "Who wrote Hamlet, and when?",
        ),
        ("人为什么要喝水？", "人为什么要睡觉？", "请用三句话介绍一下柏林。"),
        ("Сколько жителей в Берлине?", "Сколько жителей в Берне?", "Напиши стихи о дожде."),
        ("물은 왜 마셔야 하나요?", "물은 왜 끓여야 하나요?", "베를린을 소개해 주세요."),
    ],
)
def test_near_duplicates_are_closer_than_different_texts(text: str, alike: str, other: str) -> None:
    here, near, far = NGRAMS.of_all([text, alike, other])
    assert here @ near > 0.4
    assert here @ near > here @ far + 0.2


def test_inner_products_are_those_of_the_damped_counts_on_average() -> None:
    rng = np.random.default_rng(4)
    errors = []
    for _ in range(400):
        letters = rng.choice(np.arange(0x4E00, 0x9FA5), 60, replace=False).tolist()
        texts = ["".join(map(chr, part)) for part in (letters[:40], letters[20:])]
        one, two = NGRAMS.of_all(texts)
        damped = [np.sqrt(np.bincount(_buckets(text), minlength=4096)) for text in texts]
        exact = damped[0] @ damped[1] / math.prod(map(np.linalg.norm, damped))
        errors.append(float(one @ two - exact))
    assert np.mean(errors) == pytest.approx(0.0, abs=0.01)
    assert np.std(errors) < 1.5 / math.sqrt(DIMENSIONS)


def test_case_and_what_comes_late_do_not_count() -> None:
    assert np.array_equal(NGRAMS.of("WIE ALT?"), NGRAMS.of("wie alt?"))
    long = "Wie alt bist du? " * 200
    assert np.array_equal(NGRAMS.of(long), NGRAMS.of(long[:2000]))
    assert not np.array_equal(NGRAMS.of(long), NGRAMS.of(long[:1999]))
