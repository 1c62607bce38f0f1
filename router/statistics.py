"""What was seen, in sums that add up: the part of a policy that is worth keeping."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arbitrage.types import Candidate
    from router.arrays import FloatArray

SCORED, TOTAL, SQUARES, STOPPED = range(4)

_LARGEST_REWARD = 1e30  # larger ones are no scores, and their squares would leave float64


class Statistics:
    """Sufficient statistics of a Gaussian reward, per language and arm.

    Attributes:
        languages: row of each language in `sums`, in the order in which they came.
        arms: column of each arm in `sums`.
        sums: `(languages + 1, arms + 1, 4)`; `SCORED` candidates, `TOTAL` and sum of
            `SQUARES` of their rewards, and candidates that a gate `STOPPED`. The
            last row and the last column stay zero: they stand for any language
            and any arm not seen.

    Two sets of statistics add up to what one would hold that had seen both:

    >>> from arbitrage.types import Candidate, Completion, Score
    >>> left, right = Statistics(), Statistics()
    >>> left.add("de", [Candidate("a", Completion("Ja."), score=Score(2.0, {}))])
    >>> right.add("de", [Candidate("a", Completion("Nein."), score=Score(3.0, {}))])
    >>> (left + right).of("de", ["a", "never seen"]).tolist()
    [[2.0, 5.0, 13.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """

    def __init__(self) -> None:
        self.languages: dict[str, int] = {}
        self.arms: dict[str, int] = {}
        self.sums: FloatArray = np.zeros((1, 1, 4))

    def add(self, language: str, candidates: Iterable[Candidate]) -> None:
        """Counts what the reward model or a gate has judged; a failure says nothing of quality."""
        for candidate in candidates:
            if candidate.failure:
                continue
            reward = candidate.reward
            if candidate.gates:
                self._cell(language, candidate.teacher)[STOPPED] += 1.0
            elif reward is not None and abs(reward) <= _LARGEST_REWARD:
                self._cell(language, candidate.teacher)[:STOPPED] += (1.0, reward, reward * reward)

    def of(self, language: str, arms: Iterable[str]) -> FloatArray:
        """The sums of these arms in one language, `(arms, 4)`."""
        table: FloatArray = self.sums[self.row(language), self.columns(arms)]
        return table

    def answers(self, arms: Iterable[str]) -> FloatArray:
        """How many answers of these arms were judged in any language, `(arms,)`."""
        counts: FloatArray = self.sums[:, self.columns(arms)][..., [SCORED, STOPPED]].sum((0, 2))
        return counts

    def row(self, language: str) -> int:
        """Where a language stands in `sums`."""
        return self.languages.get(language, -1)

    def columns(self, arms: Iterable[str]) -> list[int]:
        """Where arms stand in `sums`."""
        return [self.arms.get(arm, -1) for arm in arms]

    def __add__(self, other: Statistics) -> Statistics:
        both = Statistics()
        for part in (self, other):
            for language in part.languages:
                both.languages.setdefault(language, len(both.languages))
            for arm in part.arms:
                both.arms.setdefault(arm, len(both.arms))
        both.sums = grown(both.sums, len(both.languages) + 1, len(both.arms) + 1)
        for part in (self, other):
            rows = [both.languages[language] for language in part.languages]
            both.sums[np.ix_(rows, both.columns(part.arms))] += part.sums[:-1, :-1]
        return both

    def _cell(self, language: str, arm: str) -> FloatArray:
        row = self.languages.setdefault(language, len(self.languages))
        column = self.arms.setdefault(arm, len(self.arms))
        self.sums = grown(self.sums, len(self.languages) + 1, len(self.arms) + 1)
        cell: FloatArray = self.sums[row, column]
        return cell


def grown(table: FloatArray, rows: int, columns: int) -> FloatArray:
    """The table with zeros behind its rows and columns; itself if it is large enough."""
    missing = (rows - table.shape[0], columns - table.shape[1])
    if missing == (0, 0):
        return table
    return np.pad(table, ((0, missing[0]), (0, missing[1]), (0, 0)))
