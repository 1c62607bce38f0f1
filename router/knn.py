"""`knn`: asks the arms that were best on the prompts most like this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from router.belief import STOPPED_AT
from router.lottery import Listed
from router.neighbours import Neighbours
from router.policy import OneWave

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arbitrage import config
    from arbitrage.types import Context
    from router.arrays import FloatArray
    from router.lottery import Lottery

_CONFIDENCE = 1.0
_DECIMALS = 6  # of a spread; what differs by less is equal but for rounding errors
_NEAR = 8  # one remembered prompt in so many may be a neighbour, however many are wanted
_POWER = 4  # of the cosine: what a neighbour counts for
_PRIOR = 20.0  # answers that the belief counts for
_FOREIGN = 15.0  # answers that neighbours in other languages count for together, at most


class Knn(OneWave):
    """Nearest neighbours among the remembered prompts (arXiv 2505.12601).

    What an arm is expected to earn is the mean over the neighbours that it was judged on,
    in spreads of their languages' rewards, weighted by the fourth power of the cosine, and
    shrunk to what is believed of the arm and a prompt like this anyway (`router.belief`):
    that counts for 20 answers, and is all there is for a prompt without features. Neighbours
    in other languages together count for 15 answers at most, so that they matter where there
    are few in the prompt's own. The belief's uncertainty, discounted like its mean, is a
    bonus (Reeve et al. 2018, "The K-Nearest Neighbour UCB Algorithm"; Guan & Jiang 2018): an
    arm that nobody has asked is asked. Else the choice is deterministic.
    """

    kind = "knn"
    explores = True

    def __init__(self, settings: config.Policy) -> None:
        super().__init__(settings)
        self._count = settings.neighbours
        self._confidence = _CONFIDENCE if settings.confidence is None else settings.confidence
        self._keep = 0.5 ** (1.0 / settings.half_life) if settings.half_life else 1.0
        self._neighbours = Neighbours()

    def lottery(self, context: Context, arms: Sequence[str]) -> Lottery:
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
        best = np.argsort(-bound.round(_DECIMALS), kind="stable")[: self._fan_out]
        return Listed(len(arms), tuple(best.tolist()))

    def _answers(
        self, language: str, x: FloatArray, arms: Sequence[str]
    ) -> tuple[FloatArray, FloatArray]:
        """How many answers each arm gave to neighbours and their sum, in spreads: `(arms,)`."""
        memory = self.experience.memory
        count = min(self._count, memory.size // _NEAR)
        if not count:
            return np.zeros(len(arms)), np.zeros(len(arms))
        rows, cosines = self._neighbours.nearest(memory, x, count)
        numbers, leaf = np.unique(memory.leaf[rows], return_inverse=True)
        languages = [memory.leaf_of[number][0] for number in numbers]
        level, spread = np.array([self.belief.scale(of) for of in languages]).reshape(-1, 2).T
        columns = memory.columns(arms)
        stopped = memory.stopped[rows][:, columns]
        judged = memory.scored[rows][:, columns] | stopped
        rewards = (memory.rewards[rows][:, columns] - level[leaf, None]) / spread[leaf, None]
        rewards[stopped] = STOPPED_AT
        weights = cosines.astype(np.float64) ** _POWER
        if self._keep < 1.0:
            shares = np.array([memory.languages[of] for of in languages]) / memory.added
            weights *= self._keep ** (((memory.added - 1 - rows) % memory.capacity) * shares[leaf])
        own = np.array([of == language for of in languages], dtype=np.bool_)[leaf]
        both = np.stack((weights * own, weights * ~own))
        answers, totals = both @ judged, both @ (judged * rewards)
        share = _FOREIGN / (_FOREIGN + answers[1])
        return answers[0] + share * answers[1], totals[0] + share * totals[1]

    def _own(self) -> dict[str, Any]:
        return {"neighbours": self._neighbours.state()}

    def _become(self, own: Mapping[str, Any]) -> None:
        self._neighbours.restore(own["neighbours"], self.experience.memory)
