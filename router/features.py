"""Prompt features without a model: which character n-grams a text is made of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

DIMENSIONS = 512

_CHARACTERS = 2_000  # of a text that are read: enough to tell what sort of prompt it is
_LONGEST = 3  # characters in an n-gram
_BUCKETS_LOG2 = 12
_BUCKETS = 1 << _BUCKETS_LOG2
_STEP = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio (Knuth 1998, section 6.4)
# each a shift and a multiplier of splitmix64 (Steele et al. 2014)
_ROUNDS = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
_TOP = np.uint64(64 - _BUCKETS_LOG2)


def _mixed(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The hashes, in whose upper bits each bit of theirs counts."""
    for shift, multiplier in _ROUNDS:
        hashes = (hashes ^ (hashes >> shift)) * multiplier
    return hashes


# from integers and not from a generator of numpy's, whose streams may change with its version
_SIGNS = 1.0 - 2.0 * (_mixed(np.arange(1, _BUCKETS + 1, dtype=np.uint64) * _STEP) >> np.uint64(63))


class HashedNgrams:
    """A fixed sketch of a text's character n-grams: an `Encoder` that learns nothing.

    Lower-cased 1-, 2- and 3-grams are counted in 4,096 buckets. The square roots of the
    counts are added up in 512 dimensions with random signs, which keeps inner products on
    average (count sketch: Charikar et al. 2002; Weinberger et al., arXiv 0902.2206), and
    scaled to unit length. It is the same on every machine, in any script.

    >>> ngrams = HashedNgrams()
    >>> ask, again, other = ngrams.of_all(["Wie alt bist du?", "Wie alt bin ich?", "def f(x):"])
    >>> float(ask @ again) > 0.5 > 0.2 > float(ask @ other)
    True
    """

    async def encode(self, text: str) -> npt.NDArray[np.float32]:
        """The features of one text, `(512,)`; takes well under a millisecond."""
        return self.of(text)

    async def close(self) -> None:
        """Has nothing to free."""

    def of(self, text: str) -> npt.NDArray[np.float32]:
        """The features of one text, `(512,)`, of unit length; zeros for an empty one."""
        counts = np.bincount(_buckets(text), minlength=_BUCKETS)
        sketch = (np.sqrt(counts) * _SIGNS).reshape(-1, DIMENSIONS).sum(axis=0)
        length = math.sqrt(sketch @ sketch)
        return np.asarray(sketch / (length or 1.0), np.float32)

    def of_all(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The features of several texts, `(texts, 512)`."""
        features = np.empty((len(texts), DIMENSIONS), np.float32)
        for row, text in zip(features, texts, strict=True):
            row[:] = self.of(text)
        return features


def _buckets(text: str) -> npt.NDArray[np.intp]:
    """The bucket of each n-gram of a text, its 1-grams first."""
    # a lone surrogate is no character, but nothing to fail for
    encoded = text[:_CHARACTERS].lower().encode("utf-32-le", "surrogatepass")
    points = np.frombuffer(encoded, np.dtype("<u4")).astype(np.uint64)
    hashes = np.zeros_like(points)
    of_lengths = []
    for length in range(1, min(_LONGEST, len(points)) + 1):
        # the hash of the n-gram that is shorter by one, its next character, and the length
        hashes = hashes[: len(points) - length + 1] * _STEP + points[length - 1 :]
        hashes += np.uint64(length)
        of_lengths.append(hashes)
    together = np.concatenate(of_lengths) if of_lengths else hashes
    return (_mixed(together) >> _TOP).astype(np.intp)
