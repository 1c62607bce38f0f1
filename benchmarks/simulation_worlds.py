"""Worlds to learn in: the measured ranks of real teachers as mean rewards, the rest drawn by lot.

A reward is minus a teacher's mean rank in the prompt's language, plus Gaussian noise. Nobody
has answered or scored anything: what comes of it is semi-synthetic.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

SKEW = 0.5  # the k-th most frequent language has a share that goes with k ** -SKEW
CHANGE = 0.5  # ranks that one teacher gets worse and another one better by
SCARCE_LANGUAGES, SCARCE_PROMPTS = 3, 50


@dataclass(frozen=True, slots=True)
class Table:
    """Mean rewards of teachers.

    Attributes:
        means: `(languages, teachers)`, minus the mean ranks.
    """

    languages: tuple[str, ...]
    teachers: tuple[str, ...]
    means: FloatArray

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a CSV file with the columns `language`, `teacher` and `mean_rank`.

        Raises:
            ValueError: a language lacks a teacher.
        """
        with path.open(encoding="utf-8", newline="") as lines:
            ranks = {
                (row["language"], row["teacher"]): float(row["mean_rank"])
                for row in csv.DictReader(lines)
            }
        languages = tuple(dict.fromkeys(language for language, _ in ranks))
        teachers = tuple(dict.fromkeys(teacher for _, teacher in ranks))
        if len(ranks) != len(languages) * len(teachers):
            raise ValueError(f"{path}: not every language has every teacher")
        means = [[-ranks[language, teacher] for teacher in teachers] for language in languages]
        return cls(languages, teachers, np.array(means))

    def with_last(self, teacher: int) -> Table:
        """The same table with one teacher moved behind the others."""
        order = [i for i in range(len(self.teachers)) if i != teacher] + [teacher]
        return Table(self.languages, tuple(self.teachers[i] for i in order), self.means[:, order])

    @property
    def by_average(self) -> list[int]:
        """The teachers by their means over all languages, the best first."""
        order: list[int] = np.argsort(-self.means.mean(axis=0), kind="stable").tolist()
        return order

    @property
    def best_most_often(self) -> int:
        """The teacher that is best in the most languages."""
        best = self.means.argmax(axis=1)
        return int(np.bincount(best, minlength=len(self.teachers)).argmax())


@dataclass(frozen=True, slots=True)
class Phase:
    """Prompts between which nothing changes.

    Attributes:
        begin, end: the first of them, and the first after them.
        means: `(languages, arms)`, expected rewards of those that may be asked: of the
            first so many teachers.
    """

    begin: int
    end: int
    means: FloatArray


@dataclass(frozen=True, slots=True)
class World:
    """What happens prompt by prompt, whoever chooses.

    Attributes:
        prompts: the language of each, `(prompts,)`.
        noise: what is added to each teacher's mean reward, `(prompts, teachers)`.
        scarce: the languages that have `SCARCE_PROMPTS` prompts each.
    """

    table: Table
    prompts: IntArray
    noise: FloatArray
    phases: tuple[Phase, ...]
    scarce: tuple[int, ...] = ()


def stationary(table: Table, prompts: int, noise: float, seed: int) -> World:
    """Nothing changes.

    Each prompt's language is drawn on its own, with shares that go with `k ** -SKEW` for the
    k-th most frequent one. Which language is how frequent is drawn anew with every seed.
    """
    rng = np.random.default_rng(seed)
    shares = np.arange(1.0, len(table.languages) + 1.0) ** -SKEW
    order = rng.permutation(len(table.languages))
    return World(
        table=table,
        prompts=order[rng.choice(len(order), size=prompts, p=shares / shares.sum())],
        noise=noise * rng.standard_normal((prompts, len(table.teachers))),
        phases=(Phase(0, prompts, table.means),),
    )


def change(table: Table, prompts: int, noise: float, seed: int) -> World:
    """At half time the best teacher on average gets worse and a mediocre one better.

    By `CHANGE` ranks, in every language. The mediocre one is in the middle of the order.
    """
    order = table.by_average
    means = table.means.copy()
    means[:, order[0]] -= CHANGE
    means[:, order[len(order) // 2]] += CHANGE
    half = prompts // 2
    phases = (Phase(0, half, table.means), Phase(half, prompts, means))
    return replace(stationary(table, prompts, noise, seed), phases=phases)


def newcomer(table: Table, prompts: int, noise: float, seed: int) -> World:
    """The teacher that is best in the most languages joins after a third of the time."""
    table = table.with_last(table.best_most_often)
    third = prompts // 3
    phases = (Phase(0, third, table.means[:, :-1]), Phase(third, prompts, table.means))
    return replace(stationary(table, prompts, noise, seed), phases=phases)


def scarce(table: Table, prompts: int, noise: float, seed: int) -> World:
    """A few languages, drawn by lot, have few prompts each, anywhere in the whole time."""
    world = stationary(table, prompts, noise, seed)
    rng = np.random.default_rng((seed, 1))
    rare = rng.choice(len(table.languages), size=SCARCE_LANGUAGES, replace=False)
    asked = rng.choice(world.prompts[~np.isin(world.prompts, rare)], size=prompts)
    places = rng.choice(prompts, size=SCARCE_LANGUAGES * SCARCE_PROMPTS, replace=False)
    asked[places] = np.repeat(rare, SCARCE_PROMPTS)
    return replace(world, prompts=asked, scarce=tuple(rare.tolist()))


SCENARIOS: Mapping[str, Callable[[Table, int, float, int], World]] = {
    "stationary": stationary,
    "two arms change": change,
    "new teacher": newcomer,
    "scarce languages": scarce,
}
