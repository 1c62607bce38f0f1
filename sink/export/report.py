"""What an export has kept, what it has left out and why, and what is odd about the rest."""

from __future__ import annotations

import dataclasses
from array import array
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from sink.export.provenance import Source
from sink.export.rows import cost
from sink.quality.diversity import Gauge

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sink.export.filters import Filters
    from sink.export.reasons import Reason
    from sink.export.rows import Kind, Line
    from sink.export.selection import Leaks, Selection
    from sink.quality.diversity import Alarms, Diversity


@dataclasses.dataclass(frozen=True, slots=True)
class Language:
    """One language of an export.

    Attributes:
        kept: lines in it.
        left_out: samples of it that make none, by why.
        rewards: of the winners kept: their mean, and the quartiles.
        diversity: how different the answers are; None where there is none.
    """

    kept: int
    left_out: Mapping[Reason, int]
    rewards: tuple[float, float, float, float] | None
    diversity: Diversity | None

    @property
    def read(self) -> int:
        """Samples of it in the log."""
        return self.kept + sum(self.left_out.values())


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """An export, in figures.

    Attributes:
        roots: the runs it is from.
        files: what it wrote, from `to` on.
        languages: by their tag, in alphabetical order.
        teachers: lines that hold a text of each, and what is known of it.
        policies: lines by the kind of the policy that decided.
        leaks: what eval sets and samples share, by the eval set's file.
        cost_usd: what the answers to the kept prompts cost, those included that lost.
        read_cost_usd: what those to all prompts of the log did.
        warnings: what to look at before training on it, one line each.
        command: what was typed, if it was.
    """

    to: Path
    kind: Kind
    roots: tuple[Path, ...]
    filters: Filters
    languages: Mapping[str, Language]
    teachers: Mapping[str, tuple[int, Source]]
    policies: Mapping[str, int]
    leaks: Mapping[str, Leaks]
    cost_usd: float
    read_cost_usd: float
    warnings: tuple[str, ...]
    command: str | None = None

    @property
    def read(self) -> int:
        """Samples of the log."""
        return sum(language.read for language in self.languages.values())

    @property
    def kept(self) -> int:
        """Lines written."""
        return sum(language.kept for language in self.languages.values())

    @property
    def left_out(self) -> Mapping[Reason, int]:
        """Samples that make no line, by why, the most frequent first."""
        total: Counter[Reason] = Counter()
        for language in self.languages.values():
            total.update(language.left_out)
        return dict(total.most_common())

    def plain(self) -> dict[str, Any]:
        """The same as plain values, for JSON; without what eval sets say, lest it spread."""
        plain = {"read": self.read, "kept": self.kept, **dataclasses.asdict(self)}
        plain["leaks"] = {
            file: {
                "samples": leaks.samples,
                "examples": [(name, where, match.line) for name, where, match in leaks.examples],
            }
            for file, leaks in self.leaks.items()
        }
        return plain


class Ledger:
    """Counts the lines of an export while they are written."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._kept: Counter[str] = Counter()
        self._rewards: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self._gauges: dict[str, Gauge] = {}
        self._teachers: Counter[str] = Counter()
        self._policies: Counter[str] = Counter()
        self._cost_usd = 0.0

    def add(self, line: Line) -> None:
        """Takes a line."""
        sample, language = line.sample, line.sample.prompt.language
        self._kept[language] += 1
        self._teachers.update(set(line.teachers))
        self._policies[sample.decision.policy] += 1
        self._cost_usd += cost(sample)
        if line.winner and line.reward is not None:
            self._rewards[language].append(line.reward)
            gauge = self._gauges.setdefault(language, Gauge(self._seed))
            gauge.add(sample.sample_id, sample.prompt.text, line.answer, line.winner.teacher)

    def close(
        self,
        selection: Selection,
        sources: Mapping[str, Source],
        alarms: Alarms,
        **told: Any,
    ) -> Report:
        """The report of all that was added.

        Args:
            selection: knows what was left out.
            sources: what is known of the teachers.
            alarms: when a language's answers are too much alike.
            told: the other fields of the report.
        """
        names = sorted(self._kept.keys() | selection.left_out.keys())
        languages = {name: self._language(name, selection) for name in names}
        teachers = {
            name: (count, sources.get(name, Source()))
            for name, count in sorted(self._teachers.items())
        }
        return Report(
            languages=languages,
            teachers=teachers,
            policies=dict(self._policies.most_common()),
            leaks=dict(selection.leaks),
            cost_usd=self._cost_usd,
            read_cost_usd=selection.cost_usd,
            warnings=tuple(_warnings(languages, teachers, alarms)),
            **told,
        )

    def _language(self, name: str, selection: Selection) -> Language:
        rewards = np.asarray(self._rewards.get(name, ()))
        gauge = self._gauges.get(name)
        return Language(
            kept=self._kept[name],
            left_out=dict(selection.left_out.get(name, {})),
            rewards=(float(rewards.mean()), *np.quantile(rewards, (0.25, 0.5, 0.75)).tolist())
            if len(rewards)
            else None,
            diversity=gauge.read() if gauge else None,
        )


def _warnings(
    languages: Mapping[str, Language],
    teachers: Mapping[str, tuple[int, Source]],
    alarms: Alarms,
) -> Iterator[str]:
    for name, (count, source) in teachers.items():
        if source.trainable is False:
            yield f"{count:,} lines hold answers of {name}, whose outputs may not train others"
    unknown = [name for name, (_, source) in teachers.items() if source.trainable is None]
    if unknown:
        yield f"nobody has said whether outputs may train others: {', '.join(unknown)}"
    for name, language in languages.items():
        if language.diversity:
            yield from (f"{name}: {warning}" for warning in alarms.warnings(language.diversity))
