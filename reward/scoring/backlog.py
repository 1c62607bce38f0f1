"""Where work items wait until a device takes some of them as a batch."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from arbitrage.errors import RewardError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

__all__ = ["CLOSED", "Backlog", "Item", "next_batch"]

W = TypeVar("W")
R = TypeVar("R")

CLOSED = "the reward model is closed; open it again to score"
# what a batch may pass over because it does not fit, so that looking costs little
_LOOK_AHEAD = 64


@dataclass(frozen=True, slots=True, eq=False)
class Item(Generic[W, R]):
    """A work item, its size in tokens, and the future in which its caller waits."""

    work: W
    tokens: int
    future: asyncio.Future[R]


def next_batch(waiting: Iterable[Item[W, R]], budget: int) -> list[Item[W, R]]:
    """The oldest item and those after it that fit beside it, smallest first.

    Args:
        waiting: the oldest first.
        budget: tokens of the batch; only an oldest item that is larger goes beyond.
    """
    batch: list[Item[W, R]] = []
    tokens = passed_over = 0
    for item in waiting:
        if not batch or tokens + item.tokens <= budget:
            batch.append(item)
            tokens += item.tokens
        else:
            passed_over += 1
        if tokens >= budget or passed_over >= _LOOK_AHEAD:
            break
    return sorted(batch, key=lambda item: item.tokens)


class Backlog(Generic[W, R]):
    """Items in the order in which they came. Every method may be called on any thread.

    Args:
        max_waiting: items that batches are made from; those that come later keep their
            order outside, and move up as soon as there is room.
    """

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        # reentrant, since the garbage collector may call `close` in the midst of `take`
        self._changed = threading.Condition(threading.RLock())
        self._waiting: OrderedDict[Item[W, R], None] = OrderedDict()
        self._outside: OrderedDict[Item[W, R], None] = OrderedDict()
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, item: Item[W, R]) -> None:
        """Adds an item.

        Raises:
            RewardError: it is closed.
        """
        with self._changed:
            if self._closed:
                raise RewardError(CLOSED)
            self._outside[item] = None
            self._move_up()

    def discard(self, item: Item[W, R]) -> None:
        """Takes an item out, unless a device has it."""
        with self._changed:
            self._outside.pop(item, None)
            self._waiting.pop(item, None)
            self._move_up()

    def take(self, budget: int) -> list[Item[W, R]]:
        """Takes the next batch, for which it blocks; an empty one when it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            batch = next_batch(self._waiting, budget)
            for item in batch:
                del self._waiting[item]
            self._move_up()
            return batch

    def close(self) -> list[Item[W, R]]:
        """Wakes those who wait for a batch; returns the items that nobody has taken."""
        with self._changed:
            self._closed = True
            left = [*self._waiting, *self._outside]
            self._waiting.clear()
            self._outside.clear()
            self._changed.notify_all()
            return left

    def _move_up(self) -> None:
        while self._outside and len(self._waiting) < self._max_waiting:
            item, _ = self._outside.popitem(last=False)
            self._waiting[item] = None
            self._changed.notify()
