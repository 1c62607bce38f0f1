"""The ports that a server listens on."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from arbitrage import errors
from service.console import Console

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from arbitrage.metrics import Metrics
    from service.tokens import Tokens

_LAST_PORT = 65_535
_SCRAPE_SECONDS = 1.0


@asynccontextmanager
async def metrics_port(
    listen: str, metrics: Metrics, tokens: Tokens | None = None
) -> AsyncIterator[str]:
    """Answers Prometheus, and people at `/`; yields the address to be scraped.

    Args:
        listen: where, as `host:port`.
        metrics: what is told.
        tokens: one with the scope `admin` is wanted; None wants none.

    Raises:
        ConfigError: nobody can listen there.
    """
    host, port = place("service.metrics", listen)

    async def scrape(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(metrics.registry), headers={"Content-Type": content_type})

    @web.middleware
    async def admit(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if tokens:
            try:
                tokens.caller(request.headers.get("Authorization")).require("admin")
            except errors.Unauthenticated as error:
                shown = {"WWW-Authenticate": "Bearer"}
                return web.Response(text=f"{error}\n", status=401, headers=shown)
            except errors.PermissionDenied as error:
                return web.Response(text=f"{error}\n", status=403)
        return await handler(request)

    app = web.Application(middlewares=[admit])
    app.router.add_get("/metrics", scrape)
    Console(metrics).join(app)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SCRAPE_SECONDS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host.strip("[]"), port).start()
        except (OSError, UnicodeError) as error:
            raise cannot_listen("service.metrics", listen) from error
        yield f"http://{host}:{runner.addresses[0][1]}/metrics"
    finally:
        await runner.cleanup()


def place(key: str, listen: str) -> tuple[str, int]:
    """Host and port of an address in the configuration.

    Raises:
        ConfigError: it is none.
    """
    host, _, port = listen.rpartition(":")
    # gRPC would take port 65537 for port 1
    if not host or not port.isdecimal() or int(port) > _LAST_PORT:
        raise errors.ConfigError(f"{key}: {listen!r} is not host:port, such as 127.0.0.1:50051")
    return host, int(port)


def cannot_listen(key: str, listen: str) -> errors.ConfigError:
    """What to tell of an address that cannot be had."""
    return errors.ConfigError(
        f"{key}: cannot listen on {listen}: is it taken, or not this machine's?"
    )
