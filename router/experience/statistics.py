"""What was seen, in sums that add up: the part of a belief that is worth keeping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from arbitrage.errors import SnapshotError
from router.arrays import grown
from router.experience.drift import PACES
from router.experience.leaf import untyped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from router.arrays import FloatArray, IntArray
    from router.experience.judgement import Judgement
    from router.experience.leaf import Leaf

SCORED, TOTAL, SQUARES, STOPPED = range(4)
FIGURES = 4


class Statistics:
    """Sufficient statistics of a linear model of rewards, per leaf and arm.

    A leaf is a language and a domain. `features` is the number of features, x.

    Attributes:
        leaves: row of each leaf in `sums`, in the order in which they came.
        arms: column of each arm in `sums`.
        sums: `(leaves, arms, 4 + 3 * features)`, with room for more, of which the last
            column stays zero and stands for any arm not seen: `SCORED` candidates,
            `TOTAL` and sum of `SQUARES` of their rewards r, candidates that a gate
            `STOPPED`; then the sums of x over the scored, of r * x over the scored, and of
            x over the stopped ones.
        scatter: `(arms, features, features)`, sum over leaves of the scatter of x around
            its mean in the leaf: what is left of x to explain rewards with.
        moved: `(leaves, arms, paces)`, sum over the same candidates of how far their arm had
            moved by then, see `router.experience.drift`; in the reward's units.
        judged: `(arms,)`, answers of each arm over all leaves.

    Two sets of statistics add up to what one would hold that had seen both:

    >>> left, right = Statistics(features=1), Statistics(features=1)
    >>> columns = left.add(("de", ""), np.array([0.5]), [("a", 2.0)])
    >>> columns = right.add(("de", ""), np.array([0.1]), [("a", 3.0)])
    >>> left.merge(right)
    >>> left.of("de", ["a", "never seen"]).tolist()
    [[2.0, 5.0, 13.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """

    def __init__(self, features: int = 0) -> None:
        self.features = features
        self.leaves: dict[Leaf, int] = {}
        self.arms: dict[str, int] = {}
        self.sums: FloatArray = np.zeros((1, 1, FIGURES + 3 * features))
        self.scatter: FloatArray = np.zeros((1, features, features))
        self.moved: FloatArray = np.zeros((1, 1, PACES))
        self._rows: dict[str, list[int]] = {}
        self.judged: FloatArray = np.zeros(1)

    @property
    def languages(self) -> Sequence[str]:
        """Those that anything is known of, in the order in which they came."""
        return list(self._rows)

    def meet(self, arms: Iterable[str]) -> list[int]:
        """The columns of these arms, with room made for new ones."""
        return [self._column(arm) for arm in arms]

    def add(
        self,
        leaf: Leaf,
        x: FloatArray,
        told: Sequence[Judgement],
        keep: float = 1.0,
        moved: FloatArray | None = None,
    ) -> list[int]:
        """Counts the judgements of one prompt.

        Args:
            leaf: the language and domain of the prompt.
            x: `(features,)`.
            told: what its candidates say, at least one.
            keep: share of what was known of the language that still counts.
            moved: `(judgements, paces)`; None for not at all.

        Returns:
            The column of each judgement's arm.
        """
        row = self._row(leaf)
        columns = self.meet(arm for arm, _ in told)
        if keep < 1.0:
            self._forget(leaf[0], keep)
        if len(set(columns)) == len(columns):
            self._count(row, columns, x, [reward for _, reward in told])
        else:  # several answers of one arm: each is told from the mean of those before it
            for column, (_, reward) in zip(columns, told, strict=True):
                self._count(row, [column], x, [reward])
        if moved is not None:
            np.add.at(self.moved, (row, columns), moved)
        return columns

    def of(self, language: str, arms: Sequence[str]) -> FloatArray:
        """The figures of these arms in one language, `(arms, 4)`."""
        figures: FloatArray = self.sums[self.rows(language), :, :FIGURES].sum(axis=0)
        return figures[self.columns(arms)]

    def answers(self, arms: Sequence[str]) -> FloatArray:
        """How many answers of these arms were judged in any language, `(arms,)`."""
        answers: FloatArray = self.judged[self.columns(arms)]
        return answers

    def columns(self, arms: Sequence[str]) -> IntArray | slice:
        """Where arms stand in `sums`; the last column for one that was not seen."""
        columns = [self.arms.get(arm, -1) for arm in arms]
        if columns == list(range(len(columns))):
            return slice(len(columns))  # many times faster to look up
        return np.array(columns, dtype=np.intp)

    def rows(self, language: str) -> IntArray:
        """Where the leaves of a language stand in `sums`; none if it was not seen."""
        return np.array(self._rows.get(language, ()), dtype=np.intp)

    def merge(self, other: Statistics) -> None:
        """Adds what another has seen; the scatter by Chan, Golub & LeVeque (1983)."""
        k = self.features
        if other.features != k:
            raise SnapshotError(f"{other.features} features do not go with {k}")
        columns = [self._column(arm) for arm in other.arms]
        theirs = [other.arms[arm] for arm in other.arms]
        self.scatter[columns] += other.scatter[theirs]
        for leaf, their_row in other.leaves.items():
            row = self._row(leaf)
            ours, added = self.sums[row, columns], other.sums[their_row, theirs]
            if k:
                (n, mean), (m, their_mean) = self._mean_x(ours), self._mean_x(added)
                away = their_mean - mean
                weight = n * m / np.maximum(n + m, 1.0)
                self.scatter[columns] += np.einsum("a,ai,aj->aij", weight, away, away)
            self.sums[row, columns] = ours + added
            self.moved[row, columns] += other.moved[their_row, theirs]
        self._recount()

    def plain(self) -> Statistics:
        """The same without features and prompt types, whose answers count for no domain."""
        plain = Statistics(self.features)
        arms = plain.meet(self.arms)
        for leaf, row in self.leaves.items():
            into = plain._row(untyped(leaf))
            plain.sums[into, arms, :FIGURES] += self.sums[row, arms, :FIGURES]
            plain.moved[into, arms] += self.moved[row, arms]
        plain._recount()
        return plain

    def state(self) -> dict[str, Any]:
        """Everything, for a snapshot."""
        return {
            "features": self.features,
            "leaves": [list(leaf) for leaf in self.leaves],
            "arms": list(self.arms),
            "sums": self.sums[: len(self.leaves), : len(self.arms)].copy(),
            "scatter": self.scatter[: len(self.arms)].copy(),
            "moved": self.moved[: len(self.leaves), : len(self.arms)].copy()
            if self.moved.any()
            else None,
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Statistics:
        """What `state` was taken from."""
        self = cls(int(state["features"]))
        self.meet(state["arms"])
        for language, domain in state["leaves"]:
            self._row((language, domain))
        self.sums[: len(self.leaves), : len(self.arms)] = state["sums"]
        self.scatter[: len(self.arms)] = state["scatter"]
        if state["moved"] is not None:
            self.moved[: len(self.leaves), : len(self.arms)] = state["moved"]
        self._recount()
        return self

    def _mean_x(self, cells: FloatArray) -> tuple[FloatArray, FloatArray]:
        k = self.features
        answers = cells[..., SCORED] + cells[..., STOPPED]
        total = cells[..., FIGURES : FIGURES + k] + cells[..., FIGURES + 2 * k :]
        return answers, total / np.maximum(answers, 1.0)[..., None]

    def _count(
        self, row: int, columns: list[int], x: FloatArray, rewards: Sequence[float | None]
    ) -> None:
        """Counts one answer of each of these arms."""
        k = self.features
        cells = self.sums[row, columns]
        if k:
            answers, mean = self._mean_x(cells)
            away = x - mean
            weight = answers / (answers + 1.0)
            self.scatter[columns] += (away * weight[:, None])[:, :, None] * away[:, None, :]
        for cell, reward in zip(cells, rewards, strict=True):
            if reward is None:
                cell[STOPPED] += 1.0
                cell[FIGURES + 2 * k :] += x
            else:
                cell[:STOPPED] += (1.0, reward, reward * reward)
                cell[FIGURES : FIGURES + k] += x
                cell[FIGURES + k : FIGURES + 2 * k] += reward * x
        self.sums[row, columns] = cells
        self.judged[columns] += 1.0

    def _forget(self, language: str, keep: float) -> None:
        """Discounts a language; each arm's scatter by its share of the answers there."""
        rows = self.rows(language)
        forgotten = (1.0 - keep) * self.sums[rows][:, :, [SCORED, STOPPED]].sum(axis=(0, 2))
        share = forgotten / np.maximum(self.judged, 1.0)
        self.scatter *= (1.0 - share)[:, None, None]
        self.judged -= forgotten
        self.sums[rows] *= keep
        self.moved[rows] *= keep

    def _recount(self) -> None:
        self.judged = self.sums[..., [SCORED, STOPPED]].sum(axis=(0, 2))

    def _row(self, leaf: Leaf) -> int:
        row = self.leaves.get(leaf)
        if row is None:
            row = self.leaves[leaf] = len(self.leaves)
            self._rows.setdefault(leaf[0], []).append(row)
            self._grow()
        return row

    def _column(self, arm: str) -> int:
        column = self.arms.get(arm)
        if column is None:
            column = self.arms[arm] = len(self.arms)
            self._grow()
        return column

    def _grow(self) -> None:
        self.sums = grown(self.sums, len(self.leaves), len(self.arms) + 1)
        leaves, arms = self.sums.shape[:2]
        self.moved = grown(self.moved, leaves, arms)
        self.scatter, self.judged = grown(self.scatter, arms), grown(self.judged, arms)
