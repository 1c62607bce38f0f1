"""A policy that chooses nothing, for tests of what is done with a policy's state."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class Fake:
    """Counts updates, lets a state through as it is, and tells who has asked for it."""

    def __init__(self, kind: str = "fake", state: Mapping[str, Any] | None = None) -> None:
        self.kind = kind
        self.version = 0
        self.held: Mapping[str, Any] = state or {}
        self.threads: list[str] = []

    def state(self) -> Mapping[str, Any]:
        self.threads.append(threading.current_thread().name)
        return {**self.held, "version": self.version}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.held = state
        self.version = state["version"]


def fake(kind: str = "fake", state: Mapping[str, Any] | None = None) -> Any:
    return Fake(kind, state)
