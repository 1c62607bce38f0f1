"""A policy led through a log: what it would have asked, beside what was asked and came of it."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from arbitrage.types import Context
from router.offpolicy.outcomes import STOPPED, outcomes_of, worth_of_stopped
from router.offpolicy.prompt_types import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from arbitrage.ports import Policy
    from arbitrage.types import Candidate, Sample
    from router.arrays import Features, FloatArray, IntArray
    from router.offpolicy.prompt_types import PromptTypes

_DRAWS = 16  # of a policy that asks several, on a prompt whose answers are all known
_NOTHING = float("nan")


@dataclass(frozen=True, slots=True)
class Trial:
    """What a log tells of a target policy, one row a prompt, in the log's order.

    The outcome of an arm is the reward of its best answer. One that was only stopped by
    gates counts as the policies count it, `STOPPED_AT` spreads from its language's
    level. One that failed, or has no reward, has no outcome.

    Attributes:
        arms: names of the columns.
        languages: names of the languages.
        language: `(prompts,)`, number of the prompt's language.
        context: `(prompts,)`, number of its language and its domain, or else its type.
        prompt: `(prompts,)`, numbers of the prompts' ids: one asked twice has one number.
        pool: `(prompts, arms)`, whom the target may ask.
        shares: `(prompts, arms)`, how likely the target asks each, rows adding up to 1;
            zero for one that asks several.
        propensities: `(prompts, arms)`, how likely the log's policy was to ask each in its
            first wave; 0 for those that it did not ask then.
        outcomes: `(prompts, arms)`, of the answers to the first wave; NaN without one.
        won: `(prompts,)`, outcome of the log's own winner; NaN without one.
        calls: `(prompts, 2)`, arms asked by the target and by the log, over all waves; the
            target's are NaN where not played.
        played: `(prompts, 2)`, for a target that asks several: how likely one of them has
            an outcome, and the expected outcome of the best, 0 where there is none. NaN
            but where all arms of the pool were asked in the first wave.
        stopped, failed: answers of first waves that gates stopped, and that failed.
    """

    arms: tuple[str, ...]
    languages: tuple[str, ...]
    language: IntArray
    context: IntArray
    prompt: IntArray
    pool: npt.NDArray[np.bool_]
    shares: FloatArray
    propensities: FloatArray
    outcomes: FloatArray
    won: FloatArray
    calls: FloatArray
    played: FloatArray
    stopped: int
    failed: int

    @property
    def audited(self) -> npt.NDArray[np.bool_]:
        """`(prompts,)`, where everybody in the pool was asked at once: nothing is unknown."""
        everyone: npt.NDArray[np.bool_] = np.all(~self.pool | (self.propensities > 0.0), axis=1)
        return everyone


class Replay:
    """Leads a target policy through a log, prompt by prompt.

    At each prompt the target is asked first and told afterwards what the log knows
    (progressive validation: Blum, Kalai & Langford 1999, COLT). It learns from the log's
    choices and not from its own: what is judged is what it would choose, given the
    experience that the log offers.

    Args:
        policy: the target; it learns, and may be used up by it.
        arms: everybody who was asked in the log or is in a pool.
        pool: whom the target may ask in a language.
        several: whether the target asks more than one arm. Then it is played, waves and
            all, where the log has asked everybody at once, and nowhere else.
        types: tells the prompts without a domain apart, where these have features.
    """

    def __init__(
        self,
        policy: Policy,
        arms: Sequence[str],
        pool: Callable[[str], Sequence[str]],
        *,
        several: bool = False,
        types: PromptTypes | None = None,
    ) -> None:
        self.skipped = 0
        """Prompts in a language that nobody in the pool is to be asked in."""
        self._policy = policy
        self._arms = tuple(arms)
        self._columns = {arm: column for column, arm in enumerate(arms)}
        self._pool = pool
        self._several = several
        self._languages: dict[str, int] = {}
        self._types = types
        self._domains: dict[str | None, int] = {None: 0}
        self._prompts: dict[str, int] = {}
        self._numbers = array("q")  # language, domain, prompt
        self._table = array("d")  # pool, shares, propensities, outcomes, each of all arms
        self._figures = array("d")  # won, calls of the target and the log, played, with stopped
        self._failed = 0

    def add(self, sample: Sample, features: Features | None = None) -> None:
        """Asks the target about one prompt, and tells it what the log knows."""
        prompt = sample.prompt
        context = Context(prompt.language, prompt.domain, features)
        pool = self._pool(prompt.language)
        if pool:
            self._numbers.extend(
                (
                    self._languages.setdefault(context.language, len(self._languages)),
                    self._domains.setdefault(context.domain, len(self._domains)),
                    self._prompts.setdefault(prompt.prompt_id, len(self._prompts)),
                )
            )
            if self._types:
                self._types.add(None if context.domain else features)
            self._write(sample, context, pool)
        else:
            self.skipped += 1
        self._policy.update(context, sample.candidates)

    def trial(self) -> Trial:
        """What all prompts so far have told."""
        numbers = np.array(self._numbers, dtype=np.intp).reshape(-1, 3)
        table = np.array(self._table).reshape(-1, 4, len(self._arms))
        figures = np.array(self._figures).reshape(-1, 6)
        language, outcomes, won = numbers[:, 0], table[:, 3], figures[:, 0]
        types = self._types.numbers() if self._types else np.full(len(numbers), UNKNOWN)
        _, context = np.unique(
            np.column_stack((numbers[:, :2], types)), axis=0, return_inverse=True
        )
        stopped = outcomes == STOPPED
        worth = worth_of_stopped(np.where(stopped, _NOTHING, outcomes), language)
        played = figures[:, 3:5].copy()
        played[:, 1] += figures[:, 5] * worth[language]
        return Trial(
            arms=self._arms,
            languages=tuple(self._languages),
            language=language,
            context=context.reshape(-1),
            prompt=numbers[:, 2],
            pool=table[:, 0] > 0.0,
            shares=table[:, 1],
            propensities=table[:, 2],
            outcomes=np.where(stopped, worth[language][:, None], outcomes),
            won=np.where(won == STOPPED, worth[language], won),
            calls=figures[:, 1:3],
            played=played,
            stopped=int(stopped.sum()),
            failed=self._failed,
        )

    def _write(self, sample: Sample, context: Context, pool: Sequence[str]) -> None:
        decision = sample.decision
        rows = np.zeros((4, len(self._arms)))
        rows[3] = _NOTHING
        columns = [self._columns[arm] for arm in pool]
        rows[0, columns] = 1.0
        outcomes = outcomes_of(sample.candidates)
        for arm, propensity, wave in zip(
            decision.arms, decision.propensities, decision.waves, strict=True
        ):
            if wave == 0:
                rows[2, self._columns[arm]] = propensity
                rows[3, self._columns[arm]] = outcomes.get(arm, _NOTHING)
                self._failed += arm not in outcomes
        played: Sequence[float] = (_NOTHING,) * 4
        if not self._several:
            shares = np.asarray(self._policy.shares(context, pool), dtype=np.float64)
            rows[1, columns] = shares / shares.sum()
        elif rows[2, columns].all():
            played = self._play(sample.candidates, context, pool)
        self._table.extend(rows.ravel())
        won = max(outcomes.values(), default=_NOTHING)
        self._figures.extend((won, played[0], len(decision.arms), *played[1:]))

    def _play(
        self, candidates: Sequence[Candidate], context: Context, pool: Sequence[str]
    ) -> Sequence[float]:
        """Lets the target ask, wave after wave, as the engine would; several times.

        Returns:
            The mean of the calls, of whether somebody had an outcome, of the best
            outcome, and of whether all outcomes were of stopped answers.
        """
        plays = np.zeros(4)
        for _ in range(_DRAWS):
            seen: list[Candidate] = []
            left = list(pool)
            while left:
                wave = self._policy.select(context, left, seen)
                if wave is None:
                    break
                seen += [one for one in candidates if one.teacher in wave.arms]
                left = [arm for arm in left if arm not in wave.arms]
            outcomes = outcomes_of(seen).values()
            best = max(outcomes, default=0.0)
            stopped = best == STOPPED
            plays += (len(pool) - len(left), bool(outcomes), 0.0 if stopped else best, stopped)
        mean: list[float] = (plays / _DRAWS).tolist()
        return mean
