"""Contenders of other libraries: MABWiser's bandits, and Vowpal Wabbit's."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from simulation_bandits import Task
    from simulation_worlds import FloatArray


class MabwiserLinear:
    """A linear model an arm, of MABWiser, on a bias and the language as one of n.

    One prompt at a time. Before the first reward, MABWiser cannot choose; one is drawn by lot.

    Args:
        policy: `LinUCB` or `LinTS`.
        weight: length of the language's part of the context beside a bias of 1, and so how
            freely a language departs from what its arm is worth elsewhere.
        settings: of the learning policy.
    """

    def __init__(self, task: Task, *, policy: str, weight: float, **settings: float) -> None:
        self._rng = task.rng
        self._arms = task.arms
        self._bandit = _mabwiser(policy, settings, task.arms, self._rng)
        languages = len(task.languages)
        self._contexts: FloatArray = np.hstack(
            [np.ones((languages, 1)), weight * np.eye(languages)]
        )
        self._fitted = False

    def choose(self, language: int) -> int:
        """MABWiser's prediction."""
        if not self._fitted:
            return int(self._rng.integers(self._arms))
        return int(self._bandit.predict(self._contexts[[language]]))

    def learn(self, language: int, arm: int, reward: float) -> None:
        """One step of MABWiser's fit."""
        learn = self._bandit.partial_fit if self._fitted else self._bandit.fit
        learn([arm], [reward], self._contexts[[language]])
        self._fitted = True

    def welcome(self) -> None:
        """MABWiser knows of new arms."""
        self._bandit.add_arm(self._arms)
        self._arms += 1


class MabwiserEpsilonGreedy:
    """MABWiser's epsilon-greedy, one bandit a language: it takes no context."""

    def __init__(self, task: Task, *, epsilon: float) -> None:
        self._rng = task.rng
        self._arms = task.arms
        self._bandits = [
            _mabwiser("EpsilonGreedy", {"epsilon": epsilon}, task.arms, self._rng)
            for _ in task.languages
        ]
        self._fitted = [False] * len(task.languages)

    def choose(self, language: int) -> int:
        """MABWiser's prediction."""
        if not self._fitted[language]:
            return int(self._rng.integers(self._arms))
        return int(self._bandits[language].predict())

    def learn(self, language: int, arm: int, reward: float) -> None:
        """One step of MABWiser's fit."""
        bandit = self._bandits[language]
        learn = bandit.partial_fit if self._fitted[language] else bandit.fit
        learn([arm], [reward])
        self._fitted[language] = True

    def welcome(self) -> None:
        """MABWiser knows of new arms."""
        for bandit in self._bandits:
            bandit.add_arm(self._arms)
        self._arms += 1


def _mabwiser(policy: str, settings: dict[str, float], arms: int, rng: np.random.Generator) -> Any:
    mab = import_module("mabwiser.mab")
    learning = getattr(mab.LearningPolicy, policy)(**settings)
    return mab.MAB(list(range(arms)), learning, seed=int(rng.integers(2**31)))


class VowpalWabbit:
    """`--cb_explore_adf`: one cost model over language, arm, and both together.

    Args:
        options: which exploration, and how it learns.
    """

    def __init__(self, task: Task, *, options: str) -> None:
        self._rng = task.rng
        seed = int(self._rng.integers(2**31))
        self._vw = import_module("vowpalwabbit").Workspace(
            f"--cb_explore_adf --interactions LA --random_seed {seed} --quiet {options}"
        )
        self._shared = [f"shared |L l{number}" for number in range(len(task.languages))]
        self._actions = [f"|A a{arm}" for arm in range(task.arms)]
        self._chosen_with = 1.0

    def choose(self, language: int) -> int:
        """Drawn from the distribution that it predicts."""
        weights = np.array(self._vw.predict([self._shared[language], *self._actions]))
        shares = weights / weights.sum()
        arm = int(self._rng.choice(len(shares), p=shares))
        self._chosen_with = float(shares[arm])
        return arm

    def learn(self, language: int, arm: int, reward: float) -> None:
        """A cost is minus the reward."""
        actions = list(self._actions)
        actions[arm] = f"{arm}:{-reward:.6f}:{self._chosen_with:.6f} {actions[arm]}"
        self._vw.learn([self._shared[language], *actions])

    def welcome(self) -> None:
        """One more action."""
        self._actions.append(f"|A a{len(self._actions)}")
