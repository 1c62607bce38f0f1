"""What was in the way: gates that stopped answers, and calls that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sink.report import units
from sink.report.markup import Html, join
from sink.report.outcome import language_link, link
from sink.report.tables import Cell, chip, heat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sink.report.figures import Figures, Part

_DARKEST = 0.25  # share of the answers that is the darkest
_WORST = 5  # teachers that a tooltip names


def by_teacher(figures: Figures, paint: Mapping[str, str]) -> Html:
    """Which gate stopped whom, and how calls failed: a row each teacher."""
    parts = figures.everything.parts
    lines = [
        (
            join(chip(paint[teacher]), teacher),
            _cells(figures, teacher, {teacher: parts[teacher]}, {"teacher": teacher}),
        )
        for teacher in figures.teachers
    ]
    summary = "Share of each teacher’s answers that a gate stopped, and of its calls that failed"
    return heat(lines, _columns(figures), corner="teacher", summary=summary)


def by_language(figures: Figures) -> Html:
    """The same, a row each language; a cell's tooltip tells whom it stopped."""
    groups = figures.by_language
    lines = [
        (
            language_link(language),
            _cells(
                figures, units.language(language), groups[language].parts, {"language": language}
            ),
        )
        for language in figures.languages
    ]
    summary = "Share of each language’s answers that a gate stopped, and of its calls that failed"
    return heat(lines, _columns(figures), corner="language", summary=summary)


def any_(figures: Figures) -> bool:
    """Whether anything was stopped or failed at all."""
    return any(_names(figures))


def words(figures: Figures) -> str:
    """How much was in the way, in a sentence."""
    whole = figures.everything
    answers = sum(part.answers for part in whole.parts.values())
    stopped = sum(part.stopped for part in whole.parts.values())
    failed = whole.failures().total()
    return (
        f"Gates stopped {units.share(stopped, answers)} of {units.plural(answers, 'answer')}; "
        f"{units.share(failed, whole.calls)} of {units.plural(whole.calls, 'call')} failed."
    )


def _names(figures: Figures) -> tuple[list[str], list[str]]:
    """Gates and outcomes, the most frequent first."""
    whole = figures.everything
    return [n for n, _ in whole.stops().most_common()], [
        n for n, _ in whole.failures().most_common()
    ]


def _columns(figures: Figures) -> list[tuple[str, str]]:
    gates, outcomes = _names(figures)
    return [*((_plain(gate), "") for gate in gates), *((f"✕ {_plain(o)}", "") for o in outcomes)]


def _cells(
    figures: Figures, whose: str, parts: Mapping[str, Part], filters: Mapping[str, str]
) -> list[Cell]:
    gates, outcomes = _names(figures)
    answers = sum(part.answers for part in parts.values())
    calls = sum(part.asked for part in parts.values())
    cells = []
    for gate in gates:
        stopped = {name: part.stops[gate] for name, part in parts.items()}
        about = f"of {units.plural(answers, 'answer')}"
        where = link(**filters, gate=gate)
        cells.append(_cell(f"{whose}: {_plain(gate)}", about, stopped, answers, where))
    for outcome in outcomes:
        failed = {name: part.failures[outcome] for name, part in parts.items()}
        about = f"of {units.plural(calls, 'call')}"
        where = link(**filters, errors="1")
        cells.append(_cell(f"{whose}: {_plain(outcome)}", about, failed, calls, where))
    return cells


def _cell(what: str, about: str, counts: Mapping[str, int], whole: int, where: str) -> Cell:
    count = sum(counts.values())
    title = f"{what}, {count:,} {about}"
    if not count:
        return Cell("·", 0.0, title)
    worst = sorted((name for name in counts if counts[name]), key=lambda name: -counts[name])
    whom = [f"{name} {counts[name]:,}" for name in worst[:_WORST]] if len(counts) > 1 else []
    part = count / whole if whole else 0.0
    return Cell(units.share(part), -part / _DARKEST, "\n".join([title, *whom]), where)


def _plain(name: str) -> str:
    return name.replace("_", " ")
