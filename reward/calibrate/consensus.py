"""What several reward models hold of a prompt's candidates together.

Each member's scores are calibrated by themselves; then they are combined, over all
candidates of the prompt that have come so far, so that one fooled member does not
decide alone (reward hacking, and pessimism against it: arXiv 2310.02743).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from arbitrage.types import Score
from reward.calibrate.raw import rewarded, unscored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from arbitrage import config, ports
    from arbitrage.types import Candidate, Prompt

FloatArray: TypeAlias = NDArray[np.float64]
Combination: TypeAlias = "Callable[[FloatArray], FloatArray]"


def member_names(settings: config.EnsembleReward) -> list[str]:
    """A name for each member: its kind, and from the second of a kind on a number with it.

    >>> from arbitrage.config import EnsembleReward, RulesReward, ScriptedReward
    >>> member_names(EnsembleReward(members=(RulesReward(), ScriptedReward(), RulesReward())))
    ['rules', 'scripted', 'rules-2']
    """
    seen: Counter[str] = Counter()
    names = []
    for member in settings.members:
        seen[member.kind] += 1
        count = seen[member.kind]
        names.append(member.kind if count == 1 else f"{member.kind}-{count}")
    return names


def weights_of(settings: config.EnsembleReward) -> FloatArray:
    """What each member counts (m,), 1 together."""
    weights = np.array(settings.weights or [1.0] * len(settings.members))
    result: FloatArray = weights / weights.sum()
    return result


def combination(settings: config.EnsembleReward) -> Combination:
    """The combination that a configuration names, of members' opinions (m, n) to rewards (n,)."""
    weights = weights_of(settings)
    if settings.combine == "rank":
        return partial(mean_rank, weights=weights)
    return partial(lower_bound, weights=weights, k=settings.k)


def mean_rank(opinions: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted mean of each candidate's rank among the prompt's candidates, from 0 to 1.

    How far ahead a member sees a candidate does not count, so that an absurd score buys
    no more than a good one. Ties share the mean of their ranks. A candidate of which a
    member has no opinion has the middle rank there, 1/2, which is every member's mean:
    it is neither helped nor hurt.

    >>> mean_rank(np.array([[3.0, 1.0, 2.0], [9.0, 5.0, np.nan]]), np.array([0.5, 0.5]))
    array([1. , 0. , 0.5])

    Args:
        opinions: calibrated scores (members, candidates), NaN where there is none.
        weights: of the members (m,).

    Returns:
        One reward a candidate (n,).
    """
    known = ~np.isnan(opinions)
    # NaN is neither above nor equal to anything
    above = (opinions[:, :, None] > opinions[:, None, :]).sum(axis=2)
    equal = (opinions[:, :, None] == opinions[:, None, :]).sum(axis=2) - 1
    others = known.sum(axis=1, keepdims=True) - 1
    compared = known & (others > 0)
    ranks = np.where(compared, (above + equal / 2.0) / np.maximum(others, 1), 0.5)
    return _mean(ranks, weights)


def lower_bound(opinions: FloatArray, weights: FloatArray, k: float) -> FloatArray:
    """Weighted mean of the members' calibrated scores, minus k standard deviations.

    Where members disagree of a candidate, the least of it is believed. A member with the
    share w of the weights that is fooled into however high a score gains nothing by it
    where k >= sqrt(w / (1 - w)): 0.71 for one of three alike, 1 for one of two. A
    candidate of which a member has no opinion gets that member's mean over the prompt's
    other candidates, so that being judged by fewer is no advantage; a member without an
    opinion of any is left out.

    >>> lower_bound(np.array([[1.0, 9.0], [1.0, 0.0], [1.0, 0.0]]), np.ones(3) / 3, k=1.0)
    array([ 1.        , -1.24264069])

    Args:
        opinions: calibrated scores (members, candidates), NaN where there is none.
        weights: of the members (m,).

    Returns:
        One reward a candidate (n,).
    """
    known = ~np.isnan(opinions)
    speaks = known.any(axis=1)
    opinions, known, weights = opinions[speaks], known[speaks], weights[speaks]
    means = np.where(known, opinions, 0.0).sum(axis=1) / known.sum(axis=1)
    filled = np.where(known, opinions, means[:, None])
    mean = _mean(filled, weights)
    variance = _mean((filled - mean) ** 2, weights)
    return mean - k * np.sqrt(variance)


class Consensus:
    """The calibration of an ensemble: the members' own, and then their combination.

    Rewards by rank tell who is best of a prompt and no more: the candidate of a prompt
    that has no other has 1/2 whatever it is worth.

    Args:
        members: each member's calibration, by the name of its scores in `raw`.
        combine: makes rewards (n,) of opinions (members, n), NaN where there is none.
    """

    def __init__(self, members: Mapping[str, ports.Calibration], combine: Combination) -> None:
        self._members = members
        self._combine = combine

    def calibrate(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates of one prompt, those of whom any member has an opinion rewarded.

        It reads the members' own scores in `raw`, so that calling it again with more
        candidates compares all of them anew.
        """
        opinions = np.array(
            [
                [np.nan if c.score is None else c.score.reward for c in calibrated]
                for calibrated in self._opinions(prompt, candidates)
            ]
        )
        judged = ~np.isnan(opinions).all(axis=0)
        rewards = np.zeros(len(candidates))
        if judged.any():
            rewards[judged] = self._combine(opinions[:, judged])
        return [
            rewarded(candidate, float(reward)) if known else unscored(candidate)
            for candidate, reward, known in zip(candidates, rewards, judged, strict=True)
        ]

    def learn(self, prompt: Prompt, candidates: Sequence[Candidate]) -> None:
        """Lets each member's calibration learn from what that member has scored."""
        for name, calibration in self._members.items():
            calibration.learn(prompt, [_as_scored_by(name, c) for c in candidates])

    def state(self) -> dict[str, Any]:
        """What its members have learned, for a snapshot."""
        return {name: calibration.state() for name, calibration in self._members.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Becomes what `state` was taken from; a member that is new knows nothing yet."""
        for name, calibration in self._members.items():
            if name in state:
                calibration.restore(state[name])

    def _opinions(
        self, prompt: Prompt, candidates: Sequence[Candidate]
    ) -> Iterator[list[Candidate]]:
        for name, calibration in self._members.items():
            yield calibration.calibrate(prompt, [_as_scored_by(name, c) for c in candidates])


def _as_scored_by(name: str, candidate: Candidate) -> Candidate:
    """The candidate as if this member alone had scored it."""
    raw = candidate.score.raw if candidate.score else {}
    score = Score(raw[name], {}) if name in raw else None
    return replace(candidate, score=score)


def _mean(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted over the members: (m, n) and (m,) to (n,)."""
    result: FloatArray = weights @ values / weights.sum()
    return result
