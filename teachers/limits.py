"""What a teacher's provider allows: calls at once, amounts a minute, and pauses it asked for."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from aiolimiter import AsyncLimiter

if TYPE_CHECKING:
    from collections.abc import Callable

_MINUTE = 60.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 60.0


class Concurrency:
    """Calls that may be under way at once, first come, first served.

    Additive increase, multiplicative decrease (Chiu & Jain 1989, "Analysis of the
    increase and decrease algorithms"): each answered call adds a share of one, so
    that about a round of them adds one; a provider that is overloaded halves it.

    Attributes:
        most: the configuration's limit, which it starts at and returns to.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._limit = float(most)
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        """Calls that may be under way now, at least one."""
        return int(self._limit)

    @property
    def free(self) -> bool:
        """Whether a permit is there for the taking."""
        return not self._waiting and self._under_way < self.limit

    @property
    def squeezed(self) -> bool:
        """Whether the provider has lowered the limit, and that is taken."""
        return self.limit < self.most and self._under_way >= self.limit

    async def acquire(self, *, first: bool = False) -> None:
        """Waits for a permit, to be given back; with `first` before those that had none."""
        if not self._waiting and self.try_acquire():
            return
        permit = asyncio.get_running_loop().create_future()
        (self._waiting.appendleft if first else self._waiting.append)(permit)
        try:
            await permit
        except asyncio.CancelledError:
            # it may have been given the permit in the moment in which it was cancelled
            if permit.done() and not permit.cancelled() and permit.exception() is None:
                self.release()
            else:
                self._waiting = deque(p for p in self._waiting if p is not permit)
            raise

    def try_acquire(self) -> bool:
        """Takes a permit if one is free."""
        if self._under_way >= self.limit:
            return False
        self._under_way += 1
        return True

    def release(self) -> None:
        """Gives a permit back."""
        self._under_way -= 1
        self._wake()

    def grow(self) -> None:
        """Takes note of an answered call."""
        if self._limit < self.most:
            self._limit = min(float(self.most), self._limit + 1.0 / self._limit)
            self._wake()

    def shrink(self) -> None:
        """Halves the limit; calls under way beyond it are left to end."""
        self._limit = max(1.0, self._limit / 2.0)

    def allow(self, most: int) -> None:
        """Takes another configuration's limit."""
        self._limit = float(most) if self._limit >= self.most else min(self._limit, float(most))
        self.most = most
        self._wake()

    def turn_away(self, error: Callable[[], Exception]) -> None:
        """Fails all that wait."""
        waiting, self._waiting = self._waiting, deque()
        for permit in waiting:
            if not permit.done():
                permit.set_exception(error())

    def _wake(self) -> None:
        while self._waiting and self._under_way < self.limit:
            permit = self._waiting.popleft()
            if not permit.done():
                self._under_way += 1
                permit.set_result(None)


@dataclass(slots=True)
class Taken:
    """An amount that was taken from a rate, and when on the loop's clock it is used."""

    rate: Rate
    at: float
    amount: float


class Rate:
    """An amount in any minute: a leaky bucket that holds a `burst` of it.

    What the bucket can hold is taken off what drips through in a minute, so that not
    even a burst after a pause exceeds the limit. An amount that is known only after
    the call is guessed before, and the difference is made up for by the next calls.
    An amount above the burst is saved up for, and a difference may be in favour of the
    next; so that neither adds to another minute, that of the last one is counted, too.

    One takes at a time: its user queues the others.
    """

    def __init__(self, per_minute: int, *, burst: float) -> None:
        """Allows an amount a minute.

        Args:
            per_minute: the limit.
            burst: the largest amount taken at once, of at least 1 and at most `per_minute`.
        """
        self.per_minute = per_minute
        self._burst = burst
        # the first unit is there at once; whatever else the bucket holds counts to the minute
        dripping = per_minute - burst + 1.0
        self._bucket = AsyncLimiter(burst, _MINUTE * burst / dripping)
        self._owed = 0.0
        self._minute: deque[Taken] = deque()
        self._in_minute = 0.0

    @classmethod
    def of_requests(cls, per_minute: int) -> Rate:
        """Requests a minute, evenly but for a tenth of a second's worth."""
        return cls(per_minute, burst=max(1.0, per_minute / 600.0))

    @classmethod
    def of_tokens(cls, per_minute: int) -> Rate:
        """Tokens a minute, evenly but for three seconds' worth."""
        return cls(per_minute, burst=max(1.0, per_minute / 20.0))

    def ready(self, amount: float = 1.0) -> bool:
        """Whether the amount could be taken at once, or, if it is a large one, its first part."""
        first = min(max(0.0, amount + self._owed), self._burst)
        return self._bucket.has_capacity(first) and not self._full_seconds(amount)

    async def take(self, amount: float = 1.0) -> Taken:
        """Waits until the amount, and what is owed, may be used."""
        self._owed += amount
        try:
            while self._owed > 0.0:
                part = min(self._owed, self._burst)
                await self._bucket.acquire(part)
                self._owed -= part
            while seconds := self._full_seconds(amount):  # noqa: ASYNC110 - only time helps
                await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self._owed -= amount
            raise
        taken = Taken(self, asyncio.get_running_loop().time(), amount)
        self._minute.append(taken)
        self._in_minute += amount
        return taken

    def correct(self, taken: Taken, used: float) -> None:
        """Takes note that a call used more than was taken for it, or less."""
        difference = used - taken.amount
        self._owed += difference
        if self._minute and taken.at >= self._minute[0].at:
            taken.amount = used
            self._in_minute += difference

    def _full_seconds(self, amount: float) -> float:
        """Until the last minute has room for it; one too large for any has it to itself."""
        now = asyncio.get_running_loop().time()
        while self._minute and self._minute[0].at <= now - _MINUTE:
            self._in_minute -= self._minute.popleft().amount
        if not self._minute or self._in_minute + amount <= self.per_minute:
            return 0.0
        return self._minute[0].at + _MINUTE - now


class Cooldown:
    """How long nobody calls a teacher after it has asked for that.

    As long as the provider says, or twice as long as the last time, with jitter.
    """

    def __init__(self) -> None:
        self._until = 0.0
        self._since = 0.0
        self._in_a_row = 0

    @property
    def remaining_seconds(self) -> float:
        """Seconds until it may be called again; 0 while it may be."""
        return max(0.0, self._until - monotonic())

    def begin(self, called_at: float, retry_after_seconds: float | None) -> bool:
        """Takes note of a refusal.

        Args:
            called_at: when the refused call was sent, on the monotonic clock.
            retry_after_seconds: what the provider said.

        Returns:
            Whether it is news: calls that were under way together are refused together.
        """
        now = monotonic()
        news = called_at >= self._since
        if news:
            self._in_a_row += 1
            self._since = now
        pause = retry_after_seconds or 0.0
        if retry_after_seconds is None or self._in_a_row > 1:
            doubled = _FIRST_PAUSE_SECONDS * 2.0 ** min(self._in_a_row - 1, 30)
            spread = random.uniform(0.75, 1.25)  # noqa: S311 - no secret
            pause = max(pause, min(doubled, _LONGEST_PAUSE_SECONDS) * spread)
        self._until = max(self._until, now + pause)
        return news

    def end(self, called_at: float) -> None:
        """Takes note of an answered call; if it was sent since the pause, the next is short."""
        if called_at >= self._since:
            self._in_a_row = 0

    async def wait(self) -> None:
        """Returns when it may be called again."""
        while remaining := self.remaining_seconds:  # noqa: ASYNC110 - it may have grown by then
            await asyncio.sleep(remaining)
