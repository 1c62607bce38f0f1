"""What changed over time: whom the policy asks, what its winners get, and what it loses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sink.report import units
from sink.report.charts import Line, areas, course
from sink.report.figures import STEPS, Step
from sink.report.markup import Html, tag
from sink.report.outcome import language_link
from sink.report.regret import Loss
from sink.report.tables import chip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sink.report.figures import Figures, Group

_PANELS = 60  # languages that have a picture of their own
_FEWEST = 24  # routes that a share is made of
_AUDITS = 40  # prompts that a mean regret is made of
_SAMPLES = 15  # that a mean reward is made of


def legend(figures: Figures, paint: Mapping[str, str]) -> Html:
    """Who has which colour."""
    return tag(
        "ul",
        [tag("li", chip(paint[teacher]), teacher) for teacher in figures.teachers],
        class_="legend",
    )


def routes(figures: Figures, paint: Mapping[str, str]) -> Html:
    """Share of the calls that each teacher got, over time."""
    steps, titles = [], []
    done = 0
    for place, step in _course(figures):
        first, done = done + 1, done + step.samples
        steps.append((place, _shares(step, figures.teachers)))
        ranked = [
            f"{t} {units.share(n, step.routes.total())}" for t, n in step.routes.most_common()
        ]
        titles.append("\n".join([f"samples {first:,} to {done:,}", *ranked]))
    return areas(
        [(teacher, paint[teacher]) for teacher in figures.teachers],
        steps,
        across=_samples(figures),
        summary="Share of the calls that each teacher got, over time",
        titles=titles,
    )


def routes_by_language(figures: Figures, paint: Mapping[str, str]) -> Html:
    """The same, one panel a language."""
    return tag(
        "div",
        [
            tag(
                "figure",
                tag("figcaption", language_link(language)),
                areas(
                    [(teacher, paint[teacher]) for teacher in figures.teachers],
                    [
                        (x, _shares(step, figures.teachers))
                        for x, step in _merged(figures.by_language[language])
                    ],
                    across=(),
                    summary=f"Share of the calls over time in {units.language(language)}",
                    height=84,
                ),
            )
            for language in figures.languages[:_PANELS]
        ],
        class_="panels small",
    )


def rewards(figures: Figures) -> Html:
    """Mean reward of the winners, over time."""
    known = [(x, step.rewards) for x, step in _course(figures) if step.rewards.count]
    line = Line(
        "winner’s mean reward",
        "ink",
        [(x, moments.mean) for x, moments in known],
        [moments.within for _, moments in known],
    )
    return course(
        [line],
        words=units.reward,
        across=_samples(figures),
        summary="Mean reward of the winners over time",
    )


def calls(figures: Figures) -> Html:
    """Calls to a sample, over time."""
    points = [(x, step.calls / step.samples) for x, step in _course(figures)]
    return course(
        [Line("calls a sample", "ink", points)],
        words=lambda value: f"{value:.2g}",
        across=_samples(figures),
        summary="Calls to a sample over time",
        zero=True,
    )


def regret(figures: Figures) -> tuple[Html, int] | None:
    """What the policy loses, over time, and of how many prompts that is told; None if it is not."""
    losses = figures.regret.course()
    count = sum(loss.preferred.count for loss in losses)
    width = _width(count, _AUDITS)
    known = [
        (_middle(n, width), loss)
        for n in range(0, STEPS, width)
        if (loss := sum(losses[n : n + width], Loss())).preferred.count
    ]
    if count < _AUDITS or len(known) < 2:  # noqa: PLR2004 - no course
        return None
    lines = [
        Line("at random", "muted", [(x, loss.random.mean) for x, loss in known]),
        Line(
            "the policy",
            "ink",
            [(x, loss.preferred.mean) for x, loss in known],
            [loss.preferred.within for _, loss in known],
        ),
    ]
    drawn = course(
        lines,
        words=units.reward,
        across=_samples(figures),
        summary="Estimated regret of the policy, and of a choice at random, over time",
        zero=True,
    )
    return drawn, count


def _course(figures: Figures) -> list[tuple[float, Step]]:
    """The course of everything, in as many steps as there are samples for, and where they lie."""
    steps = figures.everything.course
    width = _width(figures.everything.samples, _SAMPLES)
    wide = [(_middle(n, width), sum(steps[n : n + width], Step())) for n in range(0, STEPS, width)]
    return [(place, step) for place, step in wide if step.samples]


def _width(count: int, enough: int) -> int:
    """How many steps to join so that each has enough of something, if that can be."""
    return next((width for width in (1, 2, 3, 4, 6, 8) if count * width >= STEPS * enough), 12)


def _merged(group: Group) -> list[tuple[float, Step]]:
    """Steps with enough routes to make a share of, and where they lie."""
    merged: list[tuple[float, Step]] = []
    waiting, begun = Step(), 0
    active = [n for n, step in enumerate(group.course) if step.samples]
    for number in active:
        if not waiting.samples:
            begun = number
        waiting.samples += group.course[number].samples
        waiting.routes.update(group.course[number].routes)
        enough = min(_FEWEST, group.calls)
        if waiting.routes.total() >= enough or (number == active[-1] and not merged):
            merged.append(((_middle(begun) + _middle(number)) / 2, waiting))
            waiting = Step()
    return merged


def _shares(step: Step, teachers: Sequence[str]) -> list[float]:
    whole = step.routes.total() or 1
    return [step.routes[teacher] / whole for teacher in teachers]


def _middle(step: int, width: int = 1) -> float:
    """Where in percent the middle of so many steps from this one on lies."""
    return 100.0 * (step + 0.5 * width) / STEPS


def _samples(figures: Figures) -> list[str]:
    whole = figures.everything.samples
    return ["first", f"{whole // 2:,}", units.plural(whole, "sample")]
