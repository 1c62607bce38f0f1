"""Does the pacer hold a budget, and what does that cost in quality?

    python benchmarks/pacing.py [--prompts 10000] [--runs 10]

Six arms whose prices span two orders of magnitude, dearer ones mostly better, in ten languages
with prices and tastes of their own. Each prompt goes to the arm with the largest known quality
minus price times learned cost (`router.experience.costs`, after one call of each in each language).
Scenarios: `stationary`; `tripled`, where all prices triple half way; `heavy`, where a call's cost
is lognormal with a coefficient of variation of 2 instead of 0.6; `delayed`, with 256 prompts in
flight, returning in any order. A line for each tells how far spending was from the budget to date,
in percent, as the mean of absolute values over runs (and the largest), after 1,000 and 5,000
prompts and at the end. Then, in spreads, a prompt's quality minus that of the best fixed price in
hindsight, which knows all prompts and spends the same budget, and minus that of the best single
arm that fits the budget, each with its standard error over runs.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from turns import where

from arbitrage.types import Candidate, Completion
from router.experience.costs import Costs
from router.pacer import Pacer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from router.arrays import FloatArray, IntArray

LANGUAGES, ARMS = 10, 6
NAMES = [f"arm-{number}" for number in range(ARMS)]
DEAREST = 100.0  # in prices of the cheapest arm
TASTE, DOMAIN = 0.5, 0.3  # spreads that a language, and a prompt, move an arm's quality
TIGHTNESS = 0.3  # of the way from the cheapest spending to the free one, in logarithms
MARKS = (1_000, 5_000)
BISECTIONS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What the pacer has to cope with.

    Attributes:
        variation: of a call's cost, in its mean.
        rise: factor by which all prices rise half way.
        in_flight: prompts that are decided before the first of them is charged.
    """

    variation: float = 0.6
    rise: float = 1.0
    in_flight: int = 0


SCENARIOS: Mapping[str, Scenario] = {
    "stationary": Scenario(),
    "tripled": Scenario(rise=3.0),
    "heavy": Scenario(variation=2.0),
    "delayed": Scenario(in_flight=256),
}


@dataclass(frozen=True, slots=True)
class Job:
    """Prompts, what each arm would cost and be worth, and the budget.

    Attributes:
        languages: `(prompts,)`.
        costs: expected US dollars, `(prompts, arms)`.
        qualities: `(prompts, arms)`, in spreads.
        luck: factor of each call's cost, `(prompts,)`, 1 on average.
        target: US dollars a prompt.
    """

    languages: IntArray
    costs: FloatArray
    qualities: FloatArray
    luck: FloatArray
    target: float

    def at(self, price: float) -> tuple[float, float]:
        """Dollars and quality a prompt at a fixed price, which knows expected costs."""
        rows = np.arange(len(self.languages))
        chosen = (self.qualities - price * self.costs).argmax(axis=1)
        usd = self.costs[rows, chosen] * self.luck
        return float(usd.mean()), float(self.qualities[rows, chosen].mean())

    def best_fixed(self) -> float:
        """Quality a prompt at the lowest fixed price that keeps to the budget."""
        low, high = 1e-3 / self.target, 1e6 / self.target
        for _ in range(BISECTIONS):
            middle = float(np.sqrt(low * high))
            low, high = (middle, high) if self.at(middle)[0] > self.target else (low, middle)
        return self.at(high)[1]

    def best_single(self) -> float:
        """Quality a prompt of the best arm that keeps to the budget on its own."""
        usd = (self.costs * self.luck[:, None]).mean(axis=0)
        return float(self.qualities.mean(axis=0)[usd <= self.target].max())


