"""How the service says no: the canonical code, and the `google.rpc` detail that it promises."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo

from arbitrage import config, errors
from arbitrage.metrics import Metrics
from arbitrage.v1 import arbitrage_pb2 as pb
from service.guard import Guard
from service.request import Request
from tests import chat_server
from tests.processes import published
from tests.service import Client, detail, refused, scripted, serving, settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aiohttp import web

USER = pb.Message(role="user", content="Was ist das?")


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(settings(tmp_path)) as opened:
        yield opened


def request(text: str = "Was ist das?", **fields: Any) -> pb.CompleteRequest:
    return pb.CompleteRequest(prompt=pb.Prompt(text=text), **fields)


def assert_unavailable_for_now(error: grpc.aio.AioRpcError) -> None:
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert detail(error, RetryInfo).retry_delay.seconds > 0


@pytest.mark.parametrize(
    ("prompt", "field"),
    [
        (None, "prompt"),
        (pb.Prompt(), "prompt.text"),
        (pb.Prompt(text=" \t\n\u3000"), "prompt.text"),
        (pb.Prompt(text="Was?", messages=[USER]), "prompt.text"),
        (pb.Prompt(messages=[pb.Message(content="Was?")]), "prompt.messages[0].role"),
        (pb.Prompt(messages=[pb.Message(role="human", content="?")]), "prompt.messages[0].role"),
        (pb.Prompt(messages=[USER, pb.Message(role="user")]), "prompt.messages[1].content"),
        (
            pb.Prompt(messages=[USER, pb.Message(role="assistant", content="Nichts.")]),
            "prompt.messages[1].role",
        ),
        (pb.Prompt(text="Was?", language="klingonisch"), "prompt.language"),
    ],
)
async def test_a_wrong_prompt_is_told_by_its_field(
    client: Client, prompt: pb.Prompt | None, field: str
) -> None:
    error = await refused(client.arbitrage.Complete(pb.CompleteRequest(prompt=prompt)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    (violation,) = detail(error, BadRequest).field_violations
    assert violation.field == field
    assert error.details() == f"{field}: {violation.description}"


async def test_a_wrong_language_of_a_policy_is_told_by_its_field(client: Client) -> None:
    error = await refused(client.arbitrage.GetPolicy(pb.GetPolicyRequest(language="?")))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert detail(error, BadRequest).field_violations[0].field == "language"


@pytest.mark.parametrize("letter", ["x", "ö", "語"])
async def test_a_status_that_quotes_too_much_is_cut_and_arrives(
    client: Client, letter: str
) -> None:
    prompt = pb.Prompt(messages=[pb.Message(role=letter * 100_000, content="Was?")])
    error = await refused(client.arbitrage.Complete(pb.CompleteRequest(prompt=prompt)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert detail(error, BadRequest).field_violations[0].description.endswith("…")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (pb.RoutingOptions(policy="thompson"), "policy"),
        (pb.RoutingOptions(teachers=["eve"]), "teachers[0]"),
        (pb.RoutingOptions(max_cost_usd=-1.0), "max_cost_usd"),
        (pb.RoutingOptions(latency_budget=Duration()), "latency_budget"),
    ],
)
async def test_an_option_that_is_wrong_is_named(
    client: Client, options: pb.RoutingOptions, name: str
) -> None:
    error = await refused(client.arbitrage.Complete(request(options=options)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    (violation,) = detail(error, BadRequest).field_violations
    assert violation.field == f"options.{name}"


async def test_options_that_set_nothing_are_no_options(client: Client) -> None:
    answer = await client.arbitrage.Complete(request(options=pb.RoutingOptions()))
    assert answer.sample.winner.teacher == "ada"


async def test_where_nobody_answers_for_the_moment_it_says_when_to_try_again(
    tmp_path: Path,
) -> None:
    teachers = scripted("ada", failure_rate=1.0), scripted("bob", rate_limit_rate=1.0)
    brief = config.Job(deadline_seconds=1.0)
    async with serving(settings(tmp_path, *teachers, job=brief)) as client:
        error = await refused(client.arbitrage.Complete(request()))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "ada unavailable; bob rate_limited" in (error.details() or "")
    assert detail(error, RetryInfo).retry_delay.seconds > 0
    assert len(published(tmp_path / "out", "unanswered")) == 1


async def test_where_nobody_wins_the_sample_is_kept(tmp_path: Path) -> None:
    async with (
        chat_server.serve(chat_server.sends("no such model", status=404)) as chat,
        serving(settings(tmp_path, scripted("ada", failure_rate=1.0), chat.settings())) as client,
    ):
        error = await refused(client.arbitrage.Complete(request()))
        assert client.running.engine.sink.pending == 1
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "ada unavailable; " in (error.details() or "")
    assert "rejected" in (error.details() or "")
    info = detail(error, ErrorInfo)
    assert (info.reason, info.domain) == ("NO_WINNER", "arbitrage.v1")
    assert published(tmp_path / "out") == []
    assert len(published(tmp_path / "out", "unanswered")) == 1


async def test_no_teacher_for_a_language_is_told_with_a_time_to_try_again(tmp_path: Path) -> None:
    async with serving(settings(tmp_path, scripted(languages=("fr",)))) as client:
        error = await refused(client.complete(language="de"))
        assert_unavailable_for_now(error)
        assert client.running.engine.sink.pending == 0
        assert (await client.complete("Pourquoi ?", language="fr-CA")).winner.teacher == "ada"


async def test_a_reward_that_cannot_score_is_told_with_a_time_to_try_again(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def score(*_: object) -> None:
        raise errors.RewardError("the reward model ran out of memory")

    monkeypatch.setattr("reward.scripted.ScriptedReward.score", score)
    error = await refused(client.arbitrage.Complete(request()))
    assert_unavailable_for_now(error)
    assert error.details() == "the reward model ran out of memory"


async def test_a_sink_that_cannot_store_is_told_with_a_time_to_try_again(
    client: Client,
) -> None:
    await client.running.engine.sink.close()
    error = await refused(client.arbitrage.Complete(request()))
    assert_unavailable_for_now(error)
    assert "is closed" in (error.details() or "")
    learned = await client.arbitrage.GetPolicy(pb.GetPolicyRequest())
    assert learned.version == 0


async def test_prompts_beyond_the_limit_are_refused_and_the_others_go_on(tmp_path: Path) -> None:
    async def reply(asked: web.Request) -> web.StreamResponse:
        await free.wait()
        return await answer(asked)

    free = asyncio.Event()
    answer = chat_server.sends(chat_server.body("Weil Eis leichter ist als Wasser."))
    async with chat_server.serve(reply) as chat:
        teacher = chat.settings(cache=False)  # the same prompt comes twice
        limited = settings(tmp_path, teacher, job=config.Job(max_in_flight=1))
        async with serving(limited) as client:
            first = asyncio.create_task(client.complete(language="de"))
            await chat.busy.wait()
            error = await refused(client.arbitrage.Complete(request()))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert detail(error, RetryInfo).retry_delay.seconds > 0
            free.set()
            assert (await first).winner.completion == "Weil Eis leichter ist als Wasser."
            assert (await client.complete(language="de")).winner.teacher == "t"
    assert len(chat.bodies) == 2


async def test_a_deadline_ends_the_calls_to_teachers(tmp_path: Path) -> None:
    async with (
        chat_server.serve(chat_server.hangs) as chat,
        serving(settings(tmp_path, chat.settings())) as client,
    ):
        error = await refused(client.arbitrage.Complete(request(), timeout=1.0))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await chat.dropped.wait()
        await client.until("request_seconds_count", 1, method="Complete")
        await client.until("in_flight_prompts", 0)


@pytest.mark.parametrize(
    ("seconds_left", "code"),
    [
        (None, "CANCELLED"),
        (9.0, "CANCELLED"),
        (0.01, "DEADLINE_EXCEEDED"),
        (0, "DEADLINE_EXCEEDED"),
    ],
)
async def test_a_cancelled_call_is_counted_by_the_time_that_was_left(
    seconds_left: float | None, code: str
) -> None:
    metrics = Metrics(["de"], "parquet")
    context: Any = SimpleNamespace(
        time_remaining=lambda: seconds_left, set_trailing_metadata=lambda _: None
    )
    with pytest.raises(asyncio.CancelledError):
        async with Guard(metrics, None, 1)._answering(Request.of("Complete"), context):
            raise asyncio.CancelledError
    labels = {"method": "Complete", "code": code}
    assert metrics.registry.get_sample_value("arbitrage_requests_total", labels) == 1


async def test_a_client_that_leaves_ends_the_calls_to_teachers(tmp_path: Path) -> None:
    async with (
        chat_server.serve(chat_server.hangs) as chat,
        serving(settings(tmp_path, chat.settings())) as client,
    ):
        call = client.arbitrage.Complete(request())
        await chat.busy.wait()
        assert call.cancel()
        await chat.dropped.wait()
        await client.until("requests_total", 1, method="Complete", code="CANCELLED")
        await client.until("in_flight_prompts", 0)


async def test_a_bug_is_told_without_its_traceback_and_logged_with_it(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def complete(*_: object) -> None:
        raise ZeroDivisionError("of the adapter's own")

    with monkeypatch.context() as broken:
        broken.setattr("teachers.scripted.ScriptedTeacher.complete", complete)
        error = await refused(client.arbitrage.Complete(request()))
    assert error.code() is grpc.StatusCode.INTERNAL
    named = dict(error.trailing_metadata() or ())["x-request-id"]
    assert error.details() == f"internal error; see the server's log for request {named}"
    assert "ZeroDivisionError: of the adapter's own" in caplog.text
    assert (await client.complete()).winner.teacher == "ada"
