"""`best_of`: everyone, always; the price of knowing, and the ceiling of every other policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.lottery import Listed, Uniform
from router.policy import OneWave

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage.types import Context
    from router.lottery import Lottery


class BestOf(OneWave):
    """Asks every arm, whatever the fan-out."""

    kind = "best_of"

    def lottery(self, context: Context, arms: Sequence[str], fan_out: int) -> Lottery:
        """All arms for sure; where there is no room for all, any."""
        del context
        if fan_out < len(arms):
            return Uniform(len(arms), fan_out)
        return Listed(len(arms), tuple(range(len(arms))))

    def _wave_size(self, arms: Sequence[str], most: int | None) -> int:
        return len(arms) if most is None else most
