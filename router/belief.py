"""What the statistics let one believe of an arm's reward in a language."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from router.arrays import grown
from router.families import family
from router.slopes import Slopes
from router.statistics import FIGURES, SCORED, SQUARES, STOPPED, TOTAL, Statistics
from router.tree import ROOT, Tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from router.arrays import FloatArray
    from router.judgement import Judgement
    from router.leaf import Leaf

STOPPED_AT = -3.0
"""What an answer that a gate stopped counts for, in spreads from the language's level."""

_STEPS = np.array([0.25, 0.02, 0.05, 0.02])  # expected variances, in squared spreads ...
_STEPS_STRENGTH = 10.0  # ... of the root, a family, a language, a domain in it
_FREEDOM = 2.0  # degrees of freedom behind the prior of a language's spread and noise
_ROUNDING = 1e-12  # a variance below this share of the squared level is rounding error ...
_SMALLEST_VARIANCE = 1e-60  # ... and below this, too small to divide by
_SOME = 1e-9  # stands in for no answers at all where they are divided by
_TURNS = 10  # of EM
_FIRST_TUNED = 20  # prompts before the variances are first estimated, ...
_TUNED_EVERY = 1.3  # ... and by what factor there are more when they are again


@dataclass(frozen=True, slots=True)
class Posterior:
    """Independent Gaussians over the arms' expected rewards, in the reward's units.

    Attributes:
        mean: `(arms,)`.
        sd: `(arms,)`, above 0.
        spread: of the language's rewards, above 0: what a difference is to be held against.
    """

    mean: FloatArray
    sd: FloatArray
    spread: float


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where a language's rewards lie, by its own rewards alone.

    `weight` is the number of degrees of freedom behind `log_variance`, 0 while
    nothing is known of it; `level` is None before the first reward.
    """

    level: float | None = None
    log_variance: float = 0.0
    weight: float = 0.0


class Belief:
    """A hierarchical linear model of rewards whose scale may differ from language to language.

    A language's *level* is the mean over its arms' mean rewards, its *spread* the root
    mean square distance of its rewards from that. In these units

        reward = value of (arm, language, domain) + slopes of the arm * features + noise

    where the value is a node of the tree root -> family -> language -> domain
    (`router.tree`): a language with few prompts expects of an arm what is seen elsewhere,
    most in its family, and one with many trusts its own. An answer that a gate stopped
    counts `STOPPED_AT`. All variances are estimated as it goes: the noise for each
    language, shrunk to the others', and those of the tree and of the slopes over all.
    Spreads are shrunk to the languages' geometric mean, because what is unknown of a
    scale is a factor.

    All follows from `statistics` and a handful of variances, so that what two replicas
    have learned adds up.

    An arm that is good elsewhere starts ahead where nobody has been asked:

    >>> belief = Belief()
    >>> for language in ("de", "fr", "ja"):
    ...     for reward in (0.1, 0.2, 0.3):
    ...         belief.learn((language, ""), None, [("good", 0.5 + reward), ("poor", reward)])
    >>> mean = belief.posterior(("sw", ""), None, ["poor", "new", "good"]).mean
    >>> bool(mean[0] < mean[1] < mean[2])
    True

    Attributes:
        statistics: what was seen.
        prompts: from how many.

    Args:
        features: how many the prompts have.
        keep: share of what is known of a language that still counts after one more of
            its prompts; below 1 where teachers drift.
    """

    def __init__(self, features: int = 0, keep: float = 1.0) -> None:
        self.statistics = Statistics(features)
        self._keep = keep
        self.prompts = 0
        self._tuned = 0  # prompts when the variances were last estimated
        self._steps = _STEPS
        self._noise = 1.0
        self._usual = _Scale(level=0.0)
        self._slopes = Slopes(features)
        self._settle()

    def learn(self, leaf: Leaf, x: FloatArray | None, told: Sequence[Judgement]) -> None:
        """Takes in what the candidates of one prompt say.

        Args:
            leaf: its language, and its domain or ''.
            x: its features, `(features,)`; None counts as zeros.
            told: a judgement a candidate, at least one.
        """
        columns = self.note(leaf, x, told)
        self._tell(leaf[0])
        if self.prompts >= max(_FIRST_TUNED, _TUNED_EVERY * self._tuned):
            self.tune()
        elif self.statistics.features:
            self._slopes.learn(columns, *self._regression())

    def note(self, leaf: Leaf, x: FloatArray | None, told: Sequence[Judgement]) -> Sequence[int]:
        """Counts a prompt, without drawing conclusions: `tune` does, once many are noted."""
        self.prompts += 1
        return self.statistics.add(leaf, self._x(x), told, self._keep)

    def posterior(self, leaf: Leaf, x: FloatArray | None, arms: Sequence[str]) -> Posterior:
        """What to expect of these arms, for a prompt of a language and domain, known or not."""
        scale = self._scales.get(leaf[0], _Scale())
        spread = _spread(scale, self._usual)
        of = self.statistics.arms
        columns = np.array([of.get(arm, -1) for arm in arms], dtype=np.intp)
        believed = self._tree.believe(self._path(leaf), columns)
        variance = 1.0 / believed[:, 0]
        mean = believed[:, 1] * variance
        if self.statistics.features:
            away = self._x(x) - believed[:, 2:] * variance[:, None]
            more, uncertain = self._slopes.at(away, columns)
            mean += more
            variance += uncertain
        return Posterior(
            _level(scale, self._usual) + spread * mean, spread * np.sqrt(variance), spread
        )

    def scale(self, language: str) -> tuple[float, float]:
        """The level of a language's rewards and their spread, known or not."""
        scale = self._scales.get(language, _Scale())
        return _level(scale, self._usual), _spread(scale, self._usual)

    def merge(self, statistics: Statistics, prompts: int) -> None:
        """Adds what another has learned from so many prompts, as if this one had."""
        self.statistics.merge(statistics)
        self.prompts += prompts
        self.tune()

    def tune(self) -> None:
        """Estimates what the languages have in common: scale, noise, steps, slopes.

        The outcome depends on the statistics alone.
        """
        self._tuned = self.prompts
        self._noise, self._steps = 1.0, _STEPS
        self._settle()
        if not self._scales:
            return
        self._usual = _usual(self._scales.values())
        self._settle()
        scatter, freedom = np.array(list(self._scatters.values())).sum(axis=0)
        self._noise = float((scatter + _FREEDOM) / (freedom + _FREEDOM))
        self._settle()
        self._slopes.tune(*self._regression(), turns=_TURNS)
        rest = self._tree.explaining(self._slopes.mean)
        rest.learn_steps(_STEPS_STRENGTH, _TURNS)
        self._steps = self._tree.steps = rest.steps
        self._tree.retell()

    def state(self) -> dict[str, Any]:
        """Everything, for a snapshot."""
        return {
            "statistics": self.statistics.state(),
            "prompts": self.prompts,
            "tuned": self._tuned,
            "steps": self._steps.copy(),
            "noise": self._noise,
            "usual": [self._usual.level, self._usual.log_variance, self._usual.weight],
            "slopes": self._slopes.state(),
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any], keep: float = 1.0) -> Self:
        """What `state` was taken from."""
        self = cls(keep=keep)
        self.statistics = Statistics.of_state(state["statistics"])
        self.prompts, self._tuned = int(state["prompts"]), int(state["tuned"])
        self._steps, self._noise = np.array(state["steps"]), float(state["noise"])
        self._usual = _Scale(*state["usual"])
        self._slopes = Slopes.of_state(state["slopes"])
        self._settle()
        return self

    def _x(self, x: FloatArray | None) -> FloatArray:
        return np.zeros(self.statistics.features) if x is None else x

    def _settle(self) -> None:
        """Works out anew all that follows from the statistics and the variances."""
        arms, features = self.statistics.sums.shape[1], self.statistics.features
        self._tree = Tree(self._steps, arms, features)
        self._inner: dict[tuple[str, ...], int] = {}  # nodes of families and languages
        self._leaves: list[int] = []  # nodes of the rows of the statistics
        self._scales: dict[str, _Scale] = {}
        self._scatters: dict[str, tuple[float, float]] = {}
        self._products: FloatArray = np.zeros((arms, features))
        self._products_in: dict[str, FloatArray] = {}
        for language in self.statistics.languages:
            self._tell(language)

    def _tell(self, language: str) -> None:
        """Works out what one language has to say: its scale, to the tree, to the slopes."""
        statistics = self.statistics
        self._plant()
        rows = statistics.rows(language)
        cells = statistics.sums[rows]
        self._scales[language] = scale = _scale(cells.sum(axis=0))
        answers, y, squares, x, xy = _in_spreads(
            cells, statistics.features, _level(scale, self._usual), _spread(scale, self._usual)
        )
        some = np.maximum(answers, _SOME)
        # rounding may leave a negative sum of squares
        scatter = max(float((squares - y * y / some).sum()), 0.0)
        freedom = float(np.maximum(answers - 1.0, 0.0).sum())
        self._scatters[language] = (scatter, freedom)
        noise = (scatter + _FREEDOM * self._noise) / (freedom + _FREEDOM)
        evidence = np.concatenate((answers[..., None], y[..., None], x), axis=2) / noise
        self._tree.tell(np.array([self._leaves[row] for row in rows]), evidence)
        if statistics.features:
            products = (xy - x * (y / some)[..., None]).sum(axis=0)
            self._products += products - self._products_in.get(language, 0.0)
            self._products_in[language] = products

    def _plant(self) -> None:
        """Makes room in the tree for leaves and arms that are new in the statistics."""
        arms = self.statistics.sums.shape[1]
        if arms > len(self._products):
            self._tree.widen(arms)
            self._products = grown(self._products, arms)
            self._products_in = {k: grown(v, arms) for k, v in self._products_in.items()}
        if len(self._leaves) < len(self.statistics.leaves):
            for language, _ in list(self.statistics.leaves)[len(self._leaves) :]:
                parent = ROOT
                for key in ((family(language),), (family(language), language)):
                    if key not in self._inner:
                        self._inner[key] = self._tree.add(parent)
                    parent = self._inner[key]
                self._leaves.append(self._tree.add(parent))

    def _path(self, leaf: Leaf) -> tuple[int | None, ...]:
        language = leaf[0]
        row = self.statistics.leaves.get(leaf)
        return (
            ROOT,
            self._inner.get((family(language),)),
            self._inner.get((family(language), language)),
            None if row is None else self._leaves[row],
        )

    def _regression(self) -> tuple[FloatArray, FloatArray, FloatArray, float]:
        """What the slopes are learned from."""
        statistics = self.statistics
        return statistics.judged, statistics.scatter, self._products, self._noise


