"""What a policy is going to do with the prompts of a context, as far as it can be told before."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from arbitrage.estimate.outlay import Asked, Seconds
from router.experience.costs import CALLS, LOGS, SQUARES, TIMED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage import config
    from arbitrage.types import Context
    from router.arrays import FloatArray
    from router.explain import Explicable

_ENOUGH_TIMED = 10.0  # calls in a language; with fewer, the arm's calls in all of them tell
_NINE_OF_TEN = 1.2816  # standard deviations below which nine tenths of a Gaussian lie
_SURE = 0.999  # share of stopped answers that is counted at most: one day somebody wins


@dataclass(frozen=True, slots=True)
class Outlook:
    """Whom a policy asks in a context.

    Attributes:
        asked: each arm that may be asked, with its expected calls a prompt. What the first
            wave asks is the policy's own share. Of what later waves may ask beside it, half
            is taken to be asked; and as often as gates stop all answers to a prompt, others
            are asked in their place.
        least: calls a prompt that are made for sure.
        stopped: share of the answers that gates stop, as far as that was learned.
    """

    asked: tuple[Asked, ...]
    least: float
    stopped: float

    @classmethod
    def of(
        cls, policy: Explicable, settings: config.Policy, context: Context, arms: Sequence[str]
    ) -> Self:
        """Asks a policy about a context, and changes nothing in it.

        >>> from arbitrage import config
        >>> from arbitrage.types import Context
        >>> from router.thompson import Thompson
        >>> settings = config.Policy(fan_out=1, audit_rate=0.1)
        >>> outlook = Outlook.of(Thompson(settings), settings, Context("de"), ["a", "b"])
        >>> outlook.least, [round(one.calls, 2) for one in outlook.asked]
        (1.0, [0.55, 0.55])
        """
        shares = np.array(policy.shares(context, arms), dtype=np.float64)
        waves = settings.waves
        first = float(shares.sum())
        least = min(waves.max if waves.waves == 1 else waves.min, len(arms))
        if policy.kind == "best_of":
            least = len(arms)
        calls = shares
        if waves.waves > 1:
            calls = _with(calls, max(0.0, min(waves.max, len(arms)) - first) / 2.0)
        stopped = _stopped(policy, context.language, arms, shares)
        nobody = stopped ** max(1.0, first)
        calls = _with(calls, float(calls.sum()) * nobody / (1.0 - nobody))
        usd = _usd(policy, context.language, arms)
        asked = tuple(
            Asked(arm, float(often), price, _seconds(policy, context.language, arm))
            for arm, often, price in zip(arms, calls, usd, strict=True)
        )
        return cls(asked, min(float(least), first), stopped)


def _with(calls: FloatArray, more: float) -> FloatArray:
    """So many calls more, of those that are not made yet."""
    left = 1.0 - calls
    room = float(left.sum())
    return calls + left * min(1.0, more / room) if room > 0.0 else calls


def _stopped(policy: Explicable, language: str, arms: Sequence[str], shares: FloatArray) -> float:
    estimates = policy.estimates(arms, [language])
    answers = np.array([e.scored + e.stopped for e in estimates], dtype=np.float64)
    if not answers.any():
        return 0.0
    stopped = np.array([e.stopped for e in estimates], dtype=np.float64)
    rates = np.divide(stopped, answers, out=np.zeros(len(arms)), where=answers > 0.0)
    weights = shares * (answers > 0.0)
    total = float(weights.sum())
    return min(float(weights @ rates) / total, _SURE) if total > 0.0 else 0.0


def _usd(policy: Explicable, language: str, arms: Sequence[str]) -> tuple[float | None, ...]:
    costs = policy.experience.costs
    expected = costs.usd(language, arms)
    called = [
        arm in costs.arms and costs.sums[:, costs.arms[arm], CALLS].sum() >= 1.0 for arm in arms
    ]
    return tuple(float(usd) if known else None for usd, known in zip(expected, called, strict=True))


def _seconds(policy: Explicable, language: str, arm: str) -> Seconds | None:
    """Logarithms of seconds are Gaussian, as `Costs` takes them."""
    costs = policy.experience.costs
    if arm not in costs.arms:
        return None
    of_arm = costs.sums[:, costs.arms[arm]]
    figures = of_arm[costs.languages.get(language, -1)]
    if figures[TIMED] < _ENOUGH_TIMED:
        figures = of_arm.sum(axis=0)
    timed = float(figures[TIMED])
    if timed < 1.0:
        return None
    mean = float(figures[LOGS]) / timed
    variance = max(0.0, float(figures[SQUARES]) / timed - mean * mean)
    return Seconds(
        mean=math.exp(mean + variance / 2.0),
        slow=math.exp(mean + _NINE_OF_TEN * math.sqrt(variance)),
    )
