"""The sums of the statistics in a language's units, stopped answers among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.experience.statistics import FIGURES, SCORED, SQUARES, STOPPED, TOTAL

if TYPE_CHECKING:
    from router.arrays import FloatArray
    from router.experience.units import Units

STOPPED_AT = -3.0
"""What an answer that a gate stopped counts for, in spreads from the language's level."""

SOME = 1e-9
"""Stands in for no answers at all where they are divided by."""


class Sums:
    """The sums of some leaves.

    Attributes:
        answers: `(leaves, arms)`, how many.
        y: `(leaves, arms)`, sum of their rewards.
        yy: `(leaves, arms)`, sum of the squares of these.
        x: `(leaves, arms, features)`, sum of their prompts' features.
        xy: `(leaves, arms, features)`, sum of the features times the rewards.
    """

    def __init__(self, cells: FloatArray, features: int, units: Units) -> None:
        scored, total, squares = cells[..., SCORED], cells[..., TOTAL], cells[..., SQUARES]
        stopped = cells[..., STOPPED]
        level, spread = units.level, units.spread
        self.answers = scored + stopped
        self.y = (total - scored * level) / spread + STOPPED_AT * stopped
        distances = (squares - 2.0 * level * total + scored * level**2) / spread**2
        self.yy = distances + STOPPED_AT**2 * stopped
        x, rx, stopped_x = (
            cells[..., FIGURES + i * features : FIGURES + (i + 1) * features] for i in range(3)
        )
        self.x = x + stopped_x
        self.xy = (rx - level * x) / spread + STOPPED_AT * stopped_x