def _scale(table: FloatArray) -> _Scale:
    """Of a language's figures, `(arms, figures)`."""
    scored, total, squares = table[:, SCORED], table[:, TOTAL], table[:, SQUARES]
    asked = scored > 0.0
    if not asked.any():
        return _Scale()
    level = float((total[asked] / scored[asked]).mean())
    freedom = float(scored.sum()) - 1.0
    distance = float(squares.sum() - 2.0 * level * total.sum() + (freedom + 1.0) * level**2)
    variance = distance / max(freedom, 1.0)
    if freedom < 1.0 or variance <= max(_ROUNDING * level**2, _SMALLEST_VARIANCE):
        return _Scale(level)
    return _Scale(level, math.log(variance), freedom)


def _usual(scales: Iterable[_Scale]) -> _Scale:
    """The mean level and spread over languages; 0 and 1 while there is none."""
    levels = 0.0
    scored = 0
    variances = 0.0
    weights = 0.0
    for scale in scales:
        if scale.level is not None:
            levels += scale.level
            scored += 1
        vote = scale.weight / (scale.weight + 1.0)
        variances += vote * scale.log_variance
        weights += vote
    return _Scale(levels / max(scored, 1), variances / weights if weights else 0.0, weights)


def _level(own: _Scale, usual: _Scale) -> float:
    level = usual.level if own.level is None else own.level
    return level or 0.0


