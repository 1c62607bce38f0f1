"""Admission in a whole service: calls, streams and jobs share one room."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
from google.rpc.error_details_pb2 import RetryInfo

from arbitrage import config
from arbitrage.v1 import arbitrage_pb2 as pb
from tests import chat_server
from tests.service import detail, figure, refused, serving, settings

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp import web


class Held:
    """Answers nobody before it is let go."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.asked = asyncio.Semaphore(0)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.asked.release()
        await self.open.wait()
        return await chat_server.sends()(request)


def request(
    text: str, priority: pb.Priority.ValueType = pb.PRIORITY_UNSPECIFIED
) -> pb.CompleteRequest:
    options = pb.RoutingOptions(priority=priority)
    return pb.CompleteRequest(prompt=pb.Prompt(text=text, language="en"), options=options)


async def test_a_job_leaves_room_to_what_somebody_waits_for(tmp_path: Path) -> None:
    held = Held()
    async with chat_server.serve(held) as chat:
        four = settings(
            tmp_path,
            chat.settings(),
            job=config.Job(max_in_flight=4),
            reward=config.ScriptedReward(gates=()),
        )
        async with serving(four) as client:
            prompts = pb.PromptList(
                prompts=[pb.Prompt(text=f"q{n}", language="en") for n in range(8)]
            )
            spec = pb.JobSpec(prompts=prompts)
            await client.jobs.CreateJob(pb.CreateJobRequest(job_id="j", spec=spec))
            for _ in range(3):
                await held.asked.acquire()
            await client.until("admission_waiting", 1.0)
            batch = await refused(client.arbitrage.Complete(request("b", pb.PRIORITY_BATCH)))
            assert batch.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert detail(batch, RetryInfo).retry_delay.seconds >= 1
            call = asyncio.ensure_future(client.arbitrage.Complete(request("a")))
            await held.asked.acquire()
            assert figure(await client.metrics(), "in_flight_prompts") == 4.0
            held.open.set()
            assert (await call).sample.winner.teacher == "t"
            async for change in client.jobs.WatchJob(pb.WatchJobRequest(job_id="j")):
                state = change.job.state
            assert state == pb.JOB_STATE_SUCCEEDED


async def test_a_client_that_has_used_up_its_quota_hears_when_to_come_again(
    tmp_path: Path,
) -> None:
    service = config.Service(
        "127.0.0.1:0", "127.0.0.1:0", jobs=tmp_path / "jobs", prompts_per_minute_a_client=6
    )
    async with serving(settings(tmp_path, service=service)) as client:
        await client.complete("Was ist das?")
        error = await refused(client.complete("Und warum?"))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert 8 <= detail(error, RetryInfo).retry_delay.seconds <= 10
        # what no prompt comes with is free
        await client.arbitrage.ListTeachers(pb.ListTeachersRequest())


async def test_the_limit_is_told_to_prometheus(tmp_path: Path) -> None:
    async with serving(settings(tmp_path, job=config.Job(max_in_flight=7))) as client:
        figures = await client.metrics()
        assert figure(figures, "admission_limit") == 7.0
        assert figure(figures, "admission_waiting") == 0.0
        assert (figure(figures, "event_loop_late_seconds") or 0.0) < 1.0
