"""Types of prompts, told apart by their features once enough have been seen."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np

from router.experience.basis import Basis

if TYPE_CHECKING:
    from router.arrays import Features, IntArray

UNKNOWN = -1

_FEWEST = 128  # prompts that types can be learned from ...
_MOST = 2048  # ... and those that they are: the first


class PromptTypes:
    """A number for each prompt, learned without looking at rewards (`router.experience.basis`).

    Args:
        dimensions: principal components that prompts are compared in.
        types: how many are told apart.
    """

    def __init__(self, dimensions: int, types: int) -> None:
        self._dimensions = dimensions
        self._types = types
        self._basis: Basis | None = None
        self._numbers = array("q")
        self._first: list[tuple[int, Features]] = []

    def add(self, features: Features | None) -> None:
        """Takes in the next prompt; one without features has no type."""
        number = UNKNOWN
        if features is not None and self._basis:
            _, number = self._basis.place(features)
        elif features is not None:
            self._first.append((len(self._numbers), features))
        self._numbers.append(number)
        if len(self._first) == _MOST:
            self._learn()

    def numbers(self) -> IntArray:
        """The types so far, `(prompts,)`; `UNKNOWN` where there is none."""
        if len(self._first) >= _FEWEST:
            self._learn()
        return np.array(self._numbers, dtype=np.intp)

    def _learn(self) -> None:
        features = np.array([features for _, features in self._first])
        self._basis = basis = Basis.fit(features, self._dimensions, self._types)
        for row, of_prompt in self._first:
            _, self._numbers[row] = basis.place(of_prompt)
        self._first = []
