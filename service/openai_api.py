"""A port on which the pool is one model of OpenAI's chat API, for tools that speak nothing else."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from functools import partial
from time import perf_counter, time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from aiohttp import web

from arbitrage.errors import ArbitrageError, ConfigError, InvalidPrompt, NotFound, NoWinner
from arbitrage.events import Drafted
from arbitrage.status import CODES, status_of
from arbitrage.wire import priority_from
from service import chat
from service.identity import Caller, caller
from service.options import routing_of
from service.ports import cannot_listen, place
from service.request import ID_HEADER, TRACE_HEADER, Request, current, internal
from service.tls import require_private
from service.watched import Watched

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from contextlib import AbstractContextManager

    from arbitrage import config
    from arbitrage.engine import Engine
    from arbitrage.events import Event
    from arbitrage.metrics import Metrics
    from arbitrage.types import Candidate, Priority, Routing, Sample

_log = logging.getLogger(__name__)
_KEY = "service.openai"
_METHOD = "ChatCompletions"
_FINAL = {"x-should-retry": "false"}  # what OpenAI's own clients look at


class OpenAIAPI:
    """`/v1/chat/completions` and `/v1/models` over one engine.

    Args:
        engine: answers the prompts.
        metrics: count the requests, as those of an RPC named `ChatCompletions`.
        admit: room for one prompt of a client, of a priority; raises `Overloaded` where there
            is none.
        authenticate: who sends an `Authorization` header; raises where they may not come in.
            None of it: whoever can connect may.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        admit: Callable[[str, Priority], AbstractContextManager[None]],
        authenticate: Callable[[str | None], Caller | None],
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._admit = admit
        self._authenticate = authenticate
        self._since = int(time())

    async def listen(
        self, service: config.Service, grace_seconds: float
    ) -> tuple[str, web.AppRunner]:
        """Answers at `service.openai`; the runner's `cleanup` ends it.

        Args:
            service: whose TLS and limits hold here, too.
            grace_seconds: that requests under way have, once it ends.

        Returns:
            What clients call their base URL, and the runner.

        Raises:
            ConfigError: nobody can listen there, or it would be in the clear.
        """
        listen = service.openai or ""
        host, port = place(_KEY, listen)
        private = _private(service)
        if private is None:
            require_private(_KEY, listen, service)
        app = web.Application(
            middlewares=[self._answer], client_max_size=service.max_message_mb << 20
        )
        app.on_response_prepare.append(_name)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{model}", self._model)
        runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,  # nobody works for who has left
            shutdown_timeout=grace_seconds,
            max_field_size=service.max_metadata_kb << 10,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, host.strip("[]"), port, ssl_context=private).start()
        except (OSError, UnicodeError) as error:
            await runner.cleanup()
            raise cannot_listen(_KEY, listen) from error
        scheme = "https" if private else "http"
        return f"{scheme}://{host}:{runner.addresses[0][1]}/v1", runner

    @web.middleware
    async def _answer(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Lets in who may come in, turns errors into OpenAI's, and counts requests."""
        started, code = perf_counter(), "OK"
        counted = request.path == "/v1/chat/completions" and request.method == "POST"
        sent, stranger = request.headers, _caller(request)
        current.set(Request.of(_METHOD, sent.get(ID_HEADER), sent.get(TRACE_HEADER)))
        caller.set(stranger)
        try:
            caller.set(self._authenticate(sent.get("Authorization")) or stranger)
            return await handler(request)
        except ArbitrageError as error:
            code = CODES[status_of(error).code].name
            refusal = chat.Refusal.of(error)
            return _json(refusal.body, refusal.status, refusal.headers)
        except web.HTTPException as error:
            code = "INVALID_ARGUMENT"
            body = chat.failure(f"{request.path}: {error.reason}", "invalid_request_error")
            return _json(body, error.status, _FINAL)
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except ConnectionError:  # the client has left in the middle of its answer
            code = "CANCELLED"
            raise
        except Exception:  # noqa: BLE001 - a bug: the client hears of it, the log says where
            code = "INTERNAL"
            _log.exception("%s failed", request.path)
            body = chat.failure(internal(), "server_error")
            return _json(body, 500, _FINAL)
        finally:
            if counted:
                seconds = perf_counter() - started
                self._metrics.requests.labels(_METHOD, code).inc()
                self._metrics.request_seconds.labels(_METHOD).observe(seconds)
                if _log.isEnabledFor(logging.INFO):
                    _log.info("ended", extra={"code": code, "seconds": round(seconds, 6)})

    async def _models(self, _: web.Request) -> web.Response:
        return _json({"object": "list", "data": [self._described]})

    async def _model(self, request: web.Request) -> web.Response:
        model = request.match_info["model"]
        if model != chat.MODEL:
            raise NotFound(f"model: there is no {model!r}; use {chat.MODEL!r}")
        return _json(self._described)

    @property
    def _described(self) -> dict[str, Any]:
        return {
            "id": chat.MODEL,
            "object": "model",
            "created": self._since,
            "owned_by": "data-arbitrage",
        }

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        # no page of another site may send this without asking, and nobody here lets it
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(reason="the body must be application/json")
        try:
            body = json.loads(await request.read())
        except (ValueError, RecursionError):
            raise InvalidPrompt("body", "is not JSON") from None
        asked = chat.Asked.of(body, request.headers)
        client = caller.get()
        with self._admit(f"{client.kind} {client.name}", priority_from(asked.options)):
            routing = routing_of(self._engine, asked.prompt, asked.options, chat.OPTIONS)
            if asked.stream:
                return await self._stream(request, asked, routing)
            sample = await self._engine.arbitrate(asked.prompt, routing=routing)
        return _json(chat.completion(sample, _winner(sample)), headers=_ignored(asked))

    async def _stream(
        self, request: web.Request, asked: chat.Asked, routing: Routing
    ) -> web.StreamResponse:
        """Sends what the only teacher that was asked writes, or else the winner's answer."""
        drafts = Drafts()
        answering = asyncio.create_task(self._engine.arbitrate(asked.prompt, drafts, routing))
        answering.add_done_callback(lambda _: drafts.wake())
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-cache",
                **_ignored(asked),
            }
        )
        chunks = chat.Chunks(uuid4().hex, int(time()))

        async def send(text: str) -> None:
            first = not response.prepared
            if first:  # until then, an error has a status of its own
                await response.prepare(request)
            await response.write(chunks.text(text, first=first))

        try:
            async for text in drafts.until(answering):
                await send(text)
            try:
                sample = await answering
                rest = _rest(_winner(sample), drafts.sent)
            except ArbitrageError as error:
                if not response.prepared:
                    raise
                await response.write(chat.event(chat.Refusal.of(error).body))
            else:
                if rest or not response.prepared:
                    await send(rest)
                await response.write(chunks.last(sample, _winner(sample)))
                if asked.with_usage:
                    await response.write(chunks.usage(sample, _winner(sample)))
                await response.write(chat.END)
        finally:
            answering.cancel()
            await asyncio.wait({answering})
        await response.write_eof()
        return response


