"""Language by teacher: wins, rewards, calls, and what the policy has learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sink.report import units
from sink.report.markup import Html, join, tag
from sink.report.outcome import language_link, link, won
from sink.report.tables import Cell, heat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from arbitrage.types import Estimate
    from sink.report.figures import Figures, Group


def matrix(figures: Figures, paint: Mapping[str, str], learned: Sequence[Estimate] = ()) -> Html:
    """Language by teacher: wins, rewards, calls, and what the policy has learned."""
    views: list[tuple[str, str, Callable[[str, Group], list[Cell]]]] = [
        ("wins", "Share of the language’s winners", lambda tag_, g: _won_cells(tag_, g, figures)),
        (
            "mean reward",
            "Mean reward of the answers; the colour is its distance from the language’s mean",
            lambda tag_, g: _reward_cells(tag_, g, figures),
        ),
        (
            "asked",
            "Share of the language’s samples that it was asked",
            lambda tag_, g: _asked_cells(tag_, g, figures),
        ),
    ]
    if learned:
        beliefs = {(e.language, e.arm): e for e in learned}
        views.append(
            (
                "learned",
                "How likely the policy is to ask it next",
                lambda tag_, _: [_belief(beliefs.get((tag_, t)), t) for t in figures.teachers],
            )
        )
    columns = [(teacher, paint[teacher]) for teacher in figures.teachers]
    choices, tables = [], []
    for number, (name, about, cells) in enumerate(views):
        choices.append(
            join(
                tag(
                    "input",
                    type="radio",
                    name="matrix",
                    id=f"matrix-{number}",
                    class_=f"choice c{number}",
                    checked=not number,
                ),
                tag("label", name, for_=f"matrix-{number}"),
            )
        )
        lines = [
            (language_link(language), cells(language, figures.by_language[language]))
            for language in figures.languages
        ]
        tables.append(
            tag(
                "div",
                tag("p", about, ".", class_="about"),
                heat(
                    lines, columns, corner="language", summary=f"{about}, by language and teacher"
                ),
                class_=f"view v{number}",
            )
        )
    return tag("div", choices, tables, class_="views")


def _won_cells(language: str, group: Group, figures: Figures) -> list[Cell]:
    leader = group.leader()
    cells = []
    for teacher in figures.teachers:
        part = group.parts.get(teacher)
        if part is None or not part.asked:
            cells.append(Cell("", None, f"{teacher} was not asked"))
            continue
        portion = part.won / group.answered if group.answered else 0.0
        text = units.share(portion) if part.won else "·"
        where = link(language=language, winner=teacher) if part.won else None
        cells.append(Cell(text, portion, won(teacher, group), where, teacher == leader))
    return cells


def _reward_cells(language: str, group: Group, figures: Figures) -> list[Cell]:
    means = {t: part.rewards for t, part in group.parts.items() if part.rewards.count}
    count = sum(mean.count for mean in means.values())
    level = sum(mean.mean * mean.count for mean in means.values()) / max(count, 1)
    widest = max((abs(mean.mean - level) for mean in means.values()), default=0.0) or 1.0
    best = max(means, key=lambda t: means[t].mean, default=None)
    cells = []
    for teacher in figures.teachers:
        mean = means.get(teacher)
        if mean is None:
            cells.append(Cell("", None, f"{teacher} has no scored answer"))
            continue
        half = f" ± {units.reward(mean.within)}" if mean.within is not None else ""
        title = (
            f"{teacher}: {units.reward(mean.mean)}{half}, of {units.plural(mean.count, 'answer')}"
        )
        where = link(language=language, teacher=teacher)
        shade = (mean.mean - level) / widest
        cells.append(Cell(units.reward(mean.mean), shade, title, where, teacher == best))
    return cells


def _asked_cells(language: str, group: Group, figures: Figures) -> list[Cell]:
    cells = []
    for teacher in figures.teachers:
        part = group.parts.get(teacher)
        asked = part.asked if part else 0
        title = f"{teacher} was asked {asked:,} of {units.plural(group.samples, 'time')}"
        where = link(language=language, teacher=teacher) if asked else None
        text = units.share(asked, group.samples) if asked else "·"
        cells.append(Cell(text, asked / group.samples, title, where))
    return cells


def _belief(estimate: Estimate | None, teacher: str) -> Cell:
    if estimate is None:
        return Cell("", None, f"{teacher}: nothing learned")
    best = "" if estimate.best is None else f"; best with {units.share(estimate.best)}"
    title = (
        f"{teacher}: expected reward {units.reward(estimate.reward)} ± "
        f"{units.reward(1.96 * estimate.standard_error)}, from "
        f"{units.plural(estimate.scored, 'scored answer')}{best}"
    )
    return Cell(units.share(estimate.share), estimate.share, title)
