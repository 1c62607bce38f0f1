"""`best_of`: everyone, always; the price of knowing, and the ceiling of every other policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.lottery import Listed
from router.policy import OneWave

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage.types import Context
    from router.lottery import Lottery


class BestOf(OneWave):
    """Asks every arm, whatever the fan-out."""

    kind = "best_of"

    def lottery(self, context: Context, arms: Sequence[str]) -> Lottery:
        """All arms for sure."""
        del context
        return Listed(len(arms), tuple(range(len(arms))))
