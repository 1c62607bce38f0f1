"""Measure what calibration takes out of scores, when its alarm sounds, and what it costs.

Lengths, languages and margins are those of judged pairs of real answers (preferences.jsonl.gz, six
languages). The scores are made of them: the judges' margin, a difficulty of each prompt, noise,
and the bias that is to be taken out again. Every pair is calibrated before it is learned from.

    python benchmarks/calibration.py             # under a minute: every table
    python benchmarks/calibration.py --seed 2
"""

import argparse
import gzip
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, quantiles, stdev
from time import perf_counter

import numpy as np

from arbitrage import config
from arbitrage.types import Candidate, Completion, Prompt, Score
from reward.calibrate import Calibrated
from reward.calibrate.drift import DriftAlarm

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
DIFFICULTY, NOISE = 3.0, 2.0
PASSES = 8
RAW = config.Calibration(by_length=False, per_language=False)
BY_LENGTH = config.Calibration(per_language=False)
PER_LANGUAGE = config.Calibration(by_length=False)
# where languages have their scores, and how wide: far apart on purpose
UNITS = {
    "de": (100.0, 20.0), "en": (0.0, 1.0), "fr": (-40.0, 5.0),
    "ja": (7.0, 0.5), "ru": (0.5, 0.1), "zh": (-3.0, 3.0),
}  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, the better one first, and by how much judges say so."""

    prompt: Prompt
    better: str
    worse: str
    margin: float


def pairs(folder: Path = DATA) -> list[Pair]:
    """The judged pairs of real answers."""
    with gzip.open(folder / "preferences.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [
        Pair(
            Prompt.of(row["prompt"], language=row["language"]),
            row["chosen"],
            row["rejected"],
            float(row["margin"]),
        )
        for row in rows
    ]


def scored(
    judged: Sequence[Pair],
    bias: Callable[[str, str], float],
    unit: Callable[[str], tuple[float, float]] = lambda _: (0.0, 1.0),
    *,
    seed: int = 0,
) -> Iterator[tuple[Prompt, list[Candidate]]]:
    """Each pair as two scored candidates, in an order drawn by lot.

    Args:
        bias: by language and text, on the judges' scale of ten points.
        unit: location and scale of a language's scores.
    """
    rng = np.random.default_rng(seed)
    for i in rng.permutation(len(judged)):
        pair = judged[i]
        location, scale = unit(pair.prompt.language)
        easy = DIFFICULTY * rng.standard_normal()
        candidates = []
        for text, sign in ((pair.better, 0.5), (pair.worse, -0.5)):
            value = easy + sign * pair.margin + NOISE * rng.standard_normal()
            value += bias(pair.prompt.language, text)
            score = Score(location + scale * value, {})
            candidates.append(Candidate("12"[sign < 0], Completion(text), score=score))
        yield pair.prompt, candidates


def log_length(points: float) -> Callable[[str, str], float]:
    """A bias of so many points for a text e times as long."""
    return lambda _, text: points * math.log1p(len(text))


def saturating(points: float) -> Callable[[str, str], float]:
    """The same up to 500 characters, and no more for longer texts."""
    return lambda _, text: points * math.log1p(min(len(text), 500))


def calibrated(
    settings: config.Calibration, stream: Iterator[tuple[Prompt, list[Candidate]]]
) -> Iterator[tuple[Prompt, list[Candidate]]]:
    """The candidates as they are rewarded when they come, before they are learned from."""
    calibration = Calibrated(settings)
    for prompt, candidates in stream:
        rewarded = calibration.calibrate(prompt, candidates)
        calibration.learn(prompt, rewarded)
        yield prompt, rewarded


def accuracy(stream: Iterator[tuple[Prompt, list[Candidate]]]) -> float:
    """Share of the pairs in which the better answer has the higher reward."""
    return fmean(rewards(pair)[0] > rewards(pair)[1] for _, pair in stream)


def rewards(candidates: Sequence[Candidate]) -> list[float]:
    """Of those that have one."""
    return [c.score.reward for c in candidates if c.score]


def by_length(judged: Sequence[Pair], seed: int) -> None:
    """Pairwise accuracy with the bias, calibrated, and as it would be without the bias."""
    print(f"length: share of {len(judged)} pairs ranked as the judges do")
    print("  bias, points per e-fold  form             biased  calibrated")
    for form, bias in {"log(length)": log_length, "flat from 500": saturating}.items():
        for points in (0.0, 0.5, 1.0, 2.0, 4.0, -2.0):
            before, after = (
                accuracy(calibrated(settings, scored(judged, bias(points), seed=seed)))
                for settings in (RAW, BY_LENGTH)
            )
            print(f"  {points:+23.1f}  {form:14} {before:8.1%} {after:11.1%}")


def per_language(judged: Sequence[Pair], seed: int) -> None:
    """Location and scale of each language before and after, over the second half."""
    print(f"languages: mean and pooled deviation within prompts, last half of {PASSES} passes")
    print("  language  pairs         raw mean  raw scale      mean  scale")
    stream = [*judged] * PASSES
    raw, after = (
        _by_language(calibrated(s, scored(stream, log_length(0.0), UNITS.__getitem__, seed=seed)))
        for s in (RAW, PER_LANGUAGE)
    )
    for language in sorted(raw):
        before, now = _spread(raw[language]), _spread(after[language])
        print(
            f"  {language:8} {len(raw[language]):6} {before[0]:16.2f} {before[1]:10.3f}"
            f" {now[0]:9.2f} {now[1]:6.2f}"
        )


def _by_language(
    stream: Iterator[tuple[Prompt, list[Candidate]]],
) -> dict[str, list[list[float]]]:
    found: defaultdict[str, list[list[float]]] = defaultdict(list)
    for prompt, candidates in stream:
        found[prompt.language].append(rewards(candidates))
    return found


def _spread(prompts: Sequence[Sequence[float]]) -> tuple[float, float]:
    late = np.array(prompts[len(prompts) // 2 :])
    return float(late.mean()), float(np.sqrt(late.var(axis=1, ddof=1).mean()))


def alarms(seed: int) -> None:
    """False alarms on stationary streams, and how long a shift goes unnoticed."""
    rng = np.random.default_rng(seed)
    draws: dict[str, Callable[[int], np.ndarray]] = {
        "normal": rng.standard_normal,
        "Student t, 5 degrees": lambda n: rng.standard_t(5, n),
        "0 or 1, one in ten": lambda n: rng.binomial(1, 0.1, n).astype(float),
    }
    streams, length = 100, 10_000
    print(f"alarm: false ones in {streams} stationary streams of {length} prompts")
    for name, draw in draws.items():
        false = sum(len(_alarms(draw(length))) for _ in range(streams))
        print(f"  {name:22} {false:4} in {streams * length:,} prompts")
    print("alarm: prompts until a shift is noticed (median, 95th percentile, share in 1000)")
    for before in (300, 1000, 5000):
        for size in (0.5, 1.0, 2.0):
            delays = []
            for _ in range(200):
                values = rng.standard_normal(before + 1000)
                values[before:] += size
                delays += [at - before for at in _alarms(values) if at >= before][:1]
            p95 = quantiles(delays, n=20)[-1]
            print(
                f"  {size} deviations after {before:4} prompts: {median(delays):5.0f} {p95:6.0f}"
                f" {len(delays) / 200:7.1%}"
            )


def _alarms(values: np.ndarray) -> list[int]:
    alarm = DriftAlarm()
    return [i for i, value in enumerate(values.tolist()) if alarm.learn(value)]


def cost(judged: Sequence[Pair], seed: int, prompts: int = 5000) -> None:
    """Microseconds for a prompt of four candidates, once languages are known."""
    stream = list(scored(judged, log_length(1.0), seed=seed))
    fours = [
        (prompt, [*pair, *other])
        for (prompt, pair), (_, other) in zip(stream[::2], stream[1::2], strict=False)
    ]
    calibration = Calibrated(config.Calibration())
    took: dict[str, list[float]] = {"calibrate": [], "learn": []}
    for n in range(2 * prompts):
        prompt, candidates = fours[n % len(fours)]
        begun = perf_counter()
        rewarded = calibration.calibrate(prompt, candidates)
        between = perf_counter()
        calibration.learn(prompt, rewarded)
        ended = perf_counter()
        if n >= prompts:
            took["calibrate"].append(between - begun)
            took["learn"].append(ended - between)
    print("cost: microseconds a prompt of 4 candidates (median, mean, deviation)")
    for name, seconds in took.items():
        micro = [1e6 * s for s in seconds]
        print(f"  {name:10} {median(micro):7.1f} {fmean(micro):7.1f} {stdev(micro):7.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    measured = pairs()
    by_length(measured, chosen.seed)
    per_language(measured, chosen.seed)
    alarms(chosen.seed)
    cost(measured, chosen.seed)