def _spread(own: _Scale, usual: _Scale) -> float:
    """The square root of the variance, shrunk to the usual one."""
    weighted = own.weight * own.log_variance + _FREEDOM * usual.log_variance
    return math.exp(weighted / (own.weight + _FREEDOM) / 2.0)


def _in_spreads(
    cells: FloatArray, features: int, level: float, spread: float
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Cells of `(leaves, arms, figures)` in spreads from the level, stopped answers among them.

    Returns:
        Of each leaf and arm the number of answers, the sum of their rewards y and of
        their squares, `(leaves, arms)`; and the sums of x and of y * x,
        `(leaves, arms, features)`.
    """
    scored, total, squares = cells[..., SCORED], cells[..., TOTAL], cells[..., SQUARES]
    stopped = cells[..., STOPPED]
    y = (total - scored * level) / spread + STOPPED_AT * stopped
    distances = (squares - 2.0 * level * total + scored * level**2) / spread**2
    x, rx, stopped_x = (
        (
            cells[..., start : start + features]
            for start in range(FIGURES, FIGURES + 3 * features, max(features, 1))
        )
        if features
        else (cells[..., :0],) * 3
    )
    xy = (rx - level * x) / spread + STOPPED_AT * stopped_x
    return scored + stopped, y, distances + STOPPED_AT**2 * stopped, x + stopped_x, xy
