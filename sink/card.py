"""The dataset card: what a run's folder says of itself, to people and to `load_dataset`."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Protocol

from arbitrage.language import UNDETERMINED
from sink.layout import folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from arbitrage.journal import Tally
    from arbitrage.types import TeacherInfo

_EVERYTHING = "all"
_SAME = "  features: *columns"
_ABOUT = """\
Every prompt was put to several teachers, and `completion` is the answer that the reward model
put first. All answers, failures, gates, scores and costs are in `candidates`; `decision` holds
the propensity of every teacher asked, so that other policies can be evaluated on this log."""


class Form(Protocol):
    """What the card has to know of a format."""

    @property
    def features(self) -> str | None:
        """The columns, as `datasets` names them in YAML; None where the files tell."""

    def data_files(self, language: str) -> str | None:
        """What `load_dataset` reads for a language's folder, or for `*`; None for nothing."""

    def loading(self, language: str) -> Sequence[str]:
        """How people load the data, as lines of Markdown."""


def render(tallies: Sequence[Tally], teachers: Sequence[TeacherInfo], form: Form) -> str:
    """The card as Markdown with a YAML header, one config a language and `all`.

    Args:
        tallies: who won what, over everything that is published.
        teachers: told with their models and licences, also those that won nothing.
        form: the format in which the data lie.
    """
    languages = _by(tallies, lambda tally: folder(tally.language))
    answered = {name: own for name, rows in languages.items() if (own := _answered(rows))}
    samples = sum(tally.samples for rows in answered.values() for tally in rows)
    return "\n".join(
        [
            *_header(list(answered), form),
            "",
            "# Answers chosen by arbitrage",
            "",
            f"{samples:,} samples in {len(answered):,} languages.",
            _ABOUT,
            "",
            "This card is made from the data; what is edited here is overwritten.",
            *_section("Languages", _language_rows(languages)),
            *_section("Teachers", _teacher_rows(tallies, teachers)),
            "",
            "An answer comes under the licence of its teacher, named in the column `teacher`.",
            *_section("Policy", _policy_rows(tallies)),
            "",
            "## Load",
            "",
            *form.loading(next(iter(answered), "de")),
            "",
            "What nobody answered well enough lies apart, in `unanswered`, with the same columns.",
            "",
        ]
    )


def _header(names: Sequence[str], form: Form) -> list[str]:
    tags = sorted({name.split("-")[0] for name in names} - {UNDETERMINED})
    # Quoted throughout: to YAML, a bare `no` is false and not Norwegian.
    lines = [f"language: {json.dumps(tags)}", 'tags: ["synthetic", "data-arbitrage"]']
    configs: list[str] = []
    for name in ["*", *names] if names else []:
        if files := form.data_files(name):
            configs += _config(name, files)
            if form.features:
                configs += [f"  features: &columns {form.features}" if name == "*" else _SAME]
            configs += ["  default: true"] if name == "*" else []
    return ["---", *lines, *(["configs:", *configs] if configs else []), "---"]


def _config(name: str, files: str) -> list[str]:
    # `all` is also the tag of Allar, a language of Kerala.
    config = {"*": _EVERYTHING, _EVERYTHING: f"{_EVERYTHING}-alone"}.get(name, name)
    return [f"- config_name: {json.dumps(config)}", f"  data_files: {json.dumps(files)}"]


def _language_rows(languages: Mapping[str, Sequence[Tally]]) -> Iterable[Sequence[str]]:
    yield "language", "samples", "mean reward", "winners", "unanswered"
    for name, rows in languages.items():
        answered = _answered(rows)
        samples = sum(tally.samples for tally in answered)
        reward = sum(tally.reward for tally in answered) / samples if samples else None
        winners = _by(answered, lambda tally: tally.teacher or "")
        shares = {teacher: sum(t.samples for t in won) for teacher, won in winners.items()}
        yield (
            name,
            f"{samples:,}",
            "" if reward is None else f"{reward:.3f}",
            ", ".join(f"{t} {n:,}" for t, n in sorted(shares.items(), key=lambda i: -i[1])),
            f"{sum(tally.samples for tally in rows) - samples:,}",
        )


def _teacher_rows(
    tallies: Sequence[Tally], teachers: Sequence[TeacherInfo]
) -> Iterable[Sequence[str]]:
    yield "teacher", "model", "licence", "outputs may train others", "samples won"
    won = _by(_answered(tallies), lambda tally: tally.teacher or "")
    known = {teacher.name: teacher for teacher in teachers}
    for name in sorted(won.keys() | known.keys()):
        model = known[name].model if name in known else "of an earlier configuration"
        license_ = known[name].license if name in known else None
        trainable = known[name].trainable if name in known else None
        yield (
            name,
            model,
            license_ or "not stated",
            "not stated" if trainable is None else "yes" if trainable else "no",
            f"{sum(t.samples for t in won.get(name, ())):,}",
        )


def _policy_rows(tallies: Sequence[Tally]) -> Iterable[Sequence[str]]:
    yield "policy", "prompts routed"
    for name, rows in _by(tallies, lambda tally: tally.policy).items():
        yield name, f"{sum(tally.samples for tally in rows):,}"


def _section(title: str, rows: Iterable[Sequence[str]]) -> list[str]:
    heading, *body = rows
    lines = [heading, ["---"] * len(heading), *body]
    return ["", f"## {title}", "", *(f"| {' | '.join(map(_cell, line))} |" for line in lines)]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _answered(tallies: Iterable[Tally]) -> list[Tally]:
    return [tally for tally in tallies if tally.teacher is not None]


def _by(tallies: Iterable[Tally], key: Callable[[Tally], str]) -> dict[str, list[Tally]]:
    """The tallies grouped by a name, in the order of the names."""
    groups: defaultdict[str, list[Tally]] = defaultdict(list)
    for tally in tallies:
        groups[key(tally)].append(tally)
    return dict(sorted(groups.items()))
