"""The repetition gate on loops of words, sentences and paragraphs, and on songs and lists."""

from __future__ import annotations

import pytest
from bad_answers import changed
from corpus import questions
from hypothesis import assume, given
from hypothesis import strategies as st

from reward.gates.letters import letters
from reward.gates.repetition import novelty, repetition
from tests.gated import ICE, PROMPT, answer


@pytest.mark.parametrize(
    "text",
    [
        "Water " * 7,
        "water water water",
        "水は水は水は水は水は水は",
        "好的" * 40,
        "ขนมปัง " * 20,
        "الخبز " * 20,
        "Ice floats because it is less dense. " * 3,
        "氷は水よりも密度が小さいので浮きます。" * 5,
        f"{ICE['de']} " + "Das ist so. " * 40,
    ],
)
def test_saying_the_same_again_and_again_is_repetition(text: str) -> None:
    assert repetition(PROMPT, answer(text))


@pytest.mark.parametrize(
    "text",
    [
        *ICE.values(),
        "No, no.",
        "1000000000000000000000",
        "3.14159265358979323846264338327950288419716939937510",
        """Row, row, row your boat,
        Gently down the stream.
        Merrily, merrily, merrily, merrily,
        Life is but a dream.""",
        """Frère Jacques, Frère Jacques,
        Dormez-vous ? Dormez-vous ?
        Sonnez les matines ! Sonnez les matines !
        Ding, dang, dong. Ding, dang, dong.""",
        "\n".join(f"{n}² = {n * n}" for n in range(1, 30)),
        "\n".join(f"The square of {n} is {n * n}." for n in range(1, 11)),
        """Montag: Training um 18 Uhr. Dienstag: Training um 19 Uhr. Mittwoch: Ruhetag.
        Donnerstag: Training um 18 Uhr. Freitag: Training um 19 Uhr. Samstag: Ruhetag.
        Sonntag: Ruhetag.""",
        "name,age,city\nAnna,31,Berlin\nBen,32,Berlin\nCarl,33,Berlin\nDora,34,Hamburg",
        "我是学生，你是学生，他是学生；我是老师，你是老师，他是医生；我们都是北京大学的校友。",
    ],
)
def test_lists_songs_and_numbers_are_no_repetition(text: str) -> None:
    assert not repetition(PROMPT, answer(text))


@pytest.mark.parametrize("language", questions())
def test_a_paragraph_again_with_small_changes_is_repetition(language: str) -> None:
    text, other, third = (question.answer for question in questions()[language][:3])
    again, once_more = changed(text, other, language), changed(text, third, language)
    assert len({text, again, once_more}) == 3
    assert repetition(PROMPT, answer(f"{text}\n\n{again}"))
    assert repetition(PROMPT, answer(f"{text}\n\n{again}\n\n{once_more}"))
    assert not repetition(PROMPT, answer(f"{text}\n\n{other}"))


@pytest.mark.parametrize("language", questions())
def test_a_loop_that_counts_is_repetition(language: str) -> None:
    brief = questions()[language][0].brief
    assert repetition(PROMPT, answer("\n".join(f"{n}. {brief}" for n in range(1, 9))))
    steps = "\n".join(f"{n}. {q.brief}" for n, q in enumerate(questions()[language][:8], 1))
    assert not repetition(PROMPT, answer(steps))


@pytest.mark.parametrize("language", questions())
def test_an_answer_that_runs_into_a_loop_is_repetition(language: str) -> None:
    asked = questions()[language]
    text = " ".join(question.answer for question in asked[:3])
    assert not repetition(PROMPT, answer(text))
    assert repetition(PROMPT, answer(f"{text} {' '.join([asked[3].brief] * 8)}"))


def test_code_and_addresses_may_repeat_themselves() -> None:
    code = "\n".join(f"    assert square({n}) == {n * n}, 'wrong'" for n in range(40))
    assert not repetition(PROMPT, answer(f"Here are the tests:\n```python\n{code}\n```\nRun them."))
    address = "https://example.org/a/rather/long/path/to/a/page"
    assert not repetition(PROMPT, answer(f"See [{address}]({address}) for {ICE['en']}"))


@given(text=st.text(max_size=400))
def test_novelty_is_a_share(text: str) -> None:
    assert 0 <= novelty(text) < 2


@given(text=st.text("abcdefghij ", min_size=40, max_size=200), times=st.integers(4, 9))
def test_what_is_said_four_times_is_repetition(text: str, times: int) -> None:
    assume(len(letters(text)) >= 12)
    assert repetition(PROMPT, answer(text * times))
