"""Who may have prompts worked on, and how many at once."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from arbitrage.errors import Overloaded, Stopping
from service.quota import Quota
from service.strain import Strain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbitrage.types import Priority

_FOR_PEOPLE = 0.25  # of the room, that batches leave to what somebody waits for
_ON_THEIR_WAY = 32  # calls that may be coming or going
_FIRST_SECONDS = 1.0  # that a prompt is expected to take, before one has
_MEMORY = 0.98  # of how long prompts take
_LONGEST_SECONDS = 60.0


class Admission:
    """Room for so many prompts, shared fairly.

    A single call is refused where there is none, and told when to come again, so that no queue
    forms here. A stream waits, and its client with it, since no more is read of it; so does a
    job. Of those who wait, what is interactive comes first, and then the client with the fewest
    prompts in flight. Batches leave a part of the room to what is interactive.

    Attributes:
        in_flight: prompts that are worked on.
        waiting: prompts that wait for room.
        closed: is set when nothing more is admitted.
        strain: lowers the limit while this process does not keep up.

    Args:
        most: prompts at once.
        most_a_client: prompts of one client at once; None for no limit of its own.
        quota: prompts a minute of a client; by default no end of them.
    """

    def __init__(
        self, most: int, most_a_client: int | None = None, quota: Quota | None = None
    ) -> None:
        self.in_flight = 0
        self.closed = asyncio.Event()
        self.strain = Strain(most)
        self._most = most
        self._most_a_client = most_a_client or most
        self._quota = quota or Quota(None)
        self._of_client: Counter[str] = Counter()
        self._waiting: dict[tuple[Priority, str], deque[asyncio.Future[None]]] = {}
        self._takes_seconds = _FIRST_SECONDS
        self._expected_at = 0.0  # when the last of those that were refused is to come again

    @property
    def limit(self) -> int:
        """Prompts that may be worked on at once now."""
        return min(self._most, self.strain.limit)

    @property
    def waiting(self) -> int:
        """Prompts of streams and jobs that wait for room."""
        return sum(map(len, self._waiting.values()))

    def full(self, calls: int) -> Overloaded | None:
        """Why no prompt of anybody would be given room now; None where one may be.

        Args:
            calls: that are under way; some may not have come here yet, others have left.
        """
        if self.in_flight < self.limit and calls < self.limit + _ON_THEIR_WAY:
            return None
        return self._no_room("interactive")

    @contextmanager
    def at_once(self, client: str, priority: Priority = "interactive") -> Iterator[None]:
        """Room for one prompt of a client.

        Raises:
            Overloaded: there is none, or the client has used up its quota; says when it is
                worth trying again.
            Stopping: nothing more is admitted.
        """
        if self.closed.is_set():
            raise _stopping()
        if self._of_client[client] >= self._most_a_client:
            raise _refused(
                f"{self._of_client[client]} prompts of this client are in flight, which is the "
                "limit; try again when one is answered",
                self._takes_seconds / self._most_a_client,
            )
        if self.in_flight >= self._room_for(priority):
            raise self._no_room(priority)
        if wait := self._quota.take(client):
            raise _refused("this client has used up its prompts of this minute", wait)
        entered = self._enter(client)
        try:
            yield
        finally:
            self._takes_seconds += (1.0 - _MEMORY) * (_now() - entered - self._takes_seconds)
            self.leave(client)

    async def wait(self, client: str, priority: Priority = "batch") -> None:
        """Waits for room for one prompt of a client, which `leave` gives back.

        Raises:
            Stopping: nothing more is admitted.
        """
        while not self.closed.is_set() and (seconds := self._quota.take(client)):
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.closed.wait()
        await self.wait_unmetered(client, priority)

    async def wait_unmetered(self, client: str, priority: Priority = "batch") -> None:
        """The same of a client that has no quota, such as a job.

        Raises:
            Stopping: nothing more is admitted.
        """
        if self.closed.is_set():
            raise _stopping()
        key = (priority, client)
        if not self._waiting.get(key) and self._has_room(key):
            self._enter(client)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._waiting.setdefault(key, deque())
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave(client)
            elif turn in queue:
                queue.remove(turn)
                if not queue:
                    self._waiting.pop(key, None)
            raise

    def leave(self, client: str) -> None:
        """Gives back the room of one prompt."""
        self.in_flight -= 1
        self._of_client[client] -= 1
        if not self._of_client[client]:
            del self._of_client[client]
        self._admit()

    def bear(self, late_seconds: float) -> None:
        """Takes note of how late the event loop is, see `Strain.look`."""
        self.strain.look(late_seconds, self.in_flight)
        self._admit()

    def close(self) -> None:
        """Admits nothing more; who waits hears of it, and what is in flight goes on."""
        self.closed.set()
        for queue in self._waiting.values():
            for turn in queue:
                if not turn.done():
                    turn.set_exception(_stopping())
        self._waiting.clear()

    def _no_room(self, priority: Priority) -> Overloaded:
        return _refused(
            f"{self.in_flight} prompts are in flight, which is the limit"
            f"{'' if priority == 'interactive' else ' for batches'}; try again later",
            self._until_room(),
        )

    def _room_for(self, priority: Priority) -> int:
        kept = int(self.limit * _FOR_PEOPLE) if priority == "batch" else 0
        return max(1, self.limit - kept)

    def _has_room(self, key: tuple[Priority, str]) -> bool:
        priority, client = key
        within = self.in_flight < self._room_for(priority)
        return within and self._of_client[client] < self._most_a_client

    def _until_room(self) -> float:
        """Seconds after which one more that is refused had better come again.

        Those who are refused are sent to as many moments as there will be room in: all of them
        at once would be refused again.
        """
        now = _now()
        apart = self._takes_seconds / max(self.in_flight, 1)
        self._expected_at = max(self._expected_at, now) + apart
        if self._expected_at > now + _LONGEST_SECONDS:  # not all of them will
            self._expected_at = now
        return self._expected_at - now

    def _enter(self, client: str) -> float:
        """Takes room; returns when that was."""
        self.in_flight += 1
        self._of_client[client] += 1
        return _now()

    def _admit(self) -> None:
        """Lets those in who wait and may be next."""
        while ready := [
            one for one, queue in self._waiting.items() if queue and self._has_room(one)
        ]:
            key = min(ready, key=self._rank)
            queue = self._waiting[key]
            turn = queue.popleft()
            if not queue:
                del self._waiting[key]
            if not turn.done():
                self._enter(key[1])
                turn.set_result(None)

    def _rank(self, key: tuple[Priority, str]) -> tuple[bool, int]:
        priority, client = key
        return priority == "batch", self._of_client[client]


def _refused(reason: str, seconds: float) -> Overloaded:
    error = Overloaded(reason)
    error.retry_after_seconds = seconds
    return error


def _stopping() -> Stopping:
    return Stopping("the server stops; ask again when it has begun anew")


def _now() -> float:
    return asyncio.get_running_loop().time()
