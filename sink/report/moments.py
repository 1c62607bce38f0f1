"""Running statistics: a mean with its interval, and an even draw from a stream."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from random import Random

T = TypeVar("T")
_FEWEST = 3  # values that an interval is made of
_Z = 1.959964  # of the normal distribution, 95%, two-sided


@dataclass(slots=True)
class Moments:
    """Count, mean and variance of a stream of figures (Welford 1962); what is not finite is left out."""  # noqa: E501

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """Counts one more."""
        if not math.isfinite(value):
            return
        self.count += 1
        before = value - self.mean
        self.mean += before / self.count
        self.squares += before * (value - self.mean)

    def __add__(self, other: Moments) -> Moments:
        """Those of both streams together (Chan, Golub & LeVeque 1979)."""
        count = self.count + other.count
        if not count:
            return Moments()
        apart = other.mean - self.mean
        mean = self.mean + apart * other.count / count
        squares = self.squares + other.squares + apart**2 * self.count * other.count / count
        return Moments(count, mean, squares)

    @property
    def deviation(self) -> float:
        """Standard deviation; 0 of fewer than two."""
        return math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else 0.0

    @property
    def within(self) -> float | None:
        """Half the width of the mean's 95% interval (Student's); None of fewer than three.

        >>> [round(Moments(n, 0.0, n - 1.0).within * n**0.5, 2) for n in (4, 10, 1000)]
        [3.16, 2.26, 1.96]
        """
        if self.count < _FEWEST:
            return None
        return _student(self.count - 1) * self.deviation / math.sqrt(self.count)


@dataclass(slots=True)
class Reservoir(Generic[T]):
    """So many of a stream, each with the same chance (Vitter's algorithm R).

    Attributes:
        size: how many are kept at most.
        seen: how many there were.
    """

    size: int
    random: Random
    seen: int = 0
    kept: list[T] = field(default_factory=list)

    def offer(self, item: T) -> None:
        """Takes one more, or not."""
        self.seen += 1
        if len(self.kept) < self.size:
            self.kept.append(item)
        elif (place := self.random.randrange(self.seen)) < self.size:
            self.kept[place] = item

    def shrink(self, size: int) -> None:
        """Keeps fewer from now on; those that stay are as evenly drawn."""
        self.size = size
        while len(self.kept) > size:
            self.kept[self.random.randrange(len(self.kept))] = self.kept[-1]
            self.kept.pop()


def _student(freedom: int) -> float:
    """The 97.5% quantile of Student's distribution (Cornish and Fisher's expansion)."""
    z = _Z
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
