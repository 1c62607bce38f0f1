"""`pandora`: opens teachers in waves, each only while it is worth its price."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from router.experience.judgement import judgements
from router.experience.sums import STOPPED_AT
from router.joint import Joints
from router.lottery import Listed, Uniform
from router.policy import OneWave, asked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage import config
    from arbitrage.types import Candidate, Context, Decision
    from router.arrays import FloatArray, IntArray
    from router.joint import Joint
    from router.lottery import Lottery

_EXCHANGES = 4  # rounds at most
_TINY = 1e-12
_PLANS = 256  # that are kept


class Pandora(OneWave):
    """Optimal search with a price on every look (Weitzman 1979, Econometrica 47).

    The joint distribution of the arms' rewards is that of remembered prompts
    (`router.joint`), conditioned on the rewards that earlier waves brought, so that the
    failure of one arm tells what to expect of another. The first arm is the one with the
    largest reservation value: the reward in hand at which one would no longer look. Each
    further one is the arm that raises the expected maximum most for its price, as long as
    that is worth it.

    A decision follows from what was learned and seen, so propensities are 1, but for the
    audit and for newcomers.
    """

    kind = "pandora"
    explores = True

    def __init__(self, settings: config.Policy) -> None:
        super().__init__(settings)
        self._waves = settings.waves
        self._joints = Joints(self.experience)

    def select(
        self,
        context: Context,
        arms: Sequence[str],
        seen: Sequence[Candidate],
        *,
        wave: int = 0,
        elapsed: float = 0.0,
        most: int | None = None,
    ) -> Decision | None:
        """Chooses the next wave; None when no arm is worth its price, or in time."""
        if not any(candidate.may_win for candidate in seen):
            return super().select(context, arms, seen, most=most)
        left = self._waves.waves - wave
        room = (self._waves.max if most is None else most) - asked(seen)
        if left < 1 or room < 1:
            return None
        # what may still be asked is spread over the waves that are left
        size = -(-room // left)
        chosen = self._search(context, arms, seen, most=size, left=left, elapsed=elapsed)
        return self._drawn(context, arms, Listed(len(arms), chosen), seen) if chosen else None

    def lottery(self, context: Context, arms: Sequence[str], fan_out: int) -> Lottery:
        """The first wave: a set for sure; any set before anything is known."""
        waves = self._waves
        chosen = self._search(
            context, arms, (), most=fan_out, least=min(waves.min, fan_out), left=waves.waves
        )
        return Listed(len(arms), chosen) if chosen else Uniform(len(arms), fan_out)

    def _own(self) -> dict[str, Any]:
        self._joints.forget()  # made anew here as in whatever is restored from this
        return {}

    def _search(
        self,
        context: Context,
        arms: Sequence[str],
        seen: Sequence[Candidate],
        *,
        most: int,
        least: int = 0,
        left: int = 1,
        elapsed: float = 0.0,
    ) -> tuple[int, ...]:
        """The arms to open now, the first to be opened first; none where nothing is known.

        Args:
            context: of the prompt.
            arms: those that may be opened.
            seen: those that have been.
            most: arms at most.
            least: arms at least, whether they are worth it or not.
            left: waves that are left, with this one.
            elapsed: seconds since the prompt came.
        """
        leaf, _ = self.experience.place(context)
        told = judgements(seen)
        everyone = sorted({*arms, *(arm for arm, _ in told)})
        joint = self._joints.of(leaf, everyone)
        if joint is None:
            return ()
        in_time, quickest = self._in_time(context, arms, elapsed)
        if not len(in_time):
            return (quickest,) if least else ()
        column = {arm: i for i, arm in enumerate(everyone)}
        units = self.belief.units(leaf[0])
        best = -np.inf
        for arm, reward in told:
            value = STOPPED_AT if reward is None else (reward - units.level) / units.spread
            joint = joint.given(column[arm], value)
            best = max(best, -np.inf if reward is None else value)
        prices = np.full(len(arms), self._waves.least_gain) + self._toll(context, arms)
        opened = (_opened if told else _first_opened)(
            joint,
            tuple(column[arms[i]] for i in in_time),
            best,
            tuple(prices[in_time].tolist()),
            most=min(most, len(in_time)),
            least=least,
            last=left <= 1,
        )
        return tuple(int(in_time[i]) for i in opened)

    def _in_time(
        self, context: Context, arms: Sequence[str], elapsed: float
    ) -> tuple[IntArray, int]:
        """The arms whose answers are likely to be there in time; and the quickest of all."""
        budget = self._waves.latency_budget
        if budget is None:
            return np.arange(len(arms)), 0
        seconds = self.experience.costs.seconds(context.language, arms)
        return np.flatnonzero(elapsed + seconds <= budget), int(seconds.argmin())


def _opened(
    joint: Joint,
    arms: tuple[int, ...],
    best: float,
    asked: tuple[float, ...],
    *,
    most: int,
    least: int,
    last: bool,
) -> tuple[int, ...]:
    """The arms to open side by side.

    Where more may be opened later, the first one of all is that of the largest reservation
    value; where this is the last wave, what counts is the maximum of the set alone.

    Args:
        joint: of all arms.
        arms: columns of those that may be opened.
        best: the best reward so far.
        asked: their prices.
        most: of them at most.
        least: of them at least, whether they are worth it or not.
        last: whether none may be opened later.
    """
    joint, prices = joint.of(arms), np.array(asked)
    chosen: list[int] = []
    so_far = np.full(len(joint.weights), best)
    while len(chosen) < most:
        if chosen or best > -np.inf:
            worth = joint.gains(so_far) - prices
        elif last:
            worth = joint.means() - prices
        else:
            worth = joint.reservations(prices)
        worth[chosen] = -np.inf
        following = int(worth.argmax())
        if len(chosen) >= least and worth[following] <= 0.0:
            break
        chosen.append(following)
        so_far = np.maximum(so_far, joint.rewards[:, following])
    return tuple(_exchanged(joint, best, prices, chosen) if last else chosen)


_first_opened = lru_cache(maxsize=_PLANS)(_opened)
"""The same, for what is asked over and over until a joint is made anew."""


def _exchanged(joint: Joint, best: float, prices: FloatArray, chosen: list[int]) -> list[int]:
    """Arms for which no exchange of one makes a better set, as choosing one by one may leave."""
    for _ in range(_EXCHANGES if len(chosen) > 1 else 0):
        before = list(chosen)
        for place, arm in enumerate(before):
            others = chosen[:place] + chosen[place + 1 :]
            so_far = np.maximum(joint.rewards[:, others].max(axis=1), best)
            worth = joint.gains(so_far) - prices
            worth[others] = -np.inf
            following = int(worth.argmax())
            if worth[following] > worth[arm] + _TINY:
                chosen[place] = following
        if chosen == before:
            break
    return chosen
