"""What a candidate says of its arm, and all that policies learn quality from."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arbitrage.types import Candidate

Judgement = tuple[str, float | None]
"""An arm, and the reward of its answer; None for an answer that a gate stopped."""

_LARGEST_REWARD = 1e30  # larger ones are no scores, and their squares would leave float64


def judgements(candidates: Iterable[Candidate]) -> list[Judgement]:
    """Of the candidates that say anything of quality.

    A failure says nothing: who fails is unavailable, not bad. Nor does a reward that is
    no number, or an answer of which the reward model has no opinion.
    """
    told: list[Judgement] = []
    for candidate in candidates:
        reward = candidate.reward
        if candidate.failure:
            continue
        if candidate.gates:
            told.append((candidate.teacher, None))
        elif reward is not None and abs(reward) <= _LARGEST_REWARD:
            told.append((candidate.teacher, reward))
    return told
