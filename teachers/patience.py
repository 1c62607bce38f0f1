"""A timeout that does not blame others for the time in which this process stood still."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_LATE_SECONDS = 0.05


class Patience:
    """Like `asyncio.timeout`, but gives back what the event loop was late by, once over at most.

    When a loop that was held up wakes, its timers are due, while the answers that came
    meanwhile wait to be read: with a plain timeout, every call under way would fail.

    Attributes:
        over: whether a TimeoutError that came out of it is its own.

    Args:
        seconds: for what is awaited in it.
    """

    __slots__ = ("_bell", "_cancels_before", "_loop", "_task", "_to_give", "over")

    def __init__(self, seconds: float) -> None:
        self.over = False
        self._to_give = seconds

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can be timed out")
        self._task = task
        self._cancels_before = task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._set_bell(self._loop.time() + self._to_give)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bell.cancel()
        # of two who cancel at once, the other has precedence
        if (
            self.over
            and self._task.uncancel() <= self._cancels_before
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error

    def _set_bell(self, due: float) -> None:
        self._bell = self._loop.call_at(due, self._ring, due)

    def _ring(self, due: float) -> None:
        now = self._loop.time()
        late = min(now - due, self._to_give)
        if late < _LATE_SECONDS:
            self.over = True
            self._task.cancel()
        else:
            self._to_give -= late
            self._set_bell(now + late)
