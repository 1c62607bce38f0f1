"""A configuration that is read again while the service runs."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import assembly
from arbitrage.errors import ArbitrageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from arbitrage import config
    from arbitrage.engine import Engine

_LOG = logging.getLogger(__name__)


class Reloads:
    """Changes an engine's teachers and budget, one reload at a time.

    Args:
        engine: as `assembly.open` has made it.
        settings: what it was made from.
        read_again: gives the configuration as it is now.
    """

    def __init__(
        self, engine: Engine, settings: config.Config, read_again: Callable[[], config.Config]
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._read_again = read_again
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """Has the configuration read again, after those before."""
        task = asyncio.get_running_loop().create_task(self._reload())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Waits for the one under way, which would open teachers that nobody closes."""
        async with self._turn:
            for task in self._tasks:
                task.cancel()

    async def _reload(self) -> None:
        async with self._turn:
            try:
                after = self._read_again()
                told = await assembly.reload(self._engine, self._settings, after)
            except ArbitrageError as error:
                _LOG.error("not reloaded: %s", error)
            except Exception:  # noqa: BLE001 - a bug, which must not end the service
                _LOG.exception("not reloaded")
            else:
                self._settings = after
                _LOG.warning("reloaded: %s", told)
