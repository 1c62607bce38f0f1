"""What it took: calls, waves, money and time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sink.report import units
from sink.report.charts import columns, scatter
from sink.report.markup import Html, tag
from sink.report.plot import Scale
from sink.report.tables import Row, bar, rows, span, ticks

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping

    from sink.report.figures import Figures

_MARGIN_BARS = 30


def costs(figures: Figures, paint: Mapping[str, str]) -> Html:
    """What each teacher was paid, and what one of its calls costs."""
    parts = figures.everything.parts
    whole = figures.everything.cost_usd
    most = max((part.cost_usd for part in parts.values()), default=0.0) or 1.0
    lines = []
    for teacher in sorted(parts, key=lambda name: (-parts[name].cost_usd, name)):
        part = parts[teacher]
        each = part.cost_usd / part.asked if part.asked else None
        won = part.cost_usd / part.won if part.won else None
        lines.append(
            Row(
                teacher,
                paint[teacher],
                bar(part.cost_usd / most, paint[teacher]),
                f"{units.usd(part.cost_usd)} · {units.share(part.cost_usd, whole)}",
                f"{teacher}: {units.usd(each)} a call, {units.usd(won)} a sample won",
            )
        )
    return rows(lines, summary="What each teacher was paid, and its share of the whole")


def price_and_quality(figures: Figures, paint: Mapping[str, str]) -> Html | None:
    """Mean reward against the price of 1,000 calls; None where nothing costs anything."""
    dots = []
    for teacher in figures.teachers:
        part = figures.everything.parts[teacher]
        if not part.rewards.count or not part.asked:
            continue
        price = 1000 * part.cost_usd / part.asked
        mean = part.rewards.mean
        title = f"{teacher}: {units.usd(price)} per 1,000 calls, mean reward {units.reward(mean)}"
        dots.append((teacher, paint[teacher], price, mean, title))
    if not any(price for _, _, price, _, _ in dots):
        return None
    return scatter(
        dots,
        across=units.usd,
        words=units.reward,
        summary="Mean reward of each teacher against the price of 1,000 of its calls",
    )


def fan_out(figures: Figures) -> Html:
    """How many teachers were asked."""
    return _counts(figures.everything.fan_out, "teacher", "Samples by the number of teachers asked")


def waves(figures: Figures) -> Html:
    """In how many rounds they were asked."""
    return _counts(figures.everything.waves, "wave", "Samples by the number of waves")


def _counts(counts: Counter[int], noun: str, summary: str) -> Html:
    whole = counts.total()
    bars = [
        (
            f"{number}\n{units.share(counts[number], whole)}",
            float(counts[number]),
            f"{units.plural(number, noun)}: {units.plural(counts[number], 'sample')}",
        )
        for number in range(min(counts, default=1), max(counts, default=1) + 1)
    ]
    return columns(bars, summary=summary)


def margins(figures: Figures) -> Html:
    """How far winners were ahead of their runners-up."""
    kept = sorted(figures.everything.margins.kept)
    if not kept:
        return tag("p", "No prompt has two scored answers.", class_="quiet")
    # a few very clear wins must not squeeze all others into one column
    top = kept[min(math.ceil(0.99 * len(kept)), len(kept) - 1)] or 1.0
    width = top / _MARGIN_BARS
    counts = [0] * _MARGIN_BARS
    for margin in kept:
        counts[min(max(math.floor(margin / width), 0), _MARGIN_BARS - 1)] += 1
    bars = [
        (
            "",
            float(count),
            f"margins from {units.reward(n * width)} "
            + (f"to {units.reward((n + 1) * width)}" if n + 1 < _MARGIN_BARS else "on")
            + f": {units.share(count, len(kept))}",
        )
        for n, count in enumerate(counts)
    ]
    return columns(
        bars,
        summary="Distribution of the margins",
        across=[units.reward(0.0), units.reward(top / 2), f"{units.reward(top)} and more"],
    )


def median_margin(figures: Figures) -> float | None:
    """Of the samples with two scored answers."""
    kept = sorted(figures.everything.margins.kept)
    return kept[len(kept) // 2] if kept else None


def latencies(figures: Figures, paint: Mapping[str, str]) -> Html:
    """How long answers took: median, and where 8 of 10 lie."""
    found = {}
    for teacher in figures.teachers:
        part = figures.everything.parts[teacher]
        low, middle, high = (part.latency(q) for q in (0.1, 0.5, 0.9))
        if low is not None and middle is not None and high is not None:
            found[teacher] = (low, middle, high, part.latency(0.99))
    if not found:
        return tag("p", "No answer came from a call.", class_="quiet")
    first = math.floor(math.log10(min(low for low, *_ in found.values())))
    last = math.ceil(math.log10(max(high for _, _, high, _ in found.values())))
    last = max(last, first + 1)
    axis = Scale(first, last, [float(n) for n in range(first, last + 1)])
    lines = [
        Row(
            teacher,
            paint[teacher],
            span(axis, math.log10(low), math.log10(middle), math.log10(high), paint[teacher]),
            units.seconds(middle),
            f"{teacher}: half within {units.seconds(middle)}, 90% within {units.seconds(high)}, "
            f"99% within {units.seconds(slowest)}",
        )
        for teacher, (low, middle, high, slowest) in sorted(found.items(), key=lambda i: i[1][1])
    ]
    return rows(
        lines,
        axis=ticks(axis, lambda value: units.seconds(10.0**value)),
        summary="Median time to a whole answer, and the range of 8 in 10, by teacher",
    )
