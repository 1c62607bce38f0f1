"""Prompts that were answered before, with what every arm asked got for its answer."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from router.arrays import grown
from router.experience.leaf import groups_of, untyped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from router.arrays import BoolArray, Features, FloatArray, IntArray
    from router.experience.judgement import Judgement
    from router.experience.leaf import Group, Leaf

CAPACITY = 100_000

NEWEST = 768
"""Prompts of a group that `Memory.newest` can tell."""

_GROUPS = 5  # that a leaf belongs to


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
        self.languages: dict[str, int] = {}
        self.x: Features = np.zeros((1, features), dtype=np.float32)
        self.leaf: IntArray = np.zeros(1, dtype=np.intp)
        self.language: IntArray = np.zeros(1, dtype=np.intp)
        self.rewards: FloatArray = np.zeros((1, 1))
        self.scored: BoolArray = np.zeros((1, 1), dtype=np.bool_)
        self.stopped: BoolArray = np.zeros((1, 1), dtype=np.bool_)
        self._groups: dict[Group, int] = {}
        self._groups_of: IntArray = np.zeros((1, _GROUPS), dtype=np.intp)  # of each leaf
        self._counts: dict[Group, int] = defaultdict(int)
        self._newest: dict[Group, deque[int]] = defaultdict(lambda: deque(maxlen=NEWEST))

    def add(self, leaf: Leaf, x: FloatArray | None, told: Sequence[Judgement]) -> int:
        """Remembers one prompt; returns its row."""
        row = self.added % self.capacity
        self._enlist(leaf, self.added)
        self.added += 1
        self.size = min(self.added, self.capacity)
        columns = [self.arms.setdefault(arm, len(self.arms)) for arm, _ in told]
        self._grow()
        self.leaf[row] = self._number(leaf)
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

    def count(self, group: Group) -> int:
        """How many prompts of a group were ever added."""
        return self._counts.get(group, 0)

    def newest(self, group: Group, most: int = NEWEST) -> IntArray:
        """Rows of a group, the newest first."""
        numbers = np.array(self._newest.get(group, ()), dtype=np.intp)[::-1][:most]
        return numbers[numbers >= self.added - self.size] % self.capacity

    def likeness(self, leaf: Leaf, leaves: IntArray) -> IntArray:
        """The narrowest group that a leaf and each of these have in common, `(leaves,)`.

        Args:
            leaf: any.
            leaves: numbers of those it is compared with.

        Returns:
            The group's place in `groups_of`. To have no domain is nothing in common.
        """
        own = np.array([self._groups.get(group, -1) for group in groups_of(leaf)], dtype=np.intp)
        alike = self._groups_of[leaves] == own
        alike[:, 1] &= bool(leaf[1])
        likeness: IntArray = alike.argmax(axis=1)
        return likeness

    def order(self) -> IntArray:
        """The rows, the oldest prompt first."""
        return np.arange(self.added - self.size, self.added) % self.capacity

    def state(self) -> dict[str, Any]:
        """Everything, for a snapshot."""
        rows, width = self.order(), len(self.arms)
        return {
            "capacity": self.capacity,
            "added": self.added,
            "counts": [self.count(groups_of(leaf)[0]) for leaf in self.leaves],
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
        self.arms = {arm: i for i, arm in enumerate(state["arms"])}
        self.added, self.size = int(state["added"]), len(state["leaf"])
        for language, within in state["leaves"]:
            self._number((language, within))
        of_leaf = [self.languages[language] for language, _ in self.leaf_of]
        self._grow()
        rows, width = self.order(), len(self.arms)
        self.x[rows], self.leaf[rows] = state["x"], state["leaf"]
        self.language[rows] = np.array(of_leaf, dtype=np.intp)[state["leaf"]]
        self.rewards[rows, :width] = state["rewards"]
        self.scored[rows, :width] = state["scored"]
        self.stopped[rows, :width] = state["stopped"]
        for number, leaf in enumerate(self.leaf[rows].tolist(), self.added - self.size):
            self._enlist(self.leaf_of[leaf], number)
        self._counts.clear()
        for leaf, count in zip(self.leaf_of, state["counts"], strict=True):
            for group in groups_of(leaf):
                self._counts[group] += int(count)
        return self

    def _number(self, leaf: Leaf) -> int:
        if leaf not in self.leaves:
            self.leaves[leaf] = len(self.leaves)
            self.leaf_of.append(leaf)
            self.languages.setdefault(leaf[0], len(self.languages))
            self._groups_of = grown(self._groups_of, len(self.leaves))
            for place, group in enumerate(groups_of(leaf)):
                number = self._groups.setdefault(group, len(self._groups))
                self._groups_of[self.leaves[leaf], place] = number
        return self.leaves[leaf]

    def _enlist(self, leaf: Leaf, number: int) -> None:
        """Notes the prompt of a leaf that was the `number`th to be added."""
        for group in groups_of(leaf):
            self._counts[group] += 1
            self._newest[group].append(number)

    def _grow(self) -> None:
        self.x, self.leaf = grown(self.x, self.size), grown(self.leaf, self.size)
        self.language = grown(self.language, self.size)
        self.rewards = grown(self.rewards, self.size, len(self.arms) + 1)
        self.scored = grown(self.scored, self.size, len(self.arms) + 1)
        self.stopped = grown(self.stopped, self.size, len(self.arms) + 1)
