"""How many prompts this process can keep up with."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_LOOK_SECONDS = 0.05
_LOOKS = 8  # from which a queue that stands is told from a burst
_LATE_SECONDS = 0.1  # a prompt takes some ten turns of the loop
_FEWER, _MORE = 0.9, 1.05
_LEAST = 8


class Strain:
    """A limit on prompts at once, as low as the event loop needs it to be in time.

    To wait for teachers costs nothing, and many prompts may do so. What queues in this process
    is work for its event loop, and how late that wakes those who sleep tells how much there is.
    Where it was late at each look of an interval, which no burst brings about (CoDel; Nichols &
    Jacobson 2012, "Controlling queue delay"), fewer are admitted; and then again more, as far as
    they come and it bears them.

    Attributes:
        limit: prompts at once.
        late_seconds: the least lateness of the last looks.

    Args:
        most: the limit where there is no strain.
    """

    def __init__(self, most: int) -> None:
        self.limit = most
        self.late_seconds = 0.0
        self._most = most
        self._looks: deque[float] = deque(maxlen=_LOOKS)

    def look(self, late_seconds: float, in_flight: int) -> None:
        """Takes note of how late the loop was this time.

        Args:
            late_seconds: from when it should have woken a sleeper to when it did.
            in_flight: prompts that are worked on.
        """
        self._looks.append(late_seconds)
        self.late_seconds = min(self._looks)
        if self.late_seconds > _LATE_SECONDS and len(self._looks) == _LOOKS:
            self.limit = max(min(_LEAST, self._most), int(_FEWER * min(self.limit, in_flight)))
            self._looks.clear()  # what it brings shows in the next interval
        elif late_seconds < _LATE_SECONDS / 2 and in_flight >= _FEWER * self.limit:
            self.limit = min(self._most, int(_MORE * self.limit) + 1)


@asynccontextmanager
async def lateness(hear: Callable[[float], None]) -> AsyncIterator[None]:
    """Tells time and again how many seconds late the event loop is, while the context lasts."""
    loop = asyncio.get_running_loop()

    async def watch() -> None:
        while True:
            due = loop.time() + _LOOK_SECONDS
            await asyncio.sleep(_LOOK_SECONDS)
            hear(loop.time() - due)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait({watching})
