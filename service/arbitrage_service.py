"""`ArbitrageService` over gRPC: decode, call the engine, encode."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import grpc

import assembly
from arbitrage import wire
from arbitrage.language import normalise
from arbitrage.v1 import arbitrage_pb2 as pb
from arbitrage.v1 import arbitrage_pb2_grpc as pb_grpc
from router.explain import explain, languages
from router.snapshots.snapshot import Snapshot
from service.answers import Answers, Held
from service.feedback import Feedbacks
from service.identity import caller
from service.options import routing_of
from service.steps import Steps

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from arbitrage.engine import Engine
    from arbitrage.types import Prompt, Routing, Sample
    from router.explain import Explicable
    from service.admission import Admission

Context = grpc.aio.ServicerContext[Any, Any]


class ArbitrageService(pb_grpc.ArbitrageServiceServicer):
    """`arbitrage.v1.ArbitrageService` over one engine."""

    def __init__(self, engine: Engine, admission: Admission) -> None:
        self._engine = engine
        self._journal = assembly.journal_of(engine)
        self._admission = admission
        self._feedbacks = Feedbacks(engine)
        self._held = Held()

    async def Complete(self, request: pb.CompleteRequest, context: Context) -> pb.CompleteResponse:
        """Answers one prompt with the winner."""
        # before anything is read of it: where there is no room, that has to be cheap
        with self._admission.at_once(_client(), wire.priority_from(request.options)):
            prompt, routing = self._asked(request)
            sample = await self._engine.arbitrate(prompt, routing=routing)
        return pb.CompleteResponse(
            sample=wire.sample_to(sample, include_candidates=request.include_candidates)
        )

    async def StreamComplete(
        self, request: pb.StreamCompleteRequest, context: Context
    ) -> AsyncIterator[pb.StreamCompleteResponse]:
        """Answers one prompt, and tells of each step."""
        steps = Steps()

        async def answer() -> Sample:
            # given back when it is answered, however slowly the client reads of it
            with self._admission.at_once(_client(), wire.priority_from(request.options)):
                prompt, routing = self._asked(request)
                return await self._engine.arbitrate(prompt, steps, routing)

        answering = asyncio.create_task(answer())
        answering.add_done_callback(lambda _: steps.end())
        try:
            async for step in steps:
                yield step
            sample = await answering
        finally:
            answering.cancel()  # where the client has left
            await asyncio.wait({answering})
        yield pb.StreamCompleteResponse(
            result=wire.sample_to(sample, include_candidates=request.include_candidates)
        )

    async def Arbitrate(
        self, request_iterator: AsyncIterator[pb.ArbitrateRequest], context: Context
    ) -> AsyncIterator[pb.ArbitrateResponse]:
        """Answers the prompts of a stream, in the order in which they are done."""
        answers = Answers(self._admission, self._held, self._answer, client=_client())
        async with answers.of(request_iterator) as responses:
            async for response in responses:
                yield response

    async def RecordFeedback(
        self, request: pb.RecordFeedbackRequest, context: Context
    ) -> pb.RecordFeedbackResponse:
        """Takes a reward that comes later."""
        new = await self._feedbacks.take(wire.feedback_from(request))
        return pb.RecordFeedbackResponse(duplicate=not new)

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

    async def _answer(self, request: pb.ArbitrateRequest) -> pb.ArbitrateResponse:
        prompt, routing = self._asked(request)
        sample = None
        if not request.HasField("options"):  # which what is stored need not keep to
            sample = await self._journal.sample(prompt.sample_id(self._engine.job))
        if sample is None or sample.winner is None:
            sample = await self._engine.arbitrate(prompt, routing=routing)
        return pb.ArbitrateResponse(
            request_id=request.request_id,
            sample=wire.sample_to(sample, include_candidates=request.include_candidates),
        )

    def _asked(
        self, request: pb.CompleteRequest | pb.StreamCompleteRequest | pb.ArbitrateRequest
    ) -> tuple[Prompt, Routing]:
        """The prompt of a request, and how it is to be routed.

        Raises:
            InvalidPrompt: something in it is wrong.
        """
        prompt = wire.prompt_from(request)
        return prompt, routing_of(self._engine, prompt, request.options)


def _client() -> str:
    """Who calls, as one text."""
    client = caller.get()
    return f"{client.kind} {client.name}"
