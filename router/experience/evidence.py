"""What the statistics say in the languages' units, where it can be asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from router.arrays import grown
from router.experience.families import family
from router.experience.sums import SOME, Sums
from router.experience.tree import ROOT, UNKNOWN, Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router.arrays import FloatArray, IntArray
    from router.experience.leaf import Leaf
    from router.experience.statistics import Statistics
    from router.experience.units import Units

_DEPTH = 4  # root, family, language, domain


class Evidence:
    """Sums of the statistics as the tree and the slopes take them, kept up with what is new.

    How far arms had moved goes along with their rewards, as the features do.

    Attributes:
        tree: root -> family -> language -> domain.
        products: `(arms, features)`, sum over all leaves of features times rewards, around the
            means of both in each leaf.

    Args:
        statistics: that it is about.
        steps: variances of the steps of the tree, by depth.
        paces: of the drift, so many.
    """

    def __init__(self, statistics: Statistics, steps: FloatArray, paces: int) -> None:
        width, features = statistics.sums.shape[1], statistics.features
        self.tree = Tree(steps, width, features + paces)
        self.products: FloatArray = np.zeros((width, features))
        self._by_leaf: FloatArray = np.zeros((1, width, features))
        self._statistics = statistics
        self._paces = paces
        self._families: dict[str, int] = {}  # their nodes
        self._inner: dict[str, tuple[int, int]] = {}  # nodes of a language's family and its own
        self._nodes: list[int] = []  # of the rows of the statistics

    def plant(self) -> None:
        """Makes room for leaves and arms that are new in the statistics."""
        width, leaves = self._statistics.sums.shape[1], self._statistics.leaves
        if width > len(self.products):
            self.tree.widen(width)
            self.products = grown(self.products, width)
        if len(self._nodes) < len(leaves):
            for language, _ in list(leaves)[len(self._nodes) :]:
                if language not in self._inner:
                    name = family(language)
                    if name not in self._families:
                        self._families[name] = self.tree.add(ROOT)
                    node = self.tree.add(self._families[name])
                    self._inner[language] = (self._families[name], node)
                self._nodes.append(self.tree.add(self._inner[language][1]))
        self._by_leaf = grown(self._by_leaf, len(self._nodes), width)

    def hear(self, units: Units, rows: IntArray) -> None:
        """Takes what some leaves of a language, planted and in its units, have to say now."""
        statistics = self._statistics
        sums = Sums(statistics.sums[rows], statistics.features, units)
        moved = statistics.moved[rows, :, : self._paces] / units.spread
        parts = [sums.answers[..., None], sums.y[..., None], sums.x, moved]
        nodes = np.array([self._nodes[row] for row in rows])
        self.tree.tell(nodes, np.concatenate(parts, axis=-1) / units.noise)
        if statistics.features:
            mean = sums.y / np.maximum(sums.answers, SOME)
            products = sums.xy - sums.x * mean[..., None]
            width = products.shape[1]
            self.products[:width] += (products - self._by_leaf[rows, :width]).sum(axis=0)
            self._by_leaf[rows, :width] = products

    def believe(self, leaf: Leaf, columns: IntArray | slice) -> FloatArray:
        """What follows for arms in a leaf, known or not, as `Tree.believe` has it."""
        return self.tree.believe(self._path(leaf), columns)

    def believe_all(self, leaves: Sequence[Leaf], columns: IntArray) -> FloatArray:
        """The same in many leaves, `(leaves, arms, 2 + features + paces)`."""
        paths = np.array([self._path(leaf) for leaf in leaves], dtype=np.intp).reshape(-1, _DEPTH)
        return self.tree.believe(paths.T[:, :, None], columns)

    def expect(self, language: str) -> FloatArray:
        """What all other languages say of the arms in one, as `Tree.expect` has it."""
        return self.tree.expect((ROOT, *self._inner[language]))

    def _path(self, leaf: Leaf) -> tuple[int, ...]:
        inner = self._inner.get(leaf[0])
        if inner is None:
            return (ROOT, self._families.get(family(leaf[0]), UNKNOWN), UNKNOWN, UNKNOWN)
        row = self._statistics.leaves.get(leaf)
        return (ROOT, *inner, UNKNOWN if row is None else self._nodes[row])
