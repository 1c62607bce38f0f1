"""`knn`: asks the arms that were best on the prompts most like this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from router.lottery import Listed
from router.neighbours import Neighbours
from router.policy import OneWave

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arbitrage import config
    from arbitrage.types import Context
    from router.arrays import BoolArray, FloatArray
    from router.lottery import Lottery

_CONFIDENCE = 1.5
_DECIMALS = 6  # of a spread; what differs by less is equal but for rounding errors
_NEAR = 8  # one remembered prompt in so many may be a neighbour, however many are wanted
_POWER = 4  # of the cosine: what a neighbour counts for
_PRIOR = 20.0  # answers that the belief counts for
_FOREIGN = 15.0  # answers that neighbours in other languages count for together, at most ...
_DISPLACED = 0.25  # ... and how many fewer for each answer in the own language


class Knn(OneWave):
    """Nearest neighbours among the remembered prompts (arXiv 2505.12601).

    What an arm is expected to earn is the mean over the neighbours that it was judged on,
    in spreads of their languages' rewards, weighted by the fourth power of the cosine, and
    shrunk to what is believed of the arm and a prompt like this (`router.experience.belief`):
    that counts for 20 answers, and is all there is for a prompt without features. Neighbours
    in other languages together count for 15 answers at most, and for none where there are 60
    in the prompt's own. The uncertainty that is left is a bonus (Reeve et al. 2018, "The
    K-Nearest Neighbour UCB Algorithm"; Guan & Jiang 2018). Else the choice is deterministic.
    """

    kind = "knn"
    explores = True

    def __init__(self, settings: config.Policy) -> None:
        super().__init__(settings)
        self._count = settings.neighbours
        self._confidence = _CONFIDENCE if settings.confidence is None else settings.confidence
        self._keep = 0.5 ** (1.0 / settings.half_life) if settings.half_life else 1.0
        self._neighbours = Neighbours()

    def lottery(self, context: Context, arms: Sequence[str], fan_out: int) -> Lottery:
        """The largest upper bounds for sure."""
        leaf, x = self.experience.place(context)
        units = self.belief.units(leaf[0])
        posterior = self.belief.posterior(leaf, x, arms)
        expected = (posterior.mean - units.level) / units.spread
        variance = (posterior.sd / units.spread) ** 2
        if x is not None:
            answers, total = self._answers(leaf[0], x, arms)
            believed = _PRIOR / (_PRIOR + answers)
            expected = believed * (expected + total / _PRIOR)
            variance = believed * (believed * variance + units.noise / _PRIOR)
        bound = expected - self._toll(context, arms) + self._confidence * np.sqrt(variance)
        best = np.argsort(-bound.round(_DECIMALS), kind="stable")[:fan_out]
        return Listed(len(arms), tuple(best.tolist()))

    def _answers(
        self, language: str, x: FloatArray, arms: Sequence[str]
    ) -> tuple[FloatArray, FloatArray]:
        """How many answers each arm gave to neighbours and their sum, in spreads: `(arms,)`."""
        memory = self.experience.memory
        own = memory.language[: memory.size] == memory.languages.get(language, -1)
        answers, totals = self._counted(x, arms, own)
        most = _FOREIGN - _DISPLACED * float(answers.mean())
        if most > 0.0:
            foreign, their_totals = self._counted(x, arms, ~own)
            share = most / (most + foreign)
            answers, totals = answers + share * foreign, totals + share * their_totals
        return answers, totals

    def _counted(
        self, x: FloatArray, arms: Sequence[str], among: BoolArray
    ) -> tuple[FloatArray, FloatArray]:
        """The same, of neighbours among some of the remembered prompts."""
        memory = self.experience.memory
        count = min(self._count, int(np.count_nonzero(among)) // _NEAR)
        if not count:
            return np.zeros(len(arms)), np.zeros(len(arms))
        rows, cosines = self._neighbours.nearest(memory, x, count, among)
        rewards, judged = self.experience.outcomes(rows, arms)
        weights = cosines.astype(np.float64) ** _POWER
        if self._keep < 1.0:
            prompts = np.bincount(memory.language[: memory.size])[memory.language[rows]]
            ages = (memory.added - 1 - rows) % memory.capacity * (prompts / memory.size)
            weights *= self._keep**ages
        return weights @ judged, weights @ (judged * rewards)

    def _own(self) -> dict[str, Any]:
        return {"neighbours": self._neighbours.state()}

    def _become(self, own: Mapping[str, Any]) -> None:
        self._neighbours.restore(own["neighbours"], self.experience.memory)
