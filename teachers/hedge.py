"""A second call beside one that takes unusually long; the first to answer is taken.

Dean & Barroso (2013), "The Tail at Scale", Communications of the ACM 56(2).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_Result = TypeVar("_Result")
_MEMORY = 128
_ENOUGH = 20


class Latencies:
    """How long the last answered calls took."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_MEMORY)

    def add(self, seconds: float) -> None:
        """Takes note of an answered call."""
        self._seconds.append(seconds)

    def percentile(self, share: float) -> float | None:
        """Seconds within which that share of them ended; None before there are enough."""
        if len(self._seconds) < _ENOUGH:
            return None
        return sorted(self._seconds)[int(share * len(self._seconds))]


async def hedged(
    call: Callable[[], Awaitable[_Result]],
    after_seconds: float,
    second: Callable[[], Awaitable[_Result] | None],
) -> _Result:
    """Makes a call, and a second one if the first is not back in time.

    Args:
        call: the first call.
        after_seconds: how long the first has to itself.
        second: makes the second call, or None if there is no room for one.

    Raises:
        Exception: what the call raised that ended last, if both failed.
    """
    first = asyncio.ensure_future(call())
    calls = {first}
    try:
        await asyncio.wait(calls, timeout=after_seconds)
        if not first.done() and (other := second()):
            calls.add(asyncio.ensure_future(other))
        under_way = calls
        while True:
            done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            best = min(done, key=lambda ended: ended.exception() is not None)
            if best.exception() is None or not under_way:
                return best.result()
    finally:
        for ended in calls:
            ended.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
