"""What the statistics let one believe of an arm's reward in a language."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from router.statistics import Statistics, grown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from arbitrage.types import Candidate
    from router.arrays import FloatArray


STOPPED_AT = -3.0
"""What an answer that a gate stopped counts for, in spreads from the language's level."""

_PRIOR_ANSWERS = 1.0  # prior strength of an arm's mean
_PRIOR_FREEDOM = 2.0  # degrees of freedom behind the prior of a language's spread and noise
_ROUNDING = 1e-12  # a variance below this share of the squared level is rounding error ...
_SMALLEST_VARIANCE = 1e-60  # ... and below this, too small to divide by


@dataclass(frozen=True, slots=True)
class Posterior:
    """Independent Gaussians over the arms' expected rewards, in the reward's units.

    Attributes:
        mean: `(arms,)`.
        sd: `(arms,)`, above 0.
    """

    mean: FloatArray
    sd: FloatArray


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where a language's rewards lie, by its own rewards alone.

    `weight` is the number of degrees of freedom behind `log_variance`, 0 while
    nothing is known of it; `level` is None before the first reward.
    """

    level: float | None
    log_variance: float = 0.0
    weight: float = 0.0


class Belief:
    """A Gaussian model of rewards whose scale may differ from language to language.

    A language's *level* is the mean over its arms' mean rewards, its *spread* the
    root mean square distance of its rewards from that. In these units an answer
    that a gate stopped counts `STOPPED_AT`, noise is one variance pooled over the
    language's arms, and an arm's prior, worth one answer, is its mean offset in
    the other languages, each of which has at most one vote. Spreads are shrunk to
    the languages' geometric mean, because what is unknown of a scale is a factor.

    An arm that is good elsewhere starts ahead where nobody has been asked:

    >>> from arbitrage.types import Candidate, Completion, Score
    >>> belief = Belief()
    >>> for language in ("de", "fr", "ja"):
    ...     for reward in (0.1, 0.2, 0.3):
    ...         good = Candidate("good", Completion("."), score=Score(0.5 + reward, {}))
    ...         poor = Candidate("poor", Completion("."), score=Score(reward, {}))
    ...         belief.learn(language, [good, poor])
    >>> mean = belief.posterior("sw", ["poor", "new", "good"]).mean
    >>> bool(mean[0] < mean[1] < mean[2])
    True
    """

    def __init__(self) -> None:
        self.statistics = Statistics()
        # Per language and arm, the weight of its vote and the weighted vote (the
        # offset in spreads); the last row and column are zero, as in the statistics.
        self._votes: FloatArray = np.zeros((1, 1, 2))
        self._all_votes: FloatArray = np.zeros((1, 2))
        self._scales: dict[str, _Scale] = {}
        self._usual = _Scale(level=0.0)

    def learn(self, language: str, candidates: Iterable[Candidate]) -> None:
        """Takes in the candidates of one prompt."""
        statistics = self.statistics
        statistics.add(language, candidates)
        if language not in statistics.languages:
            return
        row = statistics.row(language)
        self._votes = grown(self._votes, *statistics.sums.shape[:2])
        self._scales[language] = scale = _scale(statistics.sums[row])
        if scale.weight:
            answers, offsets, _ = _in_spreads(
                statistics.sums[row], scale.level or 0.0, math.exp(scale.log_variance / 2.0)
            )
            self._votes[row, :, 0] = answers / (answers + 1.0)
            self._votes[row, :, 1] = offsets / (answers + 1.0)
        # Summed anew, so that rounding errors cannot pile up.
        self._all_votes = self._votes.sum(axis=0)
        self._usual = _usual(self._scales.values())

    def posterior(self, language: str, arms: Sequence[str]) -> Posterior:
        """What to expect of these arms in one language, known or not."""
        row = self.statistics.row(language)
        scale = self._scales.get(language, _Scale(level=None))
        level = self._usual.level if scale.level is None else scale.level
        spread = math.exp(_shrunk(scale, self._usual) / 2.0)
        answers, offsets, squares = _in_spreads(self.statistics.sums[row], level or 0.0, spread)
        # Rounding may leave a negative sum of squares.
        residual = max(float((squares - offsets**2 / np.maximum(answers, 1.0)).sum()), 0.0)
        freedom = float(np.maximum(answers - 1.0, 0.0).sum())
        noise = (residual + _PRIOR_FREEDOM) / (freedom + _PRIOR_FREEDOM)
        others = self._all_votes - self._votes[row]
        prior = others[:, 1] / (others[:, 0] + 1.0)
        strength = answers + _PRIOR_ANSWERS
        mean = (offsets + _PRIOR_ANSWERS * prior) / strength
        columns = self.statistics.columns(arms)
        return Posterior(
            mean=((level or 0.0) + spread * mean)[columns],
            sd=(spread * np.sqrt(noise / strength))[columns],
        )


def _scale(table: FloatArray) -> _Scale:
    scored, total, squares, _ = table.T
    asked = scored > 0.0
    if not asked.any():
        return _Scale(level=None)
    level = float((total[asked] / scored[asked]).mean())
    freedom = float(scored.sum()) - 1.0
    distance = float(squares.sum() - 2.0 * level * total.sum() + (freedom + 1.0) * level**2)
    variance = distance / max(freedom, 1.0)
    if freedom < 1.0 or variance <= max(_ROUNDING * level**2, _SMALLEST_VARIANCE):
        return _Scale(level)
    return _Scale(level, math.log(variance), freedom)


def _usual(scales: Iterable[_Scale]) -> _Scale:
    """The mean level and spread over languages; 0 and 1 while there is none."""
    levels = 0.0
    scored = 0
    variances = 0.0
    weights = 0.0
    for scale in scales:
        if scale.level is not None:
            levels += scale.level
            scored += 1
        vote = scale.weight / (scale.weight + 1.0)
        variances += vote * scale.log_variance
        weights += vote
    return _Scale(levels / max(scored, 1), variances / weights if weights else 0.0, weights)


def _shrunk(own: _Scale, usual: _Scale) -> float:
    weighted = own.weight * own.log_variance + _PRIOR_FREEDOM * usual.log_variance
    return weighted / (own.weight + _PRIOR_FREEDOM)


def _in_spreads(
    table: FloatArray, level: float, spread: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Number, sum and sum of squares of an arm's answers in spreads from the level, each `(arms,)`.

    Stopped answers are among them.
    """
    scored, total, squares, stopped = table.T
    offsets = (total - scored * level) / spread + STOPPED_AT * stopped
    distances = (squares - 2.0 * level * total + scored * level**2) / spread**2
    return scored + stopped, offsets, distances + STOPPED_AT**2 * stopped
