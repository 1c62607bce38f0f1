"""The circuit breaker: a teacher that only fails is left alone, but for a probe now and then."""

from __future__ import annotations

import random
from time import monotonic
from typing import NewType

_FAILURES = 5
_FIRST_BREAK_SECONDS = 1.0
_LONGEST_BREAK_SECONDS = 60.0

Circuit = NewType("Circuit", int)
"""Names the circuit's state in which a call was sent: what comes home later says nothing new."""


class Breaker:
    """Whether a teacher is called at all (Nygard, "Release It!", 2007).

    Closed at first. A number of failures in a row opens it for a break; then one
    call at a time is let through as a probe. A probe that succeeds closes it, one
    that fails doubles the break.
    """

    def __init__(self) -> None:
        self._circuit = Circuit(0)
        self._failures = 0
        self._opened_until: float | None = None
        self._break_seconds = _FIRST_BREAK_SECONDS
        self._probing = False

    @property
    def closed(self) -> bool:
        """Whether calls are sent as usual."""
        return self._opened_until is None

    @property
    def ready(self) -> bool:
        """Whether a call would be let through now."""
        if self._opened_until is None:
            return True
        return not self._probing and monotonic() >= self._opened_until

    @property
    def remaining_seconds(self) -> float:
        """Seconds until the next probe may be sent; 0 if at once or if one is under way."""
        return max(0.0, self._opened_until - monotonic()) if self._opened_until else 0.0

    def enter(self) -> Circuit | None:
        """Lets a call through, or does not. Each that it lets through must be told of below."""
        if not self.ready:
            return None
        self._probing = not self.closed
        return self._circuit

    def succeeded(self, circuit: Circuit) -> None:
        """The teacher is alive: it answered, if only to refuse this request."""
        if circuit != self._circuit:
            return
        self._failures = 0
        if not self.closed:
            self._opened_until = None
            self._break_seconds = _FIRST_BREAK_SECONDS
            self._change()

    def failed(self, circuit: Circuit) -> bool:
        """The teacher did not answer as it should. Returns whether that opened the circuit."""
        if circuit != self._circuit:
            return False
        self._failures += 1
        if not self.closed:
            self._break_seconds = min(2.0 * self._break_seconds, _LONGEST_BREAK_SECONDS)
        elif self._failures < _FAILURES:
            return False
        spread = random.uniform(1.0, 1.25)  # noqa: S311 - no secret
        self._opened_until = monotonic() + self._break_seconds * spread
        self._change()
        return True

    def left(self, circuit: Circuit) -> None:
        """The call was given up before anything could be told from it."""
        if circuit == self._circuit:
            self._probing = False

    def _change(self) -> None:
        self._circuit = Circuit(self._circuit + 1)
        self._probing = False
