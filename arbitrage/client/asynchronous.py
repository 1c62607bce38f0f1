"""The client itself, for code with asyncio."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import grpc

from arbitrage.client import wire
from arbitrage.client.batch import Batch
from arbitrage.client.channel import ADDRESS, ATTEMPTS, Options, connect, told
from arbitrage.errors import Unavailable
from arbitrage.language import normalise
from arbitrage.types import AS_CONFIGURED, Message, Prompt
from arbitrage.v1 import arbitrage_pb2 as pb
from arbitrage.v1.arbitrage_pb2_grpc import ArbitrageServiceStub, JobServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from typing import Self, Unpack

    from arbitrage.client.replies import Event, Job, Learned, Outcome, Request
    from arbitrage.errors import ArbitrageError
    from arbitrage.registry import State
    from arbitrage.spec import Spec
    from arbitrage.types import Routing, Sample, TeacherInfo

MAX_IN_FLIGHT = 512
"""Prompts of a batch that are taken and have no outcome yet, by default."""
Asked = str | Sequence[Message] | Prompt
_TIMEOUT_SECONDS = 600.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 5.0
_PAGE = 100
_Item = TypeVar("_Item")


class AsyncClient:
    """A client of the service at an address, in a running loop.

    Args:
        address: `host:port`, or what else gRPC takes for one.
        options: see `Options`.

    Raises:
        ConfigError: an option is wrong.
    """

    def __init__(self, address: str = ADDRESS, **options: Unpack[Options]) -> None:
        self._address = address
        self._channel = connect(address, options)
        self._arbitrage = ArbitrageServiceStub(self._channel)
        self._jobs = JobServiceStub(self._channel)
        self._timeout_seconds = options.get("timeout_seconds", _TIMEOUT_SECONDS)
        self._attempts = options.get("attempts", ATTEMPTS)
        token = options.get("token")
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection, and the calls under way with it."""
        await self._channel.close()

    async def complete(
        self,
        prompt: Asked,
        *,
        language: str | None = None,
        routing: Routing = AS_CONFIGURED,
        include_candidates: bool = False,
        timeout_seconds: float | None = None,
    ) -> Sample:
        """Answers one prompt with the winner.

        Args:
            prompt: a text, a conversation, or what `Prompt.of` makes of either with more.
            language: to answer in; by default the prompt's, or it is detected.
            routing: how this prompt is routed.
            include_candidates: all of them, and not the winner alone.
            timeout_seconds: the deadline; by default the client's.

        Raises:
            InvalidPrompt: the prompt or an option is wrong; names the field.
            Overloaded: the service has too much to do; says when to try again.
            Unavailable: it cannot do it now, or nobody answers.
            NoWinner: no answer passed the gates.
            BudgetSpent: nobody may be asked before the budget is raised.
            DeadlinePassed: it has taken too long.
        """
        asked = _prompt(prompt, language)
        request = pb.CompleteRequest(
            prompt=wire.prompt_to(asked),
            options=wire.routing_to(routing),
            include_candidates=include_candidates,
        )
        response = await self._call(self._arbitrage.Complete, request, timeout_seconds)
        return wire.sample_from(response.sample, asked)

    async def stream(
        self,
        prompt: Asked,
        *,
        language: str | None = None,
        routing: Routing = AS_CONFIGURED,
        include_candidates: bool = False,
        timeout_seconds: float | None = None,
    ) -> AsyncIterator[Event]:
        """Answers one prompt, and tells of each step; the last one is the `Result`.

        Arguments and errors are those of `complete`. An error may come after some steps.
        """
        asked = _prompt(prompt, language)
        request = pb.StreamCompleteRequest(
            prompt=wire.prompt_to(asked),
            options=wire.routing_to(routing),
            include_candidates=include_candidates,
        )
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        call = self._arbitrage.StreamComplete(request, timeout=seconds, metadata=self._metadata)
        async for response in self._responses(call):
            if event := wire.event_from(response, asked):
                yield event

    async def arbitrate(
        self,
        prompts: AsyncIterable[str | Prompt | Request] | Iterable[str | Prompt | Request],
        *,
        max_in_flight: int = MAX_IN_FLIGHT,
        include_candidates: bool = False,
        timeout_seconds: float | None = None,
    ) -> AsyncIterator[Outcome]:
        """Answers many prompts over one stream, in whatever order they are done.

        No more prompts are taken than the service has room for, and it works no further ahead
        than outcomes are taken here. A stream that is lost is opened again, and what has no
        outcome is sent again under its id; nobody is asked again for what the service still
        holds.

        Args:
            prompts: a prompt's id is the request's, where there is no other.
            max_in_flight: prompts that are taken and have no outcome yet, at most.
            include_candidates: all of them, and not the winner alone.
            timeout_seconds: for all of them together; by default there is no deadline.

        Raises:
            InvalidPrompt: what is no prompt. What the service refuses is an outcome.
            Unavailable: nobody has answered for so long that no further attempt is made.
            DeadlinePassed: it has taken too long.
        """
        batch = Batch(_iterate(prompts), most=max_in_flight, include_candidates=include_candidates)
        loop = asyncio.get_running_loop()
        ends = None if timeout_seconds is None else loop.time() + timeout_seconds
        lost = 0
        try:
            while True:
                left = None if ends is None else max(ends - loop.time(), 0.0)
                call = self._arbitrage.Arbitrate(timeout=left, metadata=self._metadata)
                sending = asyncio.create_task(batch.send(call, again=lost > 0))
                try:
                    async for response in self._responses(call):
                        lost = 0
                        if outcome := batch.take(response):
                            yield outcome
                    await sending
                    if batch.failure:
                        raise batch.failure
                    if batch.done:
                        return
                    raise Unavailable(f"{self._address}: the stream ended before its answers")  # noqa: TRY301 - as a lost one
                except (Unavailable, asyncio.CancelledError) as error:
                    if batch.failure:
                        raise batch.failure from None
                    if isinstance(error, asyncio.CancelledError):
                        raise
                    lost += 1
                    if lost >= self._attempts:
                        raise
                    pause = _pause(error, lost)
                finally:
                    sending.cancel()
                    await asyncio.wait({sending})
                await asyncio.sleep(pause)
        finally:
            await batch.close()

    async def feedback(
        self,
        sample: Sample | str,
        reward: float,
        *,
        source: wire.Source = "person",
        teacher: str | None = None,
        comment: str = "",
        feedback_id: str | None = None,
    ) -> bool:
        """Records a reward for an answer, from which the policy learns.

        Args:
            sample: what is judged, or its id.
            reward: on the scale of the service's rewards.
            source: who judges.
            teacher: whose answer is judged; by default the winner's.
            comment: kept with it.
            feedback_id: names this piece of feedback, so that it counts once however often it
                is sent; by default a new one.

        Returns:
            Whether it is new.

        Raises:
            InvalidPrompt: something in it is wrong.
            NotFound: there is no such sample.
            AlreadyExists: the id was used for other feedback.
        """
        request = pb.RecordFeedbackRequest(
            feedback_id=feedback_id or uuid4().hex,
            sample_id=sample if isinstance(sample, str) else sample.sample_id,
            teacher=teacher,
            reward=reward,
            source=wire.source_to(source),
            comment=comment,
        )
        return not (await self._call(self._arbitrage.RecordFeedback, request)).duplicate

    async def teachers(self) -> tuple[TeacherInfo, ...]:
        """The pool, in the order of the service's configuration."""
        listed = await self._call(self._arbitrage.ListTeachers, pb.ListTeachersRequest())
        return tuple(map(wire.teacher_from, listed.teachers))

    async def policy(self, language: str | None = None, *, include_state: bool = False) -> Learned:
        """What the policy has learned.

        Args:
            language: this one alone; None for all.
            include_state: with what another service may go on from.

        Raises:
            InvalidPrompt: the language is none.
        """
        request = pb.GetPolicyRequest(language=language or "", include_state=include_state)
        return wire.learned_from(await self._call(self._arbitrage.GetPolicy, request))

    async def create_job(self, spec: Spec, *, job_id: str | None = None) -> Job:
        """Has the service run a job; returns at once.

        Args:
            spec: what it is to do.
            job_id: that of a job that failed or was cancelled lets it go on; by default a new
                one.

        Raises:
            InvalidPrompt: something in it is wrong; names the field.
            AlreadyExists: a job with this id is to do something else.
            Overloaded: too many jobs wait.
        """
        request = pb.CreateJobRequest(
            job_id=job_id or f"job-{uuid4().hex}",  # ours, so that a repeated call makes no second
            spec=wire.spec_to(spec),
        )
        return wire.job_from((await self._call(self._jobs.CreateJob, request)).job)

    async def job(self, job_id: str) -> Job:
        """A job, as it stands.

        Raises:
            NotFound: there is none of this id.
        """
        request = pb.GetJobRequest(job_id=job_id)
        return wire.job_from((await self._call(self._jobs.GetJob, request)).job)

    async def jobs(self, *states: State) -> AsyncIterator[Job]:
        """The jobs in these states, or all, the newest first."""
        token = ""
        while True:
            request = pb.ListJobsRequest(
                page_size=_PAGE, page_token=token, states=map(wire.state_to, states)
            )
            page = await self._call(self._jobs.ListJobs, request)
            for job in page.jobs:
                yield wire.job_from(job)
            if not (token := page.next_page_token):
                return

    async def watch_job(
        self, job_id: str, *, timeout_seconds: float | None = None
    ) -> AsyncIterator[Job]:
        """A job as it stands, and again as it changes, until it has ended.

        Args:
            job_id: the job.
            timeout_seconds: for all of it; by default there is no deadline.

        Raises:
            NotFound: there is none of this id.
            Unavailable: nobody has answered for so long that no further attempt is made.
        """
        loop = asyncio.get_running_loop()
        ends = None if timeout_seconds is None else loop.time() + timeout_seconds
        lost = 0
        while True:
            left = None if ends is None else max(ends - loop.time(), 0.0)
            request = pb.WatchJobRequest(job_id=job_id)
            call = self._jobs.WatchJob(request, timeout=left, metadata=self._metadata)
            try:
                async for response in self._responses(call):
                    lost = 0
                    yield wire.job_from(response.job)
            except Unavailable as error:
                lost += 1
                if lost >= self._attempts:
                    raise
                pause = _pause(error, lost)
            else:
                return
            await asyncio.sleep(pause)

    async def cancel_job(self, job_id: str) -> Job:
        """Ends a job; what it has accepted is kept.

        Raises:
            NotFound: there is none of this id.
        """
        request = pb.CancelJobRequest(job_id=job_id)
        return wire.job_from((await self._call(self._jobs.CancelJob, request)).job)

    async def _call(self, method: Any, request: Any, timeout_seconds: float | None = None) -> Any:
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        try:
            return await method(request, timeout=seconds, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise told(self._address, error) from None

    async def _responses(self, call: Any) -> AsyncIterator[Any]:
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise told(self._address, error) from None
        finally:
            call.cancel()


def _prompt(asked: Asked, language: str | None) -> Prompt:
    if not isinstance(asked, Prompt):
        return Prompt.of(asked, language=language)
    return replace(asked, language=normalise(language)) if language else asked


async def _iterate(items: AsyncIterable[_Item] | Iterable[_Item]) -> AsyncIterator[_Item]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


def _pause(error: ArbitrageError, lost: int) -> float:
    """Seconds until the next attempt, after so many in a row."""
    if error.retry_after_seconds is not None:
        return error.retry_after_seconds
    longest = min(_FIRST_PAUSE_SECONDS * 2.0 ** (lost - 1), _LONGEST_PAUSE_SECONDS)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - so that clients do not come all at once
