"""What came out: the headline, the languages at a glance, who wins, and where."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from sink.report import units
from sink.report.charts import spark
from sink.report.markup import Html, join, tag
from sink.report.plot import scale
from sink.report.tables import Row, bar, chip, rows, stack, ticks, whisker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sink.report.figures import Figures, Group, Part

_NAMED = 3  # leaders that the headline names
_PANELS = 60  # languages that have a picture of their own


def headline(figures: Figures) -> Html:
    """One sentence, and the few numbers that matter."""
    whole = figures.everything
    if not whole.samples:
        return tag("p", _sentence(figures), class_="lead")
    lead = units.reward(whole.leads.mean, sign=True) if whole.leads.count else units.NONE
    languages = units.plural(len(figures.by_language), "language")
    without = f"{whole.unanswered:,} without" if whole.unanswered else "every one of them"
    cards = [
        (
            f"{whole.samples:,}",
            "sample" if whole.samples == 1 else "samples",
            f"{units.plural(figures.prompts, 'prompt')} in {languages}",
        ),
        (
            units.share(whole.answered, whole.samples),
            "have a winner",
            without,
        ),
        (
            units.ratio(whole.calls, whole.samples),
            "calls a sample",
            f"of {units.plural(len(figures.teachers), 'teacher')} to ask",
        ),
        (
            units.usd(1000 * whole.cost_usd / whole.samples),
            "per 1,000 samples",
            f"{units.usd(whole.cost_usd)} in all",
        ),
        (lead, "reward gained", "by the winner over the average answer to its prompt"),
    ]
    return join(
        tag("p", _sentence(figures), class_="lead"),
        tag(
            "dl",
            [
                tag(
                    "div",
                    tag("dt", name),
                    tag("dd", number, class_="number"),
                    tag("dd", detail, class_="detail"),
                )
                for number, name, detail in cards
            ],
            class_="cards",
        ),
    )


def _sentence(figures: Figures) -> Html:
    groups = [figures.by_language[tag_] for tag_ in figures.languages]
    leaders = Counter(leader for group in groups if (leader := group.leader()))
    if not leaders:
        reason = "no answer has been good enough yet" if groups else "there are no samples yet"
        return join(f"Nothing to compare: {reason}.")
    first, count = leaders.most_common(1)[0]
    if len(groups) == 1:
        won = units.share(figures.everything.parts[first].won, figures.everything.answered)
        return join(tag("b", first), f" wins most: {won} of all answers that were kept.")
    if len(leaders) == 1:
        return join("One teacher leads in every language: ", tag("b", first), ".")
    named = leaders.most_common(_NAMED)
    parts = [join(tag("b", name), f" in {n}") for name, n in named[1:]]
    others = len(leaders) - len(named)
    if others:
        parts.append(join(f"{units.plural(others, 'other')} in the rest"))
    told = [join(tag("b", first), f" wins most in {count} of {len(groups)} languages"), *parts]
    listed = join(*[join(", ", part) if n else part for n, part in enumerate(told[:-1])])
    return join("No teacher is best everywhere: ", listed, " and ", told[-1], ".")


def at_a_glance(figures: Figures, paint: Mapping[str, str]) -> Html:
    """A line for all, and one for each language."""
    head = tag(
        "tr",
        tag("th", "language", scope="col"),
        tag("th", "samples", scope="col"),
        tag("th", "won by", scope="col", class_="left"),
        tag("th", "leader", scope="col", class_="left"),
        [
            tag("th", name, scope="col")
            for name in ("winner’s reward", "no winner", "calls each", "$ / 1,000")
        ],
    )
    body = [_glance(None, figures.everything, figures, paint)]
    body += [_glance(t, figures.by_language[t], figures, paint) for t in figures.languages]
    table = tag(
        "table",
        tag("caption", "Figures of every language", class_="unseen"),
        tag("thead", head),
        tag("tbody", body),
        class_="glance",
    )
    return tag("div", table, class_="scroll", tabindex=0, role="region", aria_label="Languages")


def _glance(language: str | None, group: Group, figures: Figures, paint: Mapping[str, str]) -> Html:
    shares = [
        (paint[t], group.parts[t].won / group.answered, won(t, group))
        for t in figures.teachers
        if t in group.parts and group.parts[t].won
    ]
    leader = group.leader()
    course = [
        (100 * n / len(group.course), step.rewards.mean)
        for n, step in enumerate(group.course)
        if step.rewards.count
    ]
    reward = units.reward(group.rewards.mean) if group.rewards.count else units.NONE
    name = tag("b", "All") if language is None else language_link(language)
    period = units.period(group.first, group.last) if group.first and group.last else None
    return tag(
        "tr",
        tag("th", name, scope="row", title=period),
        tag("td", f"{group.samples:,}"),
        tag("td", stack(shares), class_="picture"),
        tag("td", join(chip(paint[leader]), leader) if leader else units.NONE, class_="left"),
        tag("td", reward, spark(course) if len(course) > 1 else None),
        tag("td", units.share(group.unanswered, group.samples)),
        tag("td", units.ratio(group.calls, group.samples)),
        tag("td", units.usd(1000 * group.cost_usd / group.samples if group.samples else None)),
        class_="all" if language is None else None,
    )


def language_link(language: str) -> Html:
    """A language's name, which leads to its samples."""
    return tag(
        "a",
        units.language(language),
        " ",
        tag("span", language, class_="quiet"),
        href=link(language=language),
    )


