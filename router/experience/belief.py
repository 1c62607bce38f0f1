"""What the statistics let one believe of an arm's reward in a language."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from router.experience.drift import Drift
from router.experience.evidence import Evidence
from router.experience.slopes import Slopes
from router.experience.statistics import SCORED, TOTAL, Statistics
from router.experience.sums import SOME, STOPPED_AT, Sums
from router.experience.units import FREEDOM, Scale, Units

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from router.arrays import FloatArray, IntArray
    from router.experience.judgement import Judgement
    from router.experience.leaf import Leaf

_STEPS = np.array([0.25, 0.02, 0.05, 0.02])  # expected variances, in squared spreads ...
_STEPS_STRENGTH = 2.0  # ... of the root, a family, a language, a domain in it
_TURNS = 10  # of EM ...
_ROUNDS = 2  # ... and of finding levels and variances in turn
_FIRST_TUNED = 20  # prompts before what languages share is first estimated, ...
_TUNED_EVERY = 1.3  # ... and by what factor there are more when it is again
_UNITS_EVERY = 1.05  # the same for the units of a language


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


class Belief:
    """A hierarchical linear model of rewards whose scale may differ from language to language.

    A language's *level* is where its arms do as is expected of them by other languages, its
    *spread* the root mean square distance of its rewards from their mean. In these units

        reward = value of (arm, language, domain) + slopes of the arm * features + noise

    where the value is a node of the tree root -> family -> language -> domain
    (`router.experience.tree`): a language with few prompts expects of an arm what is seen
    elsewhere, most in its family, and one with many trusts its own. An answer that a gate
    stopped counts `STOPPED_AT`. All variances are estimated as it goes: the noise for each
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
            its prompts; below 1 where teachers change in one language and not in others.
        drifts: whether arms may move in all languages at once.
    """

    def __init__(self, features: int = 0, keep: float = 1.0, *, drifts: bool = False) -> None:
        self.statistics = Statistics(features)
        self.prompts = 0
        self._keep = keep
        self._drift = Drift() if drifts else None
        self._tuned = 0  # prompts when what languages share was last estimated
        self._steps = _STEPS
        self._noise = 1.0
        self._usual = Scale(level=0.0)
        self._slopes = Slopes(features)
        self._units: dict[str, Units] = {}
        self._heard: dict[str, int] = {}  # prompts of each language
        self._settle()

    def learn(self, leaf: Leaf, x: FloatArray | None, told: Sequence[Judgement]) -> None:
        """Takes in what the candidates of one prompt say.

        Args:
            leaf: its language, and its domain or ''.
            x: its features, `(features,)`; None counts as zeros.
            told: a judgement a candidate, at least one.
        """
        moved = self._follow(self._drift, leaf, x, told) if self._drift else None
        columns = self.note(leaf, x, told, moved)
        language = leaf[0]
        if self.prompts >= max(_FIRST_TUNED, _TUNED_EVERY * self._tuned):
            self.tune()
            return
        heard, units = self._heard[language], self._units.get(language)
        if units is None or self._keep < 1.0 or heard >= _UNITS_EVERY * units.prompts + 1.0:
            self._measure(language)
        else:
            self._hear(language, np.array([self.statistics.leaves[leaf]]))
        if self.statistics.features:
            self._slopes.learn(columns, *self._regression())

    def note(
        self,
        leaf: Leaf,
        x: FloatArray | None,
        told: Sequence[Judgement],
        moved: FloatArray | None = None,
    ) -> Sequence[int]:
        """Counts a prompt, without drawing conclusions: `tune` does, once many are noted."""
        self.prompts += 1
        self._heard[leaf[0]] = self._heard.get(leaf[0], 0) + 1
        return self.statistics.add(leaf, self._x(x), told, self._keep, moved)

    def posterior(self, leaf: Leaf, x: FloatArray | None, arms: Sequence[str]) -> Posterior:
        """What to expect of these arms, for a prompt of a language and domain, known or not.

        Args:
            leaf: its language, and its domain or ''.
            x: its features, `(features,)`; None for features like those seen there.
            arms: those asked for.
        """
        units = self.units(leaf[0])
        columns = self.statistics.columns(arms)
        mean, variance, counted = self._standing(leaf, x, columns)
        if self._drift:
            moved, uncertain = self._drift.at(columns, counted, self.prompts)
            mean += moved
            variance += uncertain
        mean *= units.spread
        mean += units.level
        return Posterior(mean, units.spread * np.sqrt(variance), units.spread)

    def expected(self, leaves: Sequence[Leaf], arms: Sequence[str]) -> FloatArray:
        """What arms are expected to get in leaves, in spreads from the level, `(leaves, arms)`."""
        columns = np.array([self.statistics.arms.get(arm, -1) for arm in arms], dtype=np.intp)
        believed = self._evidence.believe_all(leaves, columns)
        means = believed[..., 1:] / believed[..., :1]
        expected: FloatArray = means[..., 0]
        if self._drift:
            counted = means[..., 1 + self.statistics.features :]
            expected = expected + self._drift.at(columns, counted, self.prompts)[0]
        return expected

    def units(self, language: str) -> Units:
        """What the language's rewards are reckoned in, whether it is known or not."""
        units = self._units.get(language)
        return units or Units.of(Scale(), self._usual, self._noise)

    def merge(self, other: Belief, *, plain: bool = False) -> None:
        """Adds what another has learned, as if this one had.

        Args:
            other: the other.
            plain: leave out its features and prompt types, which mean nothing here.
        """
        self.statistics.merge(other.statistics.plain() if plain else other.statistics)
        if self._drift and other._drift:
            arms = list(other.statistics.arms)
            ours, theirs = (np.array(who.statistics.meet(arms)) for who in (self, other))
            self._drift.merge(other._drift, ours, theirs, np.array([self.prompts, other.prompts]))
        self.prompts += other.prompts
        for language, heard in other._heard.items():
            self._heard[language] = self._heard.get(language, 0) + heard
        self.tune()

    def tune(self) -> None:
        """Estimates what the languages have in common: scale, noise, steps, slopes.

        The outcome depends on the statistics alone.
        """
        self._tuned = self.prompts
        self._noise, self._steps = 1.0, _STEPS
        scales = {language: self._scale(language) for language in self.statistics.languages}
        if not scales:
            return
        self._usual = Scale.usual(scales.values())
        scatter, freedom = np.array([self._scatter(*item) for item in scales.items()]).sum(axis=0)
        self._noise = float((scatter + FREEDOM) / (freedom + FREEDOM))
        self._units = {language: self._first_units(language) for language in scales}
        for _ in range(_ROUNDS):
            self._settle()
            self._slopes.tune(*self._regression(), turns=_TURNS)
            paces = np.broadcast_to(self._paces, (len(self._slopes.mean), len(self._paces)))
            rest = self._evidence.tree.explaining(np.hstack([self._slopes.mean, paces]))
            rest.learn_steps(_STEPS_STRENGTH, _TURNS)
            self._steps = self._evidence.tree.steps = rest.steps
            self._evidence.tree.retell()
            # of all languages at once, by what each says now: whatever their order
            self._units = {language: self._levelled(language) for language in scales}
        self._settle()

    def state(self) -> dict[str, Any]:
        """Everything, for a snapshot."""
        return {
            "statistics": self.statistics.state(),
            "prompts": self.prompts,
            "tuned": self._tuned,
            "steps": self._steps.copy(),
            "noise": self._noise,
            "usual": list(astuple(self._usual)),
            "units": {language: list(astuple(units)) for language, units in self._units.items()},
            "heard": dict(self._heard),
            "slopes": self._slopes.state(),
            "drift": self._drift.state() if self._drift else None,
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any], keep: float = 1.0, *, drifts: bool = False) -> Self:
        """What `state` was taken from; if that did not drift, its arms set out now."""
        self = cls(keep=keep, drifts=drifts)
        self.statistics = Statistics.of_state(state["statistics"])
        self.prompts, self._tuned = int(state["prompts"]), int(state["tuned"])
        self._steps, self._noise = np.array(state["steps"]), float(state["noise"])
        self._usual = Scale(*state["usual"])
        self._units = {language: Units(*units) for language, units in state["units"].items()}
        self._heard = {language: int(heard) for language, heard in state["heard"].items()}
        self._slopes = Slopes.of_state(state["slopes"])
        if self._drift and state["drift"]:
            self._drift = Drift.of_state(state["drift"])
        self._settle()
        return self

    def _standing(
        self, leaf: Leaf, x: FloatArray | None, columns: IntArray | slice
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """What follows of arms from what is counted, as if they had stood still; in the units.

        Returns:
            Mean and variance, `(arms,)`, and how far they had moved when they gave the
            answers behind that, `(arms, paces)`.
        """
        features = self.statistics.features
        believed = self._evidence.believe(leaf, columns)
        variance = 1.0 / believed[:, 0]
        mean = believed[:, 1] * variance
        counted = believed[:, 2 + features :] * variance[:, None]
        if x is not None and len(x):
            away = x - believed[:, 2 : 2 + features] * variance[:, None]
            more, uncertain = self._slopes.at(away, columns)
            mean += more
            variance += uncertain
        return mean, variance, counted

    def _follow(
        self, drift: Drift, leaf: Leaf, x: FloatArray | None, told: Sequence[Judgement]
    ) -> FloatArray:
        """Learns how far the arms of these answers have moved, `(answers, paces)`."""
        columns = self.statistics.meet(arm for arm, _ in told)
        self._plant()
        units, heard = self.units(leaf[0]), self._heard.get(leaf[0], 0)
        y = [STOPPED_AT if r is None else (r - units.level) / units.spread for _, r in told]
        arms, place, count = np.unique(columns, return_inverse=True, return_counts=True)
        mean, variance, counted = self._standing(leaf, x, arms)
        away = np.bincount(place, y) / count - mean
        # a language's level is no better known than by its prompts so far
        uncertain = variance + units.noise * (1.0 / count + 1.0 / max(heard, SOME))
        moved = drift.learn(arms, away[:, None] + counted, uncertain, self.prompts + 1)
        return units.spread * moved[place]

    @property
    def _paces(self) -> FloatArray:
        """How likely each pace of the drift is, `(paces,)`; none where nothing drifts."""
        return self._drift.weights if self._drift else np.zeros(0)

    def _x(self, x: FloatArray | None) -> FloatArray:
        return np.zeros(self.statistics.features) if x is None else x

    def _settle(self) -> None:
        """Works out anew all that follows from the statistics, the units and the variances."""
        self._evidence = Evidence(self.statistics, self._steps, len(self._paces))
        self._plant()
        for language in self.statistics.languages:
            if language in self._units:
                self._hear(language, self.statistics.rows(language))
            else:
                self._measure(language)

    def _measure(self, language: str) -> None:
        """Takes a language's units anew, and hears all of it in these."""
        self._plant()
        self._units[language] = self._first_units(language)
        self._units[language] = self._levelled(language)
        self._hear(language, self.statistics.rows(language))

    def _scale(self, language: str) -> Scale:
        return Scale.of(self.statistics.sums[self.statistics.rows(language)].sum(axis=0))

    def _first_units(self, language: str) -> Units:
        """A language's units by its own rewards alone."""
        scale = self._scale(language)
        scatter, freedom = self._scatter(language, scale)
        noise = (scatter + FREEDOM * self._noise) / (freedom + FREEDOM)
        heard = self._heard.setdefault(language, 0)
        return Units.of(scale, self._usual, noise, heard)

    def _levelled(self, language: str) -> Units:
        """The same with the level at which its arms agree best with what others say of them.

        An arm's mean tells of the level as far as it is known here, and as it is known what
        to expect of the arm; so one answer of a good arm does not make an easy language.
        """
        units = self._units[language]
        rows, paces = self.statistics.rows(language), self._paces
        figures = self.statistics.sums[rows].sum(axis=0)
        asked = np.flatnonzero(figures[:, SCORED])
        if not len(asked):
            return units
        expected = self._evidence.expect(language)[asked]
        answers = figures[asked, SCORED]
        moved = self.statistics.moved[rows][:, asked, : len(paces)].sum(axis=0) @ paces
        y = ((figures[asked, TOTAL] - moved) / answers - units.level) / units.spread
        theirs = expected[:, 1] - expected[:, 2 + self.statistics.features :] @ paces
        weights = 1.0 / (units.noise / answers + 1.0 / expected[:, 0])
        shift = (weights * (y - theirs / expected[:, 0])).sum() / weights.sum()
        return replace(units, level=units.level + units.spread * float(shift))

    def _scatter(self, language: str, scale: Scale) -> tuple[float, float]:
        """Squares of a language's rewards around the means of leaf and arm, and their freedom."""
        cells = self.statistics.sums[self.statistics.rows(language)]
        units = Units.of(scale, self._usual, self._noise)
        sums = Sums(cells, self.statistics.features, units)
        # rounding may leave a negative sum of squares
        scatter = max(float((sums.yy - sums.y**2 / np.maximum(sums.answers, SOME)).sum()), 0.0)
        return scatter, float(np.maximum(sums.answers - 1.0, 0.0).sum())

    def _hear(self, language: str, rows: IntArray) -> None:
        """Tells the tree and the slopes what some leaves of a language have to say."""
        self._plant()
        self._evidence.hear(self._units[language], rows)

    def _plant(self) -> None:
        """Makes room for leaves and arms that are new in the statistics."""
        width = self.statistics.sums.shape[1]
        self._evidence.plant()
        self._slopes.widen(width)
        if self._drift:
            self._drift.widen(width)

    def _regression(self) -> tuple[FloatArray, FloatArray, FloatArray, float]:
        """What the slopes are learned from."""
        statistics = self.statistics
        return statistics.judged, statistics.scatter, self._evidence.products, self._noise
