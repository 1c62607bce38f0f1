"""What was lost for not knowing better, told by the prompts on which everybody was asked."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sink.report.moments import Moments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage.types import Sample

_STOPPED = 3.0  # standard deviations below the mean: what policies count a stopped answer for


@dataclass(frozen=True, slots=True)
class Loss:
    """Best reward of a prompt minus what one teacher's answer gets, drawn in two ways.

    Attributes:
        preferred: drawn as the policy prefers them.
        random: drawn evenly.
    """

    preferred: Moments = field(default_factory=Moments)
    random: Moments = field(default_factory=Moments)

    def __add__(self, other: Loss) -> Loss:
        return Loss(self.preferred + other.preferred, self.random + other.random)


class Regret:
    """Regret by time, from audited prompts: those whose first wave asked everybody.

    There every answer is known, and the propensities tell whom the policy would have
    asked without the audit: of an inclusion probability p, with an audit's share a and a
    usual wave of k among n, `p = a + (1 - a) q` and the q add up to k. Who is everybody
    in a language shows only at the end, so waves of every size are kept apart till then.
    """

    def __init__(self, steps: int) -> None:
        self._losses: defaultdict[tuple[str, int, int], Loss] = defaultdict(Loss)
        self._sizes: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self._levels: defaultdict[str, Moments] = defaultdict(Moments)
        self._arms: defaultdict[str, set[str]] = defaultdict(set)
        self._steps = steps

    def add(self, sample: Sample, step: int) -> None:
        """Learns from the next sample, in the order of their making."""
        language, decision = sample.prompt.language, sample.decision
        first = {
            arm: propensity
            for arm, propensity, wave in zip(
                decision.arms, decision.propensities, decision.waves, strict=True
            )
            if wave == 0
        }
        level = self._levels[language]
        rewards: dict[str, float] = {}
        for candidate in sample.candidates:
            if candidate.reward is not None and math.isfinite(candidate.reward):
                level.add(candidate.reward)
                best = rewards.get(candidate.teacher, -math.inf)
                rewards[candidate.teacher] = max(best, candidate.reward)
        worst = level.mean - _STOPPED * level.deviation
        for candidate in sample.candidates:
            if candidate.gates and level.count > 1:
                rewards.setdefault(candidate.teacher, worst)
        known = [arm for arm in first if arm in rewards]
        if len(known) > 1 and min(first.values()) < 1.0:
            usual = self._usual(language, below=len(first))
            weights = dict(zip(first, _preferences(list(first.values()), usual), strict=True))
            whole = sum(weights[arm] for arm in known)
            if whole > 0.0:
                best = max(rewards[arm] for arm in known)
                loss = self._losses[language, len(first), step]
                got = sum(weights[arm] * rewards[arm] for arm in known) / whole
                loss.preferred.add(best - got)
                loss.random.add(best - sum(rewards[arm] for arm in known) / len(known))
        self._sizes[language][len(first)] += 1
        self._arms[language].update(decision.arms)

    def course(self) -> list[Loss]:
        """The loss in each step of time, in all languages together."""
        losses = [Loss() for _ in range(self._steps)]
        for (language, size, step), loss in self._losses.items():
            if size == len(self._arms[language]) and self._usual(language, below=size):
                losses[step] += loss
        return losses

    def _usual(self, language: str, *, below: int) -> int:
        """The usual size of a first wave that is no audit; 0 while there was none."""
        smaller = {size: n for size, n in self._sizes[language].items() if 0 < size < below}
        return max(smaller, key=lambda size: smaller[size], default=0)


def _preferences(propensities: Sequence[float], usual: int) -> list[float]:
    """How likely each arm was to be asked, had there been no audit; up to a factor.

    >>> [round(q, 3) for q in _preferences([0.1 + 0.9 * q for q in (0.7, 0.2, 0.1)], 1)]
    [0.63, 0.18, 0.09]
    """
    most = min(propensities)
    usual = usual or 1
    audit = (sum(propensities) - usual) / (len(propensities) - usual)
    return [p - min(max(audit, 0.0), most) for p in propensities]
