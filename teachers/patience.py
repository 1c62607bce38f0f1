"""A timeout that does not blame others for the time in which this process stood still."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_LATE_SECONDS = 0.05


@asynccontextmanager
async def patience(seconds: float) -> AsyncIterator[asyncio.Timeout]:
    """Like `asyncio.timeout`, but gives back what the event loop was late by, once over at most.

    When a loop that was held up wakes, its timers are due, while the answers that came
    meanwhile wait to be read: with a plain timeout, every call under way would fail.

    Raises:
        TimeoutError: the time is over; then the yielded timeout has `expired`.
    """
    loop = asyncio.get_running_loop()
    bell: asyncio.TimerHandle
    to_give = seconds

    def set_bell(due: float) -> asyncio.TimerHandle:
        return loop.call_at(due, ring, due)

    def ring(due: float) -> None:
        nonlocal bell, to_give
        late = min(loop.time() - due, to_give)
        if late < _LATE_SECONDS:
            limit.reschedule(loop.time())
        else:
            to_give -= late
            bell = set_bell(loop.time() + late)

    async with asyncio.timeout(None) as limit:
        bell = set_bell(loop.time() + seconds)
        try:
            yield limit
        finally:
            bell.cancel()
