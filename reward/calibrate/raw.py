"""The scalar that a calibration begins with, kept beside the reward it makes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from arbitrage.types import Score

if TYPE_CHECKING:
    from arbitrage.types import Candidate

_KEY = "uncalibrated"
# beyond this a score is an overflow, and its square would be the next
_LARGEST = 1e6


def uncalibrated(candidate: Candidate) -> float | None:
    """The reward model's own scalar, whether or not a calibration has been at it before.

    Returns:
        None for a candidate without a score, or whose score is not finite.
    """
    if candidate.score is None:
        return None
    scalar = candidate.score.raw.get(_KEY, candidate.score.reward)
    return scalar if usable(scalar) else None


def usable(scalar: float) -> bool:
    """Whether a scalar says anything: not what overflowed, and not NaN."""
    return abs(scalar) <= _LARGEST


def rewarded(candidate: Candidate, reward: float) -> Candidate:
    """A scored candidate with another reward; the scalar it began with stays in `raw`."""
    if candidate.score is None:
        return candidate
    raw = candidate.score.raw
    raw = {**raw, _KEY: raw.get(_KEY, candidate.score.reward)}
    return replace(candidate, score=Score(reward, raw))


def unscored(candidate: Candidate) -> Candidate:
    """The candidate without a score, so that it cannot win."""
    return replace(candidate, score=None) if candidate.score else candidate
