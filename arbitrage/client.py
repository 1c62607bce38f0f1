"""A client of a running service, whose failures are one line."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc

from arbitrage.errors import ArbitrageError
from arbitrage.v1.arbitrage_pb2_grpc import ArbitrageServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from arbitrage.v1.arbitrage_pb2_grpc import ArbitrageServiceAsyncStub

_OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # loopback and private addresses are no proxy's business
    ("grpc.max_receive_message_length", -1),  # a policy's state may be large
)


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[ArbitrageServiceAsyncStub]:
    """A stub of the service at an address, `host:port`.

    Raises:
        ArbitrageError: a call has failed; the message says where and why.
    """
    async with grpc.aio.insecure_channel(address, _OPTIONS) as channel:
        try:
            yield ArbitrageServiceStub(channel)
        except grpc.aio.AioRpcError as error:
            lines = (error.details() or "no reason given").splitlines()
            message = f"{address}: {error.code().name}: {lines[0]}"
            # a server that says so itself adds when to try again
            if error.code() is grpc.StatusCode.UNAVAILABLE and not error.trailing_metadata():
                message = f"{address}: nobody answers; start: arbitrage serve -c CONFIG"
            raise ArbitrageError(message) from None
