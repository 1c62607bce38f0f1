"""Contenders that need nobody's library: ours, two that share nothing, and one that knows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

import router
from arbitrage import config
from arbitrage.types import Candidate, Completion, Context, Score

if TYPE_CHECKING:
    from simulation_worlds import FloatArray

_ANSWER = Completion(".")
_LEVEL_STRENGTH = 5.0  # rewards that the mean of all languages counts for in a language's level


class Contender(Protocol):
    """Somebody who chooses an arm for a prompt, and is told its reward and nothing else."""

    def choose(self, language: int) -> int:
        """The arm that is asked for a prompt in this language."""

    def learn(self, language: int, arm: int, reward: float) -> None:
        """Takes in what asking it brought; called once after every choice."""

    def welcome(self) -> None:
        """From now on one more arm may be asked, numbered behind the others."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a contender is told before the first prompt.

    Attributes:
        teachers: all there will ever be; the first `arms` of them may be asked at first.
        noise: standard deviation of a reward around its mean.
        best: the best arm on average, for who is allowed to know it.
    """

    languages: tuple[str, ...]
    teachers: tuple[str, ...]
    arms: int
    noise: float
    best: int
    seed: int

    @property
    def rng(self) -> np.random.Generator:
        """Randomness that is not the world's."""
        return np.random.default_rng((self.seed, 2))


class Routed:
    """One of our policies, asked for one arm a prompt."""

    def __init__(self, task: Task, **settings: Any) -> None:
        self._policy = router.build(
            config.Policy(
                fan_out=1,
                audit_rate=0.0,
                newcomer_share=1.0,
                features=config.Features(kind="none"),
                seed=int(task.rng.integers(2**31)),
                **settings,
            )
        )
        self._contexts = [Context(language) for language in task.languages]
        self._teachers = task.teachers
        self._numbers = {teacher: number for number, teacher in enumerate(task.teachers)}
        self._arms = task.teachers[: task.arms]

    def choose(self, language: int) -> int:
        """The one arm of the decision."""
        decision = self._policy.select(self._contexts[language], self._arms, ())
        if decision is None:
            raise RuntimeError("a policy decided to ask nobody at all")
        return self._numbers[decision.arms[0]]

    def learn(self, language: int, arm: int, reward: float) -> None:
        """Hands over a scored candidate."""
        candidate = Candidate(self._teachers[arm], _ANSWER, score=Score(reward, {}))
        self._policy.update(self._contexts[language], [candidate])

    def welcome(self) -> None:
        """Arms are passed with every call."""
        self._arms = self._teachers[: len(self._arms) + 1]


class Static:
    """The best single teacher on average, by the true means at the beginning."""

    def __init__(self, task: Task) -> None:
        self._best = task.best

    def choose(self, language: int) -> int:
        """Always the same."""
        del language
        return self._best

    def learn(self, language: int, arm: int, reward: float) -> None:
        """It has known all along."""

    def welcome(self) -> None:
        """Nobody is looked at again."""


class _Independent:
    """Number and sum of the rewards of each arm in each language."""

    def __init__(self, task: Task) -> None:
        self.answers: FloatArray = np.zeros((len(task.languages), task.arms))
        self.totals: FloatArray = np.zeros((len(task.languages), task.arms))

    def learn(self, language: int, arm: int, reward: float) -> None:
        """Adds the reward."""
        self.answers[language, arm] += 1.0
        self.totals[language, arm] += reward

    def welcome(self) -> None:
        """A column for each."""
        self.answers, self.totals = (
            np.pad(table, ((0, 0), (0, 1))) for table in (self.answers, self.totals)
        )


class IndependentThompson(_Independent):
    """Gaussian Thompson sampling in each language on its own, knowing the noise.

    Args:
        prior_sd: of an arm's mean around the mean of the language's rewards so far.
        width: what the posterior's standard deviation is multiplied by.
    """

    def __init__(self, task: Task, *, prior_sd: float, width: float) -> None:
        super().__init__(task)
        self._rng = task.rng
        self._width = width * task.noise
        self._strength = (task.noise / prior_sd) ** 2

    def choose(self, language: int) -> int:
        """The largest of one draw an arm."""
        answers, totals = self.answers[language], self.totals[language]
        level = totals.sum() / max(answers.sum(), 1.0)
        strength = answers + self._strength
        mean = (totals + self._strength * level) / strength
        draws = mean + self._width / np.sqrt(strength) * self._rng.standard_normal(len(mean))
        return int(draws.argmax())


class IndependentUCB(_Independent):
    """UCB1 in each language on its own (Auer, Cesa-Bianchi & Fischer 2002, Machine Learning 47).

    Args:
        width: of the bounds, in units of the noise, which it knows; UCB1's own is 1.
    """

    def __init__(self, task: Task, *, width: float) -> None:
        super().__init__(task)
        self._rng = task.rng
        self._width = width * task.noise

    def choose(self, language: int) -> int:
        """Who has not been asked, in an order drawn by lot; then the largest upper bound."""
        answers, totals = self.answers[language], self.totals[language]
        unknown = np.flatnonzero(answers == 0.0)
        if len(unknown):
            return int(self._rng.choice(unknown))
        width = self._width * np.sqrt(2.0 * math.log(answers.sum()) / answers)
        return int((totals / answers + width).argmax())


class Centred:
    """Hands rewards on as distances from the mean of the language's rewards so far.

    Languages are unequally hard, which a model of each arm for itself would have to learn once
    an arm. While a language has few rewards, its mean leans on that of all.
    """

    def __init__(self, contender: Contender, task: Task) -> None:
        self._contender = contender
        self._sums: FloatArray = np.zeros((len(task.languages), 2))
        self.choose = contender.choose
        self.welcome = contender.welcome

    def learn(self, language: int, arm: int, reward: float) -> None:
        """Subtracts the mean, this reward included."""
        self._sums[language] += (1.0, reward)
        number, total = self._sums.sum(axis=0)
        count, own = self._sums[language]
        level = (own + _LEVEL_STRENGTH * total / number) / (count + _LEVEL_STRENGTH)
        self._contender.learn(language, arm, reward - float(level))
