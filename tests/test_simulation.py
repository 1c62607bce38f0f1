"""What the online-learning benchmark relies on: fair worlds, and contenders as described."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from simulation import Job, interval, play, run
from simulation_bandits import (
    Centred,
    IndependentThompson,
    IndependentUCB,
    Routed,
    Static,
    Task,
)
from simulation_worlds import CHANGE, SCARCE_PROMPTS, SCENARIOS, Table, World

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LANGUAGES = ("da", "de", "fi", "fr", "is", "it", "no", "sv")
TEACHERS = ("a", "b", "c", "d", "e")
PROMPTS = 600


def table() -> Table:
    rng = np.random.default_rng(0)
    means = rng.normal([0.5, 0.0, 0.0, -0.2, -1.0], 0.3, (len(LANGUAGES), len(TEACHERS)))
    return Table(LANGUAGES, TEACHERS, means)


def world(scenario: str, noise: float = 0.5, seed: int = 0) -> World:
    return SCENARIOS[scenario](table(), PROMPTS, noise, seed)


def task(of: World, noise: float = 0.5) -> Task:
    means = of.phases[0].means
    best = int(means.mean(axis=0).argmax())
    return Task(LANGUAGES, of.table.teachers, means.shape[1], noise, best, seed=0)


class Known:
    """Knows every mean, and writes down what it is told."""

    def __init__(self, of: World) -> None:
        self.phases = list(of.phases)
        self.arms = of.phases[0].means.shape[1]
        self.turn = 0
        self.told: list[tuple[int, int, float]] = []

    def choose(self, language: int) -> int:
        while self.turn >= self.phases[0].end:
            del self.phases[0]
        self.turn += 1
        means = self.phases[0].means[language]
        assert len(means) == self.arms, "a new arm is announced before it is best"
        return int(means.argmax())

    def learn(self, language: int, arm: int, reward: float) -> None:
        self.told.append((language, arm, reward))

    def welcome(self) -> None:
        self.arms += 1


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_who_knows_everything_has_no_regret_and_is_told_the_drawn_rewards(scenario: str) -> None:
    played = world(scenario)
    known = Known(played)
    assert not play(played, known).any()
    for number in (0, PROMPTS // 3, PROMPTS - 1):
        means = next(p.means for p in played.phases if number < p.end)
        language, arm, reward = known.told[number]
        assert language == played.prompts[number]
        assert reward == means[language, arm] + played.noise[number, arm]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_seed_is_a_world(scenario: str) -> None:
    one, same, other = world(scenario), world(scenario), world(scenario, seed=1)
    assert np.array_equal(one.prompts, same.prompts)
    assert np.array_equal(one.noise, same.noise)
    assert one.scarce == same.scarce
    assert not np.array_equal(one.prompts, other.prompts)


def test_at_half_time_the_best_gets_worse_and_the_middle_one_better() -> None:
    before, after = world("two arms change").phases
    difference = (after.means - before.means).round(9)
    best, *others, _ = table().by_average
    assert (difference[:, best] == -CHANGE).all()
    assert (difference[:, others[1]] == CHANGE).all()
    assert np.count_nonzero(difference) == 2 * len(LANGUAGES)
    assert before.end == after.begin == PROMPTS // 2


def test_the_new_teacher_is_the_one_that_is_best_most_often() -> None:
    played = world("new teacher")
    before, after = played.phases
    assert played.table.teachers[-1] == TEACHERS[table().best_most_often]
    assert sorted(played.table.teachers) == sorted(TEACHERS)
    assert np.array_equal(after.means[:, :-1], before.means)
    assert before.end == after.begin == PROMPTS // 3


def test_scarce_languages_have_their_few_prompts_from_the_first_third_to_the_last() -> None:
    played = world("scarce languages")
    assert len(played.prompts) == PROMPTS
    counts = np.bincount(played.prompts, minlength=len(LANGUAGES))
    rare = sorted(played.scarce)
    assert np.flatnonzero(counts == SCARCE_PROMPTS).tolist() == rare
    places = np.flatnonzero(np.isin(played.prompts, rare))
    assert places[0] < PROMPTS / 3 < 2 * PROMPTS / 3 < places[-1]


def test_the_static_one_pays_for_every_language_in_which_another_is_best() -> None:
    played = world("stationary")
    regret = play(played, Static(task(played)))
    means = table().means
    best = table().by_average[0]
    assert regret == pytest.approx((means.max(axis=1) - means[:, best])[played.prompts])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_everyone_learns(scenario: str) -> None:
    played = world(scenario)
    means = played.phases[0].means
    at_random = float((means.max(axis=1) - means.mean(axis=1))[played.prompts].sum())
    setting = task(played)
    for contender in (
        IndependentThompson(setting, prior_sd=0.5, width=0.5),
        IndependentUCB(setting, width=0.5),
        Centred(IndependentUCB(setting, width=0.5), setting),
        Routed(setting, kind="thompson"),
    ):
        assert 0.0 < play(played, contender).sum() < 0.8 * at_random


def test_centred_rewards_add_up_to_nothing_much() -> None:
    played = world("stationary", noise=0.1)
    known = Known(played)
    play(played, Centred(known, task(played)))
    late = [reward for _, _, reward in known.told[PROMPTS // 2 :]]
    assert abs(float(np.mean(late))) < 0.1
    assert abs(float(table().means.max(axis=1).mean())) > 0.2


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0], "3"),
        ([10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0], "55 +- 22"),  # t = 2.262
        ([0.0, 100.0, 200.0], "100 +- 248"),  # t = 4.303
    ],
)
def test_intervals_are_those_of_t(values: Sequence[float], expected: str) -> None:
    assert interval(values) == expected


def test_a_run_is_read_from_a_table_of_ranks(tmp_path: Path) -> None:
    lines = ["language,teacher,parameters_billion,mean_rank"]
    lines += [
        f"{language},{teacher},1,{rank + (language == 'is')}"
        for language in LANGUAGES
        for rank, teacher in enumerate(TEACHERS, start=1)
    ]
    ranks = tmp_path / "ranks.csv"
    ranks.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert Table.read(ranks).means[4].tolist() == [-2.0, -3.0, -4.0, -5.0, -6.0]
    done = run(Job(ranks, "static best single", None, "two arms change", 400, 1.0, 0))
    assert done.regret == pytest.approx(0.0), "a teacher that is 0.5 worse is still the best"
    ranks.write_text("\n".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(ValueError, match="not every language has every teacher"):
        Table.read(ranks)
