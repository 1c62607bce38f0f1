"""Measure what a decision costs, and what it costs to learn from one, as a policy grows.

Policies that have learned from prompts in many languages, four of the arms judged on each, decide
for prompts with features. Medians of wall time in this process, one line a policy, number of arms,
of features and of languages; and the bytes that a policy's state takes for each language.

    python benchmarks/decisions.py             # some minutes
    python benchmarks/decisions.py thompson    # this one alone
"""

import argparse
import itertools
import string
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from turns import where

import router
from arbitrage import config, ports
from arbitrage.types import Candidate, Completion, Context, Score

KINDS = ("thompson", "linucb", "softmax", "knn", "pandora")
SIZES = ((12, 16, 30), (12, 64, 30), (64, 64, 30), (12, 64, 1000))
PROMPTS = 3000
MEASURED = 500
JUDGED = 4
TEXTS = 512

Features = np.ndarray[Any, np.dtype[np.float32]]


def texts() -> Features:
    """Features of prompts of ten sorts."""
    rng = np.random.default_rng(0)
    sorts = rng.normal(size=(10, 512))
    made = sorts[rng.integers(10, size=TEXTS)] + rng.normal(0.0, 0.7, (TEXTS, 512))
    unit: Features = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return unit


class Life:
    """A policy, and prompts for it to learn from and to decide on.

    Every prompt's language is drawn anew, so a figure is that of languages in turn.
    """

    def __init__(self, kind: Any, arms: int, features: int, languages: int) -> None:
        tags = itertools.product(string.ascii_lowercase, repeat=3)
        self._languages = ["".join(tag) for tag in itertools.islice(tags, languages)]
        self._arms = [f"teacher-{i}" for i in range(arms)]
        self._texts = texts()
        self._rng = np.random.default_rng(1)
        self.policy: ports.Policy = router.build(
            config.Policy(kind=kind, features=config.Features(dimensions=features))
        )

    def context(self) -> Context:
        """Of one more prompt."""
        language = self._languages[self._rng.integers(len(self._languages))]
        return Context(language, None, self._texts[self._rng.integers(TEXTS)])

    def learn(self) -> float:
        """Learns from one more prompt; returns the seconds that took."""
        context = self.context()
        chosen = self._rng.choice(len(self._arms), JUDGED, replace=False)
        candidates = [
            Candidate(
                self._arms[i],
                Completion("."),
                score=Score(float(self._rng.normal(0.02 * i)), {}),
                latency_seconds=1.0,
            )
            for i in chosen
        ]
        begin = perf_counter()
        self.policy.update(context, candidates)
        return perf_counter() - begin

    def decide(self) -> float:
        """Decides for one more prompt; returns the seconds that took."""
        context = self.context()
        begin = perf_counter()
        self.policy.select(context, self._arms, [])
        return perf_counter() - begin


def size_of(state: Any) -> int:
    """Bytes of the numbers in a state."""
    if isinstance(state, np.ndarray):
        return int(state.nbytes)
    if isinstance(state, dict):
        return sum(size_of(value) for value in state.values())
    if isinstance(state, list | tuple):
        return sum(size_of(value) for value in state)
    return 8


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", default=KINDS)
    options = parser.parse_args()
    print(where())
    print(f"microseconds, medians of {MEASURED} after {PROMPTS} prompts; {JUDGED} judged on each")
    for kind in options.kinds:
        for arms, features, languages in SIZES:
            life = Life(kind, arms, features, languages)
            # ten prompts a language at least
            for _ in range(max(PROMPTS, 10 * languages)):
                life.learn()
            learned, decided = [], []
            for _ in range(MEASURED):
                decided.append(life.decide())
                learned.append(life.learn())
            kilobytes = size_of(life.policy.state()) / languages / 1024
            print(
                f"{kind:9} {arms:3} arms {features:3} features {languages:5} languages: "
                f"decide {1e6 * median(decided):7.0f}, learn {1e6 * median(learned):7.0f}; "
                f"{kilobytes:.1f} KiB a language",
                flush=True,
            )


if __name__ == "__main__":
    main()
