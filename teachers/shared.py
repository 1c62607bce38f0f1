"""Engines that several arms share: opened by the first, closed by the last."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Coroutine, Hashable
    from typing import Any


class Closable(Protocol):
    """What is shared."""

    async def close(self) -> None:
        """Frees what it holds; called once, when nobody has it any more."""


Key = TypeVar("Key", bound="Hashable")
Engine = TypeVar("Engine", bound=Closable)


class Shared(Generic[Key, Engine]):
    """Holds open engines by what they were opened with, each as long as somebody leases it.

    An engine belongs to the event loop that opened it: each loop has its own.
    """

    def __init__(self) -> None:
        self._held: WeakKeyDictionary[AbstractEventLoop, dict[Key, _Held[Engine]]]
        self._held = WeakKeyDictionary()

    async def lease(self, key: Key, opens: Callable[[], Coroutine[Any, Any, Engine]]) -> Engine:
        """The engine of a key, opened if nobody has it; each lease ends in one `release`.

        Whoever asks while it is being opened gets the same one. An engine that cannot
        be opened is not held, and whoever waited for it has no lease. Nor has one who
        was cancelled while waiting; if nobody else waits, the engine is closed when it
        has been opened, since a model that is being loaded cannot be stopped.

        Args:
            key: what distinguishes one engine from another.
            opens: opens the engine.

        Raises:
            Exception: whatever opening it raises.
        """
        held = self._here()
        while (entry := held.get(key)) and entry.closing:
            # two of them at once might need more memory than there is
            await asyncio.wait([entry.closing])
        if entry is None:
            entry = held[key] = _Held(asyncio.create_task(opens()))
        entry.leases += 1
        try:
            return await asyncio.shield(entry.opening)
        except BaseException:
            await self._give_back(key, entry)
            raise

    async def release(self, key: Key) -> None:
        """Ends a lease; the last one closes the engine, and returns when it is closed.

        Raises:
            KeyError: nobody has an engine of this key.
            Exception: whatever closing it raises; it is held no more all the same.
        """
        await self._give_back(key, self._here()[key])

    def _here(self) -> dict[Key, _Held[Engine]]:
        return self._held.setdefault(asyncio.get_running_loop(), {})

    async def _give_back(self, key: Key, entry: _Held[Engine]) -> None:
        entry.leases -= 1
        if entry.leases == 0:
            entry.closing = asyncio.create_task(self._close(key, entry))
            # a cancelled caller leaves no half-closed engine behind
            await asyncio.shield(entry.closing)

    async def _close(self, key: Key, entry: _Held[Engine]) -> None:
        try:
            await asyncio.wait([entry.opening])
            if not entry.opening.cancelled() and not entry.opening.exception():
                await entry.opening.result().close()
        finally:
            del self._here()[key]


@dataclass(eq=False)
class _Held(Generic[Engine]):
    opening: asyncio.Task[Engine]
    leases: int = 0
    closing: asyncio.Task[None] | None = None
