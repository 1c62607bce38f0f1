"""Compares ways to make the same call: in turns, against one mock teacher in its own process.

Sides take turns in one process, so that whatever else the machine does meets all of them. A
side's figures are the medians of its turns: calls a second, and the milliseconds of CPU that
the process, with all its threads, spent on a call.
"""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

_HERE = Path(__file__).parent
_WARM_UP_SECONDS = 0.3


@dataclass(slots=True)
class Side:
    """One way to make the call.

    Attributes:
        call: makes it once, and raises where it does not bring what it should.
        close: frees what it holds.
        rates, costs: of each turn: calls a second, CPU milliseconds a call.
    """

    name: str
    call: Callable[[], Awaitable[object]]
    close: Callable[[], Awaitable[object]]
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Calls a second."""
        return median(self.rates)

    @property
    def cost(self) -> float:
        """Milliseconds of CPU a call."""
        return median(self.costs)


async def take_turns(sides: Sequence[Side], *, in_flight: int, seconds: float, rounds: int) -> None:
    """Gives every side a turn of so many seconds, so many times, after a short one to warm up."""
    for side in sides:
        await _turn(side, in_flight, _WARM_UP_SECONDS)
        side.rates.clear()
        side.costs.clear()
    # else one side pays, now and then, for looking through all that another one has imported
    gc.collect()
    gc.freeze()
    for _ in range(rounds):
        for side in sides:
            await _turn(side, in_flight, seconds)
    gc.unfreeze()


async def _turn(side: Side, in_flight: int, seconds: float) -> None:
    calls = 0

    async def go_on() -> None:
        nonlocal calls
        while perf_counter() < end:
            await side.call()
            calls += 1

    cpu, start = process_time(), perf_counter()
    end = start + seconds
    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(go_on())
    side.rates.append(calls / (perf_counter() - start))
    side.costs.append((process_time() - cpu) / calls * 1000)


def describe(side: Side, beside: Side) -> str:
    """One side's figures on a line, compared with another side's round by round."""
    share = median(a / b for a, b in zip(side.rates, beside.rates, strict=True))
    rate, cost = f"{side.rate:.0f} calls/s", f"{side.cost:.3f} ms CPU a call"
    return f"{side.name} | {rate} | {cost} | {share:.2f} of {beside.name}"


@contextmanager
def mock_teacher(latency_seconds: float, answer_characters: int) -> Iterator[str]:
    """Runs the mock teacher in its own process; yields the base address, `.../v1`."""
    options = ("--latency", str(latency_seconds), "--answer-characters", str(answer_characters))
    command = (sys.executable, str(_HERE / "mock_teacher.py"), *options)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout  # noqa: S101 - as asked for
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def where() -> str:
    """The commit and the machine that the figures are of."""
    cores = f"{len(os.sched_getaffinity(0))} cores of {_processor()}"
    return f"{_commit()} | {cores} | Python {platform.python_version()}"


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ("git", "-C", str(_HERE), *arguments)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        changed = " with changes" if git("status", "--porcelain") else ""
        return f"commit {git('rev-parse', '--short', 'HEAD')}{changed}"
    except (OSError, subprocess.CalledProcessError):
        return "no commit"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
