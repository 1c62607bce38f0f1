"""An OpenAI-compatible server on loopback, in the test's own loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from arbitrage import config
from arbitrage.errors import TeacherError
from arbitrage.types import Completion, Message
from teachers.openai import OpenAITeacher

ASK = (Message("user", "Why?"),)
MESSAGES = [{"role": "user", "content": "Why?"}]
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


async def ask(server: ChatServer, **settings: Any) -> Sequence[Completion]:
    teacher = OpenAITeacher(server.settings(**settings))
    try:
        return await teacher.complete(ASK)
    finally:
        await teacher.close()


async def failure(reply: Reply, **settings: Any) -> TeacherError:
    async with serve(reply) as server:
        with pytest.raises(TeacherError) as caught:
            await ask(server, **settings)
    assert "\n" not in str(caught.value)
    return caught.value


def body(content: object = "Hello.", **choice: Any) -> dict[str, Any]:
    """A whole answer, as the protocol has it."""
    message = {"role": "assistant", "content": content}
    return {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"} | choice],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
    }


def body_of(**message: Any) -> dict[str, Any]:
    """An answer whose message has these fields."""
    return body(message={"role": "assistant"} | message)


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


def in_turn(*replies: Reply) -> Reply:
    """Answers the first request with the first reply, and so on; the last one goes on."""
    left = list(replies)

    async def reply(request: web.Request) -> web.StreamResponse:
        return await (left.pop(0) if len(left) > 1 else left[0])(request)

    return reply


def chunk(content: str | None = None, **choice: Any) -> dict[str, Any]:
    """A chunk of a streamed answer, as the protocol has it."""
    delta = {} if content is None else {"content": content}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None} | choice]}


USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}
LAST = chunk(finish_reason="stop")


def events(*chunks: object, end: str = "data: [DONE]\n\n") -> bytes:
    """Chunks as server-sent events."""
    return "".join([*(f"data: {json.dumps(c)}\n\n" for c in chunks), end]).encode()


def streams(pieces: Iterable[bytes], *, then: Reply | None = None) -> Reply:
    """Writes an event stream piece by piece; then goes on with another reply, or ends it."""

    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(0)
        return await then(request) if then else response

    return reply


async def drops(request: web.Request) -> web.StreamResponse:
    """Drops the connection."""
    assert request.transport
    request.transport.close()
    return web.StreamResponse()


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
