"""A service behind the guard that says who calls it, over a real socket."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc

from arbitrage.metrics import Metrics
from arbitrage.v1 import arbitrage_pb2 as pb
from arbitrage.v1 import arbitrage_pb2_grpc as pb_grpc
from service.guard import Guard
from service.identity import caller
from tests.service import channel_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from service.tokens import Tokens


class _Names(pb_grpc.ArbitrageServiceServicer):
    """Answers with the caller, after others have had their turn."""

    async def Complete(  # noqa: N802 - gRPC names it
        self, request: pb.CompleteRequest, context: Any
    ) -> pb.CompleteResponse:
        del request, context
        return pb.CompleteResponse(sample=await self._sample())

    async def StreamComplete(  # noqa: N802 - gRPC names it
        self, request: pb.StreamCompleteRequest, context: Any
    ) -> AsyncIterator[pb.StreamCompleteResponse]:
        del request, context
        for _ in range(2):
            yield pb.StreamCompleteResponse(result=await self._sample())

    async def _sample(self) -> pb.Sample:
        await asyncio.sleep(0.01)
        told = await asyncio.create_task(_who())
        return pb.Sample(sample_id=told)


async def _who() -> str:
    known = caller.get()
    return f"{known.kind} {known.name}"


@asynccontextmanager
async def naming(
    tokens: Tokens | None = None, proof: grpc.ServerCredentials | None = None
) -> AsyncIterator[str]:
    """The address of such a service."""
    async with answering(_Names(), tokens, proof) as address:  # type: ignore[abstract] # is asked no others
        yield address


@asynccontextmanager
async def answering(
    servicer: pb_grpc.ArbitrageServiceServicer,
    tokens: Tokens | None = None,
    proof: grpc.ServerCredentials | None = None,
) -> AsyncIterator[str]:
    """The address of a service behind the guard."""
    server = grpc.aio.server(interceptors=[Guard(Metrics(["de"], "jsonl"), tokens, 1)])
    pb_grpc.add_ArbitrageServiceServicer_to_server(servicer, server)
    at = "127.0.0.1:0"
    port = server.add_secure_port(at, proof) if proof else server.add_insecure_port(at)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def named(
    address: str, proof: grpc.ChannelCredentials | None = None, token: str | None = None
) -> str:
    """Who a call is said to come from."""
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    async with channel_to(address, proof) as channel:
        stub = pb_grpc.ArbitrageServiceStub(channel)
        single = await stub.Complete(pb.CompleteRequest(), metadata=metadata)
        stream = stub.StreamComplete(pb.StreamCompleteRequest(), metadata=metadata)
        told = {single.sample.sample_id} | {event.result.sample_id async for event in stream}
    (name,) = told
    return name
