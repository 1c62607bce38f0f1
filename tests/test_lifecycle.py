"""A server in a process of its own, when its configuration and its clients come and go."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import grpc
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from arbitrage.v1 import arbitrage_pb2 as pb
from arbitrage.v1.arbitrage_pb2_grpc import ArbitrageServiceStub
from tests.chat_server import body, serve
from tests.processes import Served, served
from tests.service import refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from arbitrage.v1.arbitrage_pb2_grpc import ArbitrageServiceAsyncStub
    from tests.chat_server import ChatServer

_PATIENCE = 30.0
_STORM, _IN_FLIGHT = 20, 20
_ANSWER = "Lima ist die Hauptstadt von Peru und liegt an der Küste des Pazifiks."


async def well(_: web.Request) -> web.StreamResponse:
    """Answers after a moment, so that calls are under way whenever something happens."""
    await asyncio.sleep(0.05)
    return web.json_response(body(_ANSWER))


async def hangs(_: web.Request) -> web.StreamResponse:
    """Says nothing."""
    await asyncio.sleep(600.0)
    raise AssertionError


async def judge_hangs(request: web.Request) -> web.StreamResponse:
    """Answers as a teacher, and says nothing as a judge."""
    asked = json.loads(await request.read())
    return await (hangs if asked["model"] == "judge" else well)(request)


def write(folder: Path, teacher: ChatServer, *, price: int = 1, judge: bool = False) -> Path:
    """A configuration with one teacher, put in the place of the one before at once."""
    grade = (
        '[reward]\nkind = "judge"\ngates = []\n[reward.teacher]\nname = "judge"\nkind = "openai"\n'
        f'model = "judge"\nbase_url = "http://127.0.0.1:{teacher.port}/v1"\n'
    )
    scored = '[reward]\nkind = "scripted"\ngates = []\n'
    path, part = folder / "config.toml", folder / "part.toml"
    part.write_text(
        '[service]\nlisten = "127.0.0.1:0"\nmetrics = "127.0.0.1:0"\n'
        f'jobs = "{folder / "jobs"}"\n'
        '[[teachers]]\nname = "t"\nkind = "openai"\nmodel = "m"\n'
        f'base_url = "http://127.0.0.1:{teacher.port}/v1"\n'
        f"price_per_million = {{ prompt = {price}, completion = {price} }}\n"
        f"{grade if judge else scored}"
        f'[policy]\nkind = "best_of"\n[sink]\npath = "{folder / "out"}"\n',
        "utf-8",
    )
    part.replace(path)
    return path


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[tuple[Served, ArbitrageServiceAsyncStub]]:
    """A server of a configuration, and a client of it; the test's own loop goes on meanwhile."""
    context = served(path)
    server = await asyncio.to_thread(context.__enter__)
    try:
        options = [("grpc.enable_http_proxy", 0)]
        async with grpc.aio.insecure_channel(server.address, options) as channel:
            yield server, ArbitrageServiceStub(channel)
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


async def in_flight(server: Served) -> float:
    """Prompts that the server works on."""
    async with aiohttp.ClientSession() as session, session.get(server.metrics) as response:
        text = await response.text()
    return next(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "arbitrage_in_flight_prompts"
    )


async def freed(server: Served, teacher: ChatServer) -> None:
    """Waits until nobody works for a client that has left, neither here nor at the teacher."""
    async with asyncio.timeout(_PATIENCE):
        await teacher.dropped.wait()
        while await in_flight(server):
            pass


async def stopped(server: Served) -> int:
    server.process.send_signal(signal.SIGTERM)
    return await asyncio.to_thread(server.process.wait, _PATIENCE)


async def test_of_many_reloads_at_once_none_fails_a_call_and_the_last_one_holds(
    tmp_path: Path,
) -> None:
    done = asyncio.Event()
    answered: list[str] = []
    async with (
        serve(well) as teacher,
        connected(write(tmp_path, teacher)) as (server, stub),
        asyncio.timeout(2 * _PATIENCE),
    ):

        async def ask(number: int) -> None:
            turn = 0
            while not done.is_set():
                prompt = pb.Prompt(text=f"Frage {turn} von {number}: wo liegt Lima?", language="de")
                answer = await stub.Complete(pb.CompleteRequest(prompt=prompt))
                answered.append(answer.sample.sample_id)
                turn += 1

        async def price() -> float:
            (only,) = (await stub.ListTeachers(pb.ListTeachersRequest())).teachers
            return only.price_per_million.prompt_usd

        async with asyncio.TaskGroup() as group:
            for number in range(_IN_FLIGHT):
                group.create_task(ask(number))
            while len(answered) < _IN_FLIGHT:  # noqa: ASYNC110 - by many clients
                await asyncio.sleep(0.01)
            for turn in range(2, _STORM + 2):
                write(tmp_path, teacher, price=turn)
                server.process.send_signal(signal.SIGHUP)
                await asyncio.sleep(1.0 / _STORM)
            while await price() != _STORM + 1:  # noqa: ASYNC110 - another process tells
                await asyncio.sleep(0.05)
            before = len(answered)
            while len(answered) < before + _IN_FLIGHT:  # noqa: ASYNC110 - the same
                await asyncio.sleep(0.01)
            done.set()
        assert await price() == _STORM + 1
        assert len(set(answered)) == len(answered)
        assert await stopped(server) == 0


@pytest.mark.parametrize("stage", ["teacher", "reward"])
@pytest.mark.parametrize("end", ["deadline", "cancellation"])
async def test_what_nobody_waits_for_any_more_is_given_up(
    tmp_path: Path, stage: str, end: str
) -> None:
    reply = hangs if stage == "teacher" else judge_hangs
    request = pb.CompleteRequest(prompt=pb.Prompt(text="Wo liegt Lima?", language="de"))
    async with (
        serve(reply) as teacher,
        connected(write(tmp_path, teacher, judge=stage == "reward")) as (server, stub),
        asyncio.timeout(2 * _PATIENCE),
    ):
        call = stub.Complete(request, timeout=0.5 if end == "deadline" else None)
        if end == "deadline":
            assert (await refused(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        else:
            while len(teacher.bodies) < (1 if stage == "teacher" else 2):  # noqa: ASYNC110 - its own
                await asyncio.sleep(0.01)
            call.cancel()
        await freed(server, teacher)
        assert {one["model"] for one in teacher.bodies} >= {"m" if stage == "teacher" else "judge"}
        assert await stopped(server) == 0
