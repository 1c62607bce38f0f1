"""How prompts look in a terminal while they are answered, and in a log."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console

from arbitrage.display.job import JobDisplay
from arbitrage.display.progress import Progress
from arbitrage.events import Answered, Routed, Stored
from arbitrage.job import Job
from tests.samples import sample

if TYPE_CHECKING:
    import pytest


class OfMany(Progress):
    def summary(self) -> str:
        return "so many of many prompts"


def console(*, terminal: bool = False) -> Console:
    return Console(file=StringIO(), width=100, force_terminal=terminal, highlight=False)


def said(where: Console) -> str:
    assert isinstance(where.file, StringIO)
    return where.file.getvalue()


def rows(text: str) -> list[list[str]]:
    """The cells of the last table in it."""
    lines = [line for line in text.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_a_line_says_who_won_in_a_language_and_what_that_took() -> None:
    out = console()
    with OfMany(out) as shown:
        shown.count("ja", 2, ("ada", 1.0))
        shown.count("de", 2, ("bob", -1.0))
        shown.count("de", 1, ("ada", 0.5))
        shown.count("de", 1, ("ada", 0.5))
        shown.count("de", 5)
        assert said(out) == "", "nothing happens between the beginning and the end of a log"
    assert said(out).lstrip().startswith("so many of many prompts")
    assert rows(said(out)) == [
        ["de", "3", "+0.00", "2.2", "ada 2, bob 1"],
        ["ja", "1", "+1.00", "2.0", "ada 1"],
    ]


def test_a_language_in_which_nobody_has_won_has_no_mean_reward() -> None:
    out = console()
    with OfMany(out) as shown:
        shown.count("sw", 3)
    assert rows(said(out)) == [["sw", "0", "", "3.0", ""]]


def test_of_many_languages_those_with_the_most_samples_are_lines() -> None:
    out = console()
    with OfMany(out) as shown:
        for number in range(30):
            for _ in range(1 + (number >= 7)):
                shown.count(f"l{number:02}", 1, ("ada", 1.0))
    *named, others = rows(said(out))
    assert [name for name, *_ in named] == [f"l{number:02}" for number in range(7, 30)]
    assert others == ["7 others", "7", "+1.00", "1.0", "ada 7"]


def test_a_log_has_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    out, now = console(), 0.0
    monkeypatch.setattr("arbitrage.display.progress.perf_counter", lambda: now)
    shown = OfMany(out)
    for _ in range(40):
        now += 1.0
        shown.count("de", 1)
    assert said(out) == "so many of many prompts\n" * 2


def test_a_terminal_shows_what_has_happened_since() -> None:
    out = console(terminal=True)
    with OfMany(out) as shown:
        shown.count("de", 1, ("ada", 1.0))
        shown.say("something beside")
    assert "something beside" in said(out)
    assert "ada 1" in said(out)


def test_a_job_tells_calls_cost_and_each_sample_that_was_asked_for() -> None:
    out = console()
    job = Job(iter(()), name="test", max_in_flight=1)
    won, lost = sample(1), sample(2, won=False)
    with JobDisplay(out, job, 2, preview=True) as shown:
        for number, one in enumerate((won, lost), 1):
            shown.observe(Routed(one.prompt, one.decision))
            for candidate in one.candidates:
                shown.observe(Answered(one.prompt, candidate))
            shown.observe(Stored(one, number))
    told = said(out)
    assert "0/2 prompts" in told
    assert "6 calls, 0.0020 USD" in told
    assert "* beta" in told
    assert "failed: no answer in 60 s" in told
    assert "stopped by wrong_language" in told
    assert rows(told)[-1] == ["de", "1", "+0.50", "3.0", "beta 1"]
