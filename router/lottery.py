"""Drawing some of the arms, and telling how likely each was to be among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from router.arrays import FloatArray, IntArray


class Lottery(Protocol):
    """A distribution over sets of arms; arms are numbers below `size`."""

    @property
    def size(self) -> int:
        """How many arms there are to draw from."""

    def draw(self, rng: np.random.Generator) -> IntArray:
        """Draws a set, each arm once, the most wanted first."""

    def inclusion(self, arms: IntArray) -> FloatArray:
        """P(arm is in the set), one for each of `arms`: above 0 for all that may be drawn."""


@dataclass(frozen=True, slots=True)
class Listed:
    """These arms and no others.

    >>> Listed(3, (2, 0)).inclusion(np.arange(3)).tolist()
    [1.0, 0.0, 1.0]
    """

    size: int
    listed: tuple[int, ...]

    def draw(self, rng: np.random.Generator) -> IntArray:
        """The list, in its order."""
        del rng
        return np.array(self.listed, dtype=np.intp)

    def inclusion(self, arms: IntArray) -> FloatArray:
        """1 for the listed, 0 for the others."""
        return np.isin(arms, self.listed).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Any `count` arms, every set alike.

    >>> Uniform(4, 1).inclusion(np.arange(4)).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """

    size: int
    count: int

    def draw(self, rng: np.random.Generator) -> IntArray:
        """The head of a shuffle."""
        return rng.permutation(self.size)[: self.count]

    def inclusion(self, arms: IntArray) -> FloatArray:
        """The same for all."""
        return np.full(len(arms), min(self.count / self.size, 1.0))


@dataclass(frozen=True, slots=True)
class Audited:
    """Another lottery, but with probability `rate` everyone is drawn.

    >>> Audited(Listed(2, (0,)), 0.25).inclusion(np.arange(2)).tolist()
    [1.0, 0.25]
    """

    lottery: Lottery
    rate: float

    @property
    def size(self) -> int:
        """As many as the other lottery has."""
        return self.lottery.size

    def draw(self, rng: np.random.Generator) -> IntArray:
        """Everyone, or what the other lottery draws."""
        if rng.random() < self.rate:
            return np.arange(self.size)
        return self.lottery.draw(rng)

    def inclusion(self, arms: IntArray) -> FloatArray:
        """By the law of total probability."""
        return self.rate + (1.0 - self.rate) * self.lottery.inclusion(arms)


@dataclass(frozen=True, slots=True)
class Introduced:
    """A lottery among the `known` arms; on a `share` of the draws, one of the others beside.

    Every newcomer is as likely as the next.

    >>> Introduced(3, Listed(1, (0,)), np.array([1]), 0.2).inclusion(np.arange(3)).tolist()
    [0.1, 1.0, 0.1]
    """

    size: int
    among_known: Lottery
    known: IntArray
    share: float

    def draw(self, rng: np.random.Generator) -> IntArray:
        """What the lottery draws, and perhaps a newcomer behind it."""
        drawn = self.known[self.among_known.draw(rng)]
        if rng.random() < self.share:
            return np.append(drawn, rng.choice(self._newcomers()))
        return drawn

    def inclusion(self, arms: IntArray) -> FloatArray:
        """That of the lottery for a known arm; its part of the share for a newcomer."""
        inclusion = np.full(self.size, self.share / (self.size - len(self.known)))
        asked = np.isin(self.known, arms)
        inclusion[self.known[asked]] = self.among_known.inclusion(np.flatnonzero(asked))
        return inclusion[arms]

    def _newcomers(self) -> IntArray:
        return np.setdiff1d(np.arange(self.size), self.known)
