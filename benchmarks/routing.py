"""Measure what routing by the prompt alone is worth, on prompts that seven teachers answered.

Real prompts in Chinese and English with the reward of every teacher (routerdc_*.jsonl.gz): policies
learn on the train file, prompt by prompt, and choose on the test file. Nothing is tuned there; with
--folds all is done within the train file instead, which is what settings were chosen by.

Three tables: one choice a prompt, one wave of two or three side by side, and waves that see the
rewards of those before. Intervals are 95 % bootstrap intervals over prompts. What is chosen in
hindsight on the very prompts it is measured on is nobody's result, but a ceiling: all that could be
won by telling the datasets apart.

    python benchmarks/routing.py                        # two minutes
    python benchmarks/routing.py --folds 5              # on the train file alone
    python benchmarks/routing.py --plot docs/images     # also draws the frontier
"""

import argparse
import gzip
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from turns import where

import router
from arbitrage import config, ports
from arbitrage.types import Candidate, Completion, Context, Score
from router.features import HashedNgrams

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
BOOTSTRAPS = 2000
LEAST_GAINS = (
    0.4, 0.3, 0.25, 0.2, 0.16, 0.13, 0.1, 0.08, 0.065, 0.05, 0.04, 0.03, 0.02, 0.012, 0.006, 0.003,
)  # fmt: skip
SHARES = (0.35, 0.46, 0.56)
GOALS = (0.95, 0.985, 0.997)
REFERENCE = (0.937, 0.975, 0.991)

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Log:
    """Prompts, and what every teacher got for its answer: `rewards` is `(prompts, teachers)`."""

    arms: Sequence[str]
    contexts: Sequence[Context]
    datasets: npt.NDArray[np.str_]
    rewards: Array

    def part(self, rows: npt.NDArray[np.intp]) -> "Log":
        """Some of the prompts."""
        contexts = [self.contexts[row] for row in rows]
        return Log(self.arms, contexts, self.datasets[rows], self.rewards[rows])

    def candidates(self, row: int, arms: Sequence[str]) -> list[Candidate]:
        """What these teachers answered to a prompt."""
        rewards = [float(self.rewards[row, self.arms.index(arm)]) for arm in arms]
        return [
            Candidate(arm, Completion("."), score=Score(reward, {}))
            for arm, reward in zip(arms, rewards, strict=True)
        ]


