"""Soak the scoring engine: impatient callers, sick devices, oversized inputs; nothing may leak.

    python benchmarks/scoring_soak.py [--seconds 60]                   # fake devices
    python benchmarks/scoring_soak.py [--seconds 60] --model embedded  # the packaged reward

Callers ask without pause; some give up at once, some after a while. Two of the three fake
devices run out of memory and raise other errors now and then; a few inputs are poisonous,
larger than a batch, or larger than the memory. In the end it is closed under load. Everyone
must have had an answer or a `RewardError`, or have given up, and the process must hold what
it held before. Exits with 1 and a line for each thing that is not so. First comes the time
that the engine takes for an item that costs nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import re
import sys
import threading
import tracemalloc
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from scoring_targets import MAX_WAITING, FakeTarget, RealTarget, Target, chance_of

from arbitrage import config
from arbitrage.errors import RewardError
from reward import open_reward
from reward.scoring import ScoringEngine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

_WARM_UP = 0.25
# what caches of the interpreter and freed arenas may come to, however long it runs
_MOST_OBJECTS, _MOST_TRACED_BYTES = 2_000, 1_000_000


@dataclass(frozen=True, slots=True)
class Held:
    """What the process holds."""

    objects: int
    traced_bytes: int
    resident_bytes: int
    threads: int

    @classmethod
    def now(cls) -> Held:
        """Counted after a collection of garbage; 0 resident bytes where there is no /proc."""
        gc.collect()
        status = Path("/proc/self/status")
        lines = status.read_text().splitlines() if status.exists() else []
        resident = [int(line.split()[1]) for line in lines if line.startswith("VmRSS:")]
        return cls(
            objects=len(gc.get_objects()),
            traced_bytes=tracemalloc.get_traced_memory()[0],
            resident_bytes=1024 * sum(resident),
            threads=threading.active_count(),
        )


@dataclass
class Soak:
    """What came of it.

    Attributes:
        calls: how many had which end: `answered`, `refused`, `gave up`, `came too late`
            (it was closed), or an improper one: `wrong`, `stuck`, or the name of an error.
        reasons: how many were refused for which reason, figures left out.
        deepest: most items at once that were accepted and not answered.
        most_waiting: most of them at once that waited for a device.
        left: items that the target still counts when nobody asks any more.
        threads_left: devices' threads that are there when the target is closed.
        before: what the process held when it was warm.
        halfway: what it held half the time later.
        after: what it held when nobody asked any more.
        closed: what it held when the target was closed.
    """

    callers: int
    most_items: int
    most_growth_bytes: int
    calls: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    deepest: int = 0
    most_waiting: int = 0
    left: int = 0
    threads_left: int = 0
    before: Held = field(init=False)
    halfway: Held = field(init=False)
    after: Held = field(init=False)
    closed: Held = field(init=False)

    def complaints(self) -> list[str]:
        """What should not be so, a line each."""
        ends = set(self.calls) - {"answered", "refused", "gave up", "came too late"}
        before, after = self.before, self.after
        found = {
            f"calls without a proper end: {sorted(ends)}": bool(ends),
            "nobody had an answer": not self.calls["answered"],
            f"{self.left} items are still counted": self.left != 0,
            "more items than callers have": self.deepest > self.callers * self.most_items,
            "more items wait than may": self.most_waiting > MAX_WAITING,
            "objects leak": after.objects - before.objects > _MOST_OBJECTS,
            "memory leaks": after.traced_bytes - before.traced_bytes > _MOST_TRACED_BYTES,
            "resident memory grows": after.resident_bytes
            > self.halfway.resident_bytes + self.most_growth_bytes,
            "threads leak": after.threads > before.threads,
            f"{self.threads_left} threads live on": self.threads_left != 0,
        }
        return [complaint for complaint, so in found.items() if so]

    def lines(self) -> list[str]:
        """The figures, for people."""
        ends = ", ".join(f"{count} {end}" for end, count in self.calls.most_common())
        return [
            f"calls: {sum(self.calls.values())}: {ends}",
            f"depth: at most {self.deepest} of {self.callers * self.most_items}, {self.left} left",
            f"waiting: at most {self.most_waiting} of {MAX_WAITING}",
            *(f"refused {count}: {reason}" for reason, count in self.reasons.most_common(9)),
            f"devices' threads when closed: {self.threads_left}",
            *(
                f"{when}: {held.objects} objects, {held.traced_bytes / 1e6:.2f} MB traced, "
                f"{held.resident_bytes / 1e6:.1f} MB resident, {held.threads} threads"
                for when, held in (
                    ("before", self.before),
                    ("halfway", self.halfway),
                    ("after", self.after),
                    ("closed", self.closed),
                )
            ),
        ]


async def soak(target: Target, seconds: float, seed: int = 0) -> Soak:
    """Asks a target for so long, and closes it under load. Memory is traced meanwhile."""
    result = Soak(target.callers, target.most_items, target.most_growth_bytes)
    strangers = set(threading.enumerate())
    tracemalloc.start()
    try:
        await _ask(target, _WARM_UP * seconds, seed, result)
        result.before = Held.now()
        await _ask(target, (1 - _WARM_UP) / 2 * seconds, seed + 1, result)
        result.halfway = Held.now()
        await _ask(target, (1 - _WARM_UP) / 2 * seconds, seed + 2, result)
        result.left = target.queue_depth
        result.after = Held.now()
        await _ask(target, seconds, seed + 3, result, close=True)
        result.left += target.queue_depth
        result.closed = Held.now()
        threads = set(threading.enumerate()) - strangers
        result.threads_left = sum(thread.name.startswith("reward-") for thread in threads)
    finally:
        tracemalloc.stop()
    return result


async def _ask(
    target: Target, seconds: float, seed: int, result: Soak, *, close: bool = False
) -> None:
    """All callers ask for so long, or until the target is closed, which then is soon."""
    until = perf_counter() + seconds
    closed = asyncio.Event()

    async def call_again_and_again(chance: Random) -> None:
        while perf_counter() < until and not closed.is_set():
            result.calls[await _end_of_call(target, chance, result.reasons)] += 1
            result.deepest = max(result.deepest, target.queue_depth)
            result.most_waiting = max(result.most_waiting, target.waiting)

    callers = [
        asyncio.create_task(call_again_and_again(chance_of(seed, number)))
        for number in range(target.callers)
    ]
    if close:
        await asyncio.sleep(target.most_patience_seconds)
        await target.close()
        closed.set()
    _, stuck = await asyncio.wait(callers, timeout=seconds + target.grace_seconds)
    for caller in stuck:
        result.calls["stuck"] += 1
        caller.cancel()


async def _end_of_call(target: Target, chance: Random, reasons: Counter[str]) -> str:
    patience = chance.choice((None, None, 0.0, chance.uniform(0.0, target.most_patience_seconds)))
    try:
        async with asyncio.timeout(patience):
            return "answered" if await target.ask(chance) else "wrong"
    except TimeoutError:
        return "gave up"
    except RewardError as error:
        await asyncio.sleep(0)  # a closed target refuses without a pause
        if "is closed" in str(error):
            return "came too late"
        reasons[re.sub(r"\d+", "#", str(error))] += 1
        return "refused"
    except Exception as error:  # noqa: BLE001 - no other is proper
        return type(error).__name__


class _Echo:
    def compute(self, batch: Sequence[int]) -> Sequence[int]:
        return batch


async def overhead_seconds(items: int, callers: int) -> float:
    """What the engine takes for an item that costs nothing, of many that are asked for at once."""
    engine = ScoringEngine({"echo": _Echo()}, tokens=lambda _: 8, max_tokens_per_batch=4096)

    async def call_again_and_again() -> None:
        for number in range(items // callers):
            await engine.score(number)

    started = perf_counter()
    await asyncio.gather(*(call_again_and_again() for _ in range(callers)))
    seconds = perf_counter() - started
    await engine.close()
    return seconds / items


async def _main(seconds: float, model: str, seed: int) -> int:
    if model == "fake":
        for callers in (1, 32, 1024):
            microseconds = 1e6 * await overhead_seconds(32_768, callers)
            print(f"overhead: {microseconds:.1f} µs an item, {callers} callers")
        # thousands of its batches run out of memory
        logging.getLogger("reward").setLevel(logging.ERROR)
        fake = FakeTarget(seed)
        result = await soak(fake, seconds, seed)
        batches = sum(device.batches for device in fake.devices)
        works = sum(device.works for device in fake.devices)
        print(f"batches: {batches}, {works / batches:.1f} items each, {fake.tokens} tokens scored")
    else:
        settings = config.EmbeddedReward(max_waiting=MAX_WAITING)
        result = await soak(RealTarget(await open_reward(settings)), seconds, seed)
    for line in result.lines():
        print(line)
    complaints = result.complaints()
    for complaint in complaints:
        print(f"scoring_soak: {complaint}", file=sys.stderr)
    return 1 if complaints else 0


def main() -> None:
    """Prints the figures; exits with 1 if something is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--model", choices=("fake", "embedded"), default="fake")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.exit(asyncio.run(_main(options.seconds, options.model, options.seed)))


if __name__ == "__main__":
    main()
