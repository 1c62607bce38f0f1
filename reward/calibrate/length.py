"""What a longer or shorter answer usually gains, per language, from few answers on.

A reward model's scores carry a bias by length that is no quality; Huang et al.
(arXiv 2409.17407) estimate it by a local regression of the score on the length and
subtract it. Here the regression is online and in fixed memory: the curve is one line an
octave (doubling) of the length in characters, from 1 to 131,072 and flat beyond, and
the slopes of neighbours are held together, which is what makes it smooth (a penalised
spline: Eilers & Marx 1996). What of quality goes with length is taken out with the bias;
the smoother the curve, the less of it. `benchmarks/calibration.py` has figures.

Only answers to one prompt are compared. Prompts that ask for long answers may be
easier or harder than others, and centring the scores alone would let that in: both
score and length are taken relative to their means over the prompt's answers (the
"within" estimator of panel regression), which leaves no trace of the prompt.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FloatArray: TypeAlias = NDArray[np.float64]

_OCTAVES = 17
_STARTS = np.arange(_OCTAVES, dtype=np.float64)
_STEPS = np.diff(np.eye(_OCTAVES), axis=0)
_ROUGHNESS = _STEPS.T @ _STEPS
# a curve is fitted again when a fiftieth more is known: often at first, rarely later
_REFIT_GROWTH = 1.02
_NO_SPREAD = 1e-6


def octaves(length: int) -> float:
    """The length of a text on the curve's axis: doublings of one character."""
    return min(math.log2(1 + length), float(_OCTAVES))


@dataclass(slots=True)
class Curve:
    """A gain by length: a line an octave, 0 on average over the answers it was fitted to.

    Attributes:
        slopes: what each octave gains, in standard deviations.
        heights: the gain where each octave begins, and at the end of the last.
    """

    slopes: Sequence[float] = (0.0,) * _OCTAVES
    heights: Sequence[float] = (0.0,) * (_OCTAVES + 1)

    @classmethod
    def of(cls, slopes: FloatArray, reference: FloatArray) -> Curve:
        """The curve with these slopes (17,).

        Args:
            reference: mean over the answers of how much of each octave they fill (17,).
        """
        # where answers differ in length the gain is taken out, where they are typical it stays
        heights = np.concatenate([[0.0], np.cumsum(slopes)]) - slopes @ reference
        return cls(slopes.tolist(), heights.tolist())

    def gain(self, length: int) -> float:
        """What an answer of so many characters gains, in standard deviations."""
        x = octaves(length)
        octave = min(int(x), _OCTAVES - 1)
        return self.heights[octave] + self.slopes[octave] * (x - octave)


@dataclass(slots=True)
class Products:
    """Sums over the answers of one language, enough for the regression.

    A row has the score first, then how much of each octave the answer's length fills.

    Attributes:
        count: answers seen.
        freedom: answers minus prompts.
        mean: of the rows (18,).
        within: products of the rows' deviations from their prompt's mean (18, 18).
        fitted: `count` when the curve was fitted.
    """

    count: float = 0.0
    freedom: float = 0.0
    mean: FloatArray = field(default_factory=lambda: np.zeros(1 + _OCTAVES))
    within: FloatArray = field(default_factory=lambda: np.zeros((1 + _OCTAVES, 1 + _OCTAVES)))
    fitted: float = 0.0

    def learn(self, rows: FloatArray, mean: FloatArray, deviations: FloatArray) -> None:
        """Takes the rows of one prompt: (n, 18), their mean, and how they deviate from it."""
        self.count += len(rows)
        self.freedom += len(rows) - 1
        self.mean += (mean - self.mean) * (len(rows) / self.count)
        self.within += deviations.T @ deviations

    def fade(self, count: float) -> None:
        """Goes on as if no more than `count` answers had been seen."""
        kept = min(1.0, count / self.count) if self.count else 1.0
        self.count *= kept
        self.freedom *= kept
        self.within *= kept
        self.fitted = 0.0

    @property
    def deviation(self) -> float:
        """Standard deviation of the scores within prompts; 0 where none is known."""
        return math.sqrt(self.within[0, 0] / self.freedom) if self.freedom else 0.0

    def slopes(self, scale: float, prior: FloatArray, strength: float) -> FloatArray:
        """Ridge regression of the scores, divided by `scale`, on the octaves (17,).

        Each slope is shrunk to the prior's: n squared octaves between answers to one
        prompt weigh n / (n + strength). A step from one slope to the next is held back
        by as much as all answers together say.
        """
        known = self.within[1:, 1:]
        held = strength * np.eye(_OCTAVES) + np.trace(known) * _ROUGHNESS
        gained = self.within[1:, 0] / scale + strength * prior
        return np.asarray(np.linalg.solve(known + held, gained), np.float64)


