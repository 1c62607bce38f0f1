"""Cumulative regret of learning which teacher to ask, one a prompt, in four semi-synthetic worlds.

29 languages and 12 teachers, whose mean rewards are minus their measured ranks (EuroEval) and
whose single rewards are drawn around them. Prompts and noise are the same for every contender.
Regret is expected, not drawn: the mean of the best teacher that might have been asked minus the
mean of the one that was; someone who knew every language's best would have none.

    pip install -e '.[bench]'                               # the libraries compared with
    python benchmarks/simulation.py --plot docs/images/regret.png     # 20 minutes on two cores
    python benchmarks/simulation.py --seeds 3 --only thompson "MABWiser LinTS"
    python benchmarks/simulation.py --tune "MABWiser LinTS"     # how the settings were chosen
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev
from time import process_time
from typing import TYPE_CHECKING, Any

import numpy as np
from simulation_bandits import Task
from simulation_contenders import CONTENDERS, MISSING, OURS
from simulation_plot import draw
from simulation_worlds import (
    CHANGE,
    SCARCE_LANGUAGES,
    SCARCE_PROMPTS,
    SCENARIOS,
    SKEW,
    FloatArray,
    Table,
)
from turns import where

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from multiprocessing.pool import Pool

    from simulation_bandits import Contender
    from simulation_worlds import World

RANKS = Path(__file__).resolve().parents[2] / "shared" / "data" / "euroeval_ranks.csv"
TUNING = 1000  # the first of the seeds that settings are chosen on
POINTS = 200  # of a curve


@dataclass(frozen=True, slots=True)
class Job:
    """One contender in one world."""

    data: Path
    name: str
    settings: Mapping[str, Any] | None
    scenario: str
    prompts: int
    noise: float
    seed: int


@dataclass(frozen=True, slots=True)
class Run:
    """What came of it.

    Attributes:
        curve: cumulative regret at `POINTS` evenly spaced prompts, the last one included.
        scarce: regret in the scarce languages.
        microseconds: of CPU for a decision and what is learned from it.
    """

    job: Job
    curve: FloatArray
    scarce: float
    microseconds: float

    @property
    def regret(self) -> float:
        """After the last prompt."""
        return float(self.curve[-1])


def run(job: Job) -> Run:
    """Plays one job."""
    table = Table.read(job.data)
    world = SCENARIOS[job.scenario](table, job.prompts, job.noise, job.seed)
    means = world.phases[0].means
    task = Task(
        languages=table.languages,
        teachers=world.table.teachers,
        arms=means.shape[1],
        noise=job.noise,
        best=int(means.mean(axis=0).argmax()),
        seed=job.seed,
    )
    contender = CONTENDERS[job.name].enter(task, job.settings)
    started = process_time()
    regret = play(world, contender)
    seconds = process_time() - started
    at = np.linspace(0, job.prompts, POINTS + 1).astype(np.intp)[1:] - 1
    return Run(
        job=job,
        curve=regret.cumsum()[at],
        scarce=float(regret[np.isin(world.prompts, world.scarce)].sum()),
        microseconds=1e6 * seconds / job.prompts,
    )


def play(world: World, contender: Contender) -> FloatArray:
    """The expected regret of each prompt, `(prompts,)`."""
    regret: FloatArray = np.empty(len(world.prompts))
    arms = world.phases[0].means.shape[1]
    for phase in world.phases:
        for _ in range(arms, phase.means.shape[1]):
            contender.welcome()
        arms = phase.means.shape[1]
        best = phase.means.max(axis=1)
        for number in range(phase.begin, phase.end):
            language = int(world.prompts[number])
            arm = contender.choose(language)
            mean = phase.means[language, arm]
            regret[number] = best[language] - mean
            contender.learn(language, arm, float(mean + world.noise[number, arm]))
    return regret


def interval(values: Sequence[float]) -> str:
    """Mean and half the width of its 95% interval, by Student's t."""
    if len(values) == 1:
        return f"{values[0]:.0f}"
    width = _t(len(values) - 1) * stdev(values) / len(values) ** 0.5
    return f"{fmean(values):.0f} +- {width:.0f}"


@cache
def _t(freedom: int) -> float:
    """What 95% of Student's t lie within: the density of its angle goes with a power of cos."""
    angles = np.linspace(0.0, np.pi / 2.0, 100_001)
    mass = (np.cos(angles) ** (freedom - 1)).cumsum()
    return float(freedom**0.5 * np.tan(angles[mass.searchsorted(0.95 * mass[-1])]))


def print_scenario(scenario: str, runs: Mapping[str, Sequence[Run]]) -> None:
    """One line a contender, the least regret first."""
    beside = OURS if OURS in runs else next(iter(runs))
    for name in sorted(runs, key=lambda name: fmean(run.regret for run in runs[name])):
        own, other = runs[name], runs[beside]
        line = [scenario, name, f"regret {_both(own, other, 'regret')}"]
        if own[0].scarce:
            line.append(f"in the {SCARCE_LANGUAGES} languages {_both(own, other, 'scarce')}")
        line.append(f"{fmean(run.microseconds for run in own):.0f} us")
        print(" | ".join(line), flush=True)


