"""What is read as a grade or a preference, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arbitrage.types import Completion
from reward.judge.replies import grade_in, preference_in


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ('{"score": 7}', 7), ('\n {"score": 7.0} ', 7), ('{"score": "7"}', 7), ("7", 7),
        ('```json\n{"score": 10}\n```', 10), ('My grade:\n```\n{"score": 1}\n```\nDone.', 1),
        ("٧", 7), ('{"score": ७}', 7), ('{"score": "１０"}', 10), ("๑๐", 10),
        ('{"why": "It is right.", "score": 9}', 9),
        ("0", None), ("11", None), ('{"score": -3}', None), ("1_0", None), ("7.5", None),
        ('{"score": true}', None), ('{"score": null}', None), ('{"score": 1e999}', None),
        ('{"grade": 7}', None), ("[7]", None), ("", None), ("8/10", None), ('{"score": 7', None),
        ("I give 7.", None), ('Like {"score": 10}?', None), ("9" * 5000, None),
        ("[" * 5000, None), (" " * 100_000 + "7", None),
        ('```\n{"score": 1}\n```\n```\n{"score": 10}\n```', None),
    ],
)  # fmt: skip
def test_a_grade_is_read_strictly_but_kindly(reply: str, grade: int | None) -> None:
    assert grade_in(Completion(reply), 1, 10) == grade


def test_a_bare_grade_that_was_cut_off_is_none() -> None:
    assert grade_in(Completion("1", "length"), 1, 10) is None
    assert grade_in(Completion('{"score": 1}', "length"), 1, 10) == 1


@pytest.mark.parametrize(
    ("reply", "share"),
    [
        ('{"better": "A"}', 1.0), ('{"better": "b"}', 0.0), ('{"better": " Tie "}', 0.5),
        ("А", 1.0), ("В", 0.0), ("tie", 0.5), ('"B"', 0.0), ('```json\n{"better": "A"}\n```', 1.0),
        ("Both", None), ('{"better": 1}', None), ('{"better": null}', None), ("AB", None),
    ],
)  # fmt: skip
def test_a_preference_is_read_strictly_but_kindly(reply: str, share: float | None) -> None:
    assert preference_in(Completion(reply)) == share


@given(st.text(), st.sampled_from(["stop", "length"]))
def test_any_reply_is_a_grade_on_the_scale_or_none(text: str, finish_reason: str) -> None:
    reply = Completion(text, finish_reason)
    assert grade_in(reply, -2, 3) in {None, *range(-2, 4)}
    assert preference_in(reply) in {None, 0.0, 0.5, 1.0}
