"""A timeout that does not blame others for the time in which this process stood still."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

_LATE_SECONDS = 0.05


class Patience:
    """Like `asyncio.timeout`, but gives back what the event loop was late by, once over at most.

    When a loop that was held up wakes, its timers are due, while the answers that came
    meanwhile wait to be read: with a plain timeout, every call under way would fail.

    It yields the timeout, which has `expired` where a TimeoutError is its own.
    """

    __slots__ = ("_bell", "_limit", "_to_give")

    def __init__(self, seconds: float) -> None:
        self._to_give = seconds
        self._limit = asyncio.timeout(None)
        self._bell: asyncio.TimerHandle

    async def __aenter__(self) -> asyncio.Timeout:
        await self._limit.__aenter__()
        self._set_bell(asyncio.get_running_loop().time() + self._to_give)
        return self._limit

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bell.cancel()
        await self._limit.__aexit__(kind, error, traceback)

    def _set_bell(self, due: float) -> None:
        self._bell = asyncio.get_running_loop().call_at(due, self._ring, due)

    def _ring(self, due: float) -> None:
        now = asyncio.get_running_loop().time()
        late = min(now - due, self._to_give)
        if late < _LATE_SECONDS:
            self._limit.reschedule(now)
        else:
            self._to_give -= late
            self._set_bell(now + late)
