"""How far arms move as time goes by: teachers change behind their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from router.arrays import grown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from router.arrays import FloatArray, IntArray

_STEPS = np.array([0.0, 1e-6, 1e-5, 1e-4])  # variances of a step, in squared spreads
PACES = len(_STEPS)
_LOG_PRIOR = np.log([0.7, 0.1, 0.1, 0.1])
_REMEMBERED = 0.999  # share of the evidence on them that counts after one more answer
_NEVER = -1
_SOME = 1e-12  # of variance, where two that may be 0 are weighed


class Drift:
    """A random walk of each arm's value, in all languages alike, at a pace that is estimated.

    With every prompt, whoever is asked, an arm may move by a Gaussian step; so one that has
    not been asked for long is known less well. What its next answers say is shared between
    the walk and what else is uncertain of it, as though these were independent (assumed
    density filtering). How long the steps are is not known: Kalman filters of several paces
    run side by side, weighted by how well each has foretold the answers of late (Magill
    1965, IEEE Transactions on Automatic Control 10). In quiet times that of pace 0 carries
    the day; once an arm turns out to have moved, it is believed of all that they may have,
    and those that were not asked for long are looked at again.

    Each filter keeps account of how far arms had moved when they gave the answers that are
    counted. So none need be forgotten, and with it what stays: how languages differ.

    An arm that answers as expected for long, and then worse:

    >>> drift, arm, nowhere = Drift(), np.array([0]), np.zeros((1, PACES))
    >>> for prompt in range(1, 601):
    ...     away = np.full((1, PACES), -1.0 if prompt > 500 else 0.0)
    ...     moved = drift.learn(arm, away, np.array([0.1]), prompt)
    ...     if prompt in (500, 505, 600):
    ...         print(drift.at(arm, nowhere, prompt)[0].round(1))
    [0.]
    [-0.]
    [-1.]
    """

    def __init__(self) -> None:
        self._evidence: FloatArray = _LOG_PRIOR.copy()
        self._means: FloatArray = np.zeros((1, PACES))
        self._variances: FloatArray = np.zeros((1, PACES))  # before the prompt `since`, ...
        self._since: IntArray = np.full(1, _NEVER)  # ... for which an arm was last asked

    @property
    def weights(self) -> FloatArray:
        """How likely each pace is, `(paces,)`."""
        likely = np.exp(self._evidence - self._evidence.max())
        weights: FloatArray = likely / likely.sum()
        return weights

    def at(
        self, arms: IntArray | slice, counted: FloatArray, prompt: int
    ) -> tuple[FloatArray, FloatArray]:
        """Mean and variance of how far arms have moved, `(..., arms)` each, in spreads.

        Args:
            arms: their columns; one that nothing is known of has not moved.
            counted: `(..., arms, paces)`, how far they had moved when they gave the answers that
                are counted, on average.
            prompt: the number of the prompt.
        """
        weights = self.weights
        moved = self._means[arms] - counted
        mean = moved @ weights
        variance = (self._passed(arms, prompt) + (moved - mean[..., None]) ** 2) @ weights
        return mean, variance

    def learn(
        self, arms: IntArray, away: FloatArray, uncertain: FloatArray, prompt: int
    ) -> FloatArray:
        """Takes in the answers of different arms, and tells how far these have moved.

        Args:
            arms: their columns.
            away: `(arms, paces)`, from what is believed of where each pace set out, in
                spreads.
            uncertain: `(arms,)`, their variance for all other reasons.
            prompt: its number.

        Returns:
            `(arms, paces)`, in spreads.
        """
        means, passed = self._means[arms], self._passed(arms, prompt)
        surprise = away - means
        expected = passed + uncertain[:, None]
        likely = -0.5 * (np.log(expected) + surprise**2 / expected).sum(axis=0)
        kept = _REMEMBERED ** len(arms)
        self._evidence = kept * self._evidence + (1.0 - kept) * _LOG_PRIOR + likely
        self._evidence -= self._evidence.max()
        gain = passed / expected
        means = means + gain * surprise
        self._means[arms] = means
        self._variances[arms] = (1.0 - gain) * passed
        self._since[arms] = prompt
        return means

    def merge(self, other: Drift, arms: IntArray, theirs: IntArray, prompts: IntArray) -> None:
        """Adds what another has followed of these arms meanwhile.

        Both watched the same walk, so the surer one counts for more.

        Args:
            other: the other.
            arms: columns here.
            theirs: the same arms' columns there.
            prompts: here and there so far, `(2,)`.
        """
        self.widen(int(arms.max(initial=0)) + 2)  # a column for those never asked remains
        met = self._since != _NEVER
        self._variances = self._passed(slice(None), int(prompts[0]))
        met_by_them = other._since[theirs] != _NEVER
        ours, added = self._variances[arms], other._passed(theirs, int(prompts[1]))
        weight = (ours + _SOME) / (ours + added + 2.0 * _SOME)
        weight[~met[arms]], weight[~met_by_them] = 1.0, 0.0
        self._means[arms] += weight * (other._means[theirs] - self._means[arms])
        self._variances[arms] = np.where(weight > 0.0, weight * added, ours)
        met[arms] |= met_by_them
        self._since[met] = prompts.sum()
        self._evidence += other._evidence - _LOG_PRIOR

    def state(self) -> dict[str, Any]:
        """Everything, for a snapshot."""
        return {
            "evidence": self._evidence.copy(),
            "means": self._means.copy(),
            "variances": self._variances.copy(),
            "since": self._since.copy(),
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Self:
        """What `state` was taken from."""
        self = cls()
        self._evidence = np.array(state["evidence"], dtype=np.float64)
        self._means = np.array(state["means"], dtype=np.float64)
        self._variances = np.array(state["variances"], dtype=np.float64)
        self._since = np.array(state["since"], dtype=np.intp)
        return self

    def widen(self, arms: int) -> None:
        """Makes room for so many arms."""
        before = len(self._since)
        if arms > before:
            self._means, self._variances = grown(self._means, arms), grown(self._variances, arms)
            self._since = grown(self._since, arms)
            self._since[before:] = _NEVER

    def _passed(self, arms: IntArray | slice, prompt: int) -> FloatArray:
        """Variances, with what has been added since an arm was last asked, `(arms, paces)`."""
        since = self._since[arms]
        lag = np.where(since == _NEVER, 0, prompt - since)
        passed: FloatArray = self._variances[arms] + lag[:, None] * _STEPS
        return passed
