"""What all one-wave policies share: the wave rule, the audit, the learning, the answer to "why"."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from arbitrage.types import Decision, Estimate
from router.belief import Belief
from router.lottery import Audited, Introduced
from router.statistics import SCORED, STOPPED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage import config
    from arbitrage.types import Candidate, Context
    from router.lottery import Lottery

_ACQUAINTED = 50  # answers after which no arm is new
_STRANGE_SHARE = 0.1  # of the arms' mean number of answers; with fewer, one is


class OneWave(ABC):
    """Asks one wave of arms, and another only while no answer has passed the gates.

    On a share `audit_rate` of the prompts the first wave asks everyone. Every policy
    keeps the same belief, whether it chooses by it or not, so that what was
    learned under one can be read, and later be taken over by another.

    Attributes:
        kind: the policy's name in the configuration.
        version: how many updates it has learned from.
        belief: what it has learned.
    """

    kind: ClassVar[str]
    explores: ClassVar[bool] = False
    """Whether it asks an arm because it does not know it."""

    def __init__(
        self,
        *,
        fan_out: int,
        audit_rate: float,
        rng: np.random.Generator,
        newcomer_share: float = 1.0,
    ) -> None:
        self.version = 0
        self.belief = Belief()
        self._fan_out = fan_out
        self._audit_rate = audit_rate
        self._newcomer_share = newcomer_share
        self._rng = rng

    @classmethod
    def of(cls, settings: config.Policy) -> Self:
        """Makes the policy from its configuration."""
        rng = np.random.default_rng(settings.seed)
        return cls(
            fan_out=settings.fan_out,
            audit_rate=settings.audit_rate,
            rng=rng,
            newcomer_share=settings.newcomer_share,
        )

    @abstractmethod
    def lottery(self, language: str, arms: Sequence[str]) -> Lottery:
        """How a wave of these arms is drawn for a prompt of this language."""

    def select(
        self, context: Context, arms: Sequence[str], seen: Sequence[Candidate]
    ) -> Decision | None:
        """Chooses a wave, numbered 0; None once an answer may win."""
        if any(candidate.may_win for candidate in seen):
            return None
        lottery = self._introduced(context.language, arms)
        if not seen:
            lottery = Audited(lottery, self._audit_rate)
        chosen = lottery.draw(self._rng)
        return Decision(
            policy=self.kind,
            version=self.version,
            arms=tuple(arms[i] for i in chosen),
            propensities=tuple(lottery.inclusion(chosen).tolist()),
            waves=(0,) * len(chosen),
        )

    def update(self, context: Context, candidates: Sequence[Candidate]) -> None:
        """Learns from all that were scored or stopped; who failed is unavailable, not bad."""
        self.belief.learn(context.language, candidates)
        self.version += 1

    def estimates(self, arms: Sequence[str]) -> Sequence[Estimate]:
        """Language by language, in alphabetical order, each with `arms` in their order."""
        return [
            estimate
            for language in sorted(self.belief.statistics.languages)
            for estimate in self._estimates_in(language, arms)
        ]

    def _introduced(self, language: str, arms: Sequence[str]) -> Lottery:
        """The lottery, in which arms that nobody knows yet take part on a share of the prompts.

        What is unknown may be the best, so a policy that explores would ask a new arm
        nearly always until it is known: in every language, and were it a poor one.
        """
        lottery = self.lottery(language, arms)
        if not self.explores or self._newcomer_share >= 1.0:
            return lottery
        answers = self.belief.statistics.answers(arms)
        if answers.mean() < _ACQUAINTED:
            return lottery  # all are new
        known = np.flatnonzero(answers >= min(_ACQUAINTED, _STRANGE_SHARE * answers.mean()))
        if not self._fan_out <= len(known) < len(arms):
            return lottery
        among_known = self.lottery(language, [arms[int(i)] for i in known])
        return Introduced(lottery, among_known, known, self._newcomer_share)

    def _estimates_in(self, language: str, arms: Sequence[str]) -> Sequence[Estimate]:
        if not arms:
            return ()
        sums = self.belief.statistics.of(language, arms)
        posterior = self.belief.posterior(language, arms)
        lottery = Audited(self._introduced(language, arms), self._audit_rate)
        shares = lottery.inclusion(np.arange(len(arms)))
        return [
            Estimate(
                language=language,
                arm=arm,
                scored=int(sums[i, SCORED]),
                stopped=int(sums[i, STOPPED]),
                reward=float(posterior.mean[i]),
                standard_error=float(posterior.sd[i]),
                share=float(shares[i]),
            )
            for i, arm in enumerate(arms)
        ]
