"""`random`: any arms, each as likely as the next; the yardstick of every other policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.lottery import Uniform
from router.policy import OneWave

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage.types import Context
    from router.lottery import Lottery


class Random(OneWave):
    """Asks `fan_out` arms, uniformly without replacement."""

    kind = "random"

    def lottery(self, context: Context, arms: Sequence[str], fan_out: int) -> Lottery:
        """Every set of `fan_out` arms alike."""
        del context
        return Uniform(len(arms), fan_out)
