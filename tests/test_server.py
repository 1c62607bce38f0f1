"""What the service answers, asked by a real client over a real socket."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import server
from arbitrage import config
from arbitrage.errors import ConfigError, SinkError, Unavailable
from arbitrage.v1 import arbitrage_pb2 as pb
from arbitrage.v1.arbitrage_pb2_grpc import ArbitrageServiceStub
from service import sturdy
from tests import chat_server
from tests.processes import free_port, published
from tests.service import Client, refused, scripted, serving, settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aiohttp import web

_SERVICES = ("arbitrage.v1.ArbitrageService", "arbitrage.v1.JobService")


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(settings(tmp_path)) as opened:
        yield opened


def health_of(channel: grpc.aio.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel)


async def test_complete_returns_the_winner_and_how_it_was_chosen(client: Client) -> None:
    sample = await client.complete(id="q1", language="de", domain="chat", metadata={"k": "v"})
    ada, bob = sorted(sample.candidates, key=lambda candidate: candidate.teacher)
    assert sample.winner == ada
    assert sample.winner.completion.startswith("Dafür gibt es")
    assert (sample.prompt_id, sample.language, sample.domain) == ("q1", "de", "chat")
    assert math.isclose(sample.margin, ada.reward - bob.reward)
    assert math.isclose(ada.advantage, sample.margin / 2)
    assert ada.scores["scripted"] == ada.reward
    assert sample.decision.policy == "best_of"
    assert {choice.arm for choice in sample.decision.choices} == {"ada", "bob"}
    assert all(0.0 < choice.propensity <= 1.0 for choice in sample.decision.choices)
    assert sample.created_at.seconds > 0
    assert len(sample.sample_id) == 32


async def test_candidates_come_only_when_asked_for(client: Client) -> None:
    request = pb.CompleteRequest(prompt=pb.Prompt(text="Was ist das?"))
    sample = (await client.arbitrage.Complete(request)).sample
    assert not sample.candidates
    assert sample.winner.teacher == "ada"


async def test_chat_messages_are_a_prompt_too(client: Client) -> None:
    messages = [
        pb.Message(role="system", content="Antworte kurz."),
        pb.Message(role="user", content="Was ist das?"),
    ]
    request = pb.CompleteRequest(prompt=pb.Prompt(messages=messages))
    sample = (await client.arbitrage.Complete(request)).sample
    assert sample.winner.completion


@pytest.mark.parametrize(
    ("given", "seen"), [("", "de"), ("de-AT", "de"), ("deu", "de"), ("und", "de"), ("ger", "de")]
)
async def test_the_language_is_detected_when_absent_and_normalised_when_given(
    client: Client, given: str, seen: str
) -> None:
    sample = await client.complete("Warum trinken Menschen so viel Wasser?", language=given)
    assert sample.language == seen


async def test_one_prompt_is_one_sample_however_often_it_is_sent(
    client: Client, tmp_path: Path
) -> None:
    first, second = await client.complete(), await client.complete()
    other = await client.complete("Und warum ist das so?")
    assert first.sample_id == second.sample_id != other.sample_id
    assert client.running.engine.sink.pending == 2
    assert not (tmp_path / "out" / "data").exists()


async def test_a_failing_teacher_beside_a_good_one_costs_nothing_but_its_answer(
    tmp_path: Path,
) -> None:
    teachers = scripted("good"), scripted("bad", failure_rate=1.0)
    async with serving(settings(tmp_path, *teachers)) as client:
        sample = await client.complete()
    good, bad = sample.candidates
    assert sample.winner == good
    assert bad.error.code == "unavailable"
    assert "failed" in bad.error.message
    assert not bad.HasField("reward")
    assert not sample.HasField("margin")


async def test_list_teachers_keeps_the_order_of_the_configuration(tmp_path: Path) -> None:
    price = config.Price(prompt=1.0, completion=2.5)
    teachers = (
        scripted("zoe", languages=("de-AT", "fr"), license="MIT", price_per_million=price),
        scripted("ada", max_concurrency=3),
    )
    async with serving(settings(tmp_path, *teachers)) as client:
        listed = (await client.arbitrage.ListTeachers(pb.ListTeachersRequest())).teachers
    prices = pb.PricePerMillion(prompt_usd=1.0, completion_usd=2.5)
    assert list(listed) == [
        pb.Teacher(
            name="zoe",
            kind="scripted",
            model="scripted",
            available=True,
            languages=["de", "fr"],
            license="MIT",
            price_per_million=prices,
            max_concurrency=8,
        ),
        pb.Teacher(
            name="ada", kind="scripted", model="scripted", available=True, max_concurrency=3
        ),
    ]


async def test_get_policy_shows_what_was_learned(client: Client) -> None:
    before = await client.arbitrage.GetPolicy(pb.GetPolicyRequest())
    assert before == pb.GetPolicyResponse(policy="best_of")
    for language, text in (("de", "Was ist das?"), ("fr", "Pourquoi est-ce ainsi ?")):
        await client.complete(text, language=language)
    learned = await client.arbitrage.GetPolicy(pb.GetPolicyRequest())
    assert learned.version == 2
    assert [entry.language for entry in learned.languages] == ["de", "fr"]
    ada, bob = sorted(learned.languages[0].arms, key=lambda arm: arm.arm)
    assert (ada.arm, ada.count, ada.rejected_count, ada.route_share) == ("ada", 1, 0, 1.0)
    assert ada.mean_reward > bob.mean_reward


async def test_get_policy_shows_one_language(client: Client) -> None:
    await client.complete(language="de")
    for tag, found in (("de-CH", ["de"]), ("sw", [])):
        shown = await client.arbitrage.GetPolicy(pb.GetPolicyRequest(language=tag))
        assert [entry.language for entry in shown.languages] == found


@pytest.mark.parametrize("service", ["", *_SERVICES])
async def test_health_tells_of_the_whole_and_of_each_service(client: Client, service: str) -> None:
    stub = health_of(client.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_health_knows_no_other_service(client: Client) -> None:
    stub = health_of(client.channel)
    error = await refused(stub.Check(health_pb2.HealthCheckRequest(service="other")))
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_the_services(client: Client) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast("Any", client.channel))
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async for answer in stub.ServerReflectionInfo(iter([request])):
        found = {service.name for service in answer.list_services_response.service}
    assert {*_SERVICES, "grpc.health.v1.Health"} < found


async def test_stopping_answers_what_is_in_flight(tmp_path: Path) -> None:
    stopping = asyncio.Event()

    async def reply(request: web.Request) -> web.StreamResponse:
        await stopping.wait()
        return await answer(request)

    async def answer_once_stopping(channel: grpc.aio.Channel) -> None:
        watch = health_of(channel).Watch(health_pb2.HealthCheckRequest())
        async for state in watch:
            if state.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                break
            watching.set()
        stopping.set()
        watch.cancel()

    answer = chat_server.sends(chat_server.body("Weil Eis leichter ist als Wasser."))
    watching = asyncio.Event()
    async with chat_server.serve(reply) as chat, asyncio.TaskGroup() as group:
        async with server.running(settings(tmp_path, chat.settings())) as running:
            channel = grpc.aio.insecure_channel(running.address, [("grpc.enable_http_proxy", 0)])
            group.create_task(answer_once_stopping(channel))
            request = pb.CompleteRequest(prompt=pb.Prompt(text="Was ist das?", language="de"))
            call = ArbitrageServiceStub(channel).Complete(request)
            await chat.busy.wait()
            await watching.wait()
        sample = (await call).sample
        await channel.close()
    assert sample.winner.completion == "Weil Eis leichter ist als Wasser."
    assert published(tmp_path / "out") == [sample.sample_id]


async def test_a_failed_start_leaves_its_ports_free(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    ports = [free_port(), free_port()]
    listen, metrics = (f"127.0.0.1:{port}" for port in ports)
    places = config.Service(listen, metrics)
    for _ in range(2):
        with pytest.raises(SinkError, match="out"):
            async with serving(settings(tmp_path, service=places)):
                pass
    (tmp_path / "out").unlink()
    async with serving(settings(tmp_path, service=places)) as client:
        assert client.running.address == f"127.0.0.1:{ports[0]}"
        assert client.running.metrics_url == f"http://127.0.0.1:{ports[1]}/metrics"
        assert (await client.complete()).winner.teacher == "ada"


@pytest.mark.parametrize("key", ["listen", "metrics"])
@pytest.mark.parametrize(
    "place", ["127.0.0.1", "127.0.0.1:", ":0", "127.0.0.1:65536", "a:b", "a:-1"]
)
async def test_what_is_no_place_to_listen_is_refused(tmp_path: Path, key: str, place: str) -> None:
    places: dict[str, Any] = {"listen": "127.0.0.1:0", "metrics": "127.0.0.1:0", key: place}
    with pytest.raises(ConfigError, match=f"service.{key}: '{place}' is not host:port"):
        async with serving(settings(tmp_path, service=config.Service(**places))):
            pass


@pytest.mark.parametrize("key", ["listen", "metrics"])
async def test_an_address_of_another_machine_is_refused(tmp_path: Path, key: str) -> None:
    places: dict[str, Any] = {"listen": "127.0.0.1:0", "metrics": "127.0.0.1:0", "plaintext": True}
    places[key] = "192.0.2.1:0"
    with pytest.raises(ConfigError, match=f"service.{key}: cannot listen on 192.0.2.1:0"):
        async with serving(settings(tmp_path, service=config.Service(**places))):
            pass


async def test_a_port_that_closes_by_itself_ends_the_service(tmp_path: Path) -> None:
    chosen = settings(tmp_path)

    def close(running: server.Running) -> None:
        assert running.closed
        running.closed.cancel()

    with pytest.raises(Unavailable, match="has closed by itself"):
        await server.serve(chosen, close, lambda: chosen)


async def test_a_grpcio_of_another_making_serves_as_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sturdy._KNOWN, "_handle_rpc", ("others",))
    async with serving(settings(tmp_path)) as client:
        assert (await client.complete()).winner.teacher == "ada"
    assert "is one that is not known here" in caplog.text
