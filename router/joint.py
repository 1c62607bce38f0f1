"""How the arms' rewards go together, by the prompts that are remembered."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from router.experience.leaf import groups_of
from router.experience.memory import NEWEST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router.arrays import BoolArray, FloatArray, IntArray
    from router.experience import Experience
    from router.experience.leaf import Group, Leaf

Key = TypeVar("Key")
Value = TypeVar("Value")

_OTHERS = 128  # of each kind of other prompts
_POOLED = 512  # prompts from which these are taken, the newest ones
_BORROWED = (100.0, 60.0, 20.0, 10.0)
"""Prompts that all others count for: of the same type, language, family, and the rest."""

_WIDTH = 0.6  # of the kernel that compares rewards, in spreads
_DOUBT = 1e-3  # share of the weight that what was seen does not change
_REBUILT_EVERY = 1.1  # times the prompts
_KEPT = 512  # joints, and as many pools
_STEPS = 32  # of Newton's method ...
_TINY = 1e-9  # ... and spreads that one more would have to be worth


@dataclass(frozen=True, slots=True, eq=False)
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

        The z at which E[max(reward - z, 0)] is the price. That is convex, piecewise linear
        and falls with z, so that Newton's method rises to it from below and is exact.
        """
        z = self.means() - prices
        for _ in range(_STEPS):
            above = self.rewards > z
            chance = self.weights @ above
            gains = self.weights @ np.where(above, self.rewards, 0.0) - chance * z
            rise = np.divide(gains - prices, chance, out=np.zeros_like(z), where=chance > 0.0)
            if not (rise > _TINY).any():
                break
            z += np.maximum(rise, 0.0)
        return z

    def of(self, arms: Sequence[int]) -> Joint:
        """Of these arms alone."""
        return replace(self, rewards=self.rewards[:, arms])


@dataclass(frozen=True, slots=True)
class _Pool:
    """The newest prompts of a group, with what arms got beyond what is expected of them.

    Attributes:
        leaf: `(prompts,)`, numbers.
        rewards: `(prompts, arms)`, in spreads, without gaps.
        known: `(prompts, arms)`, what was not imputed.
        count: prompts of the group when it was made.
    """

    leaf: IntArray
    rewards: FloatArray
    known: BoolArray
    count: int


class Joints:
    """Makes joints of leaves, and keeps them until enough has been learned anew.

    Leaves share what they borrow: a pool each for their type, language and family, and one
    for all. So a leaf that is seldom seen costs little, however many there are.
    """

    def __init__(self, experience: Experience) -> None:
        self._experience = experience
        self._joints: OrderedDict[tuple[Leaf, tuple[str, ...]], tuple[int, Joint]] = OrderedDict()
        self._pools: OrderedDict[tuple[Group, tuple[str, ...]], _Pool] = OrderedDict()
        self._source: object = None

    def forget(self) -> None:
        """Makes every joint anew when it is next asked for."""
        self._joints.clear()
        self._pools.clear()

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
            self.forget()
            self._source = memory
        if not memory.size:
            return None
        key = (leaf, tuple(arms))
        count = memory.count(groups_of(leaf)[0]) + memory.added // 50
        made, joint = self._joints.get(key, (0, None))
        if joint is None or _outgrown(made, count):
            joint = self._make(leaf, key[1])
        else:
            count = made
        _keep(self._joints, key, (count, joint))
        return joint

    def _make(self, leaf: Leaf, arms: tuple[str, ...]) -> Joint:
        memory = self._experience.memory
        itself, *groups = groups_of(leaf)
        own = self._gathered(itself, NEWEST, arms)
        parts, weights = [own], [np.ones(len(own.leaf))]
        for kind, (group, mass) in enumerate(zip(groups, _BORROWED, strict=True), 1):
            pool = self._pool(group, arms)
            found = np.flatnonzero(memory.likeness(leaf, pool.leaf) == kind)[:_OTHERS]
            parts.append(_Pool(pool.leaf[found], pool.rewards[found], pool.known[found], 0))
            weights.append(np.full(len(found), min(1.0, mass / max(len(found), 1))))
        others = np.concatenate([part.rewards for part in parts[1:]])
        known = np.concatenate([part.known for part in parts[1:]])
        rewards = np.concatenate([_imputed(own.rewards, own.known, others, known), others])
        weight = np.concatenate(weights)
        here = self._experience.belief.expected([leaf], arms)[0]
        return Joint(rewards + here, weight / weight.sum())

    def _pool(self, group: Group, arms: tuple[str, ...]) -> _Pool:
        key = (group, arms)
        pool = self._pools.get(key)
        if pool is None or _outgrown(pool.count, self._experience.memory.count(group)):
            pool = self._gathered(group, _POOLED, arms)
            none, nowhere = pool.rewards[:0], pool.known[:0]
            pool = replace(pool, rewards=_imputed(pool.rewards, pool.known, none, nowhere))
        _keep(self._pools, key, pool)
        return pool

    def _gathered(self, group: Group, most: int, arms: tuple[str, ...]) -> _Pool:
        """The newest prompts of a group, with gaps."""
        memory = self._experience.memory
        rows = memory.newest(group, most)
        rewards, known = self._experience.outcomes(rows, arms)
        numbers, places = np.unique(memory.leaf[rows], return_inverse=True)
        leaves = [memory.leaf_of[number] for number in numbers]
        rewards -= self._experience.belief.expected(leaves, arms)[places]
        return _Pool(memory.leaf[rows], rewards, known, memory.count(group))


def _outgrown(made: int, count: int) -> bool:
    return count >= _REBUILT_EVERY * made + 4


def _keep(kept: OrderedDict[Key, Value], key: Key, value: Value) -> None:
    """As the newest; the one that has not been used for longest makes room."""
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > _KEPT:
        kept.popitem(last=False)


def _imputed(
    rewards: FloatArray, known: BoolArray, others: FloatArray, known_others: BoolArray
) -> FloatArray:
    """The rewards with no gaps: what is unknown comes from the likest prompt that knows it.

    Args:
        rewards: `(prompts, arms)`, beyond what is expected.
        known: `(prompts, arms)`.
        others: `(others, arms)`, of more prompts to take from.
        known_others: `(others, arms)`.
    """
    gaps = np.flatnonzero(~known.all(axis=1))
    if not len(gaps):
        return rewards
    filled = np.where(known, rewards, 0.0)
    mine, knows = filled[gaps], known[gaps].astype(np.float64)
    theirs = np.concatenate([filled, np.where(known_others, others, 0.0)])
    known_theirs = np.concatenate([known, known_others])
    shared = known_theirs.T.astype(np.float64)
    # squared distances over the arms that both know, and how many these are
    common = knows @ shared
    distance = (mine * mine) @ shared + knows @ (theirs * theirs).T - 2.0 * (mine @ theirs.T)
    distance /= np.maximum(common, 1.0)
    distance[common == 0.0] = 1e6
    # of those equally near, the one that has most in common
    distance += 1e-3 / (1.0 + common)
    complete = filled.copy()
    for arm in np.flatnonzero(~known.all(axis=0)):
        missing = ~known[gaps, arm]
        donors = np.flatnonzero(known_theirs[:, arm])
        if len(donors):
            nearest = donors[distance[missing][:, donors].argmin(axis=1)]
            complete[gaps[missing], arm] = theirs[nearest, arm]
        else:
            # nobody knows the arm: what is expected of it, on a prompt as hard as this
            ease = mine.sum(axis=1) / np.maximum(knows.sum(axis=1), 1.0)
            complete[gaps[missing], arm] = ease[missing]
    return complete
