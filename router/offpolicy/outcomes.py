"""What a log's answers were worth: the reward of an arm's best, and of what gates stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from router.experience.judgement import judgements
from router.experience.sums import STOPPED_AT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from arbitrage.types import Candidate
    from router.arrays import FloatArray, IntArray

STOPPED = float("-inf")
"""Stands for the outcome of a stopped answer until its language's scale is known."""


def outcomes_of(candidates: Iterable[Candidate]) -> Mapping[str, float]:
    """The best reward of each arm that has one, or else was stopped."""
    best: dict[str, float] = {}
    for arm, reward in judgements(candidates):
        outcome = STOPPED if reward is None else reward
        best[arm] = max(best.get(arm, outcome), outcome)
    return best


def worth_of_stopped(outcomes: FloatArray, language: IntArray) -> FloatArray:
    """What a stopped answer counts for in each language, `(languages,)`.

    A language's level is the mean over its arms' mean rewards, its spread the root mean
    square distance of its rewards from that; one that has none takes the mean level, the
    geometric mean of the spreads.
    """
    languages = int(language.max(initial=-1)) + 1
    levels, log_spreads = np.full(languages, np.nan), np.full(languages, np.nan)
    for number in range(languages):
        table = outcomes[language == number]
        known = ~np.isnan(table)
        rewards = table[known]
        if not len(rewards):
            continue
        asked = known.any(axis=0)
        levels[number] = np.nanmean(table[:, asked], axis=0).mean()
        variance = ((rewards - levels[number]) ** 2).sum() / max(len(rewards) - 1, 1)
        if variance > 0.0:
            log_spreads[number] = np.log(variance) / 2.0
    worth: FloatArray = _filled(levels, 0.0) + STOPPED_AT * np.exp(_filled(log_spreads, 0.0))
    return worth


def _filled(figures: FloatArray, otherwise: float) -> FloatArray:
    """The figures, with their mean for those that are not known."""
    known = figures[~np.isnan(figures)]
    return np.where(np.isnan(figures), known.mean() if len(known) else otherwise, figures)
