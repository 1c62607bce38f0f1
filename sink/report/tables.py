"""Tables that are pictures: bars and intervals in rows, and heat maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sink.report.markup import Html, join, tag

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sink.report.plot import Scale

STEPS = 8
"""Shades of a heat map, to either side of none."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a chart in rows.

    Attributes:
        name, colour: what it is of, and the colour's class.
        picture: an SVG that is stretched to its column.
        figure: what stands at the right.
        title: its tooltip.
    """

    name: str | Html
    colour: str
    picture: Html
    figure: str
    title: str


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a heat map.

    Attributes:
        text: what stands in it.
        shade: from -1 to 1, or from 0 on; None for a cell without a value.
        title: its tooltip.
        link: where it leads.
        strong: whether it is the one to see in its row.
    """

    text: str
    shade: float | None
    title: str
    link: str | None = None
    strong: bool = False


def rows(lines: Sequence[Row], *, axis: Html | None = None, summary: str) -> Html:
    """Lines one under another: a name, a picture, a figure."""
    body = [
        tag(
            "tr",
            tag("th", chip(line.colour), line.name, scope="row"),
            tag("td", line.picture, class_="picture"),
            tag("td", line.figure, class_="figure"),
            title=line.title,
        )
        for line in lines
    ]
    foot = tag("tfoot", tag("tr", tag("td"), tag("td", axis, class_="picture"), tag("td")))
    return tag(
        "table",
        tag("caption", summary, class_="unseen"),
        tag("tbody", body),
        foot if axis else None,
        class_="rows",
    )


def chip(colour: str) -> Html:
    """The colour of a teacher, before its name."""
    return tag("span", class_=f"chip {colour}", aria_hidden="true")


def bar(value: float, colour: str) -> Html:
    """A bar: the share of its column that it fills."""
    return _picture(
        tag("rect", width=f"{100 * value:.2f}%", height=14, y=4, rx=2, class_=f"fill {colour}")
    )


def stack(parts: Sequence[tuple[str, float, str]], *, height: int = 14) -> Html:
    """Shares side by side: colour, share and tooltip of each."""
    shapes, left = [], 0.0
    for colour, value, title in parts:
        shapes.append(
            tag(
                "rect",
                tag("title", title),
                x=f"{100 * left:.2f}%",
                width=f"{100 * value:.2f}%",
                height=height,
                class_=f"fill {colour}",
            )
        )
        left += value
    return tag("svg", shapes, height=height, class_="stack", aria_hidden="true")


def whisker(axis: Scale, mean: float, within: float | None, colour: str) -> Html:
    """A mean and its interval."""
    middle = f"{100 * axis.at(mean):.2f}%"
    ends = [f"{100 * axis.at(mean + sign * (within or 0.0)):.2f}%" for sign in (-1, 1)]
    return _picture(
        _grid(axis),
        tag("line", x1=ends[0], x2=ends[1], y1=11, y2=11, class_=f"interval {colour}")
        if within
        else None,
        tag("circle", cx=middle, cy=11, r=4.5, class_=f"fill {colour}"),
    )


def span(axis: Scale, low: float, middle: float, high: float, colour: str) -> Html:
    """From where to where most of something lies, and its median."""
    first, last = 100 * axis.at(low), 100 * axis.at(high)
    return _picture(
        _grid(axis),
        tag(
            "rect",
            x=f"{first:.2f}%",
            width=f"{last - first:.2f}%",
            y=7,
            height=8,
            rx=4,
            class_=f"fill soft {colour}",
        ),
        tag("circle", cx=f"{100 * axis.at(middle):.2f}%", cy=11, r=4.5, class_=f"fill {colour}"),
    )


def ticks(axis: Scale, words: Callable[[float], str]) -> Html:
    """What the axis of a chart in rows says."""
    most = len(axis.ticks) - 1
    return tag(
        "svg",
        [
            tag(
                "text",
                words(tick),
                x=f"{100 * axis.at(tick):.2f}%",
                y=12,
                class_="end" if n == most else "mid" if n else None,
            )
            for n, tick in enumerate(axis.ticks)
            # every second one where there are many
            if most < 3 or n % 2 == 0  # noqa: PLR2004
        ],
        height=16,
        class_="axis",
        aria_hidden="true",
    )


def heat(
    names: Sequence[tuple[str | Html, Sequence[Cell]]],
    columns: Sequence[tuple[str, str]],
    *,
    corner: str,
    summary: str,
) -> Html:
    """A heat map: a row each with its cells, under columns with a name and a colour."""
    head = tag(
        "tr",
        tag("th", corner, scope="col"),
        [
            tag("th", tag("span", chip(colour) if colour else None, name), scope="col", title=name)
            for name, colour in columns
        ],
    )
    body = [
        tag("tr", tag("th", name, scope="row"), [_cell(cell) for cell in cells])
        for name, cells in names
    ]
    table = tag(
        "table",
        tag("caption", summary, class_="unseen"),
        tag("thead", head),
        tag("tbody", body),
        class_="heat",
    )
    return tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=summary)


def _cell(cell: Cell) -> Html:
    if cell.shade is None:
        return tag("td", cell.text, title=cell.title or None, class_="void")
    shade = round(max(-1.0, min(cell.shade, 1.0)) * STEPS)
    name = f"m{-shade}" if shade < 0 else f"p{shade}"
    inner = tag("a", cell.text, href=cell.link) if cell.link else cell.text
    return tag("td", inner, title=cell.title, class_=f"{name} strong" if cell.strong else name)


def _grid(axis: Scale) -> Html:
    places = [f"{100 * axis.at(tick):.2f}%" for tick in axis.ticks]
    return join(tag("line", x1=x, x2=x, y1=0, y2=22, class_="grid") for x in places)


def _picture(*shapes: Html | None) -> Html:
    return tag("svg", *shapes, height=22, aria_hidden="true")
