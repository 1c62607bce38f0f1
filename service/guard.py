"""What every RPC passes: who calls is known, errors become statuses, and RPCs are counted."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import grpc
from grpc_health.v1 import health
from grpc_status import rpc_status

from arbitrage import errors
from arbitrage.status import CODES, status_of, trailers_of
from arbitrage.v1 import arbitrage_pb2 as pb
from service.identity import Caller, Scope, caller

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
            return handler
        ours = handler is not None and service in _SCOPES
        bearer = None
        if self._tokens:
            try:
                bearer = self._tokens.caller(_authorization(handler_call_details))
                if ours:
                    bearer.require(_SCOPES[service])
            except errors.ArbitrageError as error:
                return self._refusal(method if ours else None, error)
        return self._guarded(handler, method, bearer) if ours else handler

    def _guarded(self, handler: Any, method: str, bearer: Caller | None) -> Any:
        kind = "_".join(
            ("stream" if streams else "unary")
            for streams in (handler.request_streaming, handler.response_streaming)
        )
        behaviour = getattr(handler, kind)

        async def answer(request: Any, context: Context) -> Any:
            async with self._answering(method, context):
                self._admit(request, bearer, context)
                return await behaviour(request, context)

        async def answers(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._answering(method, context):
                self._admit(request, bearer, context)
                async for response in behaviour(request, context):
                    yield response

        return getattr(grpc, f"{kind}_rpc_method_handler")(
            answers if handler.response_streaming else answer,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _refusal(self, method: str | None, error: errors.ArbitrageError) -> Any:
        """Refuses before anything is read of the request.

        Args:
            method: to be counted; None for what is not ours, whose names have no end.
            error: why.
        """

        async def refuse(_: AsyncIterator[bytes], context: Context) -> None:
            if method is None:
                await context.abort_with_status(rpc_status.to_status(status_of(error)))
            async with self._answering(str(method), context):
                raise error

        return grpc.stream_stream_rpc_method_handler(refuse)

    def _admit(self, request: Any, bearer: Caller | None, context: Context) -> None:
        """Tells the RPC's task who calls, once it is known that they may.

        Raises:
            PermissionDenied: the token is not for what the request asks.
            InvalidPrompt: the request brings too much.
        """
        known = bearer or _caller(context)
        if isinstance(request, pb.GetPolicyRequest) and request.include_state:
            known.require("admin")
        if isinstance(request, pb.CreateJobRequest):
            brought = len(request.spec.prompts.prompts)
            if brought > self._max_prompts:
                reason = f"{brought} of them; a request may bring {self._max_prompts}, files more"
                raise errors.InvalidPrompt("spec.prompts.prompts", reason)
        caller.set(known)

    @asynccontextmanager
    async def _answering(self, method: str, context: Context) -> AsyncIterator[None]:
        started = perf_counter()
        code = grpc.StatusCode.OK
        try:
            yield
        except asyncio.CancelledError:
            # by its own clock a client leaves a moment before the deadline reaches ours
            left = cast("float | None", context.time_remaining())
            late = left is not None and left < _CLOSE_SECONDS
            code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            raise
        except errors.ArbitrageError as error:
            status = status_of(error)
            code = CODES[status.code]
            # clients that retry by themselves keep to the time that is told
            trailers = trailers_of(status, cast("float | None", context.time_remaining()))
            await context.abort(code, status.message, trailers)
        except Exception:  # noqa: BLE001 - a bug: the client hears of it, the log says where
            code = grpc.StatusCode.INTERNAL
            _log.exception("%s failed", method)
            await context.abort(code, "internal error; see the server's log")
        finally:
            self._metrics.requests.labels(method, code.name).inc()
            self._metrics.request_seconds.labels(method).observe(perf_counter() - started)


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
