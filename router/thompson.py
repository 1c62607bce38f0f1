"""`thompson`: asks an arm as often as it may be the best for the language."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from router.inclusion import top_k
from router.policy import OneWave

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router.arrays import FloatArray, IntArray
    from router.belief import Posterior
    from router.lottery import Lottery


@dataclass(frozen=True, slots=True)
class LargestDraws:
    """The `count` arms whose draws from the posterior are largest."""

    posterior: Posterior
    count: int

    @property
    def size(self) -> int:
        """One arm for each Gaussian."""
        return len(self.posterior.mean)

    def draw(self, rng: np.random.Generator) -> IntArray:
        """One draw an arm, the largest first."""
        drawn = self.posterior.mean + self.posterior.sd * rng.standard_normal(self.size)
        return np.argsort(-drawn, kind="stable")[: self.count]

    def inclusion(self, arms: IntArray) -> FloatArray:
        """By numerical integration, see `router.inclusion.top_k`."""
        return top_k(self.posterior.mean, self.posterior.sd, self.count, arms)


class Thompson(OneWave):
    """Thompson sampling on the Gaussian belief of the language, with several draws kept.

    Thompson (1933), Biometrika 25; Chapelle & Li (2011), "An Empirical
    Evaluation of Thompson Sampling", NIPS 24.
    """

    kind = "thompson"
    explores = True

    def lottery(self, language: str, arms: Sequence[str]) -> Lottery:
        """The largest of one draw an arm."""
        return LargestDraws(self.belief.posterior(language, arms), self._fan_out)