def _both(own: Sequence[Run], other: Sequence[Run], figure: str) -> str:
    """A figure over the seeds, and how much more it is than the other's, seed by seed."""
    values = [getattr(run, figure) for run in own]
    if own is other:
        return interval(values)
    more = [value - getattr(run, figure) for value, run in zip(values, other, strict=True)]
    return f"{interval(values)}, {interval(more)} more than {other[0].job.name}"


def compete(arguments: argparse.Namespace, pool: Pool) -> None:
    """Plays everyone in every scenario; prints, and draws where it is asked to."""
    seeds = range(arguments.seeds)
    curves: dict[str, dict[str, FloatArray]] = {}
    for scenario in SCENARIOS:
        jobs = [
            Job(arguments.data, name, None, scenario, arguments.prompts, arguments.noise, seed)
            for name, seed in product(arguments.only or CONTENDERS, seeds)
        ]
        runs: dict[str, list[Run]] = {}
        for one in pool.imap(run, jobs, chunksize=1):
            runs.setdefault(one.job.name, []).append(one)
        print_scenario(scenario, runs)
        curves[scenario] = {
            name: np.array([one.curve for one in of_name]) for name, of_name in runs.items()
        }
    if arguments.plot:
        draw(arguments.plot, curves, prompts=arguments.prompts, ours=OURS)
        print(f"regret over time: {arguments.plot}")


def tune(arguments: argparse.Namespace, pool: Pool) -> None:
    """Prints every setting of the grids by its regret over all scenarios, the least first."""
    seeds = range(TUNING, TUNING + arguments.seeds)
    for name in arguments.tune:
        grid = list(CONTENDERS[name].all_settings())
        jobs = [
            Job(arguments.data, name, settings, scenario, arguments.prompts, arguments.noise, seed)
            for settings, scenario, seed in product(grid, SCENARIOS, seeds)
        ]
        runs = pool.map(run, jobs, chunksize=1)
        a_setting = len(SCENARIOS) * len(seeds)
        parts = [runs[i : i + a_setting] for i in range(0, len(runs), a_setting)]
        for part in sorted(parts, key=lambda part: sum(one.regret for one in part)):
            by_scenario = {
                scenario: fmean(one.regret for one in part if one.job.scenario == scenario)
                for scenario in SCENARIOS
            }
            figures = ", ".join(f"{label} {mean:.0f}" for label, mean in by_scenario.items())
            print(
                f"{name} | {_described(part[0].job.settings)} | "
                f"regret {sum(by_scenario.values()):.0f} | {figures}",
                flush=True,
            )


def _described(settings: Mapping[str, Any] | None) -> str:
    return " ".join(f"{key}={value}" for key, value in (settings or {}).items()) or "defaults"


def main() -> None:
    """Reads the arguments, and measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=RANKS, help="CSV of mean ranks")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--prompts", type=int, default=20_000)
    parser.add_argument("--noise", type=float, default=1.0, help="deviation of rewards, in ranks")
    parser.add_argument("--plot", type=Path, help="PNG to draw the regret over time to")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, help="who takes part")
    parser.add_argument("--tune", nargs="+", choices=CONTENDERS, help="print their whole grids")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    if not arguments.data.is_file():
        print(f"{arguments.data} is not here: nothing to simulate")
        return
    if arguments.plot and not find_spec("matplotlib"):
        parser.error("--plot needs matplotlib: pip install -e '.[bench]'")
    print(where())
    table = Table.read(arguments.data)
    seeds = f"seeds {TUNING} and up" if arguments.tune else "seeds 0 and up"
    print(
        f"semi-synthetic: rewards are minus the mean ranks of {len(table.teachers)} teachers in "
        f"{len(table.languages)} languages, plus noise of {arguments.noise} ranks | "
        f"{arguments.prompts} prompts, one teacher each | {arguments.seeds} {seeds} | "
        f"the k-th most frequent language's share goes with k^-{SKEW} | 95% intervals of t"
    )
    order = table.by_average
    print(
        f"two arms change: {table.teachers[order[0]]} {CHANGE} worse and "
        f"{table.teachers[order[len(order) // 2]]} {CHANGE} better from half time on | "
        f"new teacher: {table.teachers[table.best_most_often]} from a third on | "
        f"scarce languages: {SCARCE_LANGUAGES} with {SCARCE_PROMPTS} prompts"
    )
    if MISSING:
        print(f"left out, not installed: {', '.join(MISSING)}; pip install -e '.[bench]'")
    # each process plays on one core; numpy's own threads would be in each other's way
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    with get_context("spawn").Pool(arguments.processes) as pool:
        (tune if arguments.tune else compete)(arguments, pool)


if __name__ == "__main__":
    main()
