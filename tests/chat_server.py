"""An OpenAI-compatible server on loopback, in the test's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from arbitrage import config

Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class ChatServer:
    """What the server was sent, and how to reach it."""

    port: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    peers: set[object] = field(default_factory=set)
    busy: asyncio.Event = field(default_factory=asyncio.Event)
    dropped: asyncio.Event = field(default_factory=asyncio.Event)

    def settings(self, **settings: Any) -> config.OpenAITeacher:
        base_url = f"http://127.0.0.1:{self.port}/v1"
        return config.OpenAITeacher(
            **{"name": "t", "kind": "openai", "model": "m", "base_url": base_url} | settings
        )


@asynccontextmanager
async def serve(reply: Reply) -> AsyncIterator[ChatServer]:
    server = ChatServer()

    async def complete(request: web.Request) -> web.StreamResponse:
        server.bodies.append(await request.json())
        server.headers.append(dict(request.headers))
        server.peers.add(request.transport and request.transport.get_extra_info("peername"))
        server.busy.set()
        try:
            return await reply(request)
        except asyncio.CancelledError:
            server.dropped.set()
            raise

    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.port = runner.addresses[0][1]
        yield server
    finally:
        await runner.cleanup()


def body(content: object = "Hello.", **choice: Any) -> dict[str, Any]:
    """A whole answer, as the protocol has it."""
    message = {"role": "assistant", "content": content}
    return {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"} | choice],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
    }


def sends(
    payload: object = None, *, status: int = 200, headers: dict[str, str] | None = None
) -> Reply:
    """Answers every request with one JSON body, or with a text as it stands."""

    async def reply(_: web.Request) -> web.Response:
        if isinstance(payload, str):
            return web.Response(text=payload, status=status, headers=headers)
        answer = body() if payload is None else payload
        return web.json_response(answer, status=status, headers=headers)

    return reply


async def hangs(_: web.Request) -> web.StreamResponse:
    """Takes a request and never answers it."""
    await asyncio.Event().wait()
    raise AssertionError


async def breaks(request: web.Request) -> web.StreamResponse:
    """Sends the head of an answer and a part of its body, then drops the connection."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"choices": [')
    assert request.transport
    request.transport.close()
    return response
