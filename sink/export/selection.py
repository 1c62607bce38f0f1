"""Which samples of a log are exported, and why the others are not."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sink.export.reasons import Reason
from sink.export.rows import Line, cost
from sink.quality.balance import Balance, chance
from sink.quality.contamination import Contamination
from sink.quality.duplicates import Duplicates
from sink.quality.floors import Level

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from arbitrage.types import Prompt, Sample
    from sink.export.filters import Filters
    from sink.export.provenance import Source
    from sink.export.rows import Kind
    from sink.quality.contamination import Match

_KEPT = 0
_REASONS = tuple(Reason)
_EXAMPLES = 3
_LEAST_ANSWER = 20


@dataclass(slots=True)
class Leaks:
    """What an eval set and the samples share.

    Attributes:
        samples: how many share something; each is counted at its first eval set.
        examples: the first of them: the sample's id, `prompt` or `answer`, and the match.
    """

    samples: int = 0
    examples: list[tuple[str, str, Match]] = field(default_factory=list)


class Selection:
    """A verdict on every sample of a log, one byte each.

    It reads the samples once, and once more before it where a least reward or margin is
    that of a share; `lines` reads them again. No text is held.

    Attributes:
        left_out: how many samples of each language were left out, and why.
        leaks: what eval sets and samples share, by the eval set's file.
        cost_usd: what the answers to all prompts cost.
    """

    def __init__(
        self,
        samples: Iterable[Sample],
        kind: Kind,
        filters: Filters,
        sources: Mapping[str, Source],
    ) -> None:
        self._samples = samples
        self._kind = kind
        self._filters = filters
        self._sources = sources
        self._contamination = Contamination.read(filters.decontaminate)
        self._prompts = None if filters.dedupe is None else Duplicates(filters.dedupe)
        self._answers = (
            None
            if filters.dedupe_answers is None
            else Duplicates(filters.dedupe_answers, least=_LEAST_ANSWER)
        )
        self._verdicts = bytearray()
        self.cost_usd = 0.0
        self.left_out: defaultdict[str, Counter[Reason]] = defaultdict(Counter)
        self.leaks = {file: Leaks() for file in self._contamination.files}
        self._reward = Level(filters.min_reward)
        self._margin = Level(filters.min_margin)
        self._measure_all()
        self._judge_all()

    @property
    def read(self) -> int:
        """How many samples there are."""
        return len(self._verdicts)

    @property
    def kept(self) -> int:
        """How many of them are exported."""
        return self._verdicts.count(_KEPT)

    @property
    def summary(self) -> str:
        """How many samples were left out, by why, on one line."""
        total: Counter[Reason] = Counter()
        for counts in self.left_out.values():
            total.update(counts)
        reasons = (f"{count:,} {reason}" for reason, count in total.most_common())
        return f"of {self.read:,} samples, " + ", ".join(reasons)

    def lines(self) -> Iterator[Line]:
        """What is exported, in the log's order."""
        for verdict, sample in zip(self._verdicts, self._samples, strict=True):
            if verdict == _KEPT and isinstance(line := self._line(sample), Line):
                yield line

    def _judge_all(self) -> None:
        balance = Balance()
        for number, sample in enumerate(self._samples):
            self.cost_usd += cost(sample)
            line = self._line(sample)
            reason = line if isinstance(line, Reason) else self._reason(line)
            self._verdicts.append(_REASONS.index(reason) + 1 if reason else _KEPT)
            if reason:
                self.left_out[sample.prompt.language][reason] += 1
            elif isinstance(line, Line) and self._filters.balance is not None:
                balance.add(sample.prompt.language, number, self._rank(line))
        if self._filters.balance is not None:
            for language, numbers in balance.left_out(self._filters.balance).items():
                self.left_out[language][Reason.SURPLUS] += len(numbers)
                for number in numbers:
                    self._verdicts[number] = _REASONS.index(Reason.SURPLUS) + 1

    def _line(self, sample: Sample) -> Line | Reason:
        """The line of a sample that is as good as it has to be, or why it has none."""
        filters, language = self._filters, sample.prompt.language
        if filters.languages and language not in filters.languages:
            return Reason.OTHER_LANGUAGE
        line = Line.of(sample, self._kind, filters.rejected, filters.seed)
        if isinstance(line, Reason):
            return line
        if filters.only_trainable and not all(map(self._trainable, line.teachers)):
            return Reason.NOT_TRAINABLE
        return line

    def _reason(self, line: Line) -> Reason | None:
        """Why a line is left out; what costs least is asked first."""
        prompt = line.sample.prompt
        language = prompt.language
        if not self._reward.reached(language, line.reward):
            return Reason.LOW_REWARD
        if not self._margin.reached(language, line.margin):
            return Reason.LOW_MARGIN
        if self._leaked(line):
            return Reason.CONTAMINATED
        asked, name = _asked(prompt), line.sample.sample_id
        under = _system(prompt)
        if self._prompts is not None and self._prompts.seen(language, asked, name, under=under):
            return Reason.DUPLICATE
        if (
            self._answers is not None
            and line.winner
            and self._answers.seen(language, line.answer, name)
        ):
            return Reason.DUPLICATE_ANSWER
        return None

    def _measure_all(self) -> None:
        """Shows every line's reward and margin to the floors that depend on all of them."""
        if self._reward.waits or self._margin.waits:
            for sample in self._samples:
                line = self._line(sample)
                if isinstance(line, Line):
                    self._reward.add(sample.prompt.language, line.reward)
                    self._margin.add(sample.prompt.language, line.margin)

    def _leaked(self, line: Line) -> bool:
        if not len(self._contamination):
            return False
        for where, text in line.texts():
            if match := self._contamination.overlap(text):
                leaks = self.leaks[match.file]
                leaks.samples += 1
                if len(leaks.examples) < _EXAMPLES:
                    leaks.examples.append((line.sample.sample_id, where, match))
                return True
        return False

    def _rank(self, line: Line) -> float:
        if self._filters.keep == "best":
            return -math.inf if line.reward is None else line.reward
        return chance(line.sample.sample_id, self._filters.seed)

    def _trainable(self, teacher: str) -> bool:
        return teacher in self._sources and self._sources[teacher].trainable is True


def _asked(prompt: Prompt) -> str:
    """What the user has said, in all turns: two dialogues may end in the same question."""
    return "\n".join(message.content for message in prompt.messages if message.role == "user")


def _system(prompt: Prompt) -> str:
    """What the prompt stands under: a long system prompt would make all of its prompts alike."""
    return "\n".join(message.content for message in prompt.messages if message.role == "system")
