"""Whether the service can answer, as the standard health service tells."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from grpc_health.v1 import health_pb2

from arbitrage.types import Prompt

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from arbitrage.engine import Engine
    from service.health import Health

_LOOK_SECONDS = 1.0
_ANY = Prompt.of("?")
_STATES = health_pb2.HealthCheckResponse


def ready(engine: Engine) -> bool:
    """Whether a prompt that came now could be answered.

    A teacher is needed that may be asked, if only to see whether it is well again; and a disk
    with room.
    """
    return bool(engine.pool.available(_ANY)) and not engine.sink.stalled


@asynccontextmanager
async def told(health: Health, engine: Engine, services: Sequence[str]) -> AsyncIterator[None]:
    """Tells of some services, and of all together, for as long as the context lasts.

    On leaving, they are told as not serving, for good.
    """
    before: bool | None = None

    def look() -> None:
        nonlocal before
        now = ready(engine)
        if now != before:
            before = now
            for name in ("", *services):
                health.set(name, _STATES.SERVING if now else _STATES.NOT_SERVING)

    async def follow() -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            look()

    look()
    following = asyncio.create_task(follow())
    try:
        yield
    finally:
        following.cancel()
        await asyncio.wait({following})
        health.close()
