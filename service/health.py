"""gRPC's health service, for anybody: nobody who asks can keep others from being told."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from arbitrage.errors import Overloaded
from arbitrage.status import CODES, status_of, trailers_of

MOST_WATCHERS = 100
"""Of them all: who watches needs no token."""
_WAIT_SECONDS = 10.0
_States = health_pb2.HealthCheckResponse
Context = grpc.aio.ServicerContext[Any, Any]


class Health(health_pb2_grpc.HealthServicer):
    """What is told of each service.

    gRPC's own holds a lock while it writes to a watcher: one that reads nothing would stop it.
    """

    def __init__(self) -> None:
        self._states: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._watchers = 0
        self._closed = False

    def set(self, service: str, state: int) -> None:
        """Tells of a service from now on; empty for all of them."""
        self._states[service] = state
        self._wake()

    def close(self) -> None:
        """Nobody is served any more; who watches is told, and keeps no server from its end."""
        self._states = dict.fromkeys(self._states, _States.NOT_SERVING)
        self._closed = True
        self._wake()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> _States:  # noqa: N802 - gRPC names it
        """Tells how a service is."""
        state = self._states.get(request.service)
        if state is None:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return _States(status=state)

    async def Watch(  # noqa: N802 - gRPC names it
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> None:
        """Tells how a service is, and again whenever that changes."""
        if self._watchers >= MOST_WATCHERS:
            error = Overloaded(f"{self._watchers} watch the health already; use Check")
            error.retry_after_seconds = _WAIT_SECONDS
            status = status_of(error)
            trailers = trailers_of(status, context.time_remaining())
            await context.abort(CODES[status.code], status.message, trailers)
        self._watchers += 1
        try:
            before = None
            while True:
                changed = self._changed
                state = self._states.get(request.service, _States.SERVICE_UNKNOWN)
                if state != before:
                    await context.write(_States(status=state))
                if self._closed:
                    return
                before = state
                await changed.wait()
        finally:
            self._watchers -= 1

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
