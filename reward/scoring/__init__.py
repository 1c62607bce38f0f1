"""The scoring engine: callers have one work item each, devices want batches.

The work of all prompts meets in one backlog. Each device has a thread of its own, which
takes the oldest item and what fits beside it, and hands the results of a batch back to
the event loop in one call.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from typing import TYPE_CHECKING, Generic, TypeVar

from arbitrage.errors import RewardError
from reward.scoring.backlog import CLOSED, Backlog, Item
from reward.scoring.worker import Budget, Device, Worker, fail, runs_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arbitrage.events import Batched

__all__ = ["Device", "ScoringEngine"]

W = TypeVar("W")
R = TypeVar("R")


class ScoringEngine(Generic[W, R]):
    """Computes work items in batches, on all devices. Belongs to the loop that first asks it.

    Args:
        devices: by their names; each gets a thread.
        tokens: the size of a work item; an item counts as one token at least.
        max_tokens_per_batch: tokens in one batch; a larger item is a batch of its own.
        max_waiting: items that batches are made from; those that come later keep their
            order outside, and move up as soon as there is room.
        is_out_of_memory: whether a smaller batch may do what an error prevented.
        hear: is told of each batch computed, on the event loop.

    Raises:
        ValueError: there is no device.
    """

    def __init__(
        self,
        devices: Mapping[str, Device[W, R]],
        *,
        tokens: Callable[[W], int],
        max_tokens_per_batch: int,
        max_waiting: int = 1024,
        is_out_of_memory: Callable[[Exception], bool] = runs_out_of_memory,
        hear: Callable[[Batched], None] = lambda _: None,
    ) -> None:
        if not devices:
            raise ValueError("a scoring engine needs a device")
        self._devices = dict(devices)
        self._tokens = tokens
        self._max_tokens = max_tokens_per_batch
        self._is_out_of_memory = is_out_of_memory
        self._hear = hear
        self._backlog: Backlog[W, R] = Backlog(max_waiting)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads: list[threading.Thread] = []
        self._depth = 0
        # the threads know the backlog, not the engine: one that nobody closed ends them, too
        weakref.finalize(self, self._backlog.close)

    @property
    def queue_depth(self) -> int:
        """Items of all callers: outside, waiting, or being computed."""
        return self._depth

    @property
    def waiting(self) -> int:
        """Items that wait for a device: `max_waiting` at most."""
        return len(self._backlog)

    async def score(self, work: W) -> R:
        """The result of one work item. Cancelled before its turn, it is not computed.

        Raises:
            RewardError: it cannot be computed, or the engine is closed.
        """
        item: Item[W, R] = Item(work, max(1, self._tokens(work)), self._bound().create_future())
        self._depth += 1
        try:
            self._backlog.put(item)
            return await item.future
        finally:
            self._depth -= 1
            self._backlog.discard(item)
            del item  # an error would refer to itself through this frame

    async def close(self) -> None:
        """Waits for the batches under way; whoever waits for a turn gets a `RewardError`."""
        left = self._backlog.close()
        if self._loop:
            fail(self._loop, left, CLOSED)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        self._devices.clear()

    def _bound(self) -> asyncio.AbstractEventLoop:
        """The loop that runs now; the first one stays, and starts the threads."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._threads = [self._start(name, loop) for name in self._devices]
        if self._loop is not loop:
            raise RewardError("the reward model belongs to another event loop; open one for each")
        return loop

    def _start(self, name: str, loop: asyncio.AbstractEventLoop) -> threading.Thread:
        worker = Worker(
            name=name,
            device=self._devices[name],
            backlog=self._backlog,
            budget=Budget(self._max_tokens),
            is_out_of_memory=self._is_out_of_memory,
            loop=loop,
            hear=self._hear,
        )
        # a daemon, since an engine that nobody closed must not keep the process
        thread = threading.Thread(target=worker.run, name=f"reward-{name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._backlog.close()
            raise RewardError(f"{name}: cannot start its thread: {error}") from error
        return thread
