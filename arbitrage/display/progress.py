"""How far prompts are, while they are answered."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Self

from rich.live import Live

from arbitrage.display.tables import titled

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

_LINE_SECONDS = 15.0
_LANGUAGES = 24  # lines of the table at most; the rest are told as one
_WINNERS = 5  # named in a line


@dataclass(slots=True)
class _Line:
    prompts: int = 0
    calls: int = 0
    reward: float = 0.0
    wins: Counter[str] = field(default_factory=Counter)

    @property
    def samples(self) -> int:
        return self.wins.total()

    def add(self, other: _Line) -> None:
        self.prompts += other.prompts
        self.calls += other.calls
        self.reward += other.reward
        self.wins += other.wins


class Progress(ABC):
    """Who wins in which language, as it happens; where there is no terminal, a line now and then.

    It shows its summary, and a line a language.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lines: defaultdict[str, _Line] = defaultdict(_Line)
        self._begun = self._said = perf_counter()
        self._live = Live(self, console=console)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()
        else:
            self.say(self)

    @abstractmethod
    def summary(self) -> str:
        """One line: how far it is."""

    def count(self, language: str, calls: int, won: tuple[str, float] | None = None) -> None:
        """Counts a prompt in that has ended, after so many calls: who has won, by what reward."""
        line = self._lines[language]
        line.prompts += 1
        line.calls += calls
        if won:
            line.wins[won[0]] += 1
            line.reward += won[1]
        now = perf_counter()
        if not self._console.is_terminal and now - self._said > _LINE_SECONDS:
            self._said = now
            self.say(self.summary())

    def say(self, what: RenderableType) -> None:
        """Says something beside."""
        self._console.print(what, soft_wrap=isinstance(what, str))

    def __rich__(self) -> Table:
        columns = ("language", "samples", "mean reward", "calls a prompt", "wins")
        table = titled(self.summary(), *columns)
        # of many, those with the most samples ...
        ranked = sorted(self._lines.items(), key=lambda item: -item[1].samples)
        shown = ranked if len(ranked) <= _LANGUAGES else ranked[: _LANGUAGES - 1]
        rest = _Line()
        for _, line in ranked[len(shown) :]:
            rest.add(line)
        others = [(f"{len(ranked) - len(shown)} others", rest)] if rest.prompts else []
        # ... by name, lest lines jump about
        for language, line in [*sorted(shown, key=lambda item: item[0]), *others]:
            wins = (f"{teacher} {count}" for teacher, count in line.wins.most_common()[:_WINNERS])
            reward = f"{line.reward / line.samples:+.2f}" if line.samples else ""
            calls = f"{line.calls / line.prompts:.1f}"
            table.add_row(language, str(line.samples), reward, calls, ", ".join(wins))
        return table
