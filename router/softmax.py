"""`softmax`: asks an arm as often as the softmax of its expected reward says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from router.inclusion import race
from router.logits import Lessons, Logits, shares
from router.policy import OneWave

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arbitrage import config
    from arbitrage.types import Candidate, Context
    from router.arrays import FloatArray, IntArray
    from router.lottery import Lottery

_LOWEST = -200.0  # logit below the highest: what is rarer is not told apart
_EPOCHS = 5
_BATCH = 64  # prompts in a step, or more where ...
_STEPS = 100  # ... an epoch would have more
_SEED = 0
_COMPARED = 2  # judged arms, without which a prompt compares nothing


@dataclass(frozen=True, slots=True)
class PlackettLuce:
    """Draws `count` arms one after another, by the softmax of those that are left.

    Plackett (1975), Applied Statistics 24; Luce (1959), "Individual Choice Behavior".
    """

    logits: FloatArray
    count: int

    @property
    def size(self) -> int:
        """One arm for each logit."""
        return len(self.logits)

    def draw(self, rng: np.random.Generator) -> IntArray:
        """The largest logits after Gumbel noise (Yellott 1977)."""
        return np.argsort(-(self._above() + rng.gumbel(size=self.size)))[: self.count]

    def inclusion(self, arms: IntArray) -> FloatArray:
        """Exact for one arm, by numerical integration for more: see `router.inclusion.race`."""
        return race(np.exp(self._above()), self.count, arms)

    def _above(self) -> FloatArray:
        above: FloatArray = np.maximum(self.logits - self.logits.max(), _LOWEST)
        return above


class Softmax(OneWave):
    """A router distilled from rewards (Zooter: Lu et al., arXiv 2311.08692).

    Shares of a linear softmax (`router.logits`) are fitted to the softmax of the rewards
    that a prompt's arms got, in `temperature` spreads of the language's rewards. Rewards
    are noisy labels, so they are smoothed: with weight `smoothing` they are the prompt's
    own, and else the arm's mean for prompts of this language and domain, or type of prompt.
    Only the arms that were judged are compared; a prompt with one judged arm compares
    nothing, and teaches no shares.

    The temperature is all that makes it explore: what it does not know, it expects to be
    as good as the others.
    """

    kind = "softmax"

    def __init__(self, settings: config.Policy) -> None:
        super().__init__(settings)
        self._temperature = settings.temperature
        self._smoothing = settings.smoothing
        self._keep = 0.5 ** (1.0 / settings.half_life) if settings.half_life else 1.0
        self._memory = self.experience.memory
        self._followed = 0  # prompts of it that were learned from
        self._begin()

    def lottery(self, context: Context, arms: Sequence[str], fan_out: int) -> Lottery:
        """Arms one after another, by their shares."""
        leaf, x = self.experience.place(context)
        toll = self._toll(context, arms) / self._temperature
        return PlackettLuce(self._logits.at(leaf, x, arms) - toll, fan_out)

    def _learn(self, context: Context, candidates: Sequence[Candidate]) -> None:
        super()._learn(context, candidates)
        memory = self.experience.memory
        if memory is not self._memory:  # in other coordinates now
            self.fit()
        elif memory.added > self._followed:
            lessons = self._lessons(np.arange(self._followed, memory.added) % memory.capacity)
            self._followed = memory.added
            if len(lessons.x):
                self._logits.count(lessons, self._keep)
                self._logits.descend(lessons)

    def fit(self, epochs: int = _EPOCHS) -> None:
        """Learns all anew, in so many passes over the remembered prompts."""
        self._begin()
        lessons = self._lessons(self._memory.order())
        self._logits.count(lessons)
        rng = np.random.default_rng(_SEED)
        steps = min(_STEPS, -(-len(lessons.x) // _BATCH))
        for _ in range(epochs if steps else 0):
            for batch in np.array_split(rng.permutation(len(lessons.x)), steps):
                self._logits.descend(lessons.of(batch))

    def _begin(self) -> None:
        self._logits = Logits(self.belief.statistics.features)
        self._memory = self.experience.memory
        self._followed = self._memory.added

    def _lessons(self, rows: IntArray) -> Lessons:
        """What these rows of the memory teach; those that compare nothing are left out."""
        memory = self._memory
        self._logits.meet(list(memory.arms))
        arms = list(self._logits.arms)
        own, judged = self.experience.outcomes(rows, arms)
        compares = judged.sum(axis=1) >= _COMPARED
        rows, own, judged = rows[compares], own[compares], judged[compares]
        numbers, places = np.unique(memory.leaf[rows], return_inverse=True)
        leaves = [memory.leaf_of[number] for number in numbers]
        usual = self.belief.expected(leaves, arms)[places]
        smoothed = self._smoothing * own + (1.0 - self._smoothing) * usual
        paths = np.array([self._logits.path(leaf) for leaf in leaves], dtype=np.intp)
        return Lessons(
            paths.reshape(-1, 3)[places],
            memory.x[rows].astype(np.float64),
            judged,
            shares(smoothed / self._temperature, judged),
        )

    def _own(self) -> dict[str, Any]:
        return {
            "logits": self._logits.state(),
            "coordinates": self.experience.coordinates,
            "followed": self._followed,
        }

    def _become(self, own: Mapping[str, Any]) -> None:
        self._begin()
        if own["followed"] == self._followed:
            self._logits = Logits.of_state(own["logits"])
        else:  # the experience is another policy's
            self.fit()

    def _join(self, own: Mapping[str, Any], version: int) -> None:
        del version
        known = self.experience.memory is self._memory
        if known and own["coordinates"] == self.experience.coordinates:
            self._logits.merge(Logits.of_state(own["logits"]))
            self._followed = self._memory.added
        else:
            self.fit()
