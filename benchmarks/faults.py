"""One of four teachers is sick: what becomes of the prompts, of it, and of the other three.

    python benchmarks/faults.py [--prompts 2000] [--fault hang ...] [--share 0.2 ...]

Every fault of the mock teacher, at a share of the calls to one of four teachers, against a run
without faults just before. Two teachers a prompt, drawn at random, so that the sick one is chosen
as often as before. A line for each says how many prompts were lost or late, how many calls the
sick one got (as it counts them itself) and how many it may get at most, and how long answered
calls to the healthy three took at the 95th percentile, as a ratio to the run without faults.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mock_process import mock_teacher

import router
from arbitrage import config
from arbitrage.engine import Engine
from arbitrage.errors import NoTeacherAvailable, NoWinner
from arbitrage.types import Prompt, Sample, Score
from reward.calibrate import Uncalibrated
from teachers import open_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mock_process import MockServer

    from arbitrage.events import Called
    from arbitrage.types import Candidate, Verdict

FAULTS: Mapping[str, Mapping[str, Any]] = {
    "rate_limit": {"retry_after": 1},
    "error": {},
    "overloaded": {"retry_after": 1},
    "hang": {},
    "reset": {},
    "half_body": {},
    "bad_json": {},
    "wrong_type": {},
    "drip": {"seconds": 2},
    "empty_choices": {},
    "huge": {"megabytes": 64},
}
SHARES = (0.01, 0.2, 1.0)
SICK, HEALTHY = "sick", ("ada", "bob", "eve")
LATENCY = {"kind": "lognormal", "p50": 0.05, "p95": 0.08}
IN_FLIGHT = 32
MAX_CONCURRENCY = 32
MAX_ATTEMPTS = 3
TIMEOUT_SECONDS = 0.5
DEADLINE_SECONDS = 3.0
GRACE_SECONDS = 0.1
_FAILURES, _FIRST_PAUSE_SECONDS = 5, 0.5
_TICK_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run over many prompts came to.

    Attributes:
        lost: prompts without a winner.
        late: prompts that took longer than their deadline, a tenth of a second, and the
            longest time for which this process stood still.
        stall_seconds: that time.
        slowest_seconds: time of the slowest prompt.
        sick_calls: what the sick teacher was sent.
        healthy_p95_seconds: of the answered calls to the others.
    """

    prompts: int
    lost: int
    late: int
    seconds: float
    slowest_seconds: float
    stall_seconds: float
    sick_calls: int
    healthy_p95_seconds: float

    def bound(self, share: float) -> tuple[float, str]:
        """How many calls the sick teacher may get, and why."""
        if share < 1.0:
            return self.prompts * MAX_ATTEMPTS, "prompts x attempts"
        # each break and each pause is twice as long as the one before
        probes = 1 + math.log2(1 + self.seconds / _FIRST_PAUSE_SECONDS)
        under_way = 2 * MAX_CONCURRENCY + _FAILURES
        return under_way + probes, "2 x permits + failures that open it + doubling pauses"


