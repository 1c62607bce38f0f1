"""How many prompts a minute each client may bring."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_MINUTE = 60.0
_BURST_SECONDS = 10.0  # of what a client may bring, at once
_CLIENTS = 10_000  # of which as many are remembered as bring something


class Quota:
    """Prompts a minute, of each client for itself.

    The generic cell rate algorithm (ITU-T I.371): a client's prompts are due one by one, and
    may come so much before they are that ten seconds' worth of them can come at once.

    Args:
        per_minute: for each client; None for no end of them.
        now: seconds, by any clock that does not go back.
    """

    def __init__(self, per_minute: int | None, now: Callable[[], float] | None = None) -> None:
        self._apart = _MINUTE / per_minute if per_minute else 0.0
        self._early = max(0.0, _BURST_SECONDS - self._apart)
        self._now = now
        self._due: dict[str, float] = {}

    def take(self, client: str) -> float:
        """Takes one prompt off a client's quota.

        Returns:
            0.0, or seconds until there is one to take; then nothing was taken.
        """
        if not self._apart:
            return 0.0
        now = self._now() if self._now else asyncio.get_running_loop().time()
        due = max(self._due.get(client, now), now)
        if (wait := due - now - self._early) > 0.0:
            return wait
        self._due[client] = due + self._apart
        if len(self._due) > _CLIENTS:
            self._due = {one: when for one, when in self._due.items() if when > now}
        return 0.0
