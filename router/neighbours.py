"""Which remembered prompts are nearest to one."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from router.arrays import BoolArray, Features, FloatArray, IntArray
    from router.experience.memory import Memory

EXACT = 50_000
"""Prompts up to which each is compared: a few hundred microseconds at most."""

_LOG = logging.getLogger(__name__)

_SAMPLED = 16  # one cosine in so many tells where the largest begin
_MARGIN = 1.3  # of what the sample says: it may be off

_COPIED = 8  # one prompt in so many is sooner copied than all are multiplied

_PROMPTS_PER_LIST = 200
_LEARNED_FROM = 64  # prompts per list that its centre is learned from
_ROUNDS = 10  # of k-means
_RECALL = 0.97  # to be reached on the prompts that the search is tried with ...
_TRIED = 64  # ... so many
_FEWEST_LISTS = 8  # that are worth it
_NO_LISTS = 0  # to look through: each prompt is compared


class Neighbours:
    """Finds the remembered prompts whose features have the largest cosine with some.

    Up to `exact` prompts each is compared. Beyond, faiss (Douze et al., arXiv 2401.08281)
    looks through the inverted lists (Sivic & Zisserman 2003) whose centres are nearest, as
    many as bring 97 % of the true neighbours of a sample; where faiss is not installed, or
    that would take half of the lists, each is compared all the same. The index follows
    the memory when it is asked: a prompt that took an old one's place takes it here, too.
    The centres are learned again when no prompt is left that they were learned from.

    Args:
        exact: prompts up to which no index is used.
    """

    def __init__(self, exact: int = EXACT) -> None:
        self._exact = exact
        self._faiss: Any = None
        self._missing = False
        self._memory: Memory | None = None
        self._index: Any = None
        self._centres: Features | None = None
        self._lists = _NO_LISTS  # that a search looks through
        self._learned = 0  # prompts that the memory had got when the centres were learned
        self._followed = 0  # prompts that it had got when the index followed it last

    def nearest(
        self, memory: Memory, x: FloatArray, count: int, among: BoolArray
    ) -> tuple[IntArray, Features]:
        """The rows of at most `count` prompts, in no order, and their cosines, above 0.

        Args:
            memory: the prompts; always the same, or the index is made anew.
            x: `(features,)`, of unit length.
            count: at least 1.
            among: `(size,)`, the prompts that come into question.
        """
        query = x.astype(np.float32)
        candidates = int(np.count_nonzero(among))
        index = self._following(memory, count) if candidates > self._exact else None
        if index is not None:
            found, numbers = index.search(query[None], count * memory.size // candidates)
            best = (numbers[0] >= 0) & among[numbers[0]]  # a row of -1 is none
            rows, cosines = numbers[0][best], found[0][best]
        else:
            rows = np.flatnonzero(among)
            few = candidates * _COPIED < memory.size
            cosines = memory.x[rows] @ query if few else (memory.x[: memory.size] @ query)[rows]
            best = _largest(cosines, count)
            rows, cosines = rows[best], cosines[best]
        return rows[cosines > 0.0], cosines[cosines > 0.0]

    def state(self) -> dict[str, Any]:
        """What an index over the same memory is made from, that finds the same."""
        return {"centres": self._centres, "lists": self._lists, "learned": self._learned}

    def restore(self, state: Mapping[str, Any], memory: Memory) -> None:
        """Becomes what `state` was taken from, over a memory like the one it was over."""
        self._forget()
        if state["centres"] is not None:
            self._centres = np.array(state["centres"], dtype=np.float32)
        self._lists, self._learned = int(state["lists"]), int(state["learned"])
        self._memory = memory

    def _forget(self) -> None:
        self._index = self._centres = None
        self._lists, self._learned, self._followed = _NO_LISTS, 0, 0

    def _following(self, memory: Memory, count: int) -> Any:
        """The index, with all that is remembered; None where there is none to use."""
        if memory is not self._memory:
            self._forget()
            self._memory = memory
        if not self._found():
            return None
        if not self._learned or memory.added - self._learned >= memory.capacity:
            self._learn(memory, count)
        if self._lists == _NO_LISTS:
            return None
        if self._index is None:
            self._index = self._inverted(self._centres, memory)
            self._index.nprobe = self._lists
        elif memory.added > self._followed:
            new = np.arange(max(self._followed, memory.added - memory.size), memory.added)
            rows = new % memory.capacity
            replaced = rows < self._index.ntotal
            if replaced.any():
                self._index.update_vectors(rows[replaced], memory.x[rows[replaced]])
            if not replaced.all():
                self._index.add(memory.x[rows[~replaced]])
        self._followed = memory.added
        return self._index

    def _found(self) -> bool:
        """Whether faiss is there; says once that it is not."""
        if self._faiss is None and not self._missing:
            try:
                self._faiss = import_module("faiss")
                self._faiss.omp_set_num_threads(1)  # a query at a time is not worth more
            except ImportError:
                self._missing = True
                _LOG.warning(
                    "policy knn remembers more than %d prompts and compares each with every new "
                    "one; it looks through fewer with pip install 'data-arbitrage[neighbours]'",
                    self._exact,
                )
        return not self._missing

    def _learn(self, memory: Memory, count: int) -> None:
        """Learns the centres, and how many lists have to be looked through."""
        self._forget()
        self._learned = self._followed = memory.added
        placed = np.flatnonzero(memory.x[: memory.size].any(axis=1))
        lists = len(placed) // _PROMPTS_PER_LIST
        if lists < _FEWEST_LISTS:
            return
        means = self._faiss.Kmeans(memory.x.shape[1], lists, niter=_ROUNDS, spherical=True)
        means.train(memory.x[placed[:: len(placed) // (lists * _LEARNED_FROM)]])
        self._centres = means.centroids
        index = self._inverted(means.centroids, memory)
        tried = memory.x[placed[:: max(len(placed) // _TRIED, 1)]]
        wanted = [_largest(memory.x[: memory.size] @ query, count) for query in tried]
        while index.nprobe <= lists // 2:
            _, found = index.search(tried, count)
            common = sum(int(np.isin(a, b).sum()) for a, b in zip(wanted, found, strict=True))
            if common >= _RECALL * sum(map(len, wanted)):
                self._lists, self._index = index.nprobe, index
                return
            index.nprobe *= 2

    def _inverted(self, centres: Any, memory: Memory) -> Any:
        """An index over all that is remembered, each prompt under its row."""
        lists, features = np.shape(centres)
        coarse = self._faiss.IndexFlatIP(features)
        coarse.add(centres)
        index = self._faiss.IndexIVFFlat(coarse, features, lists, self._faiss.METRIC_INNER_PRODUCT)
        index.make_direct_map()  # so that rows can be replaced
        index.add(memory.x[: memory.size])
        return index


def _largest(values: Features, count: int) -> IntArray:
    """Where the `count` largest are, in no order: all, where there are no more.

    Partitions only what is above a quantile of a sample, which is several times faster than
    partitioning all.
    """
    if len(values) <= count:
        return np.arange(len(values))
    sample = values[::_SAMPLED]
    at = len(sample) - int(_MARGIN * count / _SAMPLED) - 8
    if at > 0:
        above = np.flatnonzero(values >= np.partition(sample, at)[at])
        if len(above) >= count:
            return above[np.argpartition(values[above], -count)[-count:]]
    return np.argpartition(values, -count)[-count:]