class LengthCurves:
    """Each language's gain by length, shrunk to that of all languages, and that to none.

    The curve of all languages is in standard deviations of each language's own scores,
    so that no language counts more for the unit of its scores.

    Args:
        strength: how many answers, an octave from their prompt's mean, weigh as much
            as what is believed without them.
    """

    def __init__(self, strength: float) -> None:
        self._strength = strength
        self._all = Products()
        self._of: defaultdict[str, Products] = defaultdict(Products)
        self._shared = np.zeros(_OCTAVES)
        self._fallback = Curve()
        self._curves: dict[str, Curve] = {}

    def of(self, language: str) -> Curve:
        """The curve of a language; that of all languages for one not yet seen."""
        return self._curves.get(language, self._fallback)

    def learn(
        self, language: str, scale: float, lengths: Sequence[int], scores: Sequence[float]
    ) -> None:
        """Takes the answers to one prompt, at least one.

        Args:
            scale: what a standard deviation is in this language, in units of the score.
            lengths: of the answers, in characters.
        """
        rows = _rows(lengths, scores)
        mean = rows.mean(axis=0)
        deviations = rows - mean
        own = self._of[language]
        own.learn(rows, mean, deviations)
        if own.deviation > _NO_SPREAD:
            deviations[:, 0] /= own.deviation
            self._all.learn(rows, mean, deviations)
        self._refit(language, scale)

    def fade(self, language: str) -> None:
        """What was learned of a language weighs no more than what all languages say."""
        self._of[language].fade(self._strength)

    def state(self) -> dict[str, Any]:
        """Everything, for a snapshot."""
        return {
            "all": _written(self._all),
            "of": {language: _written(own) for language, own in self._of.items()},
            "shared": self._shared.copy(),
            "fallback": [list(self._fallback.slopes), list(self._fallback.heights)],
            "curves": {
                language: [list(curve.slopes), list(curve.heights)]
                for language, curve in self._curves.items()
            },
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Becomes what `state` was taken from."""
        self._all = _read(state["all"])
        self._of.clear()
        self._of.update({language: _read(own) for language, own in state["of"].items()})
        self._shared = np.array(state["shared"], dtype=np.float64)
        self._fallback = Curve(*state["fallback"])
        self._curves = {language: Curve(*curve) for language, curve in state["curves"].items()}

    def _refit(self, language: str, scale: float) -> None:
        everyone, own = self._all, self._of[language]
        if everyone.count > _REFIT_GROWTH * everyone.fitted:
            self._shared = everyone.slopes(1.0, np.zeros(_OCTAVES), self._strength)
            self._fallback = Curve.of(self._shared, everyone.mean[1:])
            everyone.fitted = everyone.count
        if own.count > _REFIT_GROWTH * own.fitted:
            slopes = own.slopes(scale, self._shared, self._strength)
            self._curves[language] = Curve.of(slopes, own.mean[1:])
            own.fitted = own.count


def _rows(lengths: Sequence[int], scores: Sequence[float]) -> FloatArray:
    rows = np.empty((len(scores), 1 + _OCTAVES))
    rows[:, 0] = scores
    filled = np.array([[octaves(length)] for length in lengths])
    np.clip(filled - _STARTS, 0.0, 1.0, out=rows[:, 1:])
    return rows


def _written(products: Products) -> dict[str, Any]:
    return {one.name: getattr(products, one.name) for one in fields(products)} | {
        "mean": products.mean.copy(),
        "within": products.within.copy(),
    }


def _read(state: Mapping[str, Any]) -> Products:
    arrays = {name: np.array(state[name], dtype=np.float64) for name in ("mean", "within")}
    return Products(**{**state, **arrays})
