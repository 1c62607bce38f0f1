"""How a job looks in a terminal, and in a log where there is none."""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Self

from rich.live import Live
from rich.table import Table

from arbitrage.events import Answered, Routed, Stored

if TYPE_CHECKING:
    from rich.console import Console

    from arbitrage.events import Event
    from arbitrage.job import Job
    from arbitrage.types import Candidate, Sample

_LINE_SECONDS = 15.0
_RECENT_SECONDS = 60.0  # that the rate is of
_SHOWN = 600  # characters of an answer
_LARGE = 100  # seconds, or minutes: more are told in the next unit
_LANGUAGES = 24  # lines of the table at most; the rest are told as one


@dataclass(slots=True)
class _Language:
    samples: int = 0
    reward: float = 0.0
    calls: int = 0
    wins: Counter[str] = field(default_factory=Counter)

    def add(self, other: _Language) -> None:
        self.samples += other.samples
        self.reward += other.reward
        self.calls += other.calls
        self.wins += other.wins


class JobDisplay:
    """An observer of the engine that shows how far a job is: rate, cost, and who wins where.

    Args:
        console: where to; plain lines now and then where that is no terminal.
        job: whose counts are shown.
        total: prompts that there are, where that is known.
        preview: whether each sample is shown as it comes, with all its candidates.
    """

    def __init__(
        self, console: Console, job: Job, total: int | None = None, *, preview: bool = False
    ) -> None:
        self.calls = 0
        self.cost_usd = 0.0
        self._console = console
        self._job = job
        self._total = total
        self._preview = preview
        self._languages: defaultdict[str, _Language] = defaultdict(_Language)
        self._ends: deque[float] = deque()  # when the prompts of late ended
        self._begun = self._said = perf_counter()
        self._live = Live(console=console, get_renderable=self.table, refresh_per_second=2)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()
        else:
            self._console.print(self.table())

    def observe(self, event: Event) -> None:
        """Counts it in."""
        match event:
            case Routed(_, wave):
                self.calls += len(wave.arms)
            case Answered(_, candidate):
                self.cost_usd += candidate.cost_usd
            case Stored(sample):
                now = perf_counter()
                self._ends.append(now)
                while self._ends[0] < now - _RECENT_SECONDS:
                    self._ends.popleft()
                row = self._languages[sample.prompt.language]
                row.calls += len(sample.decision.arms)
                if sample.winner:
                    row.samples += 1
                    row.reward += sample.winner.reward or 0.0
                    row.wins[sample.winner.teacher] += 1
                if self._preview:
                    self._console.print(side_by_side(sample))
                if not self._console.is_terminal and now - self._said > _LINE_SECONDS:
                    self._said = now
                    self._console.print(self.summary(), soft_wrap=True)

    def say(self, line: str) -> None:
        """Says something beside."""
        self._console.print(line, soft_wrap=True)

    def summary(self) -> str:
        """One line: how far, how fast, at what cost, and for how long yet."""
        counts = self._job.counts
        of = f"/{self._total}" if self._total else ""
        parts = [f"{counts.done}{of} prompts"]
        if counts.known:
            parts.append(f"{counts.known} of them before")
        if unanswered := counts.unanswered.total():
            parts.append(f"{unanswered} without a winner")
        if counts.rejected:
            parts.append(f"{counts.rejected} rejected")
        rate = self._rate()
        parts += [f"{rate:.1f} a second", f"{self.calls} calls", f"{self.cost_usd:.4f} USD"]
        ended = counts.answered + unanswered
        if self._total and rate and ended:
            left = max(self._total - counts.done, 0)
            cost = self.cost_usd / ended * left
            parts.append(f"to go: {_duration(left / rate)}, {cost:.4f} USD")
        if self._job.in_flight:
            parts.append(f"{self._job.in_flight} in flight")
        return ", ".join(parts)

    def table(self) -> Table:
        """The summary, and a line a language, those with the most samples first."""
        table = Table(title=self.summary(), title_justify="left", box=None, pad_edge=False)
        for name in ("language", "samples", "mean reward", "calls a prompt", "wins"):
            table.add_column(
                name, justify="left" if name in {"language", "wins"} else "right", overflow="fold"
            )
        ranked = sorted(self._languages.items(), key=lambda item: -item[1].samples)
        shown = ranked if len(ranked) <= _LANGUAGES else ranked[: _LANGUAGES - 1]
        rest = _Language()
        for _, row in ranked[len(shown) :]:
            rest.add(row)
        others = [(f"{len(ranked) - len(shown)} others", rest)] if rest.calls else []
        for language, row in [*shown, *others]:
            wins = ", ".join(f"{teacher} {count}" for teacher, count in row.wins.most_common(4))
            reward = f"{row.reward / row.samples:+.2f}" if row.samples else ""
            calls = f"{row.calls / max(row.samples, 1):.1f}"
            table.add_row(language, str(row.samples), reward, calls, wins)
        return table

    def _rate(self) -> float:
        """Prompts a second, of late."""
        if not self._ends:
            return 0.0
        seconds = perf_counter() - max(self._begun, self._ends[0])
        return len(self._ends) / max(seconds, 1e-3)


def side_by_side(sample: Sample) -> Table:
    """A prompt, and what everyone answered, the winner first."""
    asked = " ".join(sample.prompt.text.split())
    table = Table(
        title=f"[{sample.prompt.language}] {_shortened(asked)}", title_justify="left", expand=True
    )
    table.add_column("teacher", no_wrap=True)
    table.add_column("reward", justify="right", no_wrap=True)
    table.add_column("answer", overflow="fold", ratio=1)
    worth = {id(one): one.reward for one in sample.candidates}
    ranked = sorted(
        sample.candidates,
        key=lambda one: (one is not sample.winner, -(worth[id(one)] or -math.inf)),
    )
    for one in ranked:
        mark = "* " if one is sample.winner else "  "
        reward = f"{one.reward:+.2f}" if one.reward is not None else ""
        table.add_row(mark + one.teacher, reward, _said(one))
    return table


def _said(candidate: Candidate) -> str:
    if candidate.failure:
        return f"failed: {candidate.failure.message}"
    text = _shortened(candidate.completion.text if candidate.completion else "")
    if candidate.gates:
        return f"stopped by {', '.join(gate.gate for gate in candidate.gates)}: {text}"
    return text


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


def _duration(seconds: float) -> str:
    """A time, to the precision that a person wants.

    >>> _duration(42.4), _duration(600), _duration(7500)
    ('42 s', '10 min', '2 h 5 min')
    """
    if seconds < _LARGE:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < _LARGE else f"{minutes // 60} h {minutes % 60} min"
