"""The page: chapters in their order, and everything it needs inside it."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from sink.report import expense, gallery, obstacles, outcome, palette, progress, units
from sink.report.extracts import dumps
from sink.report.figures import STEPS
from sink.report.markup import Html, join, tag
from sink.report.matrix import matrix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arbitrage.types import Estimate
    from sink.report.extracts import Extracts
    from sink.report.figures import Figures

_FEW_LANGUAGES = 12  # whose panels are open from the start


def render(
    name: str, figures: Figures, extracts: Extracts, learned: Sequence[Estimate] = ()
) -> str:
    """The whole file as text.

    Args:
        name: of the run.
        figures: its numbers.
        extracts: its samples, those that are shown.
        learned: what its policy believes by now.
    """
    paint = {t: f"t{n}" for t, n in palette.colours(figures.everything.parts).items()}
    style = palette.style() + _resource("style.css")
    script = _resource("script.js")
    facts = {
        "paint": paint,
        "languages": {tag_: units.language(tag_) for tag_ in figures.languages},
        "samples": figures.everything.samples,
        "shown": extracts.shown,
    }
    return Template(_resource("page.html")).substitute(
        policy=escape(_policy(style, script)),
        title=join(f"{name} – arbitrage report"),
        style=style,
        body=_body(name, figures, extracts, learned, paint),
        facts=dumps(facts),
        plain=extracts.plain,
        packed=extracts.packed,
        script=script,
    )


def _resource(name: str) -> str:
    return (files(__package__ or "") / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """A content security policy that lets nothing run or load but what is in this file."""

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return (
        f"default-src 'none'; style-src 'sha256-{digest(style)}'; "
        f"script-src 'sha256-{digest(script)}'; base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _body(
    name: str,
    figures: Figures,
    extracts: Extracts,
    learned: Sequence[Estimate],
    paint: Mapping[str, str],
) -> Html:
    whole = figures.everything
    head = tag(
        "header",
        tag("p", "arbitrage report", class_="kicker"),
        tag("h1", tag("bdi", name)),
        tag("p", " · ".join(_circumstances(figures)), class_="quiet") if whole.samples else None,
        outcome.headline(figures),
    )
    if not whole.samples:
        return join(head, tag("main", id="samples"))
    chapters = [
        _chapter(
            "languages",
            "Languages at a glance",
            "A language’s name leads to its samples.",
            outcome.at_a_glance(figures, paint),
        ),
        _teachers(figures, learned, paint),
        _course(figures, paint),
        _took(figures, paint),
        _obstacles(figures, paint),
        _chapter(
            "samples",
            "Samples, side by side",
            gallery.about(figures, extracts.shown),
            gallery.gallery(figures),
        ),
    ]
    links = [tag("a", title, href=f"#{anchor}") for anchor, title in _CONTENTS]
    nav = tag("nav", links, aria_label="Chapters")
    return join(head, nav, tag("main", chapters))


_CONTENTS = (
    ("languages", "Languages"),
    ("teachers", "Teachers"),
    ("course", "Over time"),
    ("took", "Cost and time"),
    ("obstacles", "Gates and failures"),
    ("samples", "Samples"),
)


def _circumstances(figures: Figures) -> list[str]:
    whole = figures.everything
    kinds = ", ".join(kind for kind, _ in figures.policies.most_common())
    told = [f"policy {kinds}", units.plural(whole.calls, "call")]
    if whole.first and whole.last:
        told.insert(0, units.period(whole.first, whole.last))
    return told


def _teachers(figures: Figures, learned: Sequence[Estimate], paint: Mapping[str, str]) -> Html:
    several = len(figures.by_language) > 1
    return _chapter(
        "teachers",
        "Who wins, and where",
        None,
        tag(
            "div",
            _figure("Samples won", "By teacher, with its share.", outcome.wins(figures, paint)),
            _figure(
                "Mean reward",
                "With 95% intervals, over the prompts each was asked: a policy that sends a "
                "teacher only the hard ones makes it look worse.",
                outcome.rewards(figures, paint),
            ),
            class_="pair",
        ),
        _figure(
            "Language by teacher",
            "The best of each language is framed; a cell leads to its samples.",
            matrix(figures, paint, learned),
        ),
        _folded(
            "Mean reward with 95% intervals, language by language",
            outcome.rewards_by_language(figures, paint),
            figures,
        )
        if several
        else None,
    )


def _course(figures: Figures, paint: Mapping[str, str]) -> Html:
    if figures.everything.samples < STEPS:
        few = f"{units.plural(figures.everything.samples, 'sample')}: too few to see a course in."
        return _chapter("course", "What was learned over time", few)
    several = len(figures.by_language) > 1
    told = progress.regret(figures)
    regret = None
    if told:
        drawn, count = told
        regret = _figure(
            "Regret",
            "Best reward minus that of one teacher, chosen by the policy’s preferences or at "
            f"random; from {units.plural(count, 'prompt')} on which everybody was asked.",
            drawn,
        )
    return _chapter(
        "course",
        "What was learned over time",
        None,
        _figure("Whom the policy asks", "Share of all calls.", progress.routes(figures, paint)),
        _folded(
            "Whom it asks, language by language",
            join(progress.legend(figures, paint), progress.routes_by_language(figures, paint)),
            figures,
        )
        if several
        else None,
        tag(
            "div",
            _figure("Winner’s reward", "Mean, with its 95% interval.", progress.rewards(figures)),
            _figure("Calls a sample", "Teachers asked, all waves.", progress.calls(figures)),
            regret,
            class_="trio",
        ),
    )


def _took(figures: Figures, paint: Mapping[str, str]) -> Html:
    paid = figures.everything.cost_usd > 0.0
    quality = expense.price_and_quality(figures, paint)
    median = expense.median_margin(figures)
    ahead = f"Half are below {units.reward(median)}." if median is not None else ""
    return _chapter(
        "took",
        "What it took",
        None if paid else "Nobody was paid for these answers.",
        tag(
            "div",
            _figure("Cost by teacher", "And its share of the whole.", expense.costs(figures, paint))
            if paid
            else None,
            _figure("Price and quality", "Mean reward against 1,000 calls’ price.", quality)
            if quality
            else None,
            _figure(
                "Time to an answer",
                "Median, and where 8 in 10 lie; logarithmic.",
                expense.latencies(figures, paint),
            ),
            _figure("Margin", f"Winner’s lead on the runner-up. {ahead}", expense.margins(figures)),
            _figure("Teachers asked", "In all waves of a sample.", expense.fan_out(figures)),
            _figure("Waves", "Rounds of asking for a sample.", expense.waves(figures)),
            class_="pair",
        ),
    )


def _obstacles(figures: Figures, paint: Mapping[str, str]) -> Html:
    if not obstacles.any_(figures):
        return _chapter(
            "obstacles", "Gates and failures", "No answer was stopped, and no call failed."
        )
    several = len(figures.by_language) > 1
    return _chapter(
        "obstacles",
        "Gates and failures",
        obstacles.words(figures),
        _figure(
            "By teacher",
            "Share of its answers that a gate stopped; ✕, of its calls that failed.",
            obstacles.by_teacher(figures, paint),
        ),
        _figure(
            "By language",
            "A cell’s tooltip tells whom; it leads to the samples.",
            obstacles.by_language(figures),
        )
        if several
        else None,
    )


def _chapter(anchor: str, title: str, about: str | None, *parts: Html | None) -> Html:
    return tag(
        "section",
        tag("h2", title),
        tag("p", about, class_="about") if about else None,
        *parts,
        id=anchor,
    )


def _figure(title: str, about: str, drawn: Html) -> Html:
    caption = tag("figcaption", tag("h3", title), tag("p", about, class_="about"))
    return tag("figure", caption, drawn)


def _folded(title: str, inner: Html, figures: Figures) -> Html:
    is_open = len(figures.by_language) <= _FEW_LANGUAGES
    return tag("details", tag("summary", title), inner, open=is_open)
