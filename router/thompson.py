"""`thompson`: asks an arm as often as it may be the best for the language."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from router.inclusion import top_k
from router.policy import OneWave

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage import config
    from arbitrage.types import Context
    from router.arrays import FloatArray, IntArray
    from router.lottery import Lottery


_CONFIDENCE = 0.5
_SMALLEST = 1e-6  # a draw needs some width to have propensities


@dataclass(frozen=True, slots=True)
class LargestDraws:
    """The `count` arms whose draws are largest, of one Gaussian draw an arm."""

    mean: FloatArray
    sd: FloatArray
    count: int

    @property
    def size(self) -> int:
        """One arm for each Gaussian."""
        return len(self.mean)

    def draw(self, rng: np.random.Generator) -> IntArray:
        """One draw an arm, the largest first."""
        drawn = self.mean + self.sd * rng.standard_normal(self.size)
        return np.argsort(-drawn, kind="stable")[: self.count]

    def inclusion(self, arms: IntArray) -> FloatArray:
        """By numerical integration, see `router.inclusion.top_k`."""
        return top_k(self.mean, self.sd, self.count, arms)


class Thompson(OneWave):
    """Thompson sampling on the Gaussian belief of the language, with several draws kept.

    Thompson (1933), Biometrika 25. Draws are narrower than what is believed by the factor
    `confidence`, since the horizon of a job is short: Chapelle & Li (2011), "An Empirical
    Evaluation of Thompson Sampling", NIPS 24, where that is posterior reshaping.
    """

    kind = "thompson"
    explores = True

    def __init__(self, settings: config.Policy) -> None:
        super().__init__(settings)
        confidence = _CONFIDENCE if settings.confidence is None else settings.confidence
        self._width = max(confidence, _SMALLEST)

    def lottery(self, context: Context, arms: Sequence[str], fan_out: int) -> Lottery:
        """The largest of one draw an arm."""
        posterior = self.belief.posterior(*self.experience.place(context), arms)
        worth = posterior.mean - posterior.spread * self._toll(context, arms)
        return LargestDraws(worth, self._width * posterior.sd, fan_out)
