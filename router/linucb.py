"""`linucb`: asks the arms that may be good, as far as is known, the most."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from router.lottery import Listed
from router.policy import OneWave

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage import config
    from arbitrage.types import Context
    from router.lottery import Lottery


_CONFIDENCE = 2.0


class LinUCB(OneWave):
    """Upper confidence bounds of the linear model; Li et al. (2010), WWW.

    It is deterministic: outside of audits and a newcomer's share, a chosen arm's
    propensity is 1.
    """

    kind = "linucb"
    explores = True

    def __init__(self, settings: config.Policy) -> None:
        super().__init__(settings)
        self._confidence = _CONFIDENCE if settings.confidence is None else settings.confidence

    def lottery(self, context: Context, arms: Sequence[str], fan_out: int) -> Lottery:
        """The largest upper bounds for sure."""
        posterior = self.belief.posterior(*self.experience.place(context), arms)
        worth = posterior.mean - posterior.spread * self._toll(context, arms)
        bound = worth + self._confidence * posterior.sd
        best = np.argsort(-bound, kind="stable")[:fan_out]
        return Listed(len(arms), tuple(best.tolist()))
