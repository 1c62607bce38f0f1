"""`JobService` over gRPC: decode, call, encode."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from arbitrage import wire
from arbitrage.errors import InvalidPrompt
from arbitrage.v1 import arbitrage_pb2 as pb
from arbitrage.v1 import arbitrage_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from arbitrage.engine import Engine
    from service.jobs import Jobs

_PAGE = 50
_LARGEST_PAGE = 1000
Context = grpc.aio.ServicerContext[Any, Any]


class JobService(pb_grpc.JobServiceServicer):
    """`arbitrage.v1.JobService` over the jobs of a server."""

    def __init__(self, jobs: Jobs, engine: Engine, max_in_flight: int) -> None:
        self._jobs = jobs
        self._engine = engine
        self._max_in_flight = max_in_flight

    async def CreateJob(
        self, request: pb.CreateJobRequest, context: Context
    ) -> pb.CreateJobResponse:
        """Creates a job, or lets one go on."""
        job_id = wire.job_id_from(request)
        if not request.HasField("spec"):
            raise InvalidPrompt("spec", "is required")
        spec = await asyncio.to_thread(
            wire.spec_from,
            request.spec,
            self._max_in_flight,
            teachers=[teacher.name for teacher in self._engine.pool.describe()],
            policy=self._engine.policy.kind,
        )
        raw = request.spec.SerializeToString(deterministic=True)
        return pb.CreateJobResponse(job=wire.job_to(await self._jobs.create(job_id, raw, spec)))

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        """Shows one job."""
        return pb.GetJobResponse(job=wire.job_to(await self._jobs.get(_named(request))))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """Shows a page of jobs."""
        states = wire.states_from(request)
        found, more = await self._jobs.page(
            states,
            before=wire.page_from(request),
            most=min(request.page_size or _PAGE, _LARGEST_PAGE),
        )
        token = wire.page_token(found[-1].number, states) if more else ""
        return pb.ListJobsResponse(jobs=map(wire.job_to, found), next_page_token=token)

    async def WatchJob(
        self, request: pb.WatchJobRequest, context: Context
    ) -> AsyncIterator[pb.WatchJobResponse]:
        """Shows one job, and again as it changes."""
        async for record in self._jobs.watch(_named(request)):
            yield pb.WatchJobResponse(job=wire.job_to(record))

    async def CancelJob(
        self, request: pb.CancelJobRequest, context: Context
    ) -> pb.CancelJobResponse:
        """Ends a job."""
        return pb.CancelJobResponse(job=wire.job_to(await self._jobs.cancel(_named(request))))


def _named(request: pb.GetJobRequest | pb.WatchJobRequest | pb.CancelJobRequest) -> str:
    if not request.job_id:
        raise InvalidPrompt("job_id", "is required")
    return request.job_id
