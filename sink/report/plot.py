"""The frame of a chart: its plot between axes and labels, which stay as they are drawn.

Across, everything is in percent of the plot, which stretches with the page; upright,
in pixels. Axes and labels stand beside the plot, in pictures of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from sink.report.markup import Html, tag

if TYPE_CHECKING:
    from collections.abc import Sequence

PAD = 8
"""Pixels above and below a plot."""
LABEL = 14
"""Pixels that a label needs."""
_WIDE = 7.0  # pixels of a character


@dataclass(frozen=True, slots=True)
class Scale:
    """Where a value lies between two ends: 0 at the first, 1 at the second."""

    low: float
    high: float
    ticks: Sequence[float]

    def at(self, value: float) -> float:
        """The place of a value; what lies outside is put at the end."""
        return min(max((value - self.low) / ((self.high - self.low) or 1.0), 0.0), 1.0)


def scale(values: Sequence[float], *, zero: bool = False, ticks: int = 4) -> Scale:
    """A scale with round ends that holds all values.

    >>> scale([0.3, 2.1]).ticks
    [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    >>> scale([5.0]).ticks, scale([]).ticks
    ([4.0, 4.5, 5.0, 5.5, 6.0], [0.0, 1.0])
    """
    if not values:
        return Scale(0.0, 1.0, [0.0, 1.0])
    low, high = min(values), max(values)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        spread = abs(high) / 5 or 1.0
        low, high = low - (0.0 if zero and high > 0 else spread), high + spread
    rough = (high - low) / ticks
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * m for m in (1, 2, 2.5, 5, 10) if size * m >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    marks = [round(n * step, 12) for n in range(first, last + 1)]
    return Scale(marks[0], marks[-1], marks)


def stretched(shapes: Sequence[Html], height: int) -> Html:
    """Shapes whose x are percent: stretched to the plot, but not their lines."""
    return tag(
        "svg",
        shapes,
        viewBox=f"0 0 100 {height}",
        preserveAspectRatio="none",
        width="100%",
        height=height,
    )


def plot(
    inner: Html,
    *,
    upright: Sequence[tuple[float, str]],
    across: Sequence[str],
    ends: Sequence[tuple[str, str, float]],
    height: int,
    summary: str,
    centred: bool = False,
) -> Html:
    """A plot between its axes, with labels at the right ends of its lines."""
    gutter = max((len(text) for _, text in upright), default=-1) * _WIDE + 7
    grid = [tag("line", x1="0", x2="100%", y1=y, y2=y, class_="grid") for y, _ in upright]
    left = tag(
        "svg",
        [tag("text", text, x=gutter - 6, y=y + 4, class_="end") for y, text in upright],
        width=gutter,
        height=height,
        class_="upright",
    )
    widest = max((len(name) for name, _, _ in ends), default=0)
    places = apart([(n, y) for n, (_, _, y) in enumerate(ends)], height)
    right = tag(
        "svg",
        [
            tag("text", tag("tspan", "■ ", class_=f"key {colour}"), name, x=6, y=places[n] + 4)
            for n, (name, colour, _) in enumerate(ends)
        ],
        width=min(widest, 24) * _WIDE + 24 if ends else 4,
        height=height,
        class_="ends",
    )
    count = max(len(across), 1)
    places_across = [(n + 0.5) / count if centred else n / max(count - 1, 1) for n in range(count)]
    anchors = ["mid"] * count if centred else ["", *["mid"] * (count - 2), "end"]
    under = tag(
        "svg",
        [
            tag("text", text, x=f"{100 * place:.2f}%", y=13, class_=anchor or None)
            for text, place, anchor in zip(across, places_across, anchors, strict=False)
        ],
        height=18,
        class_="under",
    )
    return tag(
        "div",
        left,
        tag("svg", grid, inner, height=height, class_="area-of-plot"),
        right,
        under if across else None,
        class_="plot",
        role="img",
        aria_label=summary,
    )


def apart(places: Sequence[tuple[int, float]], height: int) -> dict[int, float]:
    """Moves labels up and down until none covers another, as long as there is room."""
    order = sorted(places, key=lambda place: place[1])
    moved = [y for _, y in order]
    for _ in range(60):
        for n, (upper, lower) in enumerate(pairwise(moved)):
            if (overlap := LABEL - (lower - upper)) > 0.0:
                moved[n] -= overlap / 2
                moved[n + 1] += overlap / 2
        moved = [min(max(y, 6.0), height - 6.0) for y in moved]
    return {number: round(y, 1) for (number, _), y in zip(order, moved, strict=True)}


def points(points: Sequence[tuple[float, float]]) -> str:
    """The points of a line or an area, as SVG writes them."""
    return " ".join(f"{x:.4g},{y:.1f}" for x, y in points)
