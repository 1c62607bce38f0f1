"""Measure how far off-policy evaluation is off, on logs whose truth is known.

Real prompts with the reward of every teacher (routerdc_train.jsonl.gz) become logs: two of seven
teachers are asked at random, everybody on 5 % of the prompts, and the rest of the rewards is
forgotten. A target's true value is its shares times all rewards. Each log draws and orders anew.

Per target and estimator: mean and root mean square error, the mean of the standard errors that it
told, how often its 95 % interval held the truth, and by how many of its standard errors it said
itself that it was off on the audits (rms; 1 is honest). The last line of each is the audits alone.

    python benchmarks/off_policy.py                # five minutes
    python benchmarks/off_policy.py --logs 2
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from routing import DATA, Log, read
from turns import where

import router
from arbitrage import config
from arbitrage.types import Decision, Prompt, Sample
from router.lottery import Audited, Uniform
from router.offpolicy.prompt_types import PromptTypes
from router.offpolicy.trial import Replay
from router.offpolicy.valuation import TARGET, Valuation, evaluate

FAN_OUT, AUDIT_RATE = 2, 0.05
BLIND = config.Features(kind="none")
TARGETS = (
    config.Policy(kind="random", features=BLIND),
    config.Policy(
        kind="fixed",
        features=BLIND,
        experts={"default": ("cognitivecomputations/dolphin-2.9-llama3-8b",)},
    ),
    config.Policy(
        kind="fixed", features=BLIND, experts={"default": ("mistralai/Mistral-7B-v0.1",)}
    ),
    config.Policy(kind="thompson"),
    config.Policy(kind="linucb"),
)
ALONE = "audits alone"


def main() -> None:
    """Prints a table for each target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--logs", type=int, default=10, help="for each target")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of routerdc_train.jsonl.gz")
    options = parser.parse_args()
    if not options.data.is_dir():
        print(f"skipped: {options.data} is missing, and what is there is not ours to ship")
        return
    print(where())
    everything = read("train", options.data)
    for target in TARGETS:
        _measure(target, everything, options.logs)


def _measure(target: config.Policy, everything: Log, logs: int) -> None:
    errors: defaultdict[str, list[tuple[float, float, bool, float]]] = defaultdict(list)
    truths, effective = [], []
    for seed in range(logs):
        truth, told = _evaluated(target, everything, seed)
        truths.append(truth)
        effective.append(told.effective or 0.0)
        figures = {name: answer.figure for name, answer in told.answers.items()}
        for name, figure in {**figures, ALONE: told.audited[TARGET]}.items():
            if figure is None:
                continue
            off = told.answers[name].off if name != ALONE else None
            errors[name].append(
                (
                    figure.value - truth,
                    figure.standard_error,
                    figure.low <= truth <= figure.high,
                    off.value / off.standard_error if off else np.nan,
                )
            )
    expert = "".join(name for names in target.experts.values() for name in names)
    print(
        f"\n{target.kind} {expert} | true value {np.mean(truths):.4f} | {logs} logs of "
        f"{len(everything.contexts)} prompts | {np.mean(effective):.0f} effective"
    )
    for name, rows in errors.items():
        error, standard_error, held, off = np.array(rows, dtype=np.float64).T
        print(
            f"{name:13} | mean error {error.mean():+.4f} | rms {_rms(error):.4f} | told "
            f"{standard_error.mean():.4f} | held {100.0 * held.mean():3.0f} % of {len(rows)}"
            + (f" | off on audits {_rms(off):.2f} SE" if name != ALONE else "")
        )


def _evaluated(target: config.Policy, everything: Log, seed: int) -> tuple[float, Valuation]:
    """The target's true value on one log, and what the log tells."""
    settings = replace(target, fan_out=1, audit_rate=0.0, seed=seed)
    arms = everything.arms
    types = PromptTypes(settings.features.dimensions, settings.features.types)
    course = Replay(router.build(settings), arms, lambda _: arms, types=types)
    order = np.random.default_rng((0, seed)).permutation(len(everything.contexts))
    sees = settings.features.kind != "none"
    for row, sample in zip(order, _logged(everything, order, seed), strict=True):
        course.add(sample, everything.contexts[row].features if sees else None)
    trial = course.trial()
    truth = (trial.shares * everything.rewards[order]).sum(axis=1).mean()
    return float(truth), evaluate(trial, seed=seed)


def _logged(everything: Log, order: np.typing.NDArray[np.intp], seed: int) -> Iterator[Sample]:
    rng = np.random.default_rng((1, seed))
    lottery = Audited(Uniform(len(everything.arms), FAN_OUT), AUDIT_RATE)
    for number, row in enumerate(order.tolist()):
        chosen = lottery.draw(rng)
        asked = tuple(everything.arms[arm] for arm in chosen)
        propensities = tuple(lottery.inclusion(chosen).tolist())
        yield Sample.of(
            Prompt.of(".", prompt_id=str(row), language=everything.contexts[row].language),
            Decision("random", number, asked, propensities, (0,) * len(asked)),
            everything.candidates(row, asked),
            job="benchmark",
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        )


def _rms(values: np.typing.NDArray[np.float64]) -> float:
    return float(np.sqrt((values**2).mean()))


if __name__ == "__main__":
    main()
