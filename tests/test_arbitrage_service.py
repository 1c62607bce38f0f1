"""Streams, options and feedback, asked by a real client over a real socket."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

import assembly
import server
from arbitrage import config
from arbitrage.v1 import arbitrage_pb2 as pb
from arbitrage.v1.arbitrage_pb2_grpc import ArbitrageServiceStub, JobServiceStub
from tests import chat_server
from tests.service import Client, detail, refused, scripted, serving, settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

TEXT = "Was ist das, und warum?"
PERSON = pb.FEEDBACK_SOURCE_PERSON


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(settings(tmp_path)) as opened:
        yield opened


def asked(number: int, **fields: Any) -> pb.ArbitrateRequest:
    prompt = pb.Prompt(text=f"Was ist die Zahl {number}?", language="de")
    return pb.ArbitrateRequest(request_id=f"r{number}", prompt=prompt, **fields)


async def streamed(client: Client, **fields: Any) -> list[pb.StreamCompleteResponse]:
    request = pb.StreamCompleteRequest(prompt=pb.Prompt(text=TEXT), **fields)
    return [event async for event in client.arbitrage.StreamComplete(request)]


async def answered(
    client: Client, requests: Iterable[pb.ArbitrateRequest]
) -> dict[str, pb.ArbitrateResponse]:
    responses = [one async for one in client.arbitrate_many(requests)]
    assert len({one.request_id for one in responses}) == len(responses)
    return {one.request_id: one for one in responses}


async def complete(client: Client, **options: Any) -> pb.Sample:
    request = pb.CompleteRequest(
        prompt=pb.Prompt(text=TEXT),
        options=pb.RoutingOptions(**options),
        include_candidates=True,
    )
    return (await client.arbitrage.Complete(request)).sample


async def test_each_step_is_told_in_its_order(client: Client) -> None:
    decision, *arrived, scored, result = await streamed(client, include_candidates=True)
    assert {choice.arm for choice in decision.decision.choices} == {"ada", "bob"}
    assert {one.candidate_arrived.teacher for one in arrived} == {"ada", "bob"}
    assert not any(one.candidate_arrived.HasField("reward") for one in arrived)
    judged = scored.candidates_scored.candidates
    assert sum(one.advantage for one in judged) == pytest.approx(0.0)
    assert result.result.winner.teacher == "ada"
    assert len(result.result.candidates) == 2


async def test_an_error_ends_the_stream_with_its_status(client: Client) -> None:
    request = pb.StreamCompleteRequest(prompt=pb.Prompt(text=" "))
    error = await refused(anext(aiter(client.arbitrage.StreamComplete(request))))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_client_that_leaves_its_stream_frees_the_work(tmp_path: Path) -> None:
    async with serving(settings(tmp_path, scripted(latency_seconds=30.0))) as client:
        call = client.arbitrage.StreamComplete(
            pb.StreamCompleteRequest(prompt=pb.Prompt(text=TEXT))
        )
        assert (await anext(aiter(call))).HasField("decision")
        call.cancel()
        await client.until("in_flight_prompts", 0.0)


async def test_many_prompts_are_answered_each_once(client: Client) -> None:
    responses = await answered(client, [asked(n) for n in range(200)])
    assert len(responses) == 200
    assert all(one.sample.winner.teacher == "ada" for one in responses.values())


async def test_a_request_that_is_wrong_is_answered_and_the_stream_goes_on(client: Client) -> None:
    wrong = pb.ArbitrateRequest(request_id="wrong", prompt=pb.Prompt(text=" "))
    nameless = pb.ArbitrateRequest(prompt=pb.Prompt(text=TEXT))
    responses = await answered(client, [wrong, nameless, asked(1)])
    assert responses["r1"].sample.winner.teacher == "ada"
    for name, field in (("wrong", "prompt.text"), ("", "request_id")):
        error = responses[name].error
        assert error.code == code_pb2.INVALID_ARGUMENT
        violations = error_details_pb2.BadRequest()
        assert error.details[0].Unpack(violations)
        assert violations.field_violations[0].field == field


async def test_a_request_that_is_sent_again_is_not_worked_for_again(client: Client) -> None:
    first = await answered(client, [asked(n) for n in range(5)])
    calls = client.running.engine.policy.version
    again = await answered(client, [asked(n) for n in range(6)])
    assert {name: again[name] for name in first} == first
    assert client.running.engine.policy.version == calls + 1


async def test_what_was_answered_before_a_restart_is_not_worked_for_again(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as client:
        first = await answered(client, [asked(n) for n in range(5)])
    async with serving(settings(tmp_path)) as client:
        calls = client.running.engine.policy.version
        again = await answered(client, [asked(n) for n in range(6)])
        assert {name: again[name] for name in first} == first
        assert client.running.engine.policy.version == calls + 1
        only_bob = asked(0)
        only_bob.options.teachers.append("bob")  # to which the stored sample does not keep
        assert (await answered(client, [only_bob]))["r0"].sample.winner.teacher == "bob"


async def test_an_id_that_is_in_use_is_refused(tmp_path: Path) -> None:
    async with serving(settings(tmp_path, scripted(latency_seconds=0.2))) as client:
        twice = [asked(1), pb.ArbitrateRequest(request_id="r1", prompt=pb.Prompt(text=TEXT))]
        responses = [one async for one in client.arbitrate_many(twice)]
    kinds = [one.WhichOneof("outcome") for one in responses]
    assert sorted(filter(None, kinds)) == ["error", "sample"]


async def test_a_client_that_does_not_read_is_not_worked_for(tmp_path: Path) -> None:
    many = [scripted(f"teacher-{number}") for number in range(16)]  # for long responses
    async with serving(settings(tmp_path, *many)) as client:
        call = client.arbitrate_many(asked(n, include_candidates=True) for n in range(5_000))
        for _ in range(3):
            await anext(call)
        policy, before = client.running.engine.policy, -1
        async with asyncio.timeout(60):
            while policy.version != before:  # until it stands still
                before = policy.version
                await asyncio.sleep(0.5)
        assert before < 5_000
        await call.aclose()
        await client.until("in_flight_prompts", 0.0)


async def test_streams_wait_for_room_and_leave_some_to_calls(tmp_path: Path) -> None:
    chosen = settings(tmp_path, scripted(latency_seconds=0.1), job=config.Job(max_in_flight=4))
    async with serving(chosen) as client:
        stream = asyncio.create_task(answered(client, [asked(n) for n in range(20)]))
        await client.until("in_flight_prompts", 3.0)
        assert (await client.complete()).winner.teacher == "ada"
        assert len(await stream) == 20


async def test_a_request_chooses_how_many_and_whom(client: Client) -> None:
    alone = await complete(client, fan_out=1)
    assert len(alone.decision.choices) == 1
    bob = await complete(client, teachers=["bob"])
    assert [choice.arm for choice in bob.decision.choices] == ["bob"]
    error = await refused(complete(client, teachers=["eve"]))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    (violation,) = detail(error, error_details_pb2.BadRequest).field_violations
    assert violation.field == "options.teachers[0]"


async def test_a_prompt_costs_no_more_than_it_may(tmp_path: Path) -> None:
    dear = scripted("dear", 2.0, price_per_million=config.Price(1e6, 1e6))
    async with serving(settings(tmp_path, scripted("free"), dear)) as client:
        cheap = await complete(client, max_cost_usd=0.0)
        assert [choice.arm for choice in cheap.decision.choices] == ["free"]
        assert cheap.winner.cost_usd == 0.0
        error = await refused(complete(client, max_cost_usd=0.0, teachers=["dear"]))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_best_within_the_latency_budget_is_taken(tmp_path: Path) -> None:
    slow = scripted("slow", 2.0, latency_seconds=30.0)
    async with serving(settings(tmp_path, scripted("quick"), slow)) as client:
        request = pb.CompleteRequest(prompt=pb.Prompt(text=TEXT), include_candidates=True)
        request.options.latency_budget.FromMilliseconds(500)
        sample = (await client.arbitrage.Complete(request)).sample
        assert sample.winner.teacher == "quick"
        late = {one.teacher: one.error.code for one in sample.candidates}
        assert late["slow"] == "timeout"


async def test_a_prompt_that_is_not_to_be_learned_from_is_not_even_after_a_restart(
    tmp_path: Path,
) -> None:
    async with serving(settings(tmp_path)) as client:
        sample = await complete(client, learn=False)
        assert client.running.engine.policy.version == 0
        assert sample.sample_id
    async with serving(settings(tmp_path)) as client:
        assert client.running.engine.policy.version == 0


def feedback(sample: pb.Sample, number: int = 1, **fields: Any) -> pb.RecordFeedbackRequest:
    told: dict[str, Any] = {"reward": 5.0, "source": PERSON}
    return pb.RecordFeedbackRequest(
        feedback_id=f"f{number}", sample_id=sample.sample_id, **told | fields
    )


def reward_of(client: Client, arm: str) -> float:
    policy = client.running.engine.policy
    return {one.arm: one.reward for one in policy.estimates(["ada", "bob"], ["de"])}[arm]


async def test_feedback_teaches_the_policy_once(client: Client) -> None:
    sample = await client.complete(language="de")
    before = reward_of(client, "bob")
    request = feedback(sample, teacher="bob", comment="it was right")
    assert not (await client.arbitrage.RecordFeedback(request)).duplicate
    after = reward_of(client, "bob")
    assert after > before
    assert (await client.arbitrage.RecordFeedback(request)).duplicate
    assert reward_of(client, "bob") == after
    error = await refused(client.arbitrage.RecordFeedback(feedback(sample, teacher="ada")))
    assert error.code() is grpc.StatusCode.ALREADY_EXISTS


async def test_feedback_that_was_not_saved_is_learned_again(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as client:
        sample = await client.complete(language="de")
        await client.arbitrage.RecordFeedback(feedback(sample, teacher="bob"))
        learned = reward_of(client, "bob")
    (tmp_path / "out" / "policy.json").unlink()
    async with serving(settings(tmp_path)) as client:
        assert client.running.engine.policy.version == 2
        assert reward_of(client, "bob") == pytest.approx(learned)
    async with assembly.open(settings(tmp_path)) as engine:
        assert engine.policy.version == 2


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"feedback_id": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"sample_id": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"sample_id": "0" * 32}, grpc.StatusCode.NOT_FOUND),
        ({"teacher": "eve"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"reward": float("nan")}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"source": 0}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"source": 9}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_feedback_that_is_wrong_is_refused(
    client: Client, fields: dict[str, Any], code: grpc.StatusCode
) -> None:
    request = feedback(await client.complete(language="de"))
    for name, value in fields.items():
        setattr(request, name, value)
    assert (await refused(client.arbitrage.RecordFeedback(request))).code() is code


async def test_it_is_ready_while_a_teacher_is(tmp_path: Path) -> None:
    async def state(client: Client) -> int:
        stub: Any = health_pb2_grpc.HealthStub(client.channel)
        return int((await stub.Check(health_pb2.HealthCheckRequest())).status)

    async with chat_server.serve(chat_server.sends(status=503)) as teacher:
        chosen = settings(tmp_path, teacher.settings(max_attempts=1))
        async with serving(chosen) as client:
            assert await state(client) == health_pb2.HealthCheckResponse.SERVING
            for _ in range(5):
                await refused(client.complete())
            async with asyncio.timeout(30):
                while await state(client) != health_pb2.HealthCheckResponse.NOT_SERVING:
                    pass
                # a moment later, the next call may show that it is well again
                while await state(client) != health_pb2.HealthCheckResponse.SERVING:
                    pass


async def test_a_stream_is_told_when_the_server_stops_and_loses_no_answer(tmp_path: Path) -> None:
    answers: list[pb.ArbitrateResponse] = []
    held = asyncio.Event()

    async def requests() -> AsyncIterator[pb.ArbitrateRequest]:
        for number in range(3):
            yield asked(number)
        await held.wait()

    async def read(call: Any) -> None:
        async for response in call:
            answers.append(response)  # noqa: PERF401 - those before the error count

    async with AsyncExitStack() as stopping:
        chosen = settings(tmp_path, scripted(latency_seconds=0.5))
        running = await stopping.enter_async_context(server.running(chosen))
        async with grpc.aio.insecure_channel(running.address) as channel:
            stub = ArbitrageServiceStub(channel)
            reading = asyncio.create_task(read(stub.Arbitrate(requests())))
            await Client(running, channel, stub, JobServiceStub(channel)).until(
                "in_flight_prompts", 3.0
            )
            await stopping.aclose()
            assert (await refused(reading)).code() is grpc.StatusCode.UNAVAILABLE
    assert len(answers) == 3
    held.set()
