"""Prompts that were answered before, with what every arm asked got for its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from router.arrays import grown
from router.experience.leaf import untyped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from router.arrays import BoolArray, Features, FloatArray, IntArray
    from router.experience.judgement import Judgement
    from router.experience.leaf import Leaf

CAPACITY = 100_000


class Memory:
    """A log of judged prompts; beyond its capacity the newest takes the oldest's place.

    All arrays have room for more; the first `size` rows count. The last column stays empty
    and stands for any arm never asked.

    Attributes:
        leaves: number of each leaf, a language and a domain, in the order in which they came.
        leaf_of: the leaf of each number.
        arms: column of each arm.
        size: prompts that are remembered.
        added: prompts that ever were.
        counts: of these, how many of each leaf.
        languages: number of each language.
        x: `(room, features)`, unit vectors, or zeros for a prompt without features.
        leaf: `(room,)`, the number of each prompt's leaf.
        language: `(room,)`, the number of its language.
        rewards: `(room, arms)`, the mean reward of an arm's answers, where it was `scored`.
        scored: `(room, arms)`, whether an arm's answer has a reward.
        stopped: `(room, arms)`, whether a gate stopped all of an arm's answers.
    """

    def __init__(self, features: int, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.leaves: dict[Leaf, int] = {}
        self.leaf_of: list[Leaf] = []
        self.arms: dict[str, int] = {}
        self.size = 0
        self.added = 0
        self.counts: list[int] = []
        self.languages: dict[str, int] = {}
        self.x: Features = np.zeros((1, features), dtype=np.float32)
        self.leaf: IntArray = np.zeros(1, dtype=np.intp)
        self.language: IntArray = np.zeros(1, dtype=np.intp)
        self.rewards: FloatArray = np.zeros((1, 1))
        self.scored: BoolArray = np.zeros((1, 1), dtype=np.bool_)
        self.stopped: BoolArray = np.zeros((1, 1), dtype=np.bool_)

    def add(self, leaf: Leaf, x: FloatArray | None, told: Sequence[Judgement]) -> int:
        """Remembers one prompt; returns its row."""
        row = self.added % self.capacity
        self.added += 1
        self.size = min(self.added, self.capacity)
        columns = [self.arms.setdefault(arm, len(self.arms)) for arm, _ in told]
        self._grow()
        self.leaf[row] = number = self._number(leaf)
        self.counts[number] += 1
        self.language[row] = self.languages[leaf[0]]
        self.x[row] = 0.0 if x is None else x
        self.rewards[row] = 0.0
        self.scored[row] = self.stopped[row] = False
        counts = dict.fromkeys(columns, 0)
        for column, (_, reward) in zip(columns, told, strict=True):
            if reward is None:
                self.stopped[row, column] = not counts[column]
                continue
            counts[column] += 1
            self.stopped[row, column] = False
            self.scored[row, column] = True
            self.rewards[row, column] += (reward - self.rewards[row, column]) / counts[column]
        return row

    def columns(self, arms: Sequence[str]) -> IntArray:
        """The arms' columns; -1 for one that was never asked."""
        return np.array([self.arms.get(arm, -1) for arm in arms], dtype=np.intp)

    def merge(self, other: Memory, *, plain: bool = False) -> None:
        """Adds what another remembers, its oldest prompts first.

        Args:
            other: the other.
            plain: leave out its features and prompt types, which mean nothing here.
        """
        arms, leaves = list(other.arms), list(other.leaves)
        for row in other.order():
            told: list[Judgement] = [
                (arm, float(other.rewards[row, i]) if other.scored[row, i] else None)
                for i, arm in enumerate(arms)
                if other.scored[row, i] or other.stopped[row, i]
            ]
            leaf = leaves[other.leaf[row]]
            x = None if plain else other.x[row].astype(np.float64)
            self.add(untyped(leaf) if plain else leaf, x, told)

    def order(self) -> IntArray:
        """The rows, the oldest prompt first."""
        return np.arange(self.added - self.size, self.added) % self.capacity

    def state(self) -> dict[str, Any]:
        """Everything, for a snapshot."""
        rows, width = self.order(), len(self.arms)
        return {
            "capacity": self.capacity,
            "added": self.added,
            "counts": list(self.counts),
            "leaves": [list(leaf) for leaf in self.leaves],
            "arms": list(self.arms),
            "x": self.x[rows],
            "leaf": self.leaf[rows],
            "rewards": self.rewards[rows, :width],
            "scored": self.scored[rows, :width],
            "stopped": self.stopped[rows, :width],
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Self:
        """What `state` was taken from."""
        self = cls(np.shape(state["x"])[1], int(state["capacity"]))
        self.leaf_of = [(language, domain) for language, domain in state["leaves"]]
        self.leaves = {leaf: i for i, leaf in enumerate(self.leaf_of)}
        self.arms = {arm: i for i, arm in enumerate(state["arms"])}
        self.added, self.size = int(state["added"]), len(state["leaf"])
        self.counts = [int(count) for count in state["counts"]]
        of_leaf = [self.languages.setdefault(x, len(self.languages)) for x, _ in self.leaf_of]
        self._grow()
        rows, width = self.order(), len(self.arms)
        self.x[rows], self.leaf[rows] = state["x"], state["leaf"]
        self.language[rows] = np.array(of_leaf, dtype=np.intp)[state["leaf"]]
        self.rewards[rows, :width] = state["rewards"]
        self.scored[rows, :width] = state["scored"]
        self.stopped[rows, :width] = state["stopped"]
        return self

    def _number(self, leaf: Leaf) -> int:
        if leaf not in self.leaves:
            self.leaves[leaf] = len(self.leaves)
            self.leaf_of.append(leaf)
            self.languages.setdefault(leaf[0], len(self.languages))
            self.counts.append(0)
        return self.leaves[leaf]

    def _grow(self) -> None:
        self.x, self.leaf = grown(self.x, self.size), grown(self.leaf, self.size)
        self.language = grown(self.language, self.size)
        self.rewards = grown(self.rewards, self.size, len(self.arms) + 1)
        self.scored = grown(self.scored, self.size, len(self.arms) + 1)
        self.stopped = grown(self.stopped, self.size, len(self.arms) + 1)
