"""The units that rewards are reckoned in: where a language's lie, and how far apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from router.experience.statistics import SCORED, SQUARES, TOTAL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from router.arrays import FloatArray

FREEDOM = 2.0
"""Degrees of freedom behind the prior of a language's spread, and of its noise."""

_ROUNDING = 1e-12  # a variance below this share of the squared level is rounding error ...
_SMALLEST_VARIANCE = 1e-60  # ... and below this, too small to divide by


@dataclass(frozen=True, slots=True)
class Scale:
    """Where a language's rewards lie, by its own rewards alone.

    Attributes:
        level: mean over its arms' mean rewards; None before the first reward.
        log_variance: of the mean square distance of its rewards from that.
        weight: degrees of freedom behind it, 0 while nothing is known of it.
    """

    level: float | None = None
    log_variance: float = 0.0
    weight: float = 0.0

    @classmethod
    def of(cls, figures: FloatArray) -> Scale:
        """Of the sums over a language, `(arms, figures)`."""
        scored, total, squares = figures[:, SCORED], figures[:, TOTAL], figures[:, SQUARES]
        asked = scored > 0.0
        if not asked.any():
            return cls()
        level = float((total[asked] / scored[asked]).mean())
        freedom = float(scored.sum()) - 1.0
        distance = float(squares.sum() - 2.0 * level * total.sum() + (freedom + 1.0) * level**2)
        variance = distance / max(freedom, 1.0)
        if freedom < 1.0 or variance <= max(_ROUNDING * level**2, _SMALLEST_VARIANCE):
            return cls(level)
        return cls(level, math.log(variance), freedom)

    @classmethod
    def usual(cls, scales: Iterable[Scale]) -> Scale:
        """The mean level and the geometric mean spread; 0 and 1 while there is none.

        A language has at most one vote.
        """
        levels = variances = weights = 0.0
        scored = 0
        for scale in scales:
            if scale.level is not None:
                levels += scale.level
                scored += 1
            vote = scale.weight / (scale.weight + 1.0)
            variances += vote * scale.log_variance
            weights += vote
        return cls(levels / max(scored, 1), variances / weights if weights else 0.0, weights)


@dataclass(frozen=True, slots=True)
class Units:
    """A language's units, in which it is told from others and its arms from one another.

    They stand until the language has grown enough, so that what follows from them need not
    be worked out again with every prompt.

    Attributes:
        level: what counts as 0.
        spread: what counts as 1, above 0.
        noise: variance of a reward around its expectation, in squared spreads.
        prompts: of the language, when these were taken.
    """

    level: float
    spread: float
    noise: float
    prompts: int = 0

    @classmethod
    def of(cls, own: Scale, usual: Scale, noise: float, prompts: int = 0) -> Units:
        """Its own where it has any, and shrunk to the usual ones."""
        level = usual.level if own.level is None else own.level
        weighted = own.weight * own.log_variance + FREEDOM * usual.log_variance
        spread = math.exp(weighted / (own.weight + FREEDOM) / 2.0)
        return cls(level or 0.0, spread, noise, prompts)
