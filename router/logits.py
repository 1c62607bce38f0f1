"""A linear softmax over arms, with biases that languages and their domains adjust."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from router.arrays import grown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from router.arrays import BoolArray, FloatArray, IntArray
    from router.experience.leaf import Leaf

_RATE = 0.3  # of AdaGrad
_FIRST = 1.0  # squared gradient to begin with, so that the first steps are no leaps
_PULL = 5.0  # of a bias towards its parent's, in prompts' worth of gradient per unit
_PULL_OF_SLOPES = 2.0
_FEW = 1e-9  # stands in for no prompts at all where they are divided by

Node = tuple[str, ...]
"""() for all languages, (language,) for one, (language, domain or type) for a leaf."""


@dataclass(frozen=True, slots=True)
class Lessons:
    """Prompts to learn from.

    Attributes:
        nodes: `(prompts, 3)`, rows of the root, the language and the leaf of each.
        x: `(prompts, features)`.
        judged: `(prompts, arms)`, which arms a prompt says something of.
        targets: `(prompts, arms)`, the shares that these ought to have among themselves.
    """

    nodes: IntArray
    x: FloatArray
    judged: BoolArray
    targets: FloatArray

    def by_node(self, *tables: FloatArray | BoolArray) -> tuple[IntArray, list[FloatArray]]:
        """The nodes concerned, ascending, and for each the sum over its rows in each table."""
        flat = self.nodes.ravel()
        order = np.argsort(flat, kind="stable")
        ordered = flat[order]
        starts = np.flatnonzero(np.diff(ordered, prepend=-1))
        prompts = order // self.nodes.shape[1]
        sums = [np.add.reduceat(table[prompts], starts, axis=0, dtype=float) for table in tables]
        return ordered[starts], sums

    def of(self, prompts: IntArray) -> Lessons:
        """Some of them."""
        return Lessons(
            self.nodes[prompts], self.x[prompts], self.judged[prompts], self.targets[prompts]
        )


class Logits:
    """Log-shares of arms: bias of the arm, its language and leaf, and slopes on the features.

    They are learned by stochastic gradient steps on KL(target || softmax over the judged
    arms), with a rate of its own for each parameter (AdaGrad: Duchi et al. 2011), from
    Gaussian priors: the biases of a language, and of a domain in it, are drawn to their
    parent's, the less the more prompts they rest on. What a prompt costs does not depend
    on the number of languages.

    Attributes:
        arms: column of each arm that was judged beside another.
        nodes: row of each node; the root's is 0.

    Args:
        features: how many the prompts have.
    """

    def __init__(self, features: int) -> None:
        self.arms: dict[str, int] = {}
        self.nodes: dict[Node, int] = {(): 0}
        # the last row and the last column stay empty, for what is unknown
        self._bias: FloatArray = np.zeros((2, 1))
        self._prompts: FloatArray = np.zeros((2, 1))  # that a bias rests on
        self._squares: FloatArray = np.zeros((2, 1))  # sum of those of its gradients
        self._slopes: FloatArray = np.zeros((1, features))
        self._slope_squares: FloatArray = np.zeros((1, features))

    @property
    def taught(self) -> bool:
        """Whether anything was learned."""
        return bool(self._prompts[0].any())

    def at(self, leaf: Leaf, x: FloatArray | None, arms: Sequence[str]) -> FloatArray:
        """The logits of these arms, `(arms,)`; a new arm's bias is the mean of the others'."""
        columns = np.array([self.arms.get(arm, -1) for arm in arms], dtype=np.intp)
        logits: FloatArray = self._bias[self._path(leaf)].sum(axis=0)[columns]
        if x is not None:
            logits += self._slopes[columns] @ x
        new = self._prompts[0, columns] == 0.0
        if new.any():
            logits[new] += self._usual()
        return logits

    def path(self, leaf: Leaf) -> list[int]:
        """The rows of a leaf and what is above it, made where there are none."""
        for node in _ancestry(leaf):
            self.nodes.setdefault(node, len(self.nodes))
        self._grow()
        return self._path(leaf)

    def meet(self, arms: Sequence[str]) -> IntArray:
        """The columns of arms, made where there are none."""
        columns = [self.arms.setdefault(arm, len(self.arms)) for arm in arms]
        self._grow()
        return np.array(columns, dtype=np.intp)

    def count(self, lessons: Lessons, keep: float = 1.0) -> None:
        """Takes note of prompts that `descend` is then called with, once or many times.

        Args:
            lessons: the prompts.
            keep: share of what their nodes rested on that still counts.
        """
        arms = lessons.judged.shape[1]
        new = lessons.judged.any(axis=0) & (self._prompts[0, :arms] == 0.0)
        self._bias[0, :arms][new] = self._usual()
        nodes, (judged,) = lessons.by_node(lessons.judged)
        if keep < 1.0:
            self._prompts[nodes] *= keep
            self._squares[nodes] *= keep
            self._slope_squares *= keep
        self._prompts[nodes, :arms] += judged

    def descend(self, lessons: Lessons) -> None:
        """One step down the mean gradient of prompts that were counted."""
        arms = lessons.judged.shape[1]
        logits = self._bias[lessons.nodes, :arms].sum(axis=1) + lessons.x @ self._slopes[:arms].T
        errors = shares(logits, lessons.judged) - lessons.targets
        nodes, (gradient, judged) = lessons.by_node(errors, lessons.judged)
        share = judged / np.maximum(self._prompts[nodes, :arms], 1.0)
        gradient[1:] += _PULL * share[1:] * self._bias[nodes[1:], :arms]  # the root has no parent
        squares = self._squares[nodes, :arms] + gradient**2
        self._squares[nodes, :arms] = squares
        self._bias[nodes, :arms] -= _RATE * gradient / np.sqrt(_FIRST + squares)
        slopes = self._slopes[:arms]
        gradient = errors.T @ lessons.x + _PULL_OF_SLOPES * share[0, :, None] * slopes
        self._slope_squares[:arms] += gradient**2
        slopes -= _RATE * gradient / np.sqrt(_FIRST + self._slope_squares[:arms])

    def merge(self, other: Logits) -> None:
        """Adds what another has learned: the mean of both, weighted by what each rests on.

        It is near what one would have learned from both streams, not the same. Whatever
        only one of them knows stays as it is there.
        """
        for node in other.nodes:
            self.nodes.setdefault(node, len(self.nodes))
        columns = self.meet(list(other.arms))
        here = np.ix_(np.array([self.nodes[node] for node in other.nodes]), columns)
        there = slice(len(other.nodes)), slice(len(columns))
        prompts, totals = np.zeros((2, *self._bias.shape))
        prompts[here], totals[here] = other._prompts[there], other._totals()[there]
        both = np.maximum(self._prompts + prompts, _FEW)
        means = (self._prompts * self._totals() + prompts * totals) / both
        for node, row in self.nodes.items():
            if node:
                above = means[self.nodes[node[:-1]]]
                means[row] = np.where(both[row] > _FEW, means[row], above)
                self._bias[row] = means[row] - above
            else:
                self._bias[row] = means[row]
        mine, theirs = self._prompts[0, columns, None], prompts[0, columns, None]
        slopes = mine * self._slopes[columns] + theirs * other._slopes[: len(columns)]
        self._slopes[columns] = slopes / both[0, columns, None]
        self._slope_squares[columns] += other._slope_squares[: len(columns)]
        self._prompts += prompts
        self._squares[here] += other._squares[there]

    def state(self) -> dict[str, Any]:
        """Everything, for a snapshot."""
        rows, columns = len(self.nodes), len(self.arms)
        return {
            "arms": list(self.arms),
            "nodes": [list(node) for node in self.nodes],
            "bias": self._bias[:rows, :columns].copy(),
            "prompts": self._prompts[:rows, :columns].copy(),
            "squares": self._squares[:rows, :columns].copy(),
            "slopes": self._slopes[:columns].copy(),
            "slope_squares": self._slope_squares[:columns].copy(),
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Self:
        """What `state` was taken from."""
        self = cls(np.shape(state["slopes"])[1])
        self.nodes = {tuple(node): row for row, node in enumerate(state["nodes"])}
        self.meet(state["arms"])
        rows, columns = len(self.nodes), len(self.arms)
        self._bias[:rows, :columns] = state["bias"]
        self._prompts[:rows, :columns] = state["prompts"]
        self._squares[:rows, :columns] = state["squares"]
        self._slopes[:columns] = state["slopes"]
        self._slope_squares[:columns] = state["slope_squares"]
        return self

    def _path(self, leaf: Leaf) -> list[int]:
        return [self.nodes.get(node, -1) for node in _ancestry(leaf)]

    def _totals(self) -> FloatArray:
        """The biases of a node and all above it together."""
        totals = self._bias.copy()
        for node, row in self.nodes.items():  # a parent comes before its children
            if node:
                totals[row] += totals[self.nodes[node[:-1]]]
        return totals

    def _usual(self) -> float:
        """The mean bias of the arms that are known."""
        known = self._prompts[0] > 0.0
        return float(self._bias[0, known].mean()) if known.any() else 0.0

    def _grow(self) -> None:
        shape = len(self.nodes) + 1, len(self.arms) + 1
        self._bias = grown(self._bias, *shape)
        self._prompts = grown(self._prompts, *shape)
        self._squares = grown(self._squares, *shape)
        self._slopes = grown(self._slopes, shape[1])
        self._slope_squares = grown(self._slope_squares, shape[1])


def shares(logits: FloatArray, of: BoolArray) -> FloatArray:
    """The softmax of some of the logits in each row, `(rows, arms)`; 0 for the others.

    >>> shares(np.array([[0.0, 0.0, 5.0]]), np.array([[True, True, False]])).tolist()
    [[0.5, 0.5, 0.0]]
    """
    among = np.where(of, logits, -np.inf)
    weights = np.exp(among - among.max(axis=1, keepdims=True))
    share: FloatArray = weights / weights.sum(axis=1, keepdims=True)
    return share


def _ancestry(leaf: Leaf) -> tuple[Node, Node, Node]:
    return (), leaf[:1], leaf
