"""What every RPC passes: errors become statuses, and RPCs are counted."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import grpc
from grpc_status import rpc_status

from arbitrage import errors
from arbitrage.status import CODES, status_of
from arbitrage.v1 import arbitrage_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from arbitrage.metrics import Metrics

_log = logging.getLogger(__name__)
_CLOSE_SECONDS = 0.2
SERVICES = [service.full_name for service in pb.DESCRIPTOR.services_by_name.values()]
"""Our own services, by their full names."""

Context = grpc.aio.ServicerContext[Any, Any]


class Guard(grpc.aio.ServerInterceptor):
    """Turns errors into statuses with their details, and counts RPCs, in one place."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        handler_call_details: Any,
    ) -> Any:
        """Wraps the handlers of our own services."""
        handler = await continuation(handler_call_details)
        service, _, method = handler_call_details.method.lstrip("/").partition("/")
        if handler is None or service not in SERVICES:
            return handler
        kind = "_".join(
            ("stream" if streams else "unary")
            for streams in (handler.request_streaming, handler.response_streaming)
        )
        behaviour = getattr(handler, kind)

        async def answer(request: Any, context: Context) -> Any:
            async with self._answering(method, context):
                return await behaviour(request, context)

        async def answers(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._answering(method, context):
                async for response in behaviour(request, context):
                    yield response

        return getattr(grpc, f"{kind}_rpc_method_handler")(
            answers if handler.response_streaming else answer,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

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
            await context.abort_with_status(rpc_status.to_status(status))
        except Exception:  # noqa: BLE001 - a bug: the client hears of it, the log says where
            code = grpc.StatusCode.INTERNAL
            _log.exception("%s failed", method)
            await context.abort(code, "internal error; see the server's log")
        finally:
            self._metrics.requests.labels(method, code.name).inc()
            self._metrics.request_seconds.labels(method).observe(perf_counter() - started)
