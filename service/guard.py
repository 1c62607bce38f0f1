"""What every RPC passes: who calls is known, errors become statuses, and RPCs are counted."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import grpc
from grpc_health.v1 import health

from arbitrage import errors
from arbitrage.status import CODES, status_of, trailers_of
from arbitrage.v1 import arbitrage_pb2 as pb
from service.identity import Caller, Scope, caller
from service.messages import Readable, checked, end, lenient, require
from service.request import ID_HEADER, TRACE_HEADER, Request, current, internal
from service.standing import while_allowed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from arbitrage.metrics import Metrics
    from service.tokens import Tokens

_log = logging.getLogger(__name__)
_CLOSE_SECONDS = 0.2
_SCOPES: Mapping[str, Scope] = {
    "arbitrage.v1.ArbitrageService": "complete",
    "arbitrage.v1.JobService": "jobs",
}
SERVICES = list(_SCOPES)
"""Our own services, by their full names."""

Context = grpc.aio.ServicerContext[Any, Any]


class Guard(grpc.aio.ServerInterceptor):
    """Lets in who may come in, turns errors into statuses with their details, and counts RPCs.

    Args:
        metrics: count the RPCs of our own services.
        tokens: whoever shows none of them is told nothing but the service's health; None lets
            everybody in.
        max_prompts: how many a request may bring.
    """

    def __init__(self, metrics: Metrics, tokens: Tokens | None, max_prompts: int) -> None:
        self._metrics = metrics
        self._tokens = tokens
        self._max_prompts = max_prompts

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        handler_call_details: Any,
    ) -> Any:
        """Wraps the handlers of our own services; strangers meet a refusal in place of any."""
        handler = await continuation(handler_call_details)
        service, _, method = handler_call_details.method.lstrip("/").partition("/")
        if service == health.SERVICE_NAME:
            return handler and checked(handler)
        ours = handler is not None and service in _SCOPES
        many = ours and handler.request_streaming
        about = _request(method if ours else "", handler_call_details, many=many)
        tokens = self._tokens

        def shown() -> Caller | None:
            """Whose token came with the request, if it is still one that opens the service."""
            if tokens is None:
                return None
            known = tokens.caller(_authorization(handler_call_details))
            if ours:
                known.require(_SCOPES[service])
            return known

        try:
            bearer = shown()
        except errors.ArbitrageError as error:
            return self._refusal(about, error)
        again = shown if tokens else None
        if ours:
            return self._guarded(handler, about, bearer, again)
        return handler and checked(handler)

    def _guarded(
        self,
        handler: Any,
        about: Request,
        bearer: Caller | None,
        again: Callable[[], object] | None,
    ) -> Any:
        kind = "_".join(
            ("stream" if streams else "unary")
            for streams in (handler.request_streaming, handler.response_streaming)
        )
        behaviour = getattr(handler, kind)

        async def answer(message: Any, context: Context) -> Any:
            async with self._answering(about, context):
                self._admit(message, bearer, context)
                return await behaviour(message, context)

        async def answers(message: Any, context: Context) -> AsyncIterator[Any]:
            async with self._answering(about, context):
                self._admit(message, bearer, context)
                messages = Readable(message) if handler.request_streaming else None
                responses = behaviour(messages or message, context)
                if again:
                    responses = while_allowed(responses, again, partial(_abort, context, about))
                async for response in responses:
                    yield response
                if messages:
                    messages.check()

        return getattr(grpc, f"{kind}_rpc_method_handler")(
            answers if handler.response_streaming else answer,
            request_deserializer=lenient(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    def _refusal(self, about: Request, error: errors.ArbitrageError) -> Any:
        """Refuses before anything is read of the request.

        Args:
            about: the request; without a method where it is not counted, since it asks for
                what is not ours, whose names have no end.
            error: why.
        """

        async def refuse(_: AsyncIterator[bytes], context: Context) -> None:
            if not about.method:
                await end(context, *_told(context, about, error))
                return
            caller.set(_caller(context))
            async with self._answering(about, context):
                raise error

        return grpc.stream_stream_rpc_method_handler(refuse)

    def _admit(self, message: Any, bearer: Caller | None, context: Context) -> None:
        """Tells the RPC's task who calls, once it is known that they may.

        Raises:
            PermissionDenied: the token is not for what the request asks.
            InvalidPrompt: the request brings too much, or is none.
        """
        require(message)
        known = bearer or _caller(context)
        if isinstance(message, pb.GetPolicyRequest) and message.include_state:
            known.require("admin")
        if isinstance(message, pb.CreateJobRequest):
            brought = len(message.spec.prompts.prompts)
            if brought > self._max_prompts:
                reason = f"{brought} of them; a request may bring {self._max_prompts}, files more"
                raise errors.InvalidPrompt("spec.prompts.prompts", reason)
        caller.set(known)

    @asynccontextmanager
    async def _answering(self, about: Request, context: Context) -> AsyncIterator[None]:
        started = perf_counter()
        code = grpc.StatusCode.OK
        method, named = about.method, (ID_HEADER, about.request_id)
        current.set(about)
        context.set_trailing_metadata((named,))
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            # by its own clock a client leaves a moment before the deadline reaches ours
            left = cast("float | None", context.time_remaining())
            late = left is not None and left < _CLOSE_SECONDS
            code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            raise
        except errors.ArbitrageError as error:
            code = CODES[status_of(error).code]
            await end(context, *_told(context, about, error))
        except Exception:  # noqa: BLE001 - a bug: the client hears of it, the log says where
            code = grpc.StatusCode.INTERNAL
            _log.exception("%s failed", method)
            await end(context, code, internal(), ((ID_HEADER, about.request_id),))
        finally:
            seconds = perf_counter() - started
            self._metrics.requests.labels(method, code.name).inc()
            self._metrics.request_seconds.labels(method).observe(seconds)
            if _log.isEnabledFor(logging.INFO):
                _log.info("ended", extra={"code": code.name, "seconds": round(seconds, 6)})


async def _abort(context: Context, about: Request, error: errors.ArbitrageError) -> None:
    """Ends an RPC with an error at once, wherever its handler is."""
    await end(context, *_told(context, about, error))


def _told(
    context: Context, about: Request, error: errors.ArbitrageError
) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str | bytes], ...]]:
    """An error as the code, the message and the trailers that a client is sent."""
    status = status_of(error)
    # clients that retry by themselves keep to the time that is told
    trailers = trailers_of(status, cast("float | None", context.time_remaining()))
    named = (ID_HEADER, about.request_id)
    return CODES[status.code], status.message, (*trailers, named)


def _request(method: str, handler_call_details: Any, *, many: bool) -> Request:
    """What is asked, under the names that came with it."""
    sent = dict(handler_call_details.invocation_metadata or ())
    return Request.of(method, sent.get(ID_HEADER), sent.get(TRACE_HEADER), many=many)


def _authorization(handler_call_details: Any) -> str | bytes | None:
    """The token that came; several are as good as none."""
    metadata = handler_call_details.invocation_metadata or ()
    sent = [value for key, value in metadata if key == "authorization"]
    return sent[0] if len(sent) == 1 else None


def _caller(context: Context) -> Caller:
    """Who calls without a token: whom a certificate names, or else the machine."""
    shown = context.auth_context()
    for key in ("x509_common_name", "x509_subject_alternative_name"):
        for name in filter(None, shown.get(key, ())):
            return Caller("certificate", name.decode("utf-8", "replace"))
    address = unquote(context.peer())
    return Caller("peer", address.rpartition(":")[0] or address)