async def run(server: MockServer, fault: str | None, share: float, prompts: int) -> Outcome:
    """Sends prompts through an engine of four teachers, one of them with a fault."""
    faults = [] if fault is None else [{"kind": fault, "share": share, **FAULTS[fault]}]
    server.reset()
    server.script(
        {
            "models": {
                "default": {"latency": LATENCY},
                SICK: {"latency": LATENCY, "faults": faults},
            }
        }
    )
    spans: list[float] = []

    def hear(event: Called) -> None:
        if event.teacher != SICK and event.outcome == "ok":
            spans.append(event.seconds)

    pool = await open_pool(
        [_teacher(name, server.base_url) for name in (*HEALTHY, SICK)], hear=hear
    )
    engine = Engine(
        pool=pool,
        policy=router.build(config.Policy(kind="random", fan_out=2, audit_rate=0.0)),
        detector=_Nobody(),
        gates=_Open(),
        reward=_First(),
        calibration=Uncalibrated(),
        sink=_Memory(),
        deadline_seconds=DEADLINE_SECONDS,
    )
    stalls = [0.0]
    free = asyncio.Semaphore(IN_FLIGHT)
    took: list[float] = []
    lost = 0

    async def ask(number: int) -> None:
        nonlocal lost
        async with free:
            started = perf_counter()
            try:
                await engine.arbitrate(Prompt.of(f"Question {number}?", language="en"))
            except (NoWinner, NoTeacherAvailable):
                lost += 1
            took.append(perf_counter() - started)

    async def watch() -> None:
        while True:
            before = perf_counter()
            await asyncio.sleep(_TICK_SECONDS)
            stalls.append(perf_counter() - before - _TICK_SECONDS)

    watching = asyncio.create_task(watch())
    started = perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(prompts):
                group.create_task(ask(number))
    finally:
        watching.cancel()
        await pool.close()
    calls = await asyncio.to_thread(server.stats)
    return Outcome(
        prompts=len(took),
        lost=lost,
        late=sum(seconds > DEADLINE_SECONDS + GRACE_SECONDS + max(stalls) for seconds in took),
        stall_seconds=max(stalls),
        seconds=perf_counter() - started,
        slowest_seconds=max(took),
        sick_calls=calls["models"].get(SICK, {}).get("calls", 0),
        healthy_p95_seconds=sorted(spans)[int(0.95 * len(spans))],
    )


def _teacher(name: str, base_url: str) -> config.OpenAITeacher:
    return config.OpenAITeacher(
        name=name,
        kind="openai",
        model=name,
        base_url=base_url,
        max_concurrency=MAX_CONCURRENCY,
        max_attempts=MAX_ATTEMPTS,
        timeout_seconds=TIMEOUT_SECONDS,
    )


class _Nobody:
    def detect(self, text: str) -> str:
        raise AssertionError(f"the language is given: {text}")


class _Open:
    async def inspect(
        self, _: Prompt, candidates: Sequence[Candidate]
    ) -> list[tuple[Verdict, ...]]:
        return [() for _ in candidates]

    async def close(self) -> None: ...


class _First:
    queue_depth = 0

    async def score(self, _: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        return [Score(-float(place), {}) for place, _ in enumerate(candidates)]

    async def close(self) -> None: ...


@dataclass
class _Memory:
    pending: int = 0
    stalled: bool = False
    samples: list[Sample] = field(default_factory=list)

    async def write(self, sample: Sample) -> None:
        self.samples.append(sample)

    async def close(self) -> None: ...


async def _measure(
    faults: Sequence[str], shares: Sequence[float], prompts: int, tell: Callable[[str], None]
) -> None:
    with mock_teacher() as server:
        await run(server, None, 0.0, min(prompts, 200))  # connections, imports, branches
        for fault in faults:
            well = await run(server, None, 0.0, prompts)
            tell(f"{'none':13} {'':>5} {_told(well)}")
            for share in shares:
                sick = await run(server, fault, share, prompts)
                most, why = sick.bound(share)
                ratio = sick.healthy_p95_seconds / well.healthy_p95_seconds
                tell(
                    f"{fault:13} {share:5.0%} {_told(sick)} ({ratio:.2f}x), "
                    f"sick calls {sick.sick_calls} of at most {most:.0f} ({why})"
                )


def _told(outcome: Outcome) -> str:
    return (
        f"{outcome.prompts} prompts: lost {outcome.lost}, late {outcome.late}, "
        f"slowest {outcome.slowest_seconds:.2f} s, longest stall of this process "
        f"{1000 * outcome.stall_seconds:.0f} ms, {outcome.prompts / outcome.seconds:.0f}/s, "
        f"healthy p95 {1000 * outcome.healthy_p95_seconds:.0f} ms"
    )


def main() -> None:
    """Prints a line a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--fault", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    parser.add_argument("--share", nargs="+", type=float, default=list(SHARES))
    options = parser.parse_args()
    tell = lambda line: print(line, flush=True)  # noqa: E731
    asyncio.run(_measure(options.fault, options.share, options.prompts, tell))


if __name__ == "__main__":
    main()
