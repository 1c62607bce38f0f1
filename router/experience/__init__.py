"""What a policy has learned, whatever it chooses by."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from arbitrage.errors import SnapshotError
from router.experience.basis import Basis
from router.experience.belief import Belief
from router.experience.costs import Costs
from router.experience.fitting import Fitting
from router.experience.judgement import judgements
from router.experience.leaf import leaf_of
from router.experience.memory import Memory
from router.experience.sums import STOPPED_AT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from arbitrage import config
    from arbitrage.types import Candidate, Context
    from router.arrays import BoolArray, Features, FloatArray, IntArray
    from router.experience.judgement import Judgement
    from router.experience.leaf import Leaf

_FITS = {128: 160, 512: 640, 2048: 2560}
"""Prompts after which the basis is learned, and learned again, and each time those after which it
is taken over: in between, a thread learns it. After the last it is fixed."""


@dataclass(frozen=True, slots=True)
class _Lesson:
    """One of the first prompts, as it came: to be learned again when the basis changes."""

    language: str
    domain: str | None
    features: Features | None
    told: Sequence[Judgement]


class Experience:
    """Rewards, costs and prompts, learned from the candidates of every prompt.

    Every policy keeps the same, so that what was learned under one can be read, and be
    taken over by another.

    A prompt without a domain has its *type* for one, as soon as there is a basis to tell
    it by. The basis is learned from the first prompts: until it is fixed these are kept
    as they came, and learned again in its coordinates.

    Attributes:
        belief: what to expect of each arm.
        memory: the prompts themselves.
        costs: what a call costs, in money and in time.
    """

    def __init__(
        self, features: config.Features, keep: float = 1.0, *, drifts: bool = False
    ) -> None:
        self._settings = features
        self._keep = keep
        self._drifts = drifts
        self._basis: Basis | None = None
        self._lessons: list[_Lesson] | None = [] if features.kind != "none" else None
        self._fitting: Fitting[_Lesson, Experience] | None = None
        self.costs = Costs(keep)
        self.belief = Belief(self._features, keep, drifts=drifts)
        self.memory = Memory(self._features)

    @classmethod
    def of(cls, settings: config.Policy) -> Self:
        """Makes an empty one from a policy's configuration."""
        keep = 0.5 ** (1.0 / settings.half_life) if settings.half_life else 1.0
        return cls(settings.features, keep, drifts=settings.drift)

    @property
    def coordinates(self) -> str:
        """The name of what features and prompt types are told in; '' as long as there are none."""
        return _name(self._basis)

    def place(self, context: Context) -> tuple[Leaf, FloatArray | None]:
        """Where a prompt belongs, and its features, `(features,)`."""
        return self._place(context.language, context.domain, context.features)

    def learn(self, context: Context, candidates: Sequence[Candidate]) -> None:
        """Takes in the candidates of one prompt."""
        self.costs.learn(context.language, candidates)
        told = judgements(candidates)
        if not told:
            return
        self._learn(_Lesson(context.language, context.domain, context.features, told))

    def outcomes(self, rows: IntArray, arms: Sequence[str]) -> tuple[FloatArray, BoolArray]:
        """What arms got on remembered prompts, in spreads from the level of their language.

        Returns:
            Rewards, a stopped answer among them at `STOPPED_AT`, and whether there is one,
            `(rows, arms)` each.
        """
        memory = self.memory
        languages, places = np.unique(memory.language[rows], return_inverse=True)
        names = list(memory.languages)
        units = [self.belief.units(names[language]) for language in languages]
        level = np.array([of.level for of in units])[places][:, None]
        spread = np.array([of.spread for of in units])[places][:, None]
        columns = memory.columns(arms)
        stopped = memory.stopped[rows][:, columns]
        outcomes: FloatArray = (memory.rewards[rows][:, columns] - level) / spread
        outcomes[stopped] = STOPPED_AT
        return outcomes, memory.scored[rows][:, columns] | stopped

    def merge(self, other: Experience) -> None:
        """Adds what another has learned, as if this one had seen its prompts, too.

        Sums add up exactly where both have the same basis, or one none yet. Two that have
        fixed different ones share what they know of languages and domains, but not of
        prompt types and features, which mean different things to them.
        """
        self.costs.merge(other.costs)
        if other._lessons is not None:
            for lesson in other._lessons:
                self._learn(lesson)
            self.belief.tune()  # which does not depend on the order
            return
        if self._lessons is not None:
            # the other's basis is fixed: ours is not, so its prompts can be placed there
            lessons, self._lessons, self._fitting = self._lessons, None, None
            self._take_over(other)
            for lesson in lessons:
                self._learn(lesson)
            self.belief.tune()
            return
        plain = _name(self._basis) != _name(other._basis)
        self.belief.merge(other.belief, plain=plain)
        self.memory.merge(other.memory, plain=plain)

    def state(self) -> dict[str, Any]:
        """Everything, for a snapshot."""
        return {
            "encoder": self._encoder,
            "basis": self._basis.state() if self._basis else None,
            "lessons": None if self._lessons is None else [_written(x) for x in self._lessons],
            "belief": self.belief.state(),
            "memory": self.memory.state(),
            "costs": self.costs.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Becomes what `state` was taken from.

        Raises:
            SnapshotError: it does not fit this policy's features.
        """
        if state["encoder"] != self._encoder:
            raise SnapshotError(
                f"the features are those of {state['encoder']}, not of {self._encoder}; set "
                "policy.features as it was, or begin anew"
            )
        belief = Belief.of_state(state["belief"], self._keep, drifts=self._drifts)
        self.belief, self.memory = belief, Memory.of_state(state["memory"])
        self._basis = Basis.of_state(state["basis"]) if state["basis"] else None
        lessons = state["lessons"]
        self._lessons = None if lessons is None else [_read(lesson) for lesson in lessons]
        self._fitting = self._under_way(self._lessons or ())
        self.costs = Costs(self._keep)
        self.costs.restore(state["costs"])

    def like(self, state: Mapping[str, Any]) -> Experience:
        """Another of the same settings, with this state."""
        other = Experience(self._settings, self._keep, drifts=self._drifts)
        other.restore(state)
        return other

    @property
    def _encoder(self) -> str:
        """What makes the features, and how many are kept: those of others mean other things."""
        features = self._settings
        if features.kind == "none":
            return "none"
        return f"{features.model or features.kind}, {features.dimensions} components"

    @property
    def _features(self) -> int:
        return 0 if self._settings.kind == "none" else self._settings.dimensions

    def _place(
        self, language: str, domain: str | None, features: Features | None
    ) -> tuple[Leaf, FloatArray | None]:
        if features is None or self._basis is None:
            return leaf_of(language, domain), None
        x, kind = self._basis.place(features)
        return leaf_of(language, domain, kind), x

    def _learn(self, lesson: _Lesson) -> None:
        leaf, x = self._place(lesson.language, lesson.domain, lesson.features)
        self.belief.learn(leaf, x, lesson.told)
        self.memory.add(leaf, x, lesson.told)
        if self._lessons is not None:
            self._lessons.append(lesson)
            self._follow(lesson, self._lessons)

    def _follow(self, lesson: _Lesson, lessons: Sequence[_Lesson]) -> None:
        """Has a basis learned, go on, or taken over, where it is time for that."""
        if self._fitting:
            self._fitting.add(lesson)
        elif len(lessons) in _FITS:
            self._fitting = Fitting(self._fitted, Experience._learn, lessons)
        if self._fitting and len(lessons) in _FITS.values():
            fitted, self._fitting = self._fitting.result(), None
            if fitted:
                self._take_over(fitted)
        if len(lessons) == max(_FITS.values()):
            self._lessons = None

    def _take_over(self, other: Experience) -> None:
        self._basis, self.belief, self.memory = other._basis, other.belief, other.memory

    def _under_way(self, lessons: Sequence[_Lesson]) -> Fitting[_Lesson, Experience] | None:
        """The fitting that was under way after these lessons, begun again; None without one."""
        begun = next((n for n, end in _FITS.items() if n <= len(lessons) < end), None)
        if begun is None:
            return None
        fitting = Fitting(self._fitted, Experience._learn, lessons[:begun])
        for lesson in lessons[begun:]:
            fitting.add(lesson)
        return fitting

    def _fitted(self, lessons: Sequence[_Lesson]) -> Experience | None:
        """One with a basis of these prompts, that has learned them in its coordinates.

        Runs on a thread of its own; None where too few of them have features.
        """
        texts = [lesson.features for lesson in lessons if lesson.features is not None]
        if len(texts) < min(_FITS):
            return None
        fitted = Experience(self._settings, self._keep, drifts=self._drifts)
        fitted._lessons = None
        fitted._basis = Basis.fit(np.array(texts), self._settings.dimensions, self._settings.types)
        for lesson in lessons:
            leaf, x = fitted._place(lesson.language, lesson.domain, lesson.features)
            fitted.belief.note(leaf, x, lesson.told)
            fitted.memory.add(leaf, x, lesson.told)
        fitted.belief.tune()
        return fitted


@contextmanager
def understanding() -> Iterator[None]:
    """Turns what goes wrong in reading a state that is none into one line.

    Raises:
        SnapshotError: the state is not one of a policy.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise SnapshotError(f"the state is not one of a policy ({what})") from error


def _name(basis: Basis | None) -> str:
    return basis.name if basis else ""


def _written(lesson: _Lesson) -> dict[str, Any]:
    told = [[arm, reward] for arm, reward in lesson.told]
    features = lesson.features
    return {
        "language": lesson.language,
        "domain": lesson.domain,
        "features": None if features is None else features.astype(np.float32),
        "told": told,
    }


def _read(written: Mapping[str, Any]) -> _Lesson:
    features = written["features"]
    return _Lesson(
        written["language"],
        written["domain"],
        None if features is None else np.array(features, dtype=np.float32),
        [(arm, reward) for arm, reward in written["told"]],
    )
