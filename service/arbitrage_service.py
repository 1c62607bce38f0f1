"""`ArbitrageService` over gRPC: decode, call the engine, encode."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, cast

import grpc

from arbitrage import errors, wire
from arbitrage.language import normalise
from arbitrage.v1 import arbitrage_pb2 as pb
from arbitrage.v1 import arbitrage_pb2_grpc as pb_grpc
from router.explain import explain, languages
from router.snapshots.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from arbitrage.engine import Engine
    from router.explain import Explicable

Context = grpc.aio.ServicerContext[Any, Any]


class ArbitrageService(pb_grpc.ArbitrageServiceServicer):
    """`arbitrage.v1.ArbitrageService` over one engine."""

    def __init__(self, engine: Engine, max_in_flight: int) -> None:
        self._engine = engine
        self._max_in_flight = max_in_flight
        self._in_flight = 0

    async def Complete(self, request: pb.CompleteRequest, context: Context) -> pb.CompleteResponse:
        """Answers one prompt with the winner."""
        wire.require_no_options(request)
        prompt = wire.prompt_from(request)
        with self._admitted():
            sample = await self._engine.arbitrate(prompt)
        return pb.CompleteResponse(
            sample=wire.sample_to(sample, include_candidates=request.include_candidates)
        )

    async def ListTeachers(
        self, request: pb.ListTeachersRequest, context: Context
    ) -> pb.ListTeachersResponse:
        """Lists the pool."""
        teachers = self._engine.pool.describe()
        return pb.ListTeachersResponse(teachers=[wire.teacher_to(t) for t in teachers])

    async def GetPolicy(
        self, request: pb.GetPolicyRequest, context: Context
    ) -> pb.GetPolicyResponse:
        """Shows what was learned."""
        policy = cast("Explicable", self._engine.policy)
        wanted = [normalise(request.language)] if request.language else languages(policy)
        arms = [teacher.name for teacher in self._engine.pool.describe()]
        response = pb.GetPolicyResponse(
            policy=policy.kind,
            version=policy.version,
            price=policy.price,
            usd_per_prompt=policy.spend_per_prompt,
        )
        if request.include_state:
            response.state = await asyncio.to_thread(Snapshot.of(policy).encode)
        for language in wanted:
            response.languages.extend(wire.languages_to(explain(policy, language, arms)))
            await asyncio.sleep(0)  # a thousand languages take a second: others get their turn
        return response

    async def RecordFeedback(self, request: pb.RecordFeedbackRequest, context: Context) -> NoReturn:
        """Not offered by this version."""
        raise errors.NotBuilt("RecordFeedback: this server learns from its reward model alone")

    def StreamComplete(
        self, request: pb.StreamCompleteRequest, context: Context
    ) -> AsyncIterator[pb.StreamCompleteResponse]:
        """Not offered by this version."""
        return _refused("StreamComplete: this server does not stream; call Complete")

    def Arbitrate(
        self, request_iterator: AsyncIterator[pb.ArbitrateRequest], context: Context
    ) -> AsyncIterator[pb.ArbitrateResponse]:
        """Not offered by this version."""
        return _refused("Arbitrate: this server takes no streams; call Complete per prompt")

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        if self._in_flight >= self._max_in_flight:
            raise errors.Overloaded(
                f"{self._in_flight} prompts are in flight, which is the limit; try again later"
            )
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1


async def _refused(reason: str) -> AsyncIterator[Any]:
    for _ in ():
        yield
    raise errors.NotBuilt(reason)
