"""Charts as inline SVG: lines and areas over time, columns, dots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sink.report.markup import Html, join, tag
from sink.report.plot import LABEL, PAD, plot, points, scale, stretched

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_COLUMNS = 8  # that there is room for at least
_LETTER = 1.6  # percent of a plot, about


@dataclass(frozen=True, slots=True)
class Line:
    """A line over time.

    Attributes:
        name: its label.
        colour: its class.
        points: where it is known, x in percent and y in its own units.
        bands: half the width of each point's interval, where there is one.
    """

    name: str
    colour: str
    points: Sequence[tuple[float, float]]
    bands: Sequence[float | None] = ()


def course(
    lines: Sequence[Line],
    *,
    words: Callable[[float], str],
    across: Sequence[str],
    summary: str,
    height: int = 150,
    zero: bool = False,
) -> Html:
    """Lines over time, each labelled at its end, with their intervals behind them."""
    values = [y for line in lines for _, y in line.points]
    for line in lines:
        for (_, y), half in zip(line.points, line.bands, strict=False):
            values += [y - half, y + half] if half is not None else []
    axis = scale(values, zero=zero)

    def up(value: float) -> float:
        return PAD + (height - 2 * PAD) * (1.0 - axis.at(value))

    shapes: list[Html] = []
    marks: list[Html] = []
    for line in lines:
        known = [
            (x, y, half)
            for (x, y), half in zip(line.points, line.bands, strict=False)
            if half is not None
        ]
        if len(known) > 1:
            edge = [(x, up(y + half)) for x, y, half in known]
            edge += [(x, up(y - half)) for x, y, half in reversed(known)]
            shapes.append(tag("polygon", points=points(edge), class_=f"band {line.colour}"))
        path = [(x, up(y)) for x, y in line.points]
        shapes.append(tag("polyline", points=points(path), class_=f"line {line.colour}"))
        for (x, y), half in zip(
            line.points, [*line.bands, *[None] * len(line.points)], strict=False
        ):
            spread = f" ± {words(half).lstrip('+')}" if half is not None else ""
            title = tag("title", f"{line.name}: {words(y)}{spread}")
            dot = {"cx": f"{x:.2f}%", "cy": up(y)}
            marks.append(
                tag(
                    "g",
                    tag("circle", r=9, class_="feel", **dot),
                    tag("circle", r=2.5, **dot),
                    title,
                    class_=f"dot {line.colour}",
                )
            )
    ends = [(line.name, line.colour, up(line.points[-1][1])) for line in lines if line.points]
    return plot(
        join(stretched(shapes, height), marks),
        upright=[(up(tick), words(tick)) for tick in axis.ticks],
        across=across,
        ends=ends if len(lines) > 1 else [],
        height=height,
        summary=summary,
    )


def areas(
    layers: Sequence[tuple[str, str]],
    steps: Sequence[tuple[float, Sequence[float]]],
    *,
    across: Sequence[str],
    summary: str,
    titles: Sequence[str] = (),
    height: int = 220,
) -> Html:
    """Shares of a whole over time, stacked.

    Args:
        layers: name and colour of each, from below.
        steps: x in percent and the share of each layer.
        across: what stands under the first, the middle and the last of the time.
        summary: what it shows, for those who cannot see it.
        titles: a tooltip for each step, if each is to have one.
        height: in pixels.
    """
    inner = height - 2 * PAD

    def up(value: float) -> float:
        return PAD + inner * (1.0 - value)

    if across and steps:
        steps = [(0.0, steps[0][1]), *steps, (100.0, steps[-1][1])]
    elif len(steps) == 1:
        steps = [(0.0, steps[0][1]), (100.0, steps[0][1])]
    below = [0.0] * len(steps)
    shapes, ends = [], []
    for number, (name, colour) in enumerate(layers):
        above = [floor + shares[number] for floor, (_, shares) in zip(below, steps, strict=True)]
        edge = [(x, up(y)) for (x, _), y in zip(steps, above, strict=True)]
        edge += [(x, up(y)) for (x, _), y in zip(reversed(steps), reversed(below), strict=True)]
        title = None if titles else tag("title", name)
        if any(shares[number] for _, shares in steps):
            shape = tag("polygon", title, points=points(edge), class_=f"area {colour}")
            shapes.append(shape)
            if steps[-1][1][number]:
                ends.append((name, colour, up((above[-1] + below[-1]) / 2)))
        below = above
    feelers = []
    width = 100.0 / max(len(titles), 1)
    for (x, _), title_text in zip(steps[1:-1], titles, strict=False):
        feelers.append(
            tag(
                "rect",
                tag("title", title_text),
                x=f"{x - width / 2:.2f}%",
                y=PAD,
                width=f"{width:.2f}%",
                height=inner,
                class_="feel",
            )
        )
    return plot(
        join(stretched(shapes, height), feelers),
        upright=[(up(v), f"{v:.0%}") for v in (0.0, 0.5, 1.0)] if across else [],
        across=across,
        ends=ends if across else [],
        height=height,
        summary=summary,
    )


def columns(
    bars: Sequence[tuple[str, float, str]],
    *,
    summary: str,
    across: Sequence[str] = (),
    height: int = 150,
) -> Html:
    """Columns side by side: label, height and tooltip of each.

    With `across`, these stand under the first, the middle and the last column, and the
    columns have no labels of their own.
    """
    top = max((value for _, value, _ in bars), default=0.0) or 1.0
    if not across:  # few columns as wide as the plot would be slabs
        bars = [*bars, *[("", 0.0, "")] * (_COLUMNS - len(bars))]
    width = 100.0 / max(len(bars), 1)
    space = 0.12 * width if across else min(0.3 * width, 4.0)
    inner = height - LABEL - PAD
    shapes = []
    for number, (label, value, title) in enumerate(bars):
        tall = max(inner * value / top, 1.0) if value else 0.0
        y = height - tall
        middle = f"{width * (number + 0.5):.2f}%"
        shapes.append(
            tag(
                "g",
                tag("title", title),
                tag(
                    "rect",
                    x=f"{width * number:.2f}%",
                    y=0,
                    width=f"{width:.2f}%",
                    height=height,
                    class_="feel",
                ),
                tag(
                    "rect",
                    x=f"{width * number + space / 2:.2f}%",
                    y=f"{y:.1f}",
                    width=f"{width - space:.2f}%",
                    height=f"{tall:.1f}",
                    class_="bar",
                ),
                None
                if across or not value
                else tag(
                    "text", label.split("\n")[-1], x=middle, y=f"{y - 4:.1f}", class_="mid small"
                ),
            )
        )
    names = across or [label.split("\n")[0] for label, _, _ in bars]
    return plot(
        join(shapes),
        upright=[],
        across=names,
        ends=[],
        height=height,
        summary=summary,
        centred=not across,
    )


def scatter(
    dots: Sequence[tuple[str, str, float, float, str]],
    *,
    across: Callable[[float], str],
    words: Callable[[float], str],
    summary: str,
    height: int = 240,
) -> Html:
    """Dots with their names beside them: name, colour, x, y and tooltip of each."""
    wide = scale([x for _, _, x, _, _ in dots], zero=True)
    tall = scale([y for _, _, _, y, _ in dots])

    def up(value: float) -> float:
        return PAD + (height - 2 * PAD) * (1.0 - tall.at(value))

    shapes: list[Html] = []
    taken: list[tuple[float, float, float]] = []
    for name, colour, x, y, title in dots:
        place = 100 * wide.at(x)
        width = _LETTER * (len(name) + 2)
        # to the right, where there is room
        right = place + width < 100.0  # noqa: PLR2004 - percent
        left = place if right else place - width
        height_ = _free(taken, left, left + width, up(y))
        taken.append((left, left + width, height_))
        middle = f"{place:.2f}%"
        side = {"dx": 9, "class_": "name"} if right else {"dx": -9, "class_": "name end"}
        shapes.append(
            tag(
                "g",
                tag("title", title),
                tag("circle", cx=middle, cy=up(y), r=12, class_="feel"),
                tag("circle", cx=middle, cy=up(y), r=5),
                tag("text", name, x=middle, y=height_ + 4, **side),
                class_=f"dot {colour}",
            )
        )
    marks = [across(wide.low), across((wide.low + wide.high) / 2), across(wide.high)]
    return plot(
        join(shapes),
        upright=[(up(tick), words(tick)) for tick in tall.ticks],
        across=marks,
        ends=[],
        height=height,
        summary=summary,
    )


def _free(
    taken: Sequence[tuple[float, float, float]], left: float, right: float, y: float
) -> float:
    """The height nearest to `y` at which a label covers none of others' (left, right, height)."""
    near = [y for low, high, y in taken if low < right and left < high]
    tries = sorted((y + n * LABEL / 2 for n in range(-12, 13)), key=lambda at: abs(at - y))
    return next((at for at in tries if all(abs(at - other) >= LABEL for other in near)), y)


def spark(values: Sequence[tuple[float, float]], colour: str = "ink", height: int = 22) -> Html:
    """A line without axes, as high as a line of text."""
    axis = scale([y for _, y in values])
    edge = [(x, 2 + (height - 4) * (1.0 - axis.at(y))) for x, y in values]
    line = tag("polyline", points=points(edge), class_=f"line {colour}")
    return tag("svg", stretched([line], height), class_="spark", height=height, aria_hidden="true")
