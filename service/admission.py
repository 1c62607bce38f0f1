"""Who may have prompts worked on, and how many at once."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from arbitrage.errors import Overloaded, Stopping

if TYPE_CHECKING:
    from collections.abc import Iterator

_FOR_CALLS = 0.25  # of the room, that streams leave to single calls


class Admission:
    """Room for so many prompts, shared fairly.

    A single call is refused where there is none: its client knows best when to try again, and
    no queue forms here. A stream waits, and its client with it, since no more is read of it.
    Of those who wait, the client with the fewest prompts in flight is next. Streams are for
    batches and leave a part of the room to single calls, behind which somebody waits.

    Attributes:
        in_flight: prompts that are worked on.
        closed: is set when nothing more is admitted.

    Args:
        most: prompts at once.
        most_a_client: prompts of one client at once; None for no limit of its own.
    """

    def __init__(self, most: int, most_a_client: int | None = None) -> None:
        self.in_flight = 0
        self.closed = asyncio.Event()
        self._most = most
        self._most_with_streams = max(1, most - int(most * _FOR_CALLS))
        self._most_a_client = most_a_client or most
        self._of_client: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @contextmanager
    def at_once(self, client: str) -> Iterator[None]:
        """Room for one prompt of a client.

        Raises:
            Overloaded: there is none.
            Stopping: nothing more is admitted.
        """
        if self.closed.is_set():
            raise _stopping()
        if self.in_flight >= self._most:
            raise Overloaded(
                f"{self.in_flight} prompts are in flight, which is the limit; try again later"
            )
        if self._of_client[client] >= self._most_a_client:
            raise Overloaded(
                f"{self._of_client[client]} prompts of this client are in flight, which is the "
                "limit; try again when one is answered"
            )
        self._enter(client)
        try:
            yield
        finally:
            self.leave(client)

    async def wait(self, client: str) -> None:
        """Waits for room for one prompt of a client's stream, which `leave` gives back.

        Raises:
            Stopping: nothing more is admitted.
        """
        if self.closed.is_set():
            raise _stopping()
        if not self._waiting.get(client) and self._has_room(client):
            self._enter(client)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._waiting.setdefault(client, deque())
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave(client)
            elif turn in queue:
                queue.remove(turn)
            raise

    def leave(self, client: str) -> None:
        """Gives back the room of one prompt."""
        self.in_flight -= 1
        self._of_client[client] -= 1
        if not self._of_client[client]:
            del self._of_client[client]
        self._admit()

    def close(self) -> None:
        """Admits nothing more; who waits hears of it, and what is in flight goes on."""
        self.closed.set()
        for queue in self._waiting.values():
            for turn in queue:
                if not turn.done():
                    turn.set_exception(_stopping())
        self._waiting.clear()

    def _has_room(self, client: str) -> bool:
        within = self.in_flight < self._most_with_streams
        return within and self._of_client[client] < self._most_a_client

    def _enter(self, client: str) -> None:
        self.in_flight += 1
        self._of_client[client] += 1

    def _admit(self) -> None:
        """Lets those in who wait, the client with the fewest in flight first."""
        while ready := [
            one for one, queue in self._waiting.items() if queue and self._has_room(one)
        ]:
            client = min(ready, key=self._of_client.__getitem__)
            queue = self._waiting[client]
            turn = queue.popleft()
            if not queue:
                del self._waiting[client]
            if not turn.done():
                self._enter(client)
                turn.set_result(None)


def _stopping() -> Stopping:
    return Stopping("the server stops; ask again when it has begun anew")
