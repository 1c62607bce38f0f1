"""Why a sample is left out."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a sample is left out, in the order in which it is asked: the first is counted."""

    OTHER_LANGUAGE = "in another language"
    UNANSWERED = "no answer passed the gates"
    ALONE = "no other answer passed"
    TIE = "no other answer was worse"
    NOT_TRAINABLE = "a teacher's outputs may not train others"
    LOW_REWARD = "reward below the least"
    LOW_MARGIN = "margin below the least, or none"
    CONTAMINATED = "in an eval set"
    DUPLICATE = "prompt seen before"
    DUPLICATE_ANSWER = "answer seen before"
    SURPLUS = "more than the balance takes"
