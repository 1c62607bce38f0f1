"""Samples side by side: the form that finds them, and the places that the script fills."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sink.report import units
from sink.report.markup import Html, join, tag
from sink.report.picks import KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sink.report.figures import Figures

_KEYS = (("/", "search"), ("j k", "next, previous"), ("n p", "turn the page"), ("o", "unfold"))


def about(figures: Figures, shown: int) -> str:
    """Which samples are here."""
    whole = figures.everything.samples
    if shown == whole:
        return f"All {units.plural(shown, 'sample')}."
    return (
        f"{units.plural(shown, 'sample')} of {whole:,}: some drawn at random in every language, "
        "and those that stand out. All are in the run’s data folder."
    )


def gallery(figures: Figures) -> Html:
    """The form and the list."""
    keys = [join(tag("kbd", key), f" {what}  ") for key, what in _KEYS]
    return join(
        tag("noscript", tag("p", "The samples need JavaScript; the figures above do not.")),
        _filters(figures),
        tag(
            "p",
            tag("span", id="found", role="status"),
            tag("span", keys, class_="keys"),
            class_="bar-of-list",
        ),
        tag("div", id="list"),
        tag("div", id="pages", class_="pages"),
    )


def _filters(figures: Figures) -> Html:
    gates = [name for name, _ in figures.everything.stops().most_common()]
    teachers = [(teacher, teacher) for teacher in figures.teachers]
    languages = [(tag_, f"{units.language(tag_)} ({tag_})") for tag_ in figures.languages]
    words = tag("input", type="search", name="q", placeholder="words in prompts, answers, ids")
    margin = tag("input", type="number", name="margin", step="any", inputmode="decimal")
    errors = tag("input", type="checkbox", name="errors", value="1")
    return tag(
        "form",
        tag("label", tag("span", "Search"), words, class_="wide"),
        _select("language", "Language", languages),
        _select("winner", "Won by", teachers),
        _select("teacher", "Asked", teachers),
        _select("gate", "Gate", [(gate, gate.replace("_", " ")) for gate in gates]),
        _select("kind", "Worth a look", [(kind, kind) for kind in KINDS]),
        tag("label", tag("span", "Margin from"), margin),
        tag("label", errors, " with failures", class_="check"),
        tag("button", "Clear", type="reset"),
        id="filters",
        role="search",
        autocomplete="off",
    )


def _select(name: str, label: str, options: Sequence[tuple[str, str]]) -> Html:
    choices = [tag("option", text, value=value) for value, text in options]
    select = tag("select", tag("option", "any", value=""), choices, name=name)
    return tag("label", tag("span", label), select)
