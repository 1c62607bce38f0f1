"""The numbers of a report, out of one pass over a log; their size does not grow with it."""

from __future__ import annotations

import math
import random
from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sink.report.moments import Moments, Reservoir
from sink.report.regret import Regret

if TYPE_CHECKING:
    from datetime import datetime

    from arbitrage.types import Candidate, Sample

STEPS = 24
"""Steps of the time axis, each of the same number of samples."""
_MARGINS = 4_000
_BUCKETS = 16  # of latencies, to a power of ten
_FASTEST = 1e-3


@dataclass(slots=True)
class Part:
    """What one teacher did for a group of samples.

    Attributes:
        asked: prompts that it was asked.
        answers: its completions, stopped or not; several to a prompt where it draws several.
        won: prompts of which it has the winner.
        stopped: answers that a gate stopped, one or several.
        stops, failures: by gate, and by outcome.
    """

    asked: int = 0
    answers: int = 0
    won: int = 0
    stopped: int = 0
    cost_usd: float = 0.0
    rewards: Moments = field(default_factory=Moments)
    stops: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    _latencies: Counter[int] = field(default_factory=Counter)

    def add(self, candidate: Candidate) -> None:
        """Counts one candidate of its."""
        self.cost_usd += candidate.cost_usd
        if candidate.failure:
            self.failures[candidate.failure.outcome] += 1
        if candidate.completion:
            self.answers += 1
            self.stopped += bool(candidate.gates)
            self.stops.update({verdict.gate for verdict in candidate.gates})
            if not candidate.completion.cached:
                latency = max(candidate.latency_seconds, _FASTEST)
                self._latencies[math.floor(math.log10(latency) * _BUCKETS)] += 1
        if candidate.reward is not None:
            self.rewards.add(candidate.reward)

    def latency(self, quantile: float) -> float | None:
        """Seconds in which that share of its answers came, to about 7%; None without any."""
        rest = quantile * self._latencies.total()
        for bucket, count in sorted(self._latencies.items()):
            rest -= count
            if rest <= 0.0:
                return float(10.0 ** ((bucket + 0.5) / _BUCKETS))
        return None


@dataclass(slots=True)
class Step:
    """One step of the time axis."""

    samples: int = 0
    calls: int = 0
    routes: Counter[str] = field(default_factory=Counter)
    rewards: Moments = field(default_factory=Moments)

    def __add__(self, other: Step) -> Step:
        return Step(
            self.samples + other.samples,
            self.calls + other.calls,
            self.routes + other.routes,
            self.rewards + other.rewards,
        )


@dataclass(slots=True)
class Group:
    """What became of a group of samples: those of a language, or all.

    Attributes:
        rewards: of the winners.
        leads: winner's reward minus its prompt's mean, where several were scored.
        margins: some of them, drawn evenly.
        parts: by teacher.
        course: the steps of the time axis, all of them.
    """

    samples: int = 0
    unanswered: int = 0
    calls: int = 0
    cost_usd: float = 0.0
    first: datetime | None = None
    last: datetime | None = None
    rewards: Moments = field(default_factory=Moments)
    leads: Moments = field(default_factory=Moments)
    fan_out: Counter[int] = field(default_factory=Counter)
    waves: Counter[int] = field(default_factory=Counter)
    margins: Reservoir[float] = field(
        default_factory=lambda: Reservoir(_MARGINS, random.Random(0))  # noqa: S311 - not for secrets
    )
    parts: defaultdict[str, Part] = field(default_factory=lambda: defaultdict(Part))
    course: list[Step] = field(default_factory=lambda: [Step() for _ in range(STEPS)])

    def add(self, sample: Sample, step: int) -> None:
        """Counts one sample, made in that step of the time axis."""
        decision, winner = sample.decision, sample.winner
        self.samples += 1
        self.calls += len(decision.arms)
        self.first = min(self.first or sample.created_at, sample.created_at)
        self.last = max(self.last or sample.created_at, sample.created_at)
        self.fan_out[len(decision.arms)] += 1
        self.waves[max(decision.waves, default=-1) + 1] += 1
        now = self.course[step]
        now.samples += 1
        now.calls += len(decision.arms)
        now.routes.update(decision.arms)
        for arm in decision.arms:
            self.parts[arm].asked += 1
        for candidate in sample.candidates:
            self.cost_usd += candidate.cost_usd
            self.parts[candidate.teacher].add(candidate)
        if winner is None:
            self.unanswered += 1
        else:
            self.parts[winner.teacher].won += 1
            if winner.reward is not None:
                self.rewards.add(winner.reward)
                now.rewards.add(winner.reward)
            if winner.advantage is not None and sample.margin is not None:
                self.leads.add(winner.advantage)
        if sample.margin is not None and math.isfinite(sample.margin):
            self.margins.offer(sample.margin)

    @property
    def answered(self) -> int:
        """Samples with a winner."""
        return self.samples - self.unanswered

    def leader(self) -> str | None:
        """Who has won most; of equals, the first by name."""
        won = {name: part.won for name, part in sorted(self.parts.items()) if part.won}
        return max(won, key=lambda name: won[name], default=None)

    def stops(self) -> Counter[str]:
        """Answers stopped, by gate."""
        return sum((part.stops for part in self.parts.values()), Counter())

    def failures(self) -> Counter[str]:
        """Calls that brought no answer, by outcome."""
        return sum((part.failures for part in self.parts.values()), Counter())


class Figures:
    """All numbers of a report.

    Attributes:
        total: samples of the log, which set the steps of the time axis.
        everything: all samples.
        by_language: those of each language.
        policies: samples by the kind of the policy that decided.
        regret: what was lost for not knowing better.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.everything = Group()
        self.by_language: defaultdict[str, Group] = defaultdict(Group)
        self.policies: Counter[str] = Counter()
        self.regret = Regret(STEPS)
        self._prompts = array("q")

    def add(self, sample: Sample) -> None:
        """Counts the next sample, in the order of their making."""
        step = min(self.everything.samples * STEPS // max(self.total, 1), STEPS - 1)
        self.everything.add(sample, step)
        self.by_language[sample.prompt.language].add(sample, step)
        self.policies[sample.decision.policy] += 1
        self.regret.add(sample, step)
        self._prompts.append(hash(sample.prompt.prompt_id))

    @property
    def prompts(self) -> int:
        """Prompts that are not one another's repetition."""
        return len(np.unique(np.array(self._prompts, dtype=np.int64)))

    @property
    def teachers(self) -> list[str]:
        """Everybody, whoever has won most first."""
        parts = self.everything.parts
        return sorted(parts, key=lambda name: (-parts[name].won, -parts[name].asked, name))

    @property
    def languages(self) -> list[str]:
        """All, the most frequent first."""
        groups = self.by_language
        return sorted(groups, key=lambda tag: (-groups[tag].samples, tag))
