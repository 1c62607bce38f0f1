"""How far a figure of a log may be from what it stands for: by drawing its prompts again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.arrays import FloatArray, IntArray

LOGS = 1_000
_LEVEL = 0.95
_ROOM = 4_000_000  # figures that are held at once


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its uncertainty.

    Attributes:
        value: of the log itself.
        low, high: the 95 % percentile interval over logs drawn from it.
        standard_error: standard deviation over them.
    """

    value: float
    low: float
    high: float
    standard_error: float


def figure(drawn: FloatArray) -> Figure | None:
    """From the figure of the log, followed by those of logs drawn from it; None if it is none.

    Of the drawn ones, those that are none do not count.
    """
    value, *_ = drawn.tolist()
    known = drawn[1:][np.isfinite(drawn[1:])]
    if not np.isfinite(value) or not len(known):
        return None
    tail = (1.0 - _LEVEL) / 2.0
    low, high = np.quantile(known, (tail, 1.0 - tail)).tolist()
    return Figure(value, low, high, float(known.std()))


def bootstrap(
    totals: Callable[[FloatArray], FloatArray],
    prompt: IntArray,
    *,
    seed: int,
    size: int = 1,
    logs: int = LOGS,
) -> FloatArray:
    """Totals of a log, and of logs made of its prompts drawn with replacement.

    Efron (1979), Annals of Statistics 7. What is drawn is a prompt: all its rows
    come together, so that one asked twice does not count as two.

    Args:
        totals: given how often each row counts in each of several logs, `(logs, rows)`,
            their totals, `(logs, figures)`.
        prompt: `(rows,)`, numbers of the prompts.
        seed: the same one draws the same logs, whatever is totalled.
        size: figures that `totals` itself holds for each log at once.
        logs: how many are drawn.

    Returns:
        `(1 + logs, figures)`, those of the log itself first.
    """
    rng = np.random.default_rng(seed)
    prompts = int(prompt.max()) + 1
    at_once = max(_ROOM // max(len(prompt), prompts, size), 1)
    found = [totals(np.ones((1, len(prompt))))]
    for start in range(0, logs, at_once):
        batch = min(at_once, logs - start)
        drawn = rng.integers(0, prompts, (batch, prompts)) + np.arange(batch)[:, None] * prompts
        times = np.bincount(drawn.ravel(), minlength=batch * prompts).reshape(batch, prompts)
        found.append(totals(times[:, prompt].astype(np.float64)))
    return np.concatenate(found)
