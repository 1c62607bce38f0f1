"""The direct method: what a log says of each arm in each language, and a target's value by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.arrays import FloatArray, IntArray
    from router.offpolicy.trial import Trial

FOLDS = 5

_OTHERS = 1.0 - np.eye(FOLDS)
_ASKED, _ANSWERED, _TOTAL, _SQUARES, _SHARE = range(5)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What to expect of each arm, `(..., arms)`.

    Attributes:
        answers: how likely it has an outcome when it is asked.
        outcome: its expected outcome, where it has one.
    """

    answers: FloatArray
    outcome: FloatArray


class DirectMethod:
    """Means of arm, language and context, each shrunk to the one above it, and cross-fitted.

        outcome = mean + language + context + arm + arm in language + arm in context

    A context is a language with a domain, or else with a type of prompts.

    Each effect is shrunk by the variance of its kind and the noise, both estimated from
    the log by moments (Efron & Morris 1975; DerSimonian & Laird 1986), so that what one
    answer says does not count like what a hundred say. A prompt is predicted from the
    four fifths of the prompts that it is not among: none has a say in its own
    prediction (Chernozhukov et al. 2018, section 3).
    """

    def __init__(self, trial: Trial) -> None:
        of_context = np.zeros(int(trial.context.max(initial=-1)) + 1, dtype=np.intp)
        of_context[trial.context] = trial.language
        # contexts in the order of their languages, so that these are ranges of them
        rank = np.argsort(np.argsort(of_context, kind="stable"), kind="stable")
        self._language = np.sort(of_context)
        self._context = rank[trial.context]
        self._fold = trial.prompt % FOLDS
        self._order = np.lexsort((self._context, self._fold))
        answered = ~np.isnan(trial.outcomes)
        outcomes = np.where(answered, trial.outcomes, 0.0)
        figures = np.stack(
            (trial.propensities > 0.0, answered, outcomes, outcomes**2, trial.shares), axis=1
        )[self._order].astype(np.float64)
        self._figures = figures.reshape(len(figures), -1)
        self._shape = (FOLDS, len(self._language), 5, len(trial.arms))
        cell = (self._fold * len(self._language) + self._context)[self._order]
        self._starts = np.flatnonzero(np.diff(cell, prepend=-1))
        self._cells = cell[self._starts]

    @property
    def size(self) -> int:
        """Figures that are held for each multiplicity of the log, in `totals`."""
        return int(np.prod(self._shape))

    def predictions(self) -> Prediction:
        """For each prompt of the log, `(prompts, arms)`."""
        expected = self._expected(self._sums(np.ones((1, len(self._order)))))
        of_prompt = (0, self._fold, self._context)
        return Prediction(expected.answers[of_prompt], expected.outcome[of_prompt])

    def totals(self, times: FloatArray) -> FloatArray:
        """The target's expected outcomes and answers over logs in which prompts are repeated.

        Args:
            times: `(logs, prompts)`, how often each prompt is in each of them. For each,
                the means and how they are shrunk are learned anew.

        Returns:
            `(logs, 2)`; their ratio is the value.
        """
        sums = self._sums(times)
        expected = self._expected(sums)
        answers = sums[..., _SHARE, :] * expected.answers
        together = np.stack((answers * expected.outcome, answers), axis=-1)
        totals: FloatArray = together.sum(axis=(1, 2, 3))
        return totals

    def _sums(self, times: FloatArray) -> FloatArray:
        """The figures added up, `(logs, folds, contexts, 5, arms)`."""
        times = times[:, self._order]
        sums = np.zeros((len(times), FOLDS * len(self._language), self._figures.shape[1]))
        ends = np.append(self._starts[1:], len(self._order))
        for cell, start, end in zip(self._cells, self._starts, ends, strict=True):
            sums[:, cell] = times[:, start:end] @ self._figures[start:end]
        return sums.reshape(len(times), *self._shape)

    def _expected(self, sums: FloatArray) -> Prediction:
        """What the other folds say, `(logs, folds, contexts, arms)`."""
        # added up and not taken away, so that not even rounding lets a fold tell of itself
        others = (_OTHERS @ sums.reshape(*sums.shape[:2], -1)).reshape(sums.shape)
        asked, answered = others[..., _ASKED, :], others[..., _ANSWERED, :]
        answers = _shrunk(asked, answered, answered, self._language)
        outcome = _shrunk(
            answered, others[..., _TOTAL, :], others[..., _SQUARES, :], self._language
        )
        return Prediction(np.clip(answers, 0.0, 1.0), outcome)


def _shrunk(
    count: FloatArray, total: FloatArray, squares: FloatArray, language: IntArray
) -> FloatArray:
    """Expected values from the sums over records, each `(..., contexts, arms)`.

    Args:
        count: how many records there are.
        total, squares: sums of their values, and of the squares.
        language: `(contexts,)`, in ascending order.
    """
    starts = np.flatnonzero(np.diff(language, prepend=-1))

    def by_language(table: FloatArray) -> FloatArray:
        return np.add.reduceat(table, starts, axis=-2)

    some = np.maximum(count, 1.0)
    overall = _both(count)
    mean = _both(total) / np.maximum(overall, 1.0)
    freedom = _both(np.maximum(count - 1.0, 0.0))
    within = np.maximum(_both(squares - total**2 / some), 0.0)
    around = np.maximum(_both(squares) - overall * mean**2, 0.0)
    # without two records in any one cell, noise cannot be told from effects
    noise = np.where(
        freedom > 0.0, within / np.maximum(freedom, 1.0), around / np.maximum(overall, 1.0)
    )
    groups: list[tuple[Callable[[FloatArray], FloatArray], bool]] = [
        (lambda table: by_language(table).sum(axis=-1, keepdims=True), True),
        (lambda table: table.sum(axis=-1, keepdims=True), False),
        (lambda table: table.sum(axis=-2, keepdims=True), False),
        (by_language, True),
        (lambda table: table, False),
    ]
    if len(starts) == len(language):  # contexts are languages
        groups = [groups[0], groups[2], groups[3]]
    expected = mean + np.zeros_like(count)
    for gathered, of_language in groups:
        effect = _effects(gathered(count), gathered(total - count * expected), noise)
        expected = expected + (effect[..., language, :] if of_language else effect)
    return expected


def _effects(count: FloatArray, residual: FloatArray, noise: FloatArray) -> FloatArray:
    """Mean residuals of groups, shrunk to 0 by the variance between the groups' own."""
    strength = residual**2 / np.maximum(count, 1.0)
    groups = _both((count > 0.0).astype(np.float64))
    variance = np.maximum(_both(strength) - groups * noise, 0.0) / np.maximum(_both(count), 1.0)
    below = count * variance + noise
    effects: FloatArray = residual * variance / np.where(below > 0.0, below, 1.0)
    return effects


def _both(table: FloatArray) -> FloatArray:
    """Summed over its last two axes, which stay."""
    both: FloatArray = table.sum(axis=(-2, -1), keepdims=True)
    return both
