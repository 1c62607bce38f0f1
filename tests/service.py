"""The service in the test's own loop, on scripted teachers, and a client of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
import grpc
import pytest
from google.rpc import status_pb2
from prometheus_client.parser import text_string_to_metric_families

import server
from arbitrage import config
from arbitrage.v1 import arbitrage_pb2 as pb
from arbitrage.v1.arbitrage_pb2_grpc import ArbitrageServiceStub, JobServiceStub

if TYPE_CHECKING:
    from pathlib import Path

    from google.protobuf.message import Message

    from arbitrage.v1.arbitrage_pb2_grpc import ArbitrageServiceAsyncStub, JobServiceAsyncStub

_Detail = TypeVar("_Detail", bound="Message")
Figures = Mapping[tuple[str, frozenset[tuple[str, str]]], float]
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Client:
    """A client of a running service."""

    running: server.Running
    channel: grpc.aio.Channel
    arbitrage: ArbitrageServiceAsyncStub
    jobs: JobServiceAsyncStub

    async def complete(self, text: str = "Was ist das, und warum?", **prompt: Any) -> pb.Sample:
        """A sample with all its candidates."""
        request = pb.CompleteRequest(prompt=pb.Prompt(text=text, **prompt), include_candidates=True)
        return (await self.arbitrage.Complete(request)).sample

    async def arbitrate_many(
        self, requests: Iterable[pb.ArbitrateRequest]
    ) -> AsyncGenerator[pb.ArbitrateResponse, None]:
        """The answers of one stream; closing it cancels the stream."""
        call = self.arbitrage.Arbitrate(iter(requests))
        try:
            async for response in call:
                yield response
        finally:
            call.cancel()

    async def metrics(self) -> Figures:
        """What Prometheus would scrape now, by name and labels."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(self.running.metrics_url) as response,
        ):
            text = await response.text()
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    async def until(self, name: str, value: float, **labels: str) -> None:
        """Waits for a figure: a server ends a cancelled call after its client has left."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while figure(await self.metrics(), name, **labels) != value:
                pass


def figure(figures: Figures, name: str, **labels: str) -> float | None:
    """One figure, or None where it was not exposed with exactly these labels."""
    return figures.get((f"arbitrage_{name}", frozenset(labels.items())))


def scripted(name: str = "ada", quality: float = 0.0, **fields: Any) -> config.ScriptedTeacher:
    return config.ScriptedTeacher(
        name=name, kind="scripted", quality={"default": quality}, **fields
    )


def settings(folder: Path, *teachers: config.AnyTeacher, **sections: Any) -> config.Config:
    """A service on free ports that asks every teacher; by default `ada` beats `bob`."""
    chosen: dict[str, Any] = {
        "teachers": teachers or (scripted("ada", 1.0), scripted("bob", -1.0)),
        "service": config.Service("127.0.0.1:0", "127.0.0.1:0", jobs=folder / "jobs"),
        "reward": config.ScriptedReward(),
        "policy": config.Policy(kind="best_of"),
        "sink": config.Sink(path=folder / "out"),
    }
    return config.Config(**chosen | sections)


def channel_to(address: str, proof: grpc.ChannelCredentials | None = None) -> grpc.aio.Channel:
    """A connection of its own, whatever others there are; without proof in plaintext."""
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    if proof:
        return grpc.aio.secure_channel(address, proof, options)
    return grpc.aio.insecure_channel(address, options)


@asynccontextmanager
async def serving(
    chosen: config.Config, proof: grpc.ChannelCredentials | None = None
) -> AsyncIterator[Client]:
    async with (
        server.running(chosen) as running,
        channel_to(running.address, proof) as channel,
    ):
        yield Client(running, channel, ArbitrageServiceStub(channel), JobServiceStub(channel))


async def refused(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    """The error that a call ends in."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def detail(error: grpc.aio.AioRpcError, kind: type[_Detail]) -> _Detail:
    """The one `google.rpc` detail of an error."""
    metadata = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    assert status.message == error.details()
    (packed,) = status.details
    message = kind()
    assert packed.Unpack(message)
    return message
