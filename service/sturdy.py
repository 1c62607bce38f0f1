"""gRPC's server, which no stranger's bytes end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined] # what is mended has no other name

if TYPE_CHECKING:
    from collections.abc import Sequence

_UNKNOWN = "/unknown"  # what a method that is none is called here, whatever its name is


class _Sturdy(cygrpc.AioServer):  # type: ignore[misc] # has no types
    """Answers calls of methods that are not registered, without a look at their names.

    grpcio decodes such a name as UTF-8 in its main loop. One that is no UTF-8, from whoever can
    connect, ends that loop (1.85.1), and with it the port, all calls, and no process. The methods
    of generated servicers are registered, so that nothing else is looked for by its name.
    """

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
        self._nothing = cygrpc._MethodResolver([], {})  # noqa: SLF001
        self._answering: set[object] = set()

    async def _request_call(self) -> None:
        """Answers one such call after another, until the server stops."""
        loop = self._own_loop
        while True:
            state = await super()._request_call()
            answer = cygrpc._handle_rpc(  # noqa: SLF001
                _UNKNOWN, self._nothing, self._own_interceptors, state, loop, False
            )
            task = loop.create_task(
                cygrpc._schedule_rpc_coro(answer, state, loop, _UNKNOWN)  # noqa: SLF001
            )
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)


def server(
    interceptors: Sequence[grpc.aio.ServerInterceptor], options: Sequence[tuple[str, Any]]
) -> grpc.aio.Server:
    """A server as `grpc.aio.server` makes it, but sturdy."""
    plain, cygrpc.AioServer = cygrpc.AioServer, _Sturdy
    try:
        return grpc.aio.server(interceptors=interceptors, options=options)
    finally:
        cygrpc.AioServer = plain
