"""How an arm's rewards go with the features of a prompt, in every language alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from router.arrays import grown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from router.arrays import Features, FloatArray, IntArray

_VARIANCE = 0.02  # expected of a slope, in squared spreads per squared feature ...
_STRENGTH = 32.0  # ... and how many slopes this counts for
_STALE = 1.05  # an arm's slopes are solved for again when it has so many times the answers


class Slopes:
    """Gaussian posterior of each arm's slopes, by Bayesian ridge regression.

    It rests on what x and the rewards do within each leaf alone, around their means there:
    what differs between leaves is the tree's to explain. (MacKay 1992 for the estimate of
    the prior's variance.)

    Attributes:
        mean: `(arms, features)`, in spreads per unit of the feature.
        variance: of a slope, before anything is known of it.
    """

    def __init__(self, features: int) -> None:
        self.variance = _VARIANCE
        self.mean: FloatArray = np.zeros((1, features))
        # in half the bytes, which is what a decision waits for
        self._covariance: Features = np.eye(features, dtype=np.float32)[None] * self.variance
        self._solved: FloatArray = np.zeros(1)  # answers that an arm's slopes rest on

    def learn(
        self,
        arms: Iterable[int],
        answers: FloatArray,
        scatter: FloatArray,
        products: FloatArray,
        noise: float,
    ) -> None:
        """Solves for the slopes of those arms that have gained enough answers.

        Args:
            arms: columns.
            answers: `(arms,)`, all that were judged.
            scatter: `(arms, features, features)`, of x around its leaf's mean.
            products: `(arms, features)`, of x and the rewards in spreads, around theirs.
            noise: variance of a reward, in squared spreads.
        """
        self.widen(len(answers))
        features = self.mean.shape[1]
        for arm in arms if features else ():
            if answers[arm] < _STALE * self._solved[arm]:
                continue
            precision = scatter[arm] / noise + np.eye(features) / self.variance
            covariance = np.linalg.inv(precision)
            self._covariance[arm] = covariance
            self.mean[arm] = covariance @ products[arm] / noise
            self._solved[arm] = answers[arm]

    def tune(
        self,
        answers: FloatArray,
        scatter: FloatArray,
        products: FloatArray,
        noise: float,
        *,
        turns: int,
    ) -> None:
        """Estimates the prior's variance by so many turns of EM, and solves for all slopes."""
        self.widen(len(answers))
        features = self.mean.shape[1]
        known = np.flatnonzero(answers)
        self.variance = _VARIANCE
        for turn in range(turns + 1 if features else 0):
            self._solved[:] = 0.0
            self.mean[:] = 0.0
            self._covariance[:] = np.eye(features) * self.variance
            self.learn(known.tolist(), answers, scatter, products, noise)
            if turn < turns:
                squares = (self.mean[known] ** 2).sum()
                squares += np.einsum("aii->", self._covariance[known])
                total = float(squares) + _STRENGTH * _VARIANCE
                self.variance = total / (self.mean[known].size + _STRENGTH)

    def at(self, x: FloatArray, arms: IntArray | slice) -> tuple[FloatArray, FloatArray]:
        """Mean and variance of slopes * x, `(arms,)` each, for `x` of `(arms, features)`."""
        mean = (self.mean[arms] * x).sum(axis=1)
        away = x.astype(np.float32)[:, :, None]
        variance = (away * np.matmul(self._covariance[arms], away)).sum(axis=(1, 2))
        return mean, variance

    def widen(self, arms: int) -> None:
        """Makes room for so many arms."""
        before = len(self._solved)
        if arms > before:
            self.mean = grown(self.mean, arms)
            self._covariance = grown(self._covariance, arms)
            self._solved = grown(self._solved, arms)
            self._covariance[before:] = np.eye(self.mean.shape[1]) * self.variance

    def state(self) -> dict[str, Any]:
        """Everything, for a snapshot."""
        return {
            "variance": self.variance,
            "mean": self.mean.copy(),
            "covariance": self._covariance.copy(),
            "solved": self._solved.copy(),
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Self:
        """What `state` was taken from."""
        self = cls(np.shape(state["mean"])[1])
        self.variance = float(state["variance"])
        self.mean = np.array(state["mean"], dtype=np.float64)
        self._covariance = np.array(state["covariance"], dtype=np.float32)
        self._solved = np.array(state["solved"], dtype=np.float64)
        return self
