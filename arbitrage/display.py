"""How a run and a policy look in a terminal."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from statistics import fmean
from time import perf_counter
from typing import TYPE_CHECKING, Literal, Self

from rich.live import Live
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from arbitrage.v1 import arbitrage_pb2 as pb

_PLAIN_LINE_SECONDS = 15.0
_WITHIN_95 = 1.96  # standard errors
_NAMES = frozenset({"language", "arm", "favourite", "runner-up", "wins"})  # not figures


@dataclass(slots=True)
class _Language:
    samples: int = 0
    wins: Counter[str] = field(default_factory=Counter)
    rewards: list[float] = field(default_factory=list)
    calls: int = 0


class Progress:
    """Who wins in which language while samples come in; plain lines where there is no terminal.

    Attributes:
        teachers: the size of the pool.
        calls: calls made to teachers so far.
        samples: samples with a winner so far.
        failures: why prompts ended without one, in the order of their ending.
    """

    def __init__(self, console: Console, prompts: int, teachers: int) -> None:
        """Starts the clock.

        Args:
            prompts: how many are to come.
            teachers: the size of the pool, which asking everyone would call each time.
        """
        self.calls = 0
        self.samples = 0
        self.failures: list[str] = []
        self._prompts = prompts
        self.teachers = teachers
        self._languages: defaultdict[str, _Language] = defaultdict(_Language)
        self._console = console
        self._started = self._last_line = perf_counter()
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=4)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()
        else:
            self._console.print(self._table())

    def add(self, sample: pb.Sample) -> None:
        """Counts a sample in."""
        row = self._languages[sample.language]
        row.samples += 1
        row.wins[sample.winner.teacher] += 1
        row.rewards.append(sample.winner.reward)
        row.calls += len(sample.decision.choices)
        self.calls += len(sample.decision.choices)
        self.samples += 1
        self._say()

    def fail(self, reason: str, *, calls: int) -> None:
        """Counts a prompt that ended without a sample, and the calls that it cost."""
        self.failures.append(reason)
        self.calls += calls
        self._say()

    def _say(self) -> None:
        now = perf_counter()
        if not self._console.is_terminal and now - self._last_line > _PLAIN_LINE_SECONDS:
            self._last_line = now
            self._console.print(self._summary())

    def _summary(self) -> str:
        done = self.samples + len(self.failures)
        seconds = perf_counter() - self._started
        everyone = done * self.teachers
        saved = 1 - self.calls / everyone if everyone else 0.0
        return (
            f"{done}/{self._prompts} prompts in {seconds:.0f} s, {self.calls} calls "
            f"({saved:.0%} fewer than asking all {self.teachers})"
        )

    def _table(self) -> Table:
        table = _table_of(
            self._summary(), "language", "samples", "wins", "mean reward", "calls a prompt"
        )
        for language, row in sorted(self._languages.items()):
            table.add_row(
                language,
                str(row.samples),
                ", ".join(f"{teacher} {wins}" for teacher, wins in row.wins.most_common()),
                f"{fmean(row.rewards):+.2f}",
                f"{row.calls / row.samples:.1f}",
            )
        return table


def favourites(policy: pb.GetPolicyResponse) -> Table:
    """What a policy learned, a line a language: whom it likes best, and by how much."""
    title = f"what policy {policy.policy!r} learned from {policy.version} prompts"
    columns = ("language", "favourite", "expected reward", "asked", "runner-up", "behind by")
    table = _table_of(title, *columns)
    for language in policy.languages:
        best, *others = _ranked(language)
        table.add_row(
            language.language,
            best.arm,
            _with_error(best),
            f"{best.route_share:.0%}",
            others[0].arm if others else "",
            f"{best.mean_reward - others[0].mean_reward:.2f}" if others else "",
        )
    return table


def learned(policy: pb.GetPolicyResponse) -> Table:
    """All that a policy believes: a line for each language and arm, the best arm first."""
    title = f"policy {policy.policy!r}, {policy.version} prompts learned from"
    columns = (
        "language",
        "arm",
        "expected reward (95%)",
        "is the best",
        "asked",
        "USD per 1000 calls",
        "scored",
        "stopped by gates",
    )
    table = _table_of(title, *columns)
    table.caption = _paid(policy)
    table.caption_justify = "left"
    for language in policy.languages:
        for arm in _ranked(language):
            table.add_row(
                language.language,
                arm.arm,
                f"{arm.mean_reward:+.2f} ± {_WITHIN_95 * arm.standard_error:.2f}",
                f"{arm.best_probability:.0%}",
                f"{arm.route_share:.0%}",
                f"{1000 * arm.cost_usd:.4g}",
                str(arm.count),
                str(arm.rejected_count),
            )
        table.add_section()
    return table


def _paid(policy: pb.GetPolicyResponse) -> str:
    """What quality costs, in a line."""
    spent = f"a prompt costs {policy.usd_per_prompt:.4g} USD"
    if not policy.price:
        return f"{spent}; rewards alone decide, whatever they cost"
    worth = policy.price / 1000.0
    return f"{spent}; 0.001 USD more have to bring {worth:.4g} standard deviations of reward"


def _table_of(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in columns:
        justify: Literal["left", "right"] = "left" if name in _NAMES else "right"
        table.add_column(name, justify=justify, no_wrap=name != "wins")
    return table


def _ranked(language: pb.LanguageEstimates) -> list[pb.ArmEstimate]:
    return sorted(language.arms, key=lambda arm: -arm.mean_reward)


def _with_error(arm: pb.ArmEstimate) -> str:
    return f"{arm.mean_reward:+.2f} ± {arm.standard_error:.2f}"
