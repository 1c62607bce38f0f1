"""What a dollar is worth, so that a budget lasts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arbitrage import config

_GAIN = 0.02  # log price for each target spent too much, at least ...
_GAIN_AT_FIRST, _AT_FIRST = 0.05, 100.0  # ... at most at first, by so many over prompts seen ...
_GAIN_AT_LAST, _AT_LAST = 0.15, 4.0  # ... and at last, by so many over prompts left
_PATIENCE = 300.0  # prompts in which the level takes over a deviation that stays
_SWING = 4.0  # how far a deviation may move the log price
_LEVEL = 6.0  # log price, up or down, at most, before a deviation moves it
_NOTHING = -9.0  # log price below which a dollar is worth nothing
_CORRECTION = (-0.9, 3.0)  # share of the target by which the pace may change, to catch up
_SHORTEST, _LONGEST = 50, 1000  # prompts over which that is, at the end, and without a horizon
_LARGEST_USD = 1e9
_RECENT = 0.02  # weight of the latest prompt in what prompts cost of late


class Pacer:
    """The price of a dollar, in spreads of the rewards: quality is weighed against it.

    A policy takes `price * usd` off an arm's reward, in the language's spreads. With the
    *target*, dollars that a prompt may cost, as the unit of money, the price has no unit
    but spreads, and its logarithm moves with what was spent: a primal-dual method with
    multiplicative updates (Balseiro & Gur 2019, "Learning in Repeated Auctions with
    Budgets"; ParetoBandit, arXiv 2604.00136).

        price * target = exp(level + gain * excess)
        excess += usd / target - pace,  level += gain * excess / patience

    The `excess` over the pace is what a dual step of size `gain` sums up, so a price is
    found that spends at the pace. The `level` learns it, so that nothing stays unpaid: a
    regulator with a proportional and an integral part. The pace is what remains of the
    budget over what remains of the horizon, in targets; without a horizon, or behind its
    end, the target, with what is owed or saved spread over as many prompts as there were. The
    gain is high for a few hundred prompts and at the end, where a deviation weighs most
    in the total, and low between, where moving the price costs quality.

    A decision's cost is known only when its answers are there, hundreds of decisions
    later: to wait for it would make any price swing. So a decision is committed with its
    expected cost, and when the prompt is charged the truth takes the expectation's place.
    Prompts that are never charged count as if they had kept to the target, in the long run.

    >>> pacer = Pacer(target=0.01, horizon=1000)
    >>> round(pacer.price * 0.01, 2)
    1.0
    >>> for _ in range(20):
    ...     pacer.commit(0.03)
    ...     pacer.charge(0.02, expected=0.03)
    >>> pacer.price * 0.01 > 2.0
    True

    Args:
        target: US dollars that a prompt may cost on average; without one, all prices are 0.
        horizon: prompts over which the average is to be kept.

    Attributes:
        prompts: how many have been charged.
        spent: on them, in US dollars.
    """

    def __init__(self, target: float | None = None, horizon: int | None = None) -> None:
        self.prompts = 0
        self.spent = 0.0
        self._target = target
        self._horizon = horizon
        self._recent = 0.0
        self._open = 0
        self._blind = 0
        # In targets: above the target is what open prompts are expected to cost, and above
        # the pace what was spent, or will be.
        self._open_excess = 0.0
        self._excess = 0.0
        self._level = 0.0

    @classmethod
    def of(cls, settings: config.Policy) -> Self:
        """Makes the pacer of a policy's configuration."""
        if settings.budget_usd and settings.horizon:
            return cls(settings.budget_usd / settings.horizon, settings.horizon)
        return cls(settings.usd_per_prompt)

    @property
    def paces(self) -> bool:
        """Whether there is anything to hold; if not, prices are 0 and costs need no guess."""
        return self._target is not None

    @property
    def price(self) -> float:
        """What a dollar is worth, in spreads."""
        if self._target is None:
            return 0.0
        log = self._level + self._gain * self._excess
        return math.exp(log) / self._target if log > _NOTHING else 0.0

    @property
    def usd_per_prompt(self) -> float:
        """What a prompt has cost of late, in US dollars; 0 before the first."""
        return self._recent

    def commit(self, usd: float, *, first: bool = True) -> None:
        """Takes note of a wave that was just decided.

        Args:
            usd: what it is expected to cost.
            first: whether it is the prompt's first.
        """
        if self._target is None:
            return
        if not self.prompts and not usd:  # nothing is known of costs yet
            usd = self._target * first
            self._blind += first
        deviation = _in_targets(usd, self._target) - first
        self._open += first
        self._open_excess += deviation
        self._move(deviation)
        if first:
            self._step()

    def charge(self, usd: float, *, expected: float = 0.0) -> None:
        """Takes note of what a prompt has cost, once, when all its answers are there.

        Args:
            usd: what it has cost; if that can be no cost, it is as expected.
            expected: what its waves together are expected to cost, by what was known
                before this.
        """
        if not 0.0 <= expected <= _LARGEST_USD:
            expected = self._target or 0.0
        if not 0.0 <= usd <= _LARGEST_USD:
            usd = expected
        self.prompts += 1
        self.spent += usd
        self._recent += max(_RECENT, 1.0 / self.prompts) * (usd - self._recent)
        if self._target is None:
            return
        deviation = _in_targets(usd, self._target) - 1.0
        if not self._open:
            self._move(deviation)
            self._step()
            return
        guess = 0.0 if self._blind else _in_targets(expected, self._target) - 1.0
        self._blind = max(self._blind - 1, 0)
        self._open -= 1
        # Expectations change while prompts are open, and some prompts never return.
        stale = (self._open_excess - guess) / (4.0 * self._open + 100.0)
        self._open_excess -= guess + stale
        self._move(deviation - guess - stale)

    def state(self) -> dict[str, Any]:
        """Everything, for a snapshot; the price in dollars, that it holds for other targets."""
        return {
            "prompts": self.prompts,
            "spent": self.spent,
            "recent": self._recent,
            "open": self._open,
            "blind": self._blind,
            "open_excess": self._open_excess,
            "excess": self._excess,
            "level": self._level,
            "target": self._target,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Becomes what `state` was taken from, but for the target and the horizon.

        If the target is another now, the price of a dollar stays as it was.
        """
        self.prompts, self.spent = int(state["prompts"]), float(state["spent"])
        self._recent = float(state["recent"])
        self._open, self._blind = int(state["open"]), int(state["blind"])
        self._open_excess = float(state["open_excess"])
        self._excess, self._level = float(state["excess"]), float(state["level"])
        before = state["target"]
        if before != self._target and before and self._target:
            self._level = _within(self._level + math.log(self._target / before), _LEVEL)

    def merge(self, state: Mapping[str, Any]) -> None:
        """Adds another replica's prompts and spending, as if they had been this one's.

        The level becomes the mean of both, by their prompts, and what both have overspent
        is owed together. What the other has open, it will be charged itself.
        """
        other = Pacer(self._target, self._horizon)
        other.restore(state)
        prompts = max(self.prompts + other.prompts, 1)
        share = other.prompts / prompts
        self._level += share * (other._level - self._level)
        self._recent += share * (other._recent - self._recent)
        self.prompts += other.prompts
        self.spent += other.spent
        self._move(other._excess)

    @property
    def _seen(self) -> int:
        return self.prompts + self._open

    @property
    def _left(self) -> int:
        """Prompts of the horizon; 0 without one, and behind its end."""
        return max((self._horizon or 0) - self._seen, 0)

    @property
    def _gain(self) -> float:
        gain = max(_GAIN, min(_GAIN_AT_FIRST, _AT_FIRST / max(self._seen, 1)))
        return max(gain, min(_GAIN_AT_LAST, _AT_LAST / self._left)) if self._left else gain

    def _move(self, deviation: float) -> None:
        """Adds to the excess, within what is still to be made good by the price."""
        self._excess = _within(self._excess + deviation, _SWING / self._gain)

    def _step(self) -> None:
        """Passes one prompt: its pace, and what the level learns."""
        target = self._target or 1.0
        owed = self.spent / target - self.prompts + self._open_excess
        span = max(self._left or max(self._seen, _LONGEST), _SHORTEST)
        least, most = _CORRECTION
        self._move(-min(max(-owed / span, least), most))
        self._level = _within(self._level + self._gain * self._excess / _PATIENCE, _LEVEL)


def _in_targets(usd: float, target: float) -> float:
    return usd / target if 0.0 <= usd <= _LARGEST_USD else 1.0


def _within(value: float, most: float) -> float:
    return min(max(value, -most), most)
