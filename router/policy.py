"""What all policies share: what they learn, the audit, the answer to "why", their state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from arbitrage.types import Candidate, Completion, Context, Decision, Estimate, Score
from router.experience import Experience, understanding
from router.experience.statistics import SCORED, STOPPED
from router.lottery import Audited, Introduced
from router.pacer import Pacer

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from arbitrage import config
    from router.arrays import FloatArray, IntArray
    from router.experience.belief import Belief
    from router.lottery import Lottery

_ACQUAINTED = 50  # answers after which no arm is new
_STRANGE_SHARE = 0.1  # of the arms' mean number of answers; with fewer, one is


class OneWave(ABC):
    """Asks one wave of arms, and another only while no answer has passed the gates.

    On a share `audit_rate` of the prompts the first wave asks everyone.

    Attributes:
        kind: the policy's name in the configuration.
        version: how many updates it has learned from.
        experience: what it has learned, whether it chooses by it or not.
    """

    kind: ClassVar[str]
    explores: ClassVar[bool] = False
    """Whether it asks an arm because it does not know it."""

    def __init__(self, settings: config.Policy) -> None:
        self.version = 0
        self.experience = Experience.of(settings)
        waves = settings.waves
        self._at_once = waves.waves == 1
        self._fan_out = waves.max if self._at_once else waves.min  # in the first wave
        self._audit_rate = settings.audit_rate
        self._newcomer_share = settings.newcomer_share
        self._pacer = Pacer.of(settings)
        self._rng = np.random.default_rng(settings.seed)

    @property
    def belief(self) -> Belief:
        """What it expects of each arm."""
        return self.experience.belief

    @property
    def price(self) -> float:
        """What is being paid for quality, see `router.pacer`; 0 without a budget."""
        return self._pacer.price

    @property
    def spend_per_prompt(self) -> float:
        """What a prompt has cost of late, in US dollars."""
        return self._pacer.usd_per_prompt

    @abstractmethod
    def lottery(self, context: Context, arms: Sequence[str], fan_out: int) -> Lottery:
        """How a wave of so many of these arms is drawn for a prompt."""

    def select(
        self,
        context: Context,
        arms: Sequence[str],
        seen: Sequence[Candidate],
        *,
        wave: int = 0,
        elapsed: float = 0.0,
        most: int | None = None,
    ) -> Decision | None:
        """Chooses a wave, numbered 0; None once an answer may win."""
        del wave, elapsed
        if any(candidate.may_win for candidate in seen):
            return None
        if most is not None and (most := min(most - asked(seen), len(arms))) < 1:
            return None
        return self._drawn(context, arms, self._first(context, arms, seen, most), seen)

    def shares(self, context: Context, arms: Sequence[str]) -> Sequence[float]:
        """How likely each arm is to be asked in the first wave, the audit included."""
        if not arms:
            return ()
        shares: list[float] = self._first(context, arms).inclusion(np.arange(len(arms))).tolist()
        return shares

    def update(self, context: Context, candidates: Sequence[Candidate]) -> None:
        """Learns from all that were scored or stopped; who failed is unavailable, not bad."""
        expected = 0.0
        if self._pacer.paces:
            asked = sorted({candidate.teacher for candidate in candidates})
            expected = float(self.experience.costs.usd(context.language, asked).sum())
        spent = sum(candidate.cost_usd for candidate in candidates)
        self._pacer.charge(spent, expected=expected)
        self._learn(context, candidates)
        self.version += 1

    def judge(self, context: Context, arm: str, reward: float) -> None:
        """Learns from a reward that came later, of an answer that was paid for before."""
        answer = Completion("", cached=True)
        self._learn(context, [Candidate(arm, completion=answer, score=Score(reward, {}))])
        self.version += 1

    def estimates(
        self, arms: Sequence[str], languages: Collection[str] | None = None
    ) -> Sequence[Estimate]:
        """Language by language, in alphabetical order, each with `arms` in their order."""
        known = self.belief.statistics.languages
        return [
            estimate
            for language in sorted(known)
            if languages is None or language in languages
            for estimate in self._estimates_in(language, arms)
        ]

    def state(self) -> dict[str, Any]:
        """All it has learned, and how it would go on."""
        return {
            "version": self.version,
            "experience": self.experience.state(),
            "pacer": self._pacer.state(),
            "own": self._own(),
            "rng": self._rng.bit_generator.state,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Becomes what `state` was taken from."""
        with understanding():
            self.version = int(state["version"])
            self.experience.restore(state["experience"])
            self._pacer.restore(state["pacer"])
            self._become(state["own"])
            self._rng.bit_generator.state = state["rng"]

    def merge(self, state: Mapping[str, Any]) -> None:
        """Adds what another replica has learned, as if this one had seen its prompts, too."""
        with understanding():
            self.experience.merge(self.experience.like(state["experience"]))
            self._pacer.merge(state["pacer"])
            self._join(state["own"], int(state["version"]))
            self.version += int(state["version"])

    def _learn(self, context: Context, candidates: Sequence[Candidate]) -> None:
        """Takes in the candidates of one prompt."""
        self.experience.learn(context, candidates)

    def _own(self) -> dict[str, Any]:
        """What a kind of policy keeps beside the experience."""
        return {}

    def _become(self, own: Mapping[str, Any]) -> None:
        """Takes over what `_own` gave."""
        del own

    def _join(self, own: Mapping[str, Any], version: int) -> None:
        """Adds what another replica's `_own` gave, after so many updates."""
        del own, version

    def _drawn(
        self,
        context: Context,
        arms: Sequence[str],
        lottery: Lottery,
        seen: Sequence[Candidate],
    ) -> Decision:
        chosen = lottery.draw(self._rng)
        decision = Decision(
            policy=self.kind,
            version=self.version,
            arms=tuple(arms[i] for i in chosen),
            propensities=tuple(lottery.inclusion(chosen).tolist()),
            waves=(0,) * len(chosen),
        )
        if self._pacer.paces:
            usd = self.experience.costs.usd(context.language, decision.arms)
            self._pacer.commit(float(usd.sum()), first=not seen)
        return decision

    def _wave_size(self, arms: Sequence[str], most: int | None) -> int:
        """Arms of a wave, where at most so many may be asked in all the waves to come."""
        del arms
        if most is None:
            return self._fan_out
        return most if self._at_once else min(self._fan_out, most)

    def _first(
        self,
        context: Context,
        arms: Sequence[str],
        seen: Sequence[Candidate] = (),
        most: int | None = None,
    ) -> Lottery:
        lottery = self._introduced(context, arms, most)
        audited = not seen and (most is None or most >= len(arms))
        return Audited(lottery, self._audit_rate) if audited else lottery

    def _introduced(self, context: Context, arms: Sequence[str], most: int | None) -> Lottery:
        """The lottery among the arms that are known, and newcomers beside them on a share.

        What is unknown may be the best, so a policy that explores would ask a new arm
        nearly always until it is known: in every language, and were it a poor one. And one
        that does not would never ask it.
        """
        fan_out = self._wave_size(arms, most)
        known = self._known(arms, fan_out)
        if known is None:
            return self.lottery(context, arms, fan_out)
        among_known = self.lottery(context, [arms[i] for i in known], fan_out)
        share = self._newcomer_share if most is None or fan_out < most else 0.0
        return Introduced(len(arms), among_known, known, share)

    def _known(self, arms: Sequence[str], fan_out: int) -> IntArray | None:
        """The arms that are no newcomers; None where that makes no difference."""
        if not self.explores or self._newcomer_share >= 1.0:
            return None
        answers = self.belief.statistics.answers(arms)
        if answers.min(initial=_ACQUAINTED) >= _ACQUAINTED:
            return None  # nobody is new
        usual = answers.mean()
        if usual < _ACQUAINTED:
            return None  # all are
        known = np.flatnonzero(answers >= min(_ACQUAINTED, _STRANGE_SHARE * usual))
        return known if fan_out <= len(known) < len(arms) else None

    def _toll(self, context: Context, arms: Sequence[str]) -> FloatArray | float:
        """What asking each arm takes off its reward, `(arms,)`, in the language's spreads."""
        if not self._pacer.price:
            return 0.0
        return self._pacer.price * self.experience.costs.usd(context.language, arms)

    def _estimates_in(self, language: str, arms: Sequence[str]) -> Sequence[Estimate]:
        if not arms:
            return ()
        context = Context(language)
        sums = self.belief.statistics.of(language, arms)
        posterior = self.belief.posterior(*self.experience.place(context), arms)
        shares = self.shares(context, arms)
        return [
            Estimate(
                language=language,
                arm=arm,
                scored=round(float(sums[i, SCORED])),
                stopped=round(float(sums[i, STOPPED])),
                reward=float(posterior.mean[i]),
                standard_error=float(posterior.sd[i]),
                share=shares[i],
            )
            for i, arm in enumerate(arms)
        ]


def asked(seen: Sequence[Candidate]) -> int:
    """How many arms have been asked."""
    return len({candidate.teacher for candidate in seen})
