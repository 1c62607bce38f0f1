"""gRPC's server, which no stranger's bytes end and no crowd of calls swamps."""

from __future__ import annotations

import inspect
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined] # what is mended has no other name

from arbitrage.status import CODES, status_of, trailers_of

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from arbitrage.errors import ArbitrageError

_LOG = logging.getLogger(__name__)
_UNKNOWN = "/unknown"  # what a method that is none is called here, whatever its name is
_AT_ONCE = 32  # calls of a crowded method that may come within a turn of the loop
_OPTIONS = [  # calls that wait for being taken, beyond which the core resets some, and then all
    ("grpc.server.max_pending_requests", 2048),
    ("grpc.server.max_pending_requests_hard_limit", 4096),
]


_KNOWN: Mapping[str, tuple[str, ...]] = {
    "_MethodResolver": (),
    "_RequestCallError": (),
    "ExecuteBatchError": (),
    "SendInitialMetadataOperation": (),
    "_handle_rpc": (
        "method_name", "method_resolver", "interceptors", "rpc_state", "loop",
        "concurrency_exceeded",
    ),
    "_schedule_rpc_coro": ("rpc_coro", "rpc_state", "loop", "method_name"),
    "_send_error_status_from_server": (
        "grpc_call_wrapper", "code", "details", "trailing_metadata", "send_initial_metadata_op",
        "loop",
    ),
}  # fmt: skip
"""What is used of grpcio that it does not promise, with its parameters where it is a function."""


class Door(Protocol):
    """Who may come in while there is a crowd."""

    def crowded(self, method: str) -> bool:
        """Whether a method, such as `/package.Service/Method`, is one that crowds call."""

    def refusal(self, calls: int) -> ArbitrageError | None:
        """Why a call of such a method is not let in; None where it is.

        Args:
            calls: of such methods that are in.
        """

    def refused(self, method: str) -> None:
        """Is told of a call that was not let in."""


class _Sturdy(cygrpc.AioServer):  # type: ignore[misc] # has no types
    """Takes calls by itself, where grpcio's main loop has two weaknesses (1.85.1).

    It decodes the name of a method that is not registered as UTF-8. One that is none, from
    whoever can connect, ends that loop, and with it the port, all calls, and no process. Here
    such calls are answered without a look at their names: the methods of generated servicers
    are registered.

    And it takes one call of a method at a time, which costs some turns of the event loop. Where
    that is busy, calls come faster: they wait in gRPC's core, where nobody sees them, and of
    those beyond a thousand the core resets most without a word. Here several are taken at once,
    and those for which there is no room refused before anything is read of them, at a fraction of
    what it costs later.
    """

    door: Door

    def __init__(
        self,
        loop: Any,
        thread_pool: Any,
        generic_handlers: Any,
        interceptors: Sequence[Any],
        *others: Any,
    ) -> None:
        super().__init__(loop, thread_pool, generic_handlers, interceptors, *others)
        self._own_loop = loop
        self._own_interceptors = tuple(interceptors)
        self._own_handlers: dict[str, Any] = {}
        self._tasks: set[object] = set()
        self._inside = 0  # calls of crowded methods

    def add_registered_method_handlers(self, handlers: Mapping[str, Any]) -> None:
        super().add_registered_method_handlers(handlers)
        self._own_handlers |= handlers

    async def _request_call(self) -> None:
        """Answers one call of an unknown method after another, until the server stops."""
        nothing = cygrpc._MethodResolver([], {})  # noqa: SLF001
        while True:
            call = await super()._request_call()
            self._keep(self._answer(call, _UNKNOWN, nothing))

    async def _request_registered_call(self, method: bytes) -> None:
        """Answers one call of a method after another, until the server stops."""
        name = method.decode()
        crowded = self.door.crowded(name)
        for _ in range(_AT_ONCE - 1 if crowded else 0):
            self._keep(self._take_until_the_end(method, name, crowded=crowded))
        await self._take(method, name, crowded=crowded)

    async def _take(self, method: bytes, name: str, *, crowded: bool) -> None:
        resolver = cygrpc._MethodResolver([], self._own_handlers)  # noqa: SLF001
        while True:
            try:
                call = await super()._request_registered_call(method)
            except cygrpc._RequestCallError:  # noqa: SLF001 - the client has left, or we stop
                if not self.is_running():
                    raise
                continue
            if not crowded:
                self._keep(self._answer(call, name, resolver))
            elif error := self.door.refusal(self._inside):
                self._keep(self._refuse(call, name, error))
            else:
                self._inside += 1
                self._keep(self._answer(call, name, resolver)).add_done_callback(self._left)

    async def _take_until_the_end(self, method: bytes, name: str, *, crowded: bool) -> None:
        with suppress(cygrpc._RequestCallError):  # noqa: SLF001
            await self._take(method, name, crowded=crowded)

    def _answer(self, call: Any, name: str, resolver: Any) -> Coroutine[Any, Any, None]:
        loop = self._own_loop
        answer = cygrpc._handle_rpc(  # noqa: SLF001
            name, resolver, self._own_interceptors, call, loop, False
        )
        scheduled: Coroutine[Any, Any, None] = cygrpc._schedule_rpc_coro(  # noqa: SLF001
            answer, call, loop, name
        )
        return scheduled

    async def _refuse(self, call: Any, name: str, error: ArbitrageError) -> None:
        status = status_of(error)
        self.door.refused(name)
        with suppress(cygrpc.ExecuteBatchError):  # the client has left
            await cygrpc._send_error_status_from_server(  # noqa: SLF001
                call,
                CODES[status.code].value[0],
                status.message,
                trailers_of(status),
                cygrpc.SendInitialMetadataOperation(None, 0),
                self._own_loop,
            )

    def _left(self, _: object) -> None:
        self._inside -= 1

    def _keep(self, work: Coroutine[Any, Any, None]) -> Any:
        """Begins a task, and holds it until it has ended."""
        task = self._own_loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def server(
    interceptors: Sequence[grpc.aio.ServerInterceptor],
    options: Sequence[tuple[str, Any]],
    door: Door,
) -> grpc.aio.Server:
    """A server as `grpc.aio.server` makes it, but sturdy.

    Args:
        interceptors: of all calls that are let in.
        options: as gRPC has them.
        door: is asked whom to let in.
    """
    if not _known():
        _LOG.warning(
            "grpcio %s is one that is not known here: calls are taken as it does it itself, which "
            "a stranger can end, and a crowd can swamp; install grpcio 1.85",
            grpc.__version__,
        )
        return grpc.aio.server(interceptors=interceptors, options=options)
    plain, cygrpc.AioServer = cygrpc.AioServer, type("_", (_Sturdy,), {"door": door})
    try:
        return grpc.aio.server(interceptors=interceptors, options=[*_OPTIONS, *options])
    finally:
        cygrpc.AioServer = plain


def _known() -> bool:
    """Whether grpcio has what is used of it, as it was when this was written."""
    core = (hasattr(cygrpc.AioServer, f"_request{kind}_call") for kind in ("", "_registered"))
    return all(core) and all(
        hasattr(cygrpc, name)
        and (not parts or tuple(inspect.signature(getattr(cygrpc, name)).parameters) == parts)
        for name, parts in _KNOWN.items()
    )
