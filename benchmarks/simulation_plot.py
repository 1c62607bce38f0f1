"""Regret over time as a picture, one panel a scenario."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from simulation_worlds import FloatArray

_COLUMNS = 2
_HEADROOM = 1.1


def draw(
    path: Path, curves: Mapping[str, Mapping[str, FloatArray]], *, prompts: int, ours: str
) -> None:
    """Writes a PNG; the bands are a standard error wide to both sides.

    Args:
        curves: by scenario and contender, cumulative regret, `(seeds, points)`.
        prompts: how many there were.
        ours: the contender that is drawn thick.
    """
    figures = import_module("matplotlib.figure")
    colours = import_module("matplotlib").colormaps["tab20"].colors
    rows = -(-len(curves) // _COLUMNS)
    figure = figures.Figure(figsize=(12.0, 4.5 * rows), layout="constrained")
    panels = list(figure.subplots(rows, _COLUMNS, squeeze=False).flat)
    for panel, (scenario, by_name) in zip(panels, curves.items(), strict=False):
        for number, (name, curve) in enumerate(by_name.items()):
            x = np.linspace(0, prompts, curve.shape[1] + 1)[1:]
            mean = curve.mean(axis=0)
            thick = name == ours
            colour = "black" if thick else colours[number % len(colours)]
            panel.plot(x, mean, color=colour, lw=3.0 if thick else 1.4, label=name)
            if len(curve) > 1:
                error = curve.std(axis=0, ddof=1) / len(curve) ** 0.5
                panel.fill_between(x, mean - error, mean + error, color=colour, alpha=0.12, lw=0)
        # the worst may leave the picture, so that the others can be told apart
        ends = sorted(float(curve[:, -1].mean()) for curve in by_name.values())
        panel.set(
            title=scenario,
            xlabel="prompts",
            ylabel="cumulative expected regret, in ranks",
            xlim=(0.0, prompts),
            ylim=(0.0, _HEADROOM * ends[max(len(ends) - 2, 0)]),
        )
        panel.grid(alpha=0.3)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False
    )
    figure.suptitle("Regret of learning whom to ask (semi-synthetic: measured ranks plus noise)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
