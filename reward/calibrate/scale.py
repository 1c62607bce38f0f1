"""Location and scale of the scores in each language, from few answers on.

Scores compare within a prompt only: how far two prompts lie apart tells of the
prompts (the model card of Nemotron-70B-Reward says so of its own). So the scale
is the pooled standard deviation within prompts; the location is the mean.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NO_SPREAD = 1e-6
_REACH = 10.0
# what is said of all languages is said anew when a fiftieth more is known
_GROWTH = 1.02


@dataclass(slots=True)
class Spread:
    """Mean and variances of scores that come prompt by prompt.

    Sums of squares are kept about the means, never as differences of large sums:
    Welford (1962), and Chan, Golub & LeVeque (1983) for several scores at once.

    Attributes:
        count: scores seen; a fraction once some are half forgotten.
        squares: squared deviations from the mean.
        freedom: scores minus prompts: how much is known within prompts.
        within: squared deviations from each prompt's own mean.
    """

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0
    freedom: float = 0.0
    within: float = 0.0

    def learn(self, scores: Sequence[float]) -> None:
        """Takes the scores of one prompt, at least one."""
        new = len(scores)
        mean = sum(scores) / new
        within = sum((score - mean) ** 2 for score in scores)
        apart = mean - self.mean
        total = self.count + new
        self.squares += within + apart * apart * self.count * new / total
        self.mean += apart * new / total
        self.count = total
        self.freedom += new - 1
        self.within += within

    def fade(self, count: float) -> None:
        """Goes on as if no more than `count` scores had been seen."""
        kept = min(1.0, count / self.count) if self.count else 1.0
        self.count *= kept
        self.squares *= kept
        self.freedom *= kept
        self.within *= kept

    @property
    def deviation(self) -> float:
        """Standard deviation of all scores."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0

    @property
    def deviation_within(self) -> float:
        """Pooled standard deviation within prompts; 0 where no prompt had two scores."""
        return math.sqrt(self.within / self.freedom) if self.freedom else 0.0


class Scales:
    """Each language's location and scale, shrunk to those of all languages together.

    What n scores say weighs n / (n + strength); the rest is what all languages say,
    and what they say is shrunk in the same way to location 0 and scale 1. Scales are
    averaged as logarithms, so that scores in any unit soon find theirs. For a scale,
    n counts differences within prompts; where scores never differ it stays 0.

    Args:
        strength: how many scores weigh as much as what is believed without them.
    """

    def __init__(self, strength: float) -> None:
        self._strength = strength
        self._of: defaultdict[str, Spread] = defaultdict(Spread)
        self._shared = (0.0, 1.0)
        self._learned = self._shared_at = 0

    def of(self, language: str) -> tuple[float, float]:
        """Location and scale of a language, in units of the score; the scale is positive."""
        own = self._of.get(language)
        if own is None:
            return self._shared
        location, scale = self._shared
        location += self._weight(own.count) * (own.mean - location)
        if own.deviation_within > _NO_SPREAD:
            weight = self._weight(own.freedom)
            scale = scale ** (1.0 - weight) * own.deviation_within**weight
        return location, scale

    def learn(self, language: str, scores: Sequence[float]) -> None:
        """Takes the scores of one prompt, at least one."""
        self._of[language].learn(scores)
        self._learned += len(scores)
        if self._learned > _GROWTH * self._shared_at:
            self._share()

    def within_reach(self, language: str, score: float) -> float:
        """A score at most ten standard deviations from the language's mean.

        One broken score must not decide what a language's scores are like, once there are
        as many as `strength`; before, nobody can say which of them is broken.
        """
        own = self._of.get(language)
        if own is None or own.count < self._strength or own.deviation < _NO_SPREAD:
            return score
        reach = _REACH * own.deviation
        return min(max(score, own.mean - reach), own.mean + reach)

    def fade(self, language: str) -> None:
        """What was learned of a language weighs no more than what all languages say."""
        self._of[language].fade(self._strength)

    def state(self) -> dict[str, Any]:
        """Everything, for a snapshot."""
        return {
            "of": {language: list(astuple(own)) for language, own in self._of.items()},
            "shared": list(self._shared),
            "learned": self._learned,
            "shared_at": self._shared_at,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Becomes what `state` was taken from."""
        self._of.clear()
        self._of.update({language: Spread(*own) for language, own in state["of"].items()})
        location, scale = state["shared"]
        self._shared = (location, scale)
        self._learned, self._shared_at = int(state["learned"]), int(state["shared_at"])

    def _share(self) -> None:
        """The location and scale of all languages, each counting by what is known of it."""
        spreads = list(self._of.values())
        count = sum(own.count for own in spreads)
        mean = sum(own.count * own.mean for own in spreads) / count
        differing = [own for own in spreads if own.deviation_within > _NO_SPREAD]
        freedom = sum(own.freedom for own in differing)
        logs = sum(own.freedom * math.log(own.deviation_within) for own in differing)
        scale = math.exp(logs / (freedom + self._strength))
        self._shared = (self._weight(count) * mean, scale)
        self._shared_at = self._learned

    def _weight(self, count: float) -> float:
        return count / (count + self._strength)
