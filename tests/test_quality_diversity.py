"""How different answers are from one another, and when they are too much alike."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sink.quality.diversity import Alarms, Diversity, Gauge
from sink.quality.likeness import Figures, self_bleu
from sink.quality.tokens import tokens

OPENINGS = {
    "de": "Natürlich, gerne helfe ich dir dabei weiter. ",
    "zh": "当然可以，我很乐意帮助您，以下是我的回答。",
    "th": "แน่นอน ฉันยินดีช่วยเหลือคุณ นี่คือคำตอบของฉัน ",
}
LETTERS = {
    "de": "abcdefghijklmnopqrstuvwxyz",
    "zh": "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往",
    "th": "กขคงจฉชซญดตถทธนบปผพฟมยรลวสหอ",
}


def text(language: str, rng: random.Random, words: int) -> str:
    joint = " " if language == "de" else ""
    return joint.join("".join(rng.choices(LETTERS[language], k=5)) for _ in range(words))


def measured(language: str, opening: str = "", answers: int = 400, count: int = 120) -> Diversity:
    """Of prompts, and as many answers of which only so many are different."""
    rng = random.Random(0)  # noqa: S311 - not for secrets
    said = [text(language, rng, 60) for _ in range(answers)]
    gauge = Gauge()
    for number in range(count):
        prompt = text(language, rng, 25)
        gauge.add(str(number), prompt, opening + said[number % answers], "alpha")
    return gauge.read()


@pytest.mark.parametrize("language", LETTERS)
def test_different_answers_raise_no_alarm(language: str) -> None:
    assert list(Alarms().warnings(measured(language))) == []


@pytest.mark.parametrize("language", LETTERS)
def test_a_phrase_that_opens_all_answers_is_named_with_its_teacher(language: str) -> None:
    warnings = list(Alarms().warnings(measured(language, OPENINGS[language])))
    (told,) = [warning for warning in warnings if "begin with" in warning]
    assert told.startswith("100% of the answers begin with")
    assert told.endswith("most of them from alpha")


@pytest.mark.parametrize("language", LETTERS)
def test_answers_that_repeat_one_another_are_found_by_every_figure(language: str) -> None:
    alarms = list(Alarms(opening=1.0).warnings(measured(language, answers=10)))
    assert ["3-grams" in alarms[0], "compress" in alarms[1], "BLEU" in alarms[2]] == [True] * 3


def test_few_answers_raise_no_alarm_and_thresholds_can_be_chosen() -> None:
    found = measured("de", OPENINGS["de"], answers=1)
    assert list(Alarms().warnings(replace(found, sampled=29))) == []
    off = Alarms(distinct=0.0, compression=99.0, self_bleu=1.0, opening=1.0)
    assert list(off.warnings(found)) == []


def test_the_figures_depend_on_the_pairs_and_not_on_their_order() -> None:
    rng = random.Random(1)  # noqa: S311 - not for secrets
    pairs = [(str(n), text("de", rng, 9), text("de", rng, 9), "ab"[n % 2]) for n in range(600)]
    one, other = Gauge(seed=3), Gauge(seed=3)
    for pair in pairs:
        one.add(*pair)
    rng.shuffle(pairs)
    for pair in pairs:
        other.add(*pair)
    found, again = one.read(), other.read()
    assert found == replace(again, prompt_tokens=found.prompt_tokens)
    assert found.sampled == 400
    assert found.prompt_tokens == found.answer_tokens == 9.0


def test_empty_texts_have_figures_too() -> None:
    gauge = Gauge()
    gauge.add("a", "?", "", "alpha")
    assert gauge.read().answers == Figures((0.0, 0.0, 0.0), 0.0, 1.0)


def test_self_bleu_is_that_of_sacrebleu() -> None:
    # sacrebleu 2.6.0: BLEU(tokenize="none", effective_order=True, smooth_method="exp"),
    # the mean of sentence_score(text, all others)
    texts = [
        "die katze sitzt auf der matte und schläft",
        "der hund sitzt auf der matte und bellt laut",
        "die katze sitzt auf der matte",
        "ja",
        "die die die katze",
    ]
    assert self_bleu([tokens(text) for text in texts]) == pytest.approx(
        0.47643627738197813, abs=1e-12
    )


@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=8), max_size=8))
def test_self_bleu_is_a_share_and_one_where_every_text_is_there_twice(
    texts: list[list[str]],
) -> None:
    assert 0.0 <= self_bleu(texts) <= 1.0 + 1e-9
    told = [text for text in texts if text]
    if told:
        assert self_bleu(told * 2) == pytest.approx(1.0)
