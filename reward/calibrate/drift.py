"""An alarm for scores that are no longer what they were."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Self

from reward.calibrate.scale import Spread

if TYPE_CHECKING:
    from collections.abc import Sequence

_RECENT_PROMPTS = 200
_WEIGHT = 2.0 / (_RECENT_PROMPTS + 1)
_LIMIT = 4.5
# of the recent mean, in standard deviations of one prompt
_THRESHOLD = _LIMIT * math.sqrt(_WEIGHT / (2.0 - _WEIGHT))


@dataclass(frozen=True, slots=True)
class Shift:
    """What an alarm has found.

    Attributes:
        before, recent: means over the prompts, in units of the score.
        deviations: from before to recent, in standard deviations of one prompt.
    """

    before: float
    recent: float
    deviations: float


@dataclass(slots=True)
class DriftAlarm:
    """An EWMA chart of one value a prompt (Roberts 1959, Technometrics 1).

    The mean of the recent prompts, weighted exponentially as if over 200, is held
    against the mean of all since the reference began, and the alarm sounds where they
    are 4.5 standard errors apart, 0.32 standard deviations. On independent prompts
    that is less than one false alarm in 250,000 prompts, on heavy tails as well;
    `benchmarks/calibration.py` measures it, and the delay.

    After an alarm the reference begins again, and so the next needs 200 prompts and
    another shift: scores that stay where they went sound it once.
    """

    _reference: Spread = field(default_factory=Spread)
    _recent: float = 0.0

    @classmethod
    def of_state(cls, state: Sequence[float]) -> Self:
        """What `state` was taken from."""
        recent, *reference = state
        return cls(Spread(*reference), recent)

    def state(self) -> list[float]:
        """Everything, for a snapshot."""
        return [self._recent, *astuple(self._reference)]

    def learn(self, value: float) -> Shift | None:
        """Takes the next prompt's value; what has shifted, where the alarm sounds."""
        reference = self._reference
        reference.learn([value])
        if reference.count <= _RECENT_PROMPTS:
            self._recent = reference.mean
            return None
        self._recent += _WEIGHT * (value - self._recent)
        apart = self._recent - reference.mean
        if abs(apart) <= _THRESHOLD * reference.deviation:
            return None
        shift = Shift(reference.mean, self._recent, apart / reference.deviation)
        self._reference = Spread()
        return shift
