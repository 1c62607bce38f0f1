"""Names of array types, what the axes mean is said where they are used; and arrays that grow."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

Scalar = TypeVar("Scalar", bound=np.generic)
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]
Features = npt.NDArray[np.float32]


def grown(table: npt.NDArray[Scalar], *shape: int) -> npt.NDArray[Scalar]:
    """A table with room for `shape` along its first axes; itself if it has.

    What is new is zero. An axis at least doubles when it grows, so that growing step by
    step costs no more than being large from the start.

    >>> grown(np.ones((1, 2)), 2).tolist()
    [[1.0, 1.0], [0.0, 0.0]]
    """
    room = table.shape[: len(shape)]
    if all(wanted <= there for wanted, there in zip(shape, room, strict=True)):
        return table
    axes = (
        there if wanted <= there else max(wanted, 2 * there)
        for wanted, there in zip(shape, room, strict=True)
    )
    larger = np.zeros((*axes, *table.shape[len(shape) :]), dtype=table.dtype)
    larger[tuple(slice(there) for there in room)] = table
    return larger
