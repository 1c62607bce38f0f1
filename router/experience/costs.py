"""What a call costs, in money and in time, by language and arm."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from arbitrage.errors import TeacherTimeout
from router.arrays import grown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from arbitrage.types import Candidate
    from router.arrays import FloatArray

CALLS, BILLED, USD, TIMED, LOGS, SQUARES = range(6)
_FIGURES = 6

_USUAL_FACTOR = 2.0  # billed calls that a language's factor of 1 counts for ...
_USUAL_CALLS = 10.0  # ... calls that an arm's cost elsewhere, times the factor, counts for ...
_USUAL_FREEDOM = 4.0  # ... and calls that the arms' common spread of log seconds counts for
_SWEEPS = 8
_FEWEST = 1e-9  # calls, to divide by
_UNKNOWN_VARIANCE = 0.25  # of log seconds, before any arm has been timed twice
_NINE_OF_TEN = 1.2816  # standard deviations below which nine tenths of a Gaussian lie

_LARGEST_USD = 1e6  # a call: larger ones are no costs ...
_SMALLEST_USD = 1e-12  # ... and smaller ones are none
_SECONDS = (1e-6, 1e7)  # a call that took less, or longer, was not timed


class Costs:
    """US dollars and seconds a call, learned from candidates.

    A call is all candidates of an arm for one prompt. One that failed counts if it was
    billed: a failure that cost nothing says nothing of the next call. One that was
    answered from a cache was none.

    Costs: arm a in language l is expected to cost mean_a * factor_l, since tokenizers
    price languages unequally, but similarly for all arms. The factor is a gamma-shrunk
    ratio of what the language's billed calls have cost to what its arms cost on average,
    and the mean of an arm the ratio of what its calls have cost to the factors they met,
    so that an arm is not dear for being asked where all are: the two are
    solved together. What the arm has cost in this very language then takes over call by
    call. Nothing is divided by a cost or taken the logarithm of, so a free arm costs 0.

    Seconds: logarithms are Gaussian around an arm's mean plus a language's offset, shrunk
    alike; their variance is an arm's own, shrunk to all arms'.

    A read costs the same however many languages there are: all that is needed of the
    others is a table of arms by arms.

    >>> from arbitrage.types import Candidate, Completion
    >>> costs = Costs()
    >>> for language, factor in (("en", 1.0), ("th", 3.0)) * 200:
    ...     costs.learn(language, [Candidate("ada", Completion("."), cost_usd=0.01 * factor)])
    >>> costs.learn("en", [Candidate("bob", Completion("."), cost_usd=0.001)])
    >>> costs.usd("th", ["ada", "bob", "new"]).round(4).tolist()
    [0.03, 0.003, 0.0165]

    Args:
        keep: share of what is known of a language that still counts after another prompt.
    """

    def __init__(self, keep: float = 1.0) -> None:
        self.languages: dict[str, int] = {}
        self.arms: dict[str, int] = {}
        # The last row and column stay zero, and stand for any language and arm not seen.
        self.sums: FloatArray = np.zeros((1, 1, _FIGURES))
        self._keep = keep
        # Sums over languages: (arms, figures) of `sums`; and of the factors that each arm's
        # billed calls have met, the part that is there anyway, (arms,), and the part that
        # each arm's dollars have in them, (arms, arms).
        self._totals: FloatArray = np.zeros((1, _FIGURES))
        self._met_anyway: FloatArray = np.zeros(1)
        self._met: FloatArray = np.zeros((1, 1))
        self._fit()

    def learn(self, language: str, candidates: Iterable[Candidate]) -> None:
        """Takes in the candidates of one prompt."""
        calls = _calls(candidates)
        if not calls:
            return
        self._grow([language], calls)
        row = self.sums[self.languages[language]]
        self._count(row, -1.0)
        row *= self._keep
        for arm, figures in calls.items():
            row[self.arms[arm]] += figures
        self._count(row, 1.0)
        self._fit()

    def usd(self, language: str, arms: Sequence[str]) -> FloatArray:
        """What a call is expected to cost, `(arms,)`, in US dollars.

        An arm never seen is expected to cost the mean of these arms, or where all of them
        are new, of all known; 0 where nothing is known.
        """
        row = self.sums[self.languages.get(language, -1)]
        usd = row[:, USD]
        ratio = usd @ self._per_usd + _USUAL_FACTOR
        factor = ratio / (row[:, BILLED].sum() + _USUAL_FACTOR)
        costs = (usd + self._usual_usd * factor) / (row[:, CALLS] + _USUAL_CALLS)
        return self._of(arms, costs, self._totals[:, CALLS])

    def seconds(self, language: str, arms: Sequence[str]) -> FloatArray:
        """What nine of ten calls take no longer than, `(arms,)`, in seconds.

        An arm never timed is expected to take the mean of these arms, or where all of them
        are new, of all known; 0 where nothing is known.
        """
        row = self.sums[self.languages.get(language, -1)]
        timed, logs = row[:, TIMED], row[:, LOGS]
        offset = (logs - timed * self._mean_log).sum() / (timed.sum() + _USUAL_FACTOR)
        usual = _USUAL_CALLS * (self._mean_log + offset)
        longest = np.exp((logs + usual) / (timed + _USUAL_CALLS) + self._to_longest)
        return self._of(arms, longest, self._totals[:, TIMED])

    def merge(self, other: Costs) -> None:
        """Adds what another has seen, as if this one had seen it, too."""
        self._grow(other.languages, other.arms)
        rows = [self.languages[language] for language in other.languages]
        columns = [self.arms[arm] for arm in other.arms]
        self.sums[np.ix_(rows, columns)] += other.sums[: len(rows), : len(columns)]
        for sums in (self._totals, self._met_anyway, self._met):
            sums[:] = 0.0
        for row in self.sums[: len(self.languages)]:
            self._count(row, 1.0)
        self._fit()

    def state(self) -> dict[str, Any]:
        """Everything, for a snapshot."""
        arms = len(self.arms)
        return {
            "languages": list(self.languages),
            "arms": list(self.arms),
            "sums": self.sums[: len(self.languages), :arms].copy(),
            "totals": self._totals[:arms].copy(),
            "met_anyway": self._met_anyway[:arms].copy(),
            "met": self._met[:arms, :arms].copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Becomes what `state` was taken from."""
        self.languages, self.arms = {}, {}
        self.sums = np.zeros((1, 1, _FIGURES))
        self._totals = np.zeros((1, _FIGURES))
        self._met_anyway, self._met = np.zeros(1), np.zeros((1, 1))
        self._grow(state["languages"], state["arms"])
        arms = len(self.arms)
        self.sums[: len(self.languages), :arms] = state["sums"]
        self._totals[:arms] = state["totals"]
        self._met_anyway[:arms] = state["met_anyway"]
        self._met[:arms, :arms] = state["met"]
        self._fit()

    def _grow(self, languages: Iterable[str], arms: Iterable[str]) -> None:
        for language in languages:
            self.languages.setdefault(language, len(self.languages))
        for arm in arms:
            self.arms.setdefault(arm, len(self.arms))
        self.sums = grown(self.sums, len(self.languages) + 1)
        # No more room for arms than needed: how sums are rounded depends on how long they are.
        more = (0, len(self.arms) + 1 - len(self._totals))
        if more[1]:
            self.sums = np.pad(self.sums, ((0, 0), more, (0, 0)))
            self._totals = np.pad(self._totals, (more, (0, 0)))
            self._met_anyway = np.pad(self._met_anyway, more)
            self._met = np.pad(self._met, (more, more))

    def _count(self, row: FloatArray, sign: float) -> None:
        """Adds a language to what is kept of all of them, or takes it away."""
        billed = row[:, BILLED]
        weighted = billed * (sign / (billed.sum() + _USUAL_FACTOR))
        self._totals += sign * row
        self._met_anyway += weighted * _USUAL_FACTOR
        self._met += np.multiply.outer(weighted, row[:, USD])

    def _fit(self) -> None:
        """What is needed of all languages to read any: the arms' means and spreads."""
        calls, billed, usd, timed, logs, squares = self._totals.T
        priced = usd > 0.0
        per_total = np.divide(1.0, usd, out=np.zeros(len(usd)), where=priced)
        per_usd = billed * per_total
        for _ in range(_SWEEPS):
            per_usd = (self._met_anyway + self._met @ per_usd) * per_total
        self._per_usd = per_usd
        at_factor_1 = np.divide(billed, per_usd, out=np.zeros(len(usd)), where=priced)
        self._usual_usd = _USUAL_CALLS * at_factor_1 / np.maximum(calls, _FEWEST)

        self._mean_log = logs / np.maximum(timed, _FEWEST)
        around = np.maximum(squares - logs * self._mean_log, 0.0)
        freedom = np.maximum(timed - 1.0, 0.0)
        known = around.sum() + _USUAL_FREEDOM * _UNKNOWN_VARIANCE
        usual = known / (freedom.sum() + _USUAL_FREEDOM)
        variance = (around + _USUAL_FREEDOM * usual) / (freedom + _USUAL_FREEDOM)
        self._to_longest = _NINE_OF_TEN * np.sqrt(variance)

    def _of(self, arms: Sequence[str], figures: FloatArray, counts: FloatArray) -> FloatArray:
        """The figures of these arms; of one without counts, the mean of the others."""
        columns = [self.arms.get(arm, -1) for arm in arms]
        wanted: FloatArray = figures[columns]
        known = counts[columns] > 0.0
        if not known.all():
            others = wanted[known] if known.any() else figures[counts > 0.0]
            wanted[~known] = others.mean() if len(others) else 0.0
        return wanted


def _calls(candidates: Iterable[Candidate]) -> dict[str, FloatArray]:
    """What is to be counted of each arm, `(figures,)`."""
    calls: dict[str, FloatArray] = {}
    seconds: dict[str, float] = {}
    for candidate in candidates:
        arm, usd, latency = candidate.teacher, candidate.cost_usd, candidate.latency_seconds
        if candidate.completion and candidate.completion.cached:
            continue
        answered = candidate.completion is not None
        failure = candidate.failure
        if 0.0 <= usd <= _LARGEST_USD and (answered or usd >= _SMALLEST_USD):
            call = calls.setdefault(arm, np.zeros(_FIGURES))
            call[CALLS] = 1.0
            if usd >= _SMALLEST_USD:
                call[BILLED] = 1.0
                call[USD] += usd
        timed_out = failure is not None and failure.outcome == TeacherTimeout.outcome
        if (answered or timed_out) and _SECONDS[0] <= latency <= _SECONDS[1]:
            seconds[arm] = max(seconds.get(arm, 0.0), latency)
    for arm, longest in seconds.items():
        log = math.log(longest)
        calls.setdefault(arm, np.zeros(_FIGURES))[TIMED:] = (1.0, log, log * log)
    return calls
