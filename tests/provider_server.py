"""A provider on loopback that speaks any of three protocols, in the test's own loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from arbitrage import config

# LiteLLM silences these of its own on import, which pytest undoes after each test
IGNORE_ITS_WARNINGS = [
    pytest.mark.filterwarnings("ignore:.*conflict with protected namespace:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier:UserWarning"),
    pytest.mark.filterwarnings("ignore:Accessing the .* on the instance:DeprecationWarning"),
]
Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]
Event = dict[str, Any] | str
KEY = "s3cret-0123456789/abc"


@dataclass(frozen=True)
class Protocol:
    """How a provider is addressed, and how it says one thing: "Hello.", of 7 and 2 tokens.

    Attributes:
        base: path of the address that a configuration names.
        path, streamed_path: where a request arrives.
        key_header: how the key is sent, with `{}` for it.
        answer: the whole answer.
        events: the same answer as a stream, in three pieces.
    """

    model: str
    base: str
    path: str
    streamed_path: str
    key_header: tuple[str, str]
    answer: dict[str, Any]
    events: tuple[Event, ...]


@dataclass
class Provider:
    """What the provider was sent, and how to reach it."""

    protocol: Protocol
    port: int = 0
    paths: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    peers: set[object] = field(default_factory=set)
    busy: asyncio.Event = field(default_factory=asyncio.Event)
    dropped: asyncio.Event = field(default_factory=asyncio.Event)

    def settings(self, **settings: Any) -> config.LiteLLMTeacher:
        base_url = f"http://127.0.0.1:{self.port}{self.protocol.base}"
        usual = {"name": "t", "kind": "litellm", "model": self.protocol.model, "base_url": base_url}
        return config.LiteLLMTeacher(**usual | {"api_key_env": "TEST_API_KEY"} | settings)


@asynccontextmanager
async def serve(protocol: Protocol, reply: Reply) -> AsyncIterator[Provider]:
    """Answers every request, to whatever path."""
    provider = Provider(protocol)

    async def answer(request: web.Request) -> web.StreamResponse:
        provider.paths.append(request.path_qs)
        provider.bodies.append(await request.json())
        provider.headers.append(dict(request.headers))
        provider.peers.add(request.transport and request.transport.get_extra_info("peername"))
        provider.busy.set()
        try:
            return await reply(request)
        except asyncio.CancelledError:
            provider.dropped.set()
            raise

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        provider.port = runner.addresses[0][1]
        yield provider
    finally:
        await runner.cleanup()


def sends(payload: object, *, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    """Answers with one JSON body, or with a text as it stands."""
    text = payload if isinstance(payload, str) else json.dumps(payload)

    async def reply(_: web.Request) -> web.Response:
        return web.Response(
            text=text, status=status, headers=headers, content_type="application/json"
        )

    return reply


def streams(
    events: Iterable[Event], *, then: Callable[[], Awaitable[object]] | None = None
) -> Reply:
    """Answers with server-sent events, and ends; or does something else at their end."""

    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            match event:
                case str(data):
                    await response.write(f"data: {data}\n\n".encode())
                case {"type": name}:
                    await response.write(f"event: {name}\n".encode() + _data(event))
                case _:
                    await response.write(_data(event))
        if then:
            await then()
        return response

    return reply


def replies(protocol: Protocol) -> Reply:
    """Answers with the protocol's one thing, streamed where that is asked for."""
    whole, streamed = sends(protocol.answer), streams(protocol.events)

    async def reply(request: web.Request) -> web.StreamResponse:
        asked = (await request.json()).get("stream") or ":stream" in request.path
        return await (streamed if asked else whole)(request)

    return reply


def _data(event: object) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()


async def hangs(_: web.Request) -> web.StreamResponse:
    """Takes a request and never answers it."""
    await asyncio.Event().wait()
    raise AssertionError


async def resets(request: web.Request) -> web.StreamResponse:
    """Drops the connection instead of answering."""
    assert request.transport
    request.transport.abort()
    await asyncio.sleep(0)
    return web.Response()


async def breaks(request: web.Request) -> web.StreamResponse:
    """Sends the head of an answer and a part of its body, then drops the connection."""
    response = web.StreamResponse(
        headers={"Content-Length": "1000", "Content-Type": "application/json"}
    )
    await response.prepare(request)
    await response.write(b'{"choices": [')
    assert request.transport
    request.transport.close()
    return response


def openai_answer(*contents: str, **message: Any) -> dict[str, Any]:
    return {
        "id": "a",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": content, **message},
                "finish_reason": "stop",
            }
            for index, content in enumerate(contents)
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
    }


def openai_chunk(finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    head = {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return head | {"choices": [choice]}


def anthropic_answer(*content: dict[str, str]) -> dict[str, Any]:
    return {
        "id": "a",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": content,
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 7, "output_tokens": 2},
    }


def anthropic_delta(**delta: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": delta}


OPENAI = Protocol(
    model="openai/gpt-4o",
    base="/v1",
    path="/v1/chat/completions",
    streamed_path="/v1/chat/completions",
    key_header=("Authorization", "Bearer {}"),
    answer=openai_answer("Hello."),
    events=(
        openai_chunk(role="assistant", content=""),
        openai_chunk(content="He"),
        openai_chunk(content="ll"),
        openai_chunk(content="o."),
        openai_chunk("stop"),
        openai_chunk() | {"choices": [], "usage": openai_answer("")["usage"]},
        "[DONE]",
    ),
)

_BEGUN = {"stop_reason": None, "usage": {"input_tokens": 7, "output_tokens": 1}}
ANTHROPIC_BEGIN: tuple[Event, ...] = (
    {"type": "message_start", "message": anthropic_answer() | _BEGUN},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
)
ANTHROPIC_END: tuple[Event, ...] = (
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 2},
    },
    {"type": "message_stop"},
)
ANTHROPIC = Protocol(
    model="anthropic/claude-sonnet-4-5",
    base="",
    path="/v1/messages",
    streamed_path="/v1/messages",
    key_header=("x-api-key", "{}"),
    answer=anthropic_answer({"type": "text", "text": "Hello."}),
    events=(
        *ANTHROPIC_BEGIN,
        *(anthropic_delta(type="text_delta", text=piece) for piece in ("He", "ll", "o.")),
        *ANTHROPIC_END,
    ),
)


def _gemini(text: str, **candidate: str) -> dict[str, Any]:
    return {
        "candidates": [
            {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0, **candidate}
        ],
        "usageMetadata": {
            "promptTokenCount": 7,
            "candidatesTokenCount": 2,
            "totalTokenCount": 9,
        },
        "modelVersion": "m",
    }


GEMINI = Protocol(
    model="gemini/gemini-2.5-flash",
    base="",
    path="/models/gemini-2.5-flash:generateContent",
    streamed_path="/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
    key_header=("x-goog-api-key", "{}"),
    answer=_gemini("Hello.", finishReason="STOP"),
    events=(_gemini("He"), _gemini("ll"), _gemini("o.", finishReason="STOP")),
)

PROTOCOLS = (OPENAI, ANTHROPIC, GEMINI)
