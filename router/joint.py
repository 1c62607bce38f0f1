"""How the arms' rewards go together, by the prompts that are remembered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from router.experience.families import family

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router.arrays import BoolArray, FloatArray, IntArray
    from router.experience import Experience
    from router.experience.leaf import Leaf

_OWN = 768  # prompts of the leaf that count, the newest ones
_OTHERS = 128  # of each kind of other prompts
_BORROWED = (100.0, 60.0, 20.0, 10.0)
"""Prompts that all others count for: of the same type, language, family, and the rest."""

_WIDTH = 0.6  # of the kernel that compares rewards, in spreads
_DOUBT = 1e-3  # share of the weight that what was seen does not change
_REBUILT_EVERY = 1.1  # times the prompts
_BISECTIONS = 12


@dataclass(frozen=True, slots=True)
class Joint:
    """A weighted sample of the arms' rewards for one prompt, in spreads from the level.

    Attributes:
        rewards: `(draws, arms)`.
        weights: `(draws,)`, summing to 1.
    """

    rewards: FloatArray
    weights: FloatArray

    def given(self, arm: int, reward: float) -> Joint:
        """What is left to expect when one arm's reward is known: kernel conditioning."""
        away = (self.rewards[:, arm] - reward) / _WIDTH
        likely = self.weights * np.exp(-0.5 * away * away)
        total = likely.sum()
        if not total > 0.0:
            return self
        return replace(self, weights=(1.0 - _DOUBT) * likely / total + _DOUBT * self.weights)

    def gains(self, best: FloatArray | float) -> FloatArray:
        """How much each arm is expected to raise the best reward so far, `(arms,)`.

        Args:
            best: the best so far, one figure or one a draw.
        """
        so_far = np.broadcast_to(best, self.weights.shape)[:, None]
        gains: FloatArray = self.weights @ np.maximum(self.rewards - so_far, 0.0)
        return gains

    def means(self) -> FloatArray:
        """The expected reward of each arm, `(arms,)`."""
        means: FloatArray = self.weights @ self.rewards
        return means

    def reservations(self, prices: FloatArray) -> FloatArray:
        """The reward in hand at which one would no longer pay to look, `(arms,)`.

        The z at which E[max(reward - z, 0)] is the price, by bisection.
        """
        low: FloatArray = self.rewards.min(axis=0) - prices - 1.0
        high = self.rewards.max(axis=0)
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            pays = self.weights @ np.maximum(self.rewards - middle, 0.0) > prices
            low, high = np.where(pays, middle, low), np.where(pays, high, middle)
        return low

    def of(self, arms: Sequence[int]) -> Joint:
        """Of these arms alone."""
        return replace(self, rewards=self.rewards[:, arms])


class Joints:
    """Makes joints of leaves, and keeps them until enough has been learned anew."""

    def __init__(self, experience: Experience) -> None:
        self._experience = experience
        self._kept: dict[tuple[Leaf, tuple[str, ...]], tuple[int, Joint]] = {}
        self._source: object = None

    def forget(self) -> None:
        """Makes every joint anew when it is next asked for."""
        self._kept.clear()

    def of(self, leaf: Leaf, arms: Sequence[str]) -> Joint | None:
        """For a prompt of this leaf; None before anything is remembered.

        Own prompts count as they are. Prompts of other leaves count for a few, fewer the
        less they have in common with the leaf, and each of their rewards is moved by what
        the arm is expected to be better or worse here. What an arm would have got that
        was not asked is taken from a prompt on which those asked by both did alike (hot
        deck imputation; Andridge & Little 2010).
        """
        memory = self._experience.memory
        if memory is not self._source:
            self._kept.clear()
            self._source = memory
        if not memory.size:
            return None
        key = (leaf, tuple(arms))
        number = memory.leaves.get(leaf)
        seen = memory.counts[number] if number is not None else 0
        made, joint = self._kept.get(key, (-1, None))
        if joint is None or seen + memory.added // 50 >= _REBUILT_EVERY * made + 4:
            joint = self._make(leaf, arms)
            self._kept[key] = (seen + memory.added // 50, joint)
        return joint

    def _make(self, leaf: Leaf, arms: Sequence[str]) -> Joint:
        memory = self._experience.memory
        rows, weights = self._chosen(leaf)
        rewards, known = self._experience.outcomes(rows, arms)
        here = self._experience.expected(leaf, arms)
        for number in np.unique(memory.leaf[rows]):
            other = memory.leaf_of[number]
            if other != leaf:
                rewards[memory.leaf[rows] == number] += here - self._experience.expected(
                    other, arms
                )
        return Joint(_imputed(rewards, known, here), weights)

    def _chosen(self, leaf: Leaf) -> tuple[IntArray, FloatArray]:
        """Rows of the memory, and what each counts for."""
        memory = self._experience.memory
        recent = memory.order()[::-1]
        of = np.array([_likeness(other, leaf) for other in memory.leaf_of])[memory.leaf[recent]]
        rows, weights = [], []
        for likeness, (most, mass) in enumerate(
            [(_OWN, np.inf), *((_OTHERS, mass) for mass in _BORROWED)]
        ):
            found = recent[of == likeness][:most]
            rows.append(found)
            share = min(1.0, mass / max(len(found), 1))
            weights.append(np.full(len(found), share))
        weight = np.concatenate(weights)
        return np.concatenate(rows), weight / weight.sum()


def _likeness(other: Leaf, leaf: Leaf) -> int:
    """0 for the same leaf, up to 4 for one that has nothing in common."""
    if other == leaf:
        return 0
    if other[1] == leaf[1] and leaf[1]:
        return 1
    if other[0] == leaf[0]:
        return 2
    return 3 if family(other[0]) == family(leaf[0]) else 4


def _imputed(rewards: FloatArray, known: BoolArray, expected: FloatArray) -> FloatArray:
    """The rewards with no gaps: what is unknown comes from the likest draw that knows it."""
    if known.all():
        return rewards
    filled = np.where(known, rewards, 0.0)
    # squared distances over the arms that both know, and how many these are
    common = known.astype(np.float64) @ known.T
    squares = (filled**2) @ known.T
    apart = squares + squares.T - 2.0 * (filled @ filled.T)
    distance = np.where(common > 0.0, np.maximum(apart, 0.0) / np.maximum(common, 1.0), 1e6)
    # of those equally near, the one that has most in common
    distance += 1e-3 / (1.0 + common)
    np.fill_diagonal(distance, np.inf)
    complete = filled.copy()
    for arm in np.flatnonzero(~known.all(axis=0)):
        missing = np.flatnonzero(~known[:, arm])
        donors = np.flatnonzero(known[:, arm])
        if len(donors):
            nearest = donors[distance[np.ix_(missing, donors)].argmin(axis=1)]
            complete[missing, arm] = filled[nearest, arm]
        else:
            # nobody knows the arm: what is expected of it, on a prompt as hard as this
            ease = np.where(known, rewards - expected, 0.0).sum(axis=1) / np.maximum(
                known.sum(axis=1), 1
            )
            complete[missing, arm] = expected[arm] + ease[missing]
    return complete
