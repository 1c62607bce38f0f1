"""The card of an export: what it holds, whose words these are, and what was left out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from arbitrage.language import UNDETERMINED
from sink.layout import folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sink.export.files import Target
    from sink.export.report import Language, Report

_EVERYTHING = "all"
_ABOUT = {
    "sft": "Every line is a dialogue, `messages`, that ends in the answer that the reward model "
    "put first. TRL's `SFTTrainer` takes it as it is.",
    "dpo": "Every line is a preference: `prompt`, `chosen` and `rejected`, all of them messages. "
    "Both answers passed the gates, and `margin` is `score_chosen` less `score_rejected`. TRL's "
    "`DPOTrainer` and `RewardTrainer` take it as it is.",
    "scored": "Every line is a prompt with all of its `candidates`: their texts, failures, gates, "
    "scores and rewards.",
}


def render(report: Report, target: Target) -> str:
    """The card as Markdown with a YAML header, one config a language and `all`."""
    names = [name for name, language in report.languages.items() if language.kept]
    return "\n".join(
        [
            *_header(report, target, names),
            "",
            f"# {report.kept:,} lines in {len(names):,} languages, chosen by arbitrage",
            "",
            _ABOUT[report.kind],
            *(f"\n> **Mind:** {warning}." for warning in report.warnings),
            *_section("Languages", _language_rows(report.languages)),
            *_section("Teachers", _teacher_rows(report)),
            "",
            "An answer comes under the licence of its teacher.",
            *_section("Left out", _left_out_rows(report)),
            *_section("Filters", _filter_rows(report)),
            *_section("Eval sets that it was held against", _leak_rows(report)),
            *_section("Diversity, answers / prompts", _diversity_rows(report.languages)),
            *_section("Origin", _origin_rows(report)),
            "",
            "## Load",
            "",
            *_loading(target, names[0]),
            *_command(report),
            "",
        ]
    )


def _header(report: Report, target: Target, names: Sequence[str]) -> Iterator[str]:
    tags = sorted({name.split("-")[0] for name in names} - {UNDETERMINED})
    kinds = ["synthetic", "data-arbitrage", report.kind]
    yield "---"
    # Quoted throughout: to YAML, a bare `no` is false and not Norwegian.
    yield f"language: {json.dumps(tags)}"
    yield f"tags: {json.dumps(kinds)}"
    yield "configs:"
    if target.one_file:
        yield from _config(_EVERYTHING, target.to.name)
    else:
        yield from _config(_EVERYTHING, f"data/*/*.{target.suffix}")
        yield "  default: true"
        for name in dict.fromkeys(map(folder, names)):
            # `all` is also the tag of Allar, a language of Kerala.
            config = f"{name}-alone" if name == _EVERYTHING else name
            yield from _config(config, f"data/{name}/*.{target.suffix}")
    yield "---"


def _config(name: str, files: str) -> list[str]:
    return [f"- config_name: {json.dumps(name)}", f"  data_files: {json.dumps(files)}"]


def _language_rows(languages: Mapping[str, Language]) -> Iterator[Sequence[str]]:
    yield "language", "lines", "of samples", "mean reward", "quartiles"
    for name, language in languages.items():
        rewards = [f"{reward:.3f}" for reward in language.rewards or ()]
        mean, quartiles = "".join(rewards[:1]), ", ".join(rewards[1:])
        yield name, f"{language.kept:,}", f"{language.read:,}", mean, quartiles


def _teacher_rows(report: Report) -> Iterator[Sequence[str]]:
    yield "teacher", "model", "licence", "outputs may train others", "lines"
    for name, (count, source) in report.teachers.items():
        may = {True: "yes", False: "no", None: "not stated"}[source.trainable]
        licence = source.license or "not stated"
        yield name, source.model or "not stated", licence, may, f"{count:,}"


def _left_out_rows(report: Report) -> Iterator[Sequence[str]]:
    yield "why", "samples"
    for reason, count in report.left_out.items():
        yield reason, f"{count:,}"


def _filter_rows(report: Report) -> Iterator[Sequence[str]]:
    yield "filter", "setting"
    for field in dataclasses.fields(report.filters):
        value = getattr(report.filters, field.name)
        if value not in (None, (), False):
            yield field.name.replace("_", " "), _words(value)


def _leak_rows(report: Report) -> Iterator[Sequence[str]]:
    """Without what they share: a card that quotes an eval set spreads it."""
    yield "eval set", "samples left out", "an example"
    for file, leaks in report.leaks.items():
        examples = (f"{where} and line {match.line}" for _, where, match in leaks.examples)
        yield PurePath(file).name, f"{leaks.samples:,}", next(examples, "")


def _diversity_rows(languages: Mapping[str, Language]) -> Iterator[Sequence[str]]:
    """Of a sample of both, each answer and its prompt cut to one length; tokens are of all."""
    yield "language", "distinct-1", "distinct-2", "distinct-3", "self-BLEU", "compression", "tokens"
    for name, language in languages.items():
        if found := language.diversity:
            ours, theirs = found.answers, found.prompts
            yield (
                name,
                *(
                    f"{a:.2f} / {b:.2f}"
                    for a, b in zip(ours.distinct, theirs.distinct, strict=True)
                ),
                f"{ours.self_bleu:.2f} / {theirs.self_bleu:.2f}",
                f"{ours.compression:.2f} / {theirs.compression:.2f}",
                f"{found.answer_tokens:.0f} / {found.prompt_tokens:.0f}",
            )


def _origin_rows(report: Report) -> Iterator[Sequence[str]]:
    yield "what", "which"
    yield "runs", ", ".join(root.resolve().name for root in report.roots)
    policies = ", ".join(f"{name} {count:,}" for name, count in report.policies.items())
    yield "policies, with lines", policies
    yield "cost of all answers to these prompts", f"${report.cost_usd:,.4f}"
    yield "cost of the runs' answers", f"${report.read_cost_usd:,.4f}"


def _loading(target: Target, language: str) -> list[str]:
    if target.one_file:
        kind = "json" if target.suffix == "jsonl" else target.suffix
        call = f'load_dataset("{kind}", data_files={json.dumps(target.to.name)}, split="train")'
    else:
        call = f'load_dataset("path/of/this/folder", {json.dumps(language)}, split="train")'
    return ["```python", "from datasets import load_dataset", "", call, "```"]


def _command(report: Report) -> list[str]:
    return ["", "## Made by", "", "```", report.command, "```"] if report.command else []


def _section(title: str, rows: Iterable[Sequence[str]]) -> list[str]:
    """A table under its title; nothing where there is no row."""
    heading, *body = rows
    if not body:
        return []
    lines = [heading, ["---"] * len(heading), *body]
    return ["", f"## {title}", "", *(f"| {' | '.join(map(_cell, line))} |" for line in lines)]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _words(value: Any) -> str:
    values = value if isinstance(value, tuple) else (value,)
    return ", ".join(one.name if isinstance(one, PurePath) else str(one) for one in values)