class Drafts:
    """Hears what the only teacher of a wave writes; a slow reader finds it joined.

    Attributes:
        sent: what has been read.
    """

    def __init__(self) -> None:
        self.sent = ""
        self._unread: list[str] = []
        self._more = asyncio.Event()

    def observe(self, event: Event) -> None:
        """Takes one event of the engine."""
        if isinstance(event, Drafted):
            self._unread.append(event.text)
            self._more.set()

    def wake(self) -> None:
        """Nothing more will be heard."""
        self._more.set()

    async def until(self, done: asyncio.Future[Any]) -> AsyncIterator[str]:
        """What is written, until something is done."""
        while True:
            await self._more.wait()
            self._more.clear()
            if text := "".join(self._unread):
                self._unread.clear()
                self.sent += text
                yield text
            if done.done() and not self._unread:
                return


def _rest(winner: Candidate, sent: str) -> str:
    """What is missing of the winner's answer.

    Raises:
        NoWinner: something else was sent.
    """
    text = winner.completion.text if winner.completion else ""
    if not text.startswith(sent):
        raise NoWinner(
            f"what was streamed is not the answer that won, which is {winner.teacher}'s and is "
            "stored; ask again without stream",
            None,
        )
    return text[len(sent) :]


def _winner(sample: Sample) -> Candidate:
    if sample.winner is None:
        raise RuntimeError("the engine returned a sample that nobody won")
    return sample.winner


async def _name(_: web.Request, response: web.StreamResponse) -> None:
    """Tells the client what its request is called in the log."""
    if about := current.get(None):  # not where it is no HTTP
        response.headers[ID_HEADER] = about.request_id


def _ignored(asked: chat.Asked) -> dict[str, str]:
    return {"x-arbitrage-ignored": ", ".join(asked.ignored)} if asked.ignored else {}


def _json(
    body: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    dumps = partial(json.dumps, ensure_ascii=False)
    return web.json_response(body, status=status, headers=headers, dumps=dumps)


def _caller(request: web.Request) -> Caller:
    """Who calls without a token: whom a certificate names, or else the machine."""
    shown = request.get_extra_info("peercert") or {}
    for part in shown.get("subject", ()):
        for key, value in part:
            if key == "commonName":
                return Caller("certificate", value)
    return Caller("peer", request.remote or "unknown")


def _private(service: config.Service) -> ssl.SSLContext | None:
    """TLS with the files that gRPC uses; None for plaintext.

    Files that change are what the next connection meets.

    Raises:
        ConfigError: one of the files is wrong.
    """
    certificate, key, clients = service.tls_certificate, service.tls_key, service.tls_clients
    if certificate is None or key is None:
        return None

    def made() -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=clients)
            context.load_cert_chain(certificate, key, password=str)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{_KEY}: TLS: {certificate}, {key}: {error}") from None
        if clients:
            context.verify_mode = ssl.CERT_REQUIRED
            # with a ticket of before, a client would not be asked for its certificate again
            context.num_tickets = 0
            context.options |= ssl.OP_NO_TICKET
        return context

    watched = Watched([certificate, key, *([clients] if clients else [])], made)
    context = watched.latest()

    def newest(connection: ssl.SSLObject, *_: object) -> None:
        connection.context = watched.latest()

    context.sni_callback = newest  # before each handshake, whether or not a name is asked for
    return context
