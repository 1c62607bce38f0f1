"""What a run is going to take, as people ask for it: calls, tokens, money and time."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0
_THOUSAND, _MILLION, _MILLIARD = 1e3, 1e6, 1e9
_WHOLE = 10_000  # up to which a figure is written out
_CENT = 0.01


@dataclass(frozen=True, slots=True)
class Range:
    """A figure: as expected, and at most; None where nothing bounds it."""

    expected: float = 0.0
    most: float | None = 0.0

    def __add__(self, other: Range) -> Range:
        bounded = self.most is not None and other.most is not None
        most = self.most + other.most if bounded else None  # type: ignore[operator]
        return Range(self.expected + other.expected, most)

    def times(self, factor: float) -> Range:
        """So many of them."""
        return Range(self.expected * factor, None if self.most is None else self.most * factor)


@dataclass(frozen=True, slots=True)
class Use:
    """What some calls use.

    Attributes:
        least: calls that are made whatever the answers are.
        usd: US dollars.
    """

    least: float = 0.0
    calls: Range = Range()
    prompt_tokens: Range = Range()
    completion_tokens: Range = Range()
    usd: Range = Range()

    def __add__(self, other: Use) -> Use:
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(Use))
        return Use(*(one + another for one, another in pairs))


@dataclass(frozen=True, slots=True)
class Part:
    """What a language, a teacher, or one teacher in one language takes.

    Attributes:
        prompts: prompts for which it may be asked.
        seconds: for a teacher, how long it is busy; None for a language.
    """

    language: str | None
    teacher: str | None
    prompts: int
    use: Use
    seconds: Range | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run is going to take.

    Attributes:
        policy: its kind.
        learned_from: prompts that it has learned from.
        prompts: prompts that are going to be answered.
        done, rejected, unserved: prompts that are answered already, rows that are none,
            and prompts in languages in which nobody may be asked; none of them counts.
        cells: one teacher in one language.
        languages, teachers: the same by language, and by teacher, judges behind the others.
        total: of all.
        seconds: from the first prompt to the last.
        slowest: what the time is bounded by.
        budget_usd: what may still be spent; None without a limit.
        assumptions: what the figures rest on, a sentence each.
    """

    policy: str
    learned_from: int
    prompts: int
    done: int
    rejected: int
    unserved: int
    cells: Sequence[Part]
    languages: Sequence[Part]
    teachers: Sequence[Part]
    total: Use
    seconds: Range
    slowest: str
    budget_usd: float | None
    assumptions: Sequence[str]

    def plain(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return dataclasses.asdict(self)

    def parts(self) -> Iterator[Table | str]:
        """The same for a terminal of 80 columns: tables, and a line for each thing to know."""
        known = f"after {self.learned_from:,} prompts" if self.learned_from else "knowing nothing"
        yield f"{self.prompts:,} prompts, policy {self.policy!r} {known}"
        for count, what in (
            (self.done, "are answered already"),
            (self.rejected, "lines are no prompts"),
            (self.unserved, "are in languages in which no teacher may be asked"),
        ):
            if count:
                yield f"{count:,} {what}: not counted"
        yield self._table("language", self.languages, self.total)
        yield self._table("teacher", self.teachers)
        yield self._tokens()
        yield f"time: about {_time(self.seconds.expected)}, {self._slow()}; set by {self.slowest}"
        yield self._money()
        yield "assumed:"
        yield from (f"- {assumption}" for assumption in self.assumptions)

    def _tokens(self) -> str:
        asked, written = self.total.prompt_tokens, self.total.completion_tokens
        most = "" if written.most is None else f" and {_count(written.most)} out"
        return (
            f"tokens: about {_count(asked.expected)} in and {_count(written.expected)} out, at "
            f"most {_count(asked.most)} in{most or '; nothing bounds what comes out'}"
        )

    def _slow(self) -> str:
        slow = self.seconds.most
        return "without a bound" if slow is None else f"{_time(slow)} if all goes slowly"

    def _money(self) -> str:
        usd = self.total.usd
        most = "without a bound" if usd.most is None else f"{_usd(usd.most)} USD at most"
        line = f"cost: about {_usd(usd.expected)} USD, {most}"
        if self.budget_usd is None:
            return line
        line += f"; the budget stops it at {_usd(self.budget_usd)} USD"
        if usd.expected > self.budget_usd:
            share = self.budget_usd / usd.expected
            line += f", after some {self.prompts * share:,.0f} prompts"
        return line

    def _table(self, name: str, parts: Sequence[Part], total: Use | None = None) -> Table:
        table = Table(title=f"by {name}", title_justify="left", title_style="bold")
        table.add_column(name, overflow="fold")
        for column in ("prompts", "calls", "at most", "tokens in", "out", "USD", "at most"):
            table.add_column(column, justify="right", no_wrap=True)
        for part in parts:
            table.add_row(str(getattr(part, name)), _count(part.prompts), *_cells(part.use))
        if total is not None:
            table.add_section()
            table.add_row("all", _count(self.prompts), *_cells(total))
        return table


def _cells(use: Use) -> tuple[str, ...]:
    return (
        _count(use.calls.expected),
        _count(use.calls.most),
        _count(use.prompt_tokens.expected),
        _count(use.completion_tokens.expected),
        _usd(use.usd.expected),
        _usd(use.usd.most),
    )


def _count(figure: float | None) -> str:
    """A count in at most six characters.

    >>> [_count(n) for n in (0.4, 9_999, 12_345, 1_234_567, 999_950, 5e9, None)]
    ['0.4', '9,999', '12.3k', '1.23M', '1.00M', '5.00G', '?']
    """
    if figure is None:
        return "?"
    if figure < _WHOLE:
        return f"{figure:,.0f}" if figure >= 1 or figure == 0 else f"{figure:.1f}"
    power = min(int(math.log10(figure * 1.0005) // 3), 4)
    scaled = figure / _THOUSAND**power
    digits = max(0, 2 - int(math.log10(max(scaled, 1.0) * 1.0005)))
    return f"{scaled:.{digits}f}{' kMGT'[power]}"


def _usd(figure: float | None) -> str:
    """US dollars, to the cent, or to two digits below it.

    >>> [_usd(n) for n in (0, 0.00123, 12.345, 1_234_567, None)]
    ['0', '0.0012', '12.35', '1.23M', '?']
    """
    if figure is None:
        return "?"
    if figure >= _WHOLE:
        return _count(figure)
    if figure == 0:
        return "0"
    return f"{figure:,.2f}" if figure >= _CENT else f"{figure:.2g}"


def _time(seconds: float) -> str:
    """A time as people say it.

    >>> [_time(s) for s in (0.2, 59, 61, 5400, 200_000)]
    ['1 s', '59 s', '1 min', '1 h 30 min', '2 days 8 h']
    """
    if seconds < _MINUTE:
        return f"{max(1, round(seconds))} s"
    if seconds < _HOUR:
        return f"{round(seconds / _MINUTE)} min"
    if seconds < _DAY:
        hours, rest = divmod(round(seconds / _MINUTE), 60)
        return f"{hours} h {rest} min"
    days, hours = divmod(round(seconds / _HOUR), 24)
    return f"{days:,} days {hours} h"
