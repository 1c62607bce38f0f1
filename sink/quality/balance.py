"""How many samples each language keeps, and which."""

from __future__ import annotations

import hashlib
import statistics
from array import array
from collections import defaultdict
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

Most = int | Literal["min", "median"]
"""At most so many of a language, or as many as the smallest or the median one has."""


class Balance:
    """Samples that wait to be chosen from: 16 bytes each, whatever they say.

    Which are kept depends on their ranks alone, not on their order: with `chance` as the
    rank, a smaller share is part of a larger one, and another run's samples change nothing
    of which of these come first.
    """

    def __init__(self) -> None:
        self._ranks: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self._numbers: defaultdict[str, array[int]] = defaultdict(lambda: array("Q"))

    def add(self, language: str, number: int, rank: float) -> None:
        """Takes a sample, by its number in the log; the highest ranks are kept."""
        self._ranks[language].append(rank)
        self._numbers[language].append(number)

    def left_out(self, most: Most) -> dict[str, list[int]]:
        """The numbers of those that are too many, by their language.

        >>> balance = Balance()
        >>> for number, language in enumerate(["de", "de", "de", "fr"]):
        ...     balance.add(language, number, rank=-number)
        >>> balance.left_out("min"), balance.left_out(2)
        ({'de': [1, 2]}, {'de': [2]})
        """
        limit = share({language: len(ranks) for language, ranks in self._ranks.items()}, most)
        left: dict[str, list[int]] = {}
        for language, ranks in self._ranks.items():
            if len(ranks) > limit:
                numbers = np.asarray(self._numbers[language])
                order = np.lexsort((numbers, -np.asarray(ranks)))
                left[language] = numbers[order[limit:]].tolist()
        return left


def share(counts: Mapping[str, int], most: Most) -> int:
    """How many samples a language may keep; one that has none does not count.

    >>> counts = {"de": 50, "fr": 20, "sw": 3, "xx": 0}
    >>> [share(counts, most) for most in (30, "min", "median")]
    [30, 3, 20]
    """
    if isinstance(most, int):
        return most
    sizes = [count for count in counts.values() if count]
    if not sizes:
        return 0
    return min(sizes) if most == "min" else statistics.median_low(sizes)


def chance(name: str, seed: int) -> float:
    """A number in [0, 1) that depends on a name and a seed alone, and looks drawn."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode("utf-8", "surrogatepass"), digest_size=8)
    return (int.from_bytes(digest.digest(), "big") >> 11) / (1 << 53)