def job(scenario: Scenario, prompts: int, rng: np.random.Generator) -> Job:
    """Makes a job of random languages and arms whose budget binds."""
    prices = 1e-4 * DEAREST ** np.linspace(0.0, 1.0, ARMS)
    factors = rng.lognormal(0.0, 0.5, (LANGUAGES, 1)) * rng.lognormal(0.0, 0.1, (LANGUAGES, ARMS))
    merits = np.linspace(0.0, 1.6, ARMS) + rng.normal(0.0, TASTE, (LANGUAGES, ARMS))
    languages = rng.choice(LANGUAGES, prompts, p=rng.dirichlet(np.full(LANGUAGES, 2.0)))
    rises = np.where(np.arange(prompts) < prompts // 2, 1.0, scenario.rise)
    sd = np.sqrt(np.log1p(scenario.variation**2))
    made = Job(
        languages,
        (prices * factors)[languages] * rises[:, None],
        merits[languages] + rng.normal(0.0, DOMAIN, (prompts, ARMS)),
        rng.lognormal(-sd * sd / 2.0, sd, prompts),
        target=1.0,
    )
    least, most = made.at(1e9)[0], made.at(0.0)[0]
    target = least ** (1.0 - TIGHTNESS) * most**TIGHTNESS
    return Job(made.languages, made.costs, made.qualities, made.luck, target)


def paced(work: Job, in_flight: int, rng: np.random.Generator) -> tuple[FloatArray, float]:
    """Does a job under a pacer.

    Returns:
        What each prompt has cost, `(prompts,)`, and the mean quality.
    """
    prompts = len(work.languages)
    pacer, costs = Pacer(work.target, prompts), Costs()
    for number in range(LANGUAGES):
        first = work.costs[np.flatnonzero(work.languages == number)[0]]
        costs.learn(str(number), [_call(arm, usd) for arm, usd in enumerate(first)])
    spent, quality = np.zeros(prompts), 0.0
    flying: list[tuple[str, int, float]] = []
    for number in range(prompts):
        if len(flying) > in_flight:
            language, arm, usd = flying.pop(int(rng.integers(len(flying))))
            pacer.charge(usd, expected=costs.usd(language, NAMES[arm : arm + 1])[0])
            costs.learn(language, [_call(arm, usd)])
        language = str(work.languages[number])
        expected = costs.usd(language, NAMES)
        arm = int((work.qualities[number] - pacer.price * expected).argmax())
        pacer.commit(expected[arm])
        spent[number] = work.costs[number, arm] * work.luck[number]
        quality += work.qualities[number, arm] / prompts
        flying.append((language, arm, spent[number]))
    return spent, quality


def _call(arm: int, usd: float) -> Candidate:
    return Candidate(NAMES[arm], Completion("."), cost_usd=float(usd))


def main() -> None:
    """Prints a line a scenario."""
    parser = argparse.ArgumentParser(description="Measure how well a budget is held.")
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=10)
    args = parser.parse_args()
    print(where())
    print(f"{args.prompts} prompts, {args.runs} runs")
    marks = [*(mark for mark in MARKS if mark < args.prompts), args.prompts]
    for name, scenario in SCENARIOS.items():
        errors, gaps, gains = [], [], []
        for seed in range(args.runs):
            rng = np.random.default_rng(seed)
            work = job(scenario, args.prompts, rng)
            spent, quality = paced(work, scenario.in_flight, rng)
            to_date = spent.cumsum() / (work.target * np.arange(1, args.prompts + 1))
            errors.append([100.0 * abs(to_date[mark - 1] - 1.0) for mark in marks])
            gaps.append(quality - work.best_fixed())
            gains.append(quality - work.best_single())
        mean, worst = np.mean(errors, axis=0), np.max(errors, axis=0)
        cells = [f"{mark}: {mean[i]:.2f} % (max {worst[i]:.2f})" for i, mark in enumerate(marks)]
        print(
            f"{name} | spending off at {', '.join(cells)}"
            f" | quality against the best fixed price {_interval(gaps)},"
            f" the best single arm {_interval(gains)}"
        )


def _interval(values: list[float]) -> str:
    return f"{np.mean(values):+.3f} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.3f}"


if __name__ == "__main__":
    main()
