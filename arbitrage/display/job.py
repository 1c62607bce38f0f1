"""How far a job is."""

from __future__ import annotations

from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING

from arbitrage.display.progress import Progress
from arbitrage.display.sample import side_by_side
from arbitrage.events import Answered, Routed, Stored

if TYPE_CHECKING:
    from rich.console import Console

    from arbitrage.events import Event
    from arbitrage.job import Job

_RECENT_SECONDS = 60.0  # that the rate is of
_LARGE = 100  # seconds, or minutes: more are told in the next unit


class JobDisplay(Progress):
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
        super().__init__(console)
        self.calls = 0
        self.cost_usd = 0.0
        self._job = job
        self._total = total
        self._preview = preview
        self._ends: deque[float] = deque()  # when the prompts of late ended

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
                if self._preview:
                    self.say(side_by_side(sample))
                winner = sample.winner
                won = (winner.teacher, winner.reward or 0.0) if winner else None
                self.count(sample.prompt.language, len(sample.decision.arms), won)

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

    def _rate(self) -> float:
        """Prompts a second, of late."""
        if not self._ends:
            return 0.0
        seconds = perf_counter() - max(self._begun, self._ends[0])
        return len(self._ends) / max(seconds, 1e-3)


def _duration(seconds: float) -> str:
    """A time, to the precision that a person wants.

    >>> _duration(42.4), _duration(600), _duration(7500)
    ('42 s', '10 min', '2 h 5 min')
    """
    if seconds < _LARGE:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < _LARGE else f"{minutes // 60} h {minutes % 60} min"