def read(name: str, folder: Path) -> Log:
    """One of the two files."""
    with gzip.open(folder / f"routerdc_{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    arms = sorted(rows[0]["rewards"])
    encoder = HashedNgrams()
    return Log(
        arms,
        [Context(row["language"], None, encoder.of(row["prompt"])) for row in rows],
        np.array([row["dataset"] for row in rows]),
        np.array([[row["rewards"][arm] for arm in arms] for row in rows]),
    )


def splits(folder: Path, folds: int) -> Iterator[tuple[Log, Log]]:
    """What is learned from, and what is chosen on."""
    train = read("train", folder)
    if not folds:
        yield train, read("test", folder)
        return
    order = np.random.default_rng(0).permutation(len(train.contexts))
    for fold in range(folds):
        held_out = order[fold::folds]
        yield train.part(np.setdiff1d(order, held_out)), train.part(held_out)


def learned(kind: Any, log: Log, **settings: Any) -> ports.Policy:
    """A policy that has seen every prompt of a log with the rewards of all teachers."""
    policy = router.build(_settings(kind, **settings))
    order = np.random.default_rng(1).permutation(len(log.contexts)).tolist()
    for row in order:
        policy.update(log.contexts[row], log.candidates(row, log.arms))
    return policy


def like(policy: ports.Policy, **settings: Any) -> ports.Policy:
    """One that knows the same, with other settings."""
    other = router.build(_settings(policy.kind, **settings))
    other.restore(policy.state())
    return other


def _settings(kind: Any, **settings: Any) -> config.Policy:
    settings = {"audit_rate": 0.0, "newcomer_share": 0.0, "fan_out": 1, **settings}
    return config.Policy(kind=kind, **settings)


def asked(policy: ports.Policy, log: Log) -> tuple[Array, Array]:
    """The best reward of those asked and their number, `(prompts,)` each, wave by wave."""
    best, calls = np.zeros(len(log.contexts)), np.zeros(len(log.contexts))
    for row, context in enumerate(log.contexts):
        seen: list[Candidate] = []
        for wave in itertools.count():
            left = [arm for arm in log.arms if arm not in {c.teacher for c in seen}]
            decision = policy.select(context, left, seen, wave=wave) if left else None
            if decision is None:
                break
            seen += log.candidates(row, decision.arms)
        best[row] = max(c.reward or 0.0 for c in seen)
        calls[row] = len(seen)
    return best, calls


def best_sets(train: Log, test: Log, size: int, by: Callable[[Log], npt.NDArray[np.str_]]) -> Array:
    """The best reward of the set of teachers that was best on average for each label."""
    sets = [list(chosen) for chosen in itertools.combinations(range(len(train.arms)), size)]
    best = np.zeros(len(test.contexts))
    for label in np.unique(by(test)):
        known, here = by(train) == label, by(test) == label
        means = [train.rewards[known][:, chosen].max(axis=1).mean() for chosen in sets]
        best[here] = test.rewards[here][:, sets[int(np.argmax(means))]].max(axis=1)
    return best


def interval(values: Array, rng: np.random.Generator) -> tuple[float, float]:
    """The bootstrap interval of a mean."""
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(BOOTSTRAPS)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def told(name: str, values: Array, against: Array | None = None) -> str:
    """A line of a table."""
    rng = np.random.default_rng(0)
    line = f"{name:44} {values.mean():.4f}  {_range(interval(values, rng))}"
    if against is None:
        return line
    return f"{line}  {(values - against).mean():+.4f} {_range(interval(values - against, rng))}"


def _range(ends: tuple[float, float]) -> str:
    return f"({ends[0]:+.4f} to {ends[1]:+.4f})"


def _everything(log: Log) -> npt.NDArray[np.str_]:
    return np.full(len(log.contexts), "all")


def _language(log: Log) -> npt.NDArray[np.str_]:
    return np.array([context.language for context in log.contexts])


def _dataset(log: Log) -> npt.NDArray[np.str_]:
    return log.datasets


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--folds", type=int, default=0, help="cross-validate on the train file")
    parser.add_argument("--plot", type=Path, help="a folder for the drawing")
    options = parser.parse_args()
    if not (options.data / "routerdc_train.jsonl.gz").is_file():
        print(f"skipped: {options.data} has no routerdc_train.jsonl.gz")
        return
    print(where())
    rows: dict[str, list[Array]] = {}
    for train, test in splits(options.data, options.folds):
        for name, values in _figures(train, test):
            rows.setdefault(name, []).append(values)
    table = {name: np.concatenate(parts) for name, parts in rows.items()}
    on = f"{options.folds} folds of the train file" if options.folds else "the test file"
    _print_choices(table, on)
    _print_frontier(table, options.plot)


def _figures(train: Log, test: Log) -> Iterator[tuple[str, Array]]:
    """Everything that is measured on one split, `(prompts,)` each."""
    everyone = test.rewards
    yield "1 random", everyone.mean(axis=1)
    yield "1 best single", best_sets(train, test, 1, _everything)
    yield "1 best single per language", best_sets(train, test, 1, _language)
    yield "1 best single per dataset", best_sets(train, test, 1, _dataset)
    yield "1 best single per dataset, in hindsight", best_sets(test, test, 1, _dataset)
    yield "all", everyone.max(axis=1)
    for kind, settings in (
        ("linucb", {"confidence": 0.0}),
        ("softmax", {"temperature": 0.01}),
        ("knn", {}),
    ):
        yield f"1 {kind}", asked(learned(kind, train, **settings), test)[0]
    pandora = learned("pandora", train)
    yield "1 pandora", asked(pandora, test)[0]
    for size in (2, 3):
        yield f"{size} best set", best_sets(train, test, size, _everything)
        yield f"{size} best set per dataset", best_sets(train, test, size, _dataset)
        yield f"{size} best set per dataset, in hindsight", best_sets(test, test, size, _dataset)
        yield f"{size} pandora", asked(like(pandora, fan_out=size), test)[0]
    count = len(test.arms)
    for gain in LEAST_GAINS:
        waves = config.FanOut(min=1, max=count, waves=count, least_gain=gain)
        best, calls = asked(like(pandora, fan_out=waves), test)
        yield f"waves {gain} best", best
        yield f"waves {gain} calls", calls / count


def _print_choices(table: dict[str, Array], on: str) -> None:
    for size, title in (("1", "one choice"), ("2", "one wave of two"), ("3", "one wave of three")):
        against = table[f"{size} best s{'ingle' if size == '1' else 'et'} per dataset"]
        print(f"\n{title}, {on}: mean reward, and what it is above the best per dataset")
        for name, values in table.items():
            if name.startswith(f"{size} "):
                print(told(name[2:], values, against))
    print(told("best of all (oracle)", table["all"]))


def _print_frontier(table: dict[str, Array], plot: Path | None) -> None:
    ceiling = table["all"]
    calls = np.array([table[f"waves {gain} calls"] for gain in LEAST_GAINS])
    best = np.array([table[f"waves {gain} best"] for gain in LEAST_GAINS])
    print("\nwaves, the rewards seen after each: share of the calls, share of the best's reward")
    for gain, share, reward in zip(LEAST_GAINS, calls, best, strict=True):
        of = 100.0 * reward.mean() / ceiling.mean()
        print(f"least_gain {gain:<6} {100.0 * share.mean():5.1f} %  {of:6.2f} %")
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(ceiling), size=len(ceiling)) for _ in range(BOOTSTRAPS // 4)]
    for share, goal in zip(SHARES, GOALS, strict=True):
        at = [_at(share, calls[:, i], best[:, i], ceiling[i]) for i in draws]
        low, high = np.percentile(at, [2.5, 97.5])
        value = _at(share, calls, best, ceiling)
        print(
            f"at {100 * share:.0f} % of the calls {100 * value:.2f} % "
            f"({100 * low:.2f} to {100 * high:.2f}), goal {100 * goal:.1f} %"
        )
    if plot:
        _draw(plot, calls.mean(axis=1), best.mean(axis=1) / ceiling.mean(), table)


def _at(share: float, calls: Array, best: Array, ceiling: Array) -> float:
    """The share of the ceiling at a share of the calls, between the settings measured."""
    rewards = best.mean(axis=1) / ceiling.mean()
    return float(np.interp(share, calls.mean(axis=1), rewards))


def _draw(folder: Path, calls: Array, rewards: Array, table: dict[str, Array]) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - an extra of the benchmarks

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415 - as above

    figure, axes = plt.subplots(figsize=(7.0, 4.5), layout="constrained")
    axes.plot(100 * calls, 100 * rewards, "o-", label="pandora, in waves")
    ceiling = table["all"].mean()
    for size in (1, 2, 3):
        share = 100.0 * size / 7.0
        for name, mark in (("pandora", "s"), (f"best s{'ingle' if size == 1 else 'et'}", "x")):
            value = 100 * table[f"{size} {name}"].mean() / ceiling
            label = {"pandora": "pandora, one wave"}.get(name, "the same teachers for all")
            axes.plot(share, value, mark, color="k", label=label if size == 1 else None)
    shares = [100 * share for share in SHARES]
    axes.plot(shares, [100 * goal for goal in GOALS], "*", ms=11, label="goal")
    axes.plot(shares, [100 * reward for reward in REFERENCE], "v", label="ridge, threshold")
    axes.set(
        xlabel="calls, % of asking all seven teachers",
        ylabel="reward, % of the best of all seven",
        title="RouterDC: what further calls bring",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "routing.png", dpi=110)
    print(f"drawn in {folder / 'routing.png'}")


if __name__ == "__main__":
    main()
