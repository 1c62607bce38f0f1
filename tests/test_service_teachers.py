"""The service and real teachers over HTTP: cancelled calls, a reload under load, one budget."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from mock_process import MockServer, mock_teacher

from arbitrage import config
from arbitrage.v1 import arbitrage_pb2 as pb
from arbitrage.v1.arbitrage_pb2_grpc import ArbitrageServiceStub
from tests.processes import served
from tests.service import detail, refused, scripted, serving, settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CALLS = 20


@pytest.fixture
def mock() -> Iterator[MockServer]:
    with mock_teacher(latency=0.0, answer_characters=200) as server:
        yield server


def teacher(name: str, mock: MockServer, **fields: Any) -> config.OpenAITeacher:
    return config.OpenAITeacher(
        name=name, kind="openai", model=name, base_url=mock.base_url, **fields
    )


async def test_cancelling_rpcs_closes_the_connections_to_their_teachers(
    mock: MockServer, tmp_path: Path
) -> None:
    mock.script({"models": {"default": {"faults": [{"kind": "hang", "share": 1.0}]}}})
    pool = [teacher("a", mock, max_concurrency=CALLS), teacher("b", mock, max_concurrency=CALLS)]
    async with serving(settings(tmp_path, *pool)) as client:
        prompts = [pb.Prompt(text=f"Why {number}?", language="en") for number in range(CALLS)]
        calls = [client.arbitrage.Complete(pb.CompleteRequest(prompt=one)) for one in prompts]
        await _until_under_way(mock, 2 * CALLS)
        for call in calls:
            call.cancel()
        await _until_under_way(mock, 0)
        assert mock.stats()["total"]["cancelled"] == 2 * CALLS
        await client.until("in_flight_prompts", 0)


async def test_a_running_service_takes_other_teachers_and_drops_no_prompt(
    mock: MockServer, tmp_path: Path
) -> None:
    mock.script({"models": {"default": {"latency": 0.05}}})

    def write(*names: str, price: float = 1.0) -> Path:
        teachers = "\n".join(
            f'[[teachers]]\nname = "{name}"\nkind = "openai"\nmodel = "{name}"\n'
            f'base_url = "{mock.base_url}"\n'
            f"price_per_million = {{ prompt = {price}, completion = {price} }}"
            for name in names
        )
        path = tmp_path / "config.toml"
        path.write_text(
            '[service]\nlisten = "127.0.0.1:0"\nmetrics = "127.0.0.1:0"\n'
            f'{teachers}\n[reward]\nkind = "scripted"\ngates = []\n[policy]\nkind = "best_of"\n'
            f'[sink]\npath = "{tmp_path / "out"}"\n',
            "utf-8",
        )
        return path

    asked: list[set[str]] = []
    done = asyncio.Event()
    with served(write("old", "stays")) as server:
        async with grpc.aio.insecure_channel(
            server.address, [("grpc.enable_http_proxy", 0)]
        ) as channel:
            stub = ArbitrageServiceStub(channel)

            async def client(number: int) -> None:
                turn = 0
                while not done.is_set():
                    prompt = pb.Prompt(text=f"Question {turn} of {number}?", language="en")
                    answer = await stub.Complete(
                        pb.CompleteRequest(prompt=prompt, include_candidates=True)
                    )
                    assert not [c.error for c in answer.sample.candidates if c.HasField("error")]
                    asked.append({c.teacher for c in answer.sample.candidates})
                    turn += 1

            async def until(teachers: set[str]) -> None:
                while not asked or asked[-1] != teachers:  # noqa: ASYNC110 - by many clients
                    await asyncio.sleep(0.01)

            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                for number in range(8):
                    group.create_task(client(number))
                await until({"old", "stays"})
                write("stays", "new", price=2.0)
                server.process.send_signal(signal.SIGHUP)
                await until({"stays", "new"})
                done.set()
            listed = (await stub.ListTeachers(pb.ListTeachersRequest())).teachers
        assert {t.name: t.price_per_million.prompt_usd for t in listed} == {"stays": 2, "new": 2}
        (tmp_path / "config.toml").write_text("[policy]\n", "utf-8")
        server.process.send_signal(signal.SIGHUP)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
    assert {frozenset(names) for names in asked} == {
        frozenset({"old", "stays"}), frozenset({"stays", "new"})
    }  # fmt: skip


async def test_a_spent_budget_stops_priced_teachers_also_after_a_restart(tmp_path: Path) -> None:
    price = config.Price(prompt=0.0, completion=1_000_000.0)
    chosen = settings(
        tmp_path,
        scripted("ada", 1.0, price_per_million=price),
        policy=config.Policy(kind="best_of", budget_usd=150.0),
    )
    spent = 0.0
    async with serving(chosen) as client:

        async def ask_on() -> None:
            nonlocal spent
            for number in range(1000):
                sample = await client.complete(f"Was ist das, und warum {number}?", language="de")
                spent += sum(candidate.cost_usd for candidate in sample.candidates)

        error = await refused(ask_on())
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert detail(error, ErrorInfo).reason == "BUDGET_SPENT"
        assert "the budget of 150" in (error.details() or "")
        assert spent <= 150.0
        await client.until("budget_remaining_usd", 150.0 - spent)
        assert await _available(client.arbitrage) == {"ada": spent < 150.0}
    async with serving(chosen) as client:
        await client.until("budget_remaining_usd", 150.0 - spent)
        error = await refused(client.complete("Wer ist das?", language="de"))
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_teacher_whose_outputs_may_not_train_others_is_kept_from_winning(
    tmp_path: Path,
) -> None:
    chosen = settings(
        tmp_path,
        scripted("best", 3.0),
        scripted("closed", 2.0, trainable=False),
        scripted("free", 1.0, trainable=True, license="MIT"),
        sink=config.Sink(path=tmp_path / "out", only_trainable=True),
    )
    async with serving(chosen) as client:
        sample = await client.complete(language="de")
        assert [candidate.teacher for candidate in sample.candidates] == ["free"]
        assert await _available(client.arbitrage) == {"best": False, "closed": False, "free": True}
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "| free | scripted | MIT | yes | 1 |" in card
    assert "| closed | scripted | not stated | no | 0 |" in card


async def _available(stub: Any) -> dict[str, bool]:
    listed = await stub.ListTeachers(pb.ListTeachersRequest())
    return {teacher.name: teacher.available for teacher in listed.teachers}


async def _until_under_way(mock: MockServer, calls: int) -> None:
    async with asyncio.timeout(30):
        while (await asyncio.to_thread(mock.stats))["total"]["in_flight"] != calls:
            pass