def link(**filters: str) -> str:
    """The address of samples in the page, filtered."""
    return f"#samples?{urlencode(filters)}"


def wins(figures: Figures, paint: Mapping[str, str]) -> Html:
    """Samples won, by teacher."""
    whole = figures.everything
    most = max((part.won for part in whole.parts.values()), default=0) or 1
    lines = [
        Row(
            tag("a", teacher, href=link(winner=teacher)),
            paint[teacher],
            bar(part.won / most, paint[teacher]),
            f"{part.won:,} · {units.share(part.won, whole.answered)}",
            _record(teacher, part),
        )
        for teacher, part in ((teacher, whole.parts[teacher]) for teacher in figures.teachers)
    ]
    return rows(lines, summary="Samples won by each teacher, and their share of all that were won")


def rewards(figures: Figures, paint: Mapping[str, str]) -> Html:
    """Mean reward of each teacher's answers, with its 95% interval."""
    return _whiskers(figures.everything, figures.teachers, paint, "Mean reward of each teacher")


def rewards_by_language(figures: Figures, paint: Mapping[str, str]) -> Html:
    """The same, one panel a language."""
    return tag(
        "div",
        [
            tag(
                "figure",
                tag("figcaption", language_link(language)),
                _whiskers(
                    figures.by_language[language],
                    figures.teachers,
                    paint,
                    f"Mean reward of each teacher in {units.language(language)}",
                ),
            )
            for language in figures.languages[:_PANELS]
        ],
        class_="panels",
    )


def _whiskers(
    group: Group, teachers: Sequence[str], paint: Mapping[str, str], summary: str
) -> Html:
    parts = {t: group.parts[t] for t in teachers if t in group.parts}
    scored = {t: part.rewards for t, part in parts.items() if part.rewards.count}
    scored = dict(sorted(scored.items(), key=lambda item: -item[1].mean))
    # an interval that is much wider than the means lie apart would leave no room for them
    room = [m.mean for m in scored.values()]
    reach = (
        (max(room) - min(room)) / 2 + max((m.deviation for m in scored.values()), default=0) / 4
        if room
        else 0.0
    )
    ends = [
        m.mean + sign * min(m.within or 0.0, reach) for m in scored.values() for sign in (-1, 1)
    ]
    axis = scale(ends)
    lines = [
        Row(
            teacher,
            paint[teacher],
            whisker(axis, mean.mean, mean.within, paint[teacher]),
            units.reward(mean.mean),
            f"{teacher}: {units.reward(mean.mean)}"
            + (f" ± {units.reward(mean.within)} (95%)" if mean.within is not None else "")
            + f", of {units.plural(mean.count, 'scored answer')}",
        )
        for teacher, mean in scored.items()
    ]
    if not lines:
        return tag("p", "No answer has a reward.", class_="quiet")
    return rows(lines, axis=ticks(axis, units.reward), summary=summary)


def won(teacher: str, group: Group) -> str:
    """How often a teacher has won in a group, for a tooltip."""
    part = group.parts[teacher]
    return (
        f"{teacher}: won {part.won:,} of {units.plural(group.answered, 'sample')} "
        f"({units.share(part.won, group.answered)}); asked {part.asked:,} times"
    )


def _record(teacher: str, part: Part) -> str:
    return (
        f"{teacher}: won {part.won:,} of the {units.plural(part.asked, 'prompt')} it was asked "
        f"({units.share(part.won, part.asked)})"
    )
