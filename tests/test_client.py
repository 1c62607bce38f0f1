"""The client: what it sends and returns, on a real service; and what it does on bad days."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import trustme
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from arbitrage import config, errors
from arbitrage import wire as service_wire
from arbitrage.client import (
    TLS,
    AsyncClient,
    CandidateArrived,
    CandidatesScored,
    Client,
    Decided,
    Request,
    Result,
    TokenDelta,
    environment,
    wire,
)
from arbitrage.client.channel import service_config
from arbitrage.spec import Spec
from arbitrage.status import error_of, status_of, trailers_of
from arbitrage.types import Message, Prompt, Routing
from arbitrage.v1 import arbitrage_pb2 as pb
from arbitrage.v1 import arbitrage_pb2_grpc as pb_grpc
from service import tokens
from tests import chat_server
from tests.processes import arbitrage, free_port, published, served, write_config
from tests.samples import sample as stored_sample
from tests.service import scripted, serving, settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.processes import Served

EXAMPLES = Path(__file__).parents[1] / "examples" / "clients"
QUESTION = "Warum trinken Menschen so viel Wasser?"
GOOD = "Weil der Körper ohne Wasser nicht lange leben kann."
Context = grpc.aio.ServicerContext[Any, Any]


@asynccontextmanager
async def opened(
    folder: Path, *teachers: config.AnyTeacher, **sections: Any
) -> AsyncIterator[AsyncClient]:
    """A client of a service on scripted teachers."""
    async with (
        serving(settings(folder, *teachers, **sections)) as server,
        AsyncClient(server.running.address) as client,
    ):
        yield client


class Partial:
    """A service that offers some of the methods, and is asked no others."""

    def __getattr__(self, name: str) -> Any:
        return None


@asynccontextmanager
async def scripted_service(servicer: Partial, port: int = 0) -> AsyncIterator[str]:
    """A service of the test's own, at an address."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    whole: Any = servicer
    pb_grpc.add_ArbitrageServiceServicer_to_server(whole, server)
    pb_grpc.add_JobServiceServicer_to_server(whole, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        await server.stop(None)


# One prompt


async def test_a_prompt_comes_back_as_a_sample(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        prompt = Prompt.of(
            [Message("system", "Kurz."), Message("user", QUESTION)],
            prompt_id="q1",
            domain="health",
            metadata={"k": "v"},
        )
        sample = await client.complete(prompt, include_candidates=True)
        alone = await client.complete(prompt)
    assert (sample.prompt.prompt_id, sample.prompt.language) == ("q1", "de")
    assert (sample.prompt.messages, sample.prompt.domain) == (prompt.messages, "health")
    ada, bob = sorted(sample.candidates, key=lambda one: one.teacher)
    assert sample.winner is ada
    assert ada.completion is not None
    assert ada.completion.text.startswith("Dafür gibt es")
    assert ada.reward is not None
    assert bob.reward is not None
    assert sample.margin == pytest.approx(ada.reward - bob.reward)
    assert set(sample.decision.arms) == {"ada", "bob"}
    assert alone.candidates == ()
    assert alone.winner is not None
    assert alone.winner.completion == replace(ada.completion, cached=True)
    assert alone.sample_id == sample.sample_id


async def test_a_prompt_is_routed_as_its_request_wants(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        routing = Routing(teachers=frozenset({"bob"}), learn=False, latency_budget_seconds=30.0)
        sample = await client.complete(QUESTION, language="de-AT", routing=routing)
        assert (await client.policy()).version == 0
        with pytest.raises(errors.InvalidPrompt) as caught:
            await client.complete(QUESTION, routing=Routing(teachers=frozenset({"eve"})))
    assert sample.decision.arms == ("bob",)
    assert sample.prompt.language == "de"
    assert caught.value.field == "options.teachers[0]"


async def test_a_stream_tells_of_every_step_in_order(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        events = [event async for event in client.stream(QUESTION, include_candidates=True)]
    decided, first, second, scored, result = events
    assert isinstance(decided, Decided)
    assert set(decided.decision.arms) == {"ada", "bob"}
    for arrived in (first, second):
        assert isinstance(arrived, CandidateArrived)
        assert arrived.candidate.completion is not None
        assert arrived.candidate.reward is None
    assert isinstance(scored, CandidatesScored)
    assert {one.teacher for one in scored.candidates} == {"ada", "bob"}
    assert isinstance(result, Result)
    assert result.sample.winner in scored.candidates
    assert len(result.sample.candidates) == 2


async def test_the_text_of_an_only_teacher_comes_in_deltas(tmp_path: Path) -> None:
    one_arm = config.Policy(kind="fixed", fan_out=1, experts={"default": ("ada",)})
    async with opened(tmp_path, policy=one_arm) as client:
        events = [event async for event in client.stream(QUESTION)]
    deltas = [event for event in events if isinstance(event, TokenDelta)]
    result = events[-1]
    assert isinstance(result, Result)
    assert result.sample.winner is not None
    assert result.sample.winner.completion is not None
    assert "".join(delta.text for delta in deltas) == result.sample.winner.completion.text
    assert {(delta.teacher, delta.wave) for delta in deltas} == {("ada", 0)}


async def test_who_stops_reading_a_stream_ends_the_work(tmp_path: Path) -> None:
    async with (
        chat_server.serve(chat_server.hangs) as chat,
        opened(tmp_path, chat.settings()) as client,
    ):
        stream = client.stream(QUESTION)
        assert isinstance(await anext(stream), Decided)
        await chat.busy.wait()
        await stream.aclose()  # type: ignore[attr-defined] # a generator, behind an iterator
        await chat.dropped.wait()


async def test_feedback_counts_once_and_for_the_winner_unless_told(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        sample = await client.complete(QUESTION)
        before = await client.policy("de")
        assert await client.feedback(sample, 2.0, feedback_id="f1")
        assert not await client.feedback(sample, 2.0, feedback_id="f1")
        assert await client.feedback(sample.sample_id, -1.0, teacher="bob", source="verifier")
        after = await client.policy("de")
        with pytest.raises(errors.AlreadyExists):
            await client.feedback(sample, 1.0, feedback_id="f1")
        with pytest.raises(errors.NotFound):
            await client.feedback("0" * 32, 1.0)
        with pytest.raises(errors.InvalidPrompt, match="reward"):
            await client.feedback(sample, math.nan)
    assert before.estimates != after.estimates


async def test_pool_and_policy_are_shown(tmp_path: Path) -> None:
    price = config.Price(prompt=1.0, completion=2.5)
    teachers = scripted("zoe", languages=("fr",), license="MIT", price_per_million=price)
    async with opened(tmp_path, teachers, scripted("ada")) as client:
        zoe, ada = await client.teachers()
        await client.complete(QUESTION)
        learned = await client.policy(include_state=True)
        assert (await client.policy("sw")).estimates == ()
    assert (zoe.languages, zoe.license, zoe.completion_price) == (("fr",), "MIT", 2.5)
    assert (ada.name, ada.license, ada.trainable, ada.available) == ("ada", None, None, True)
    assert (learned.policy, learned.version) == ("best_of", 1)
    assert {(one.language, one.arm) for one in learned.estimates} == {("de", "zoe"), ("de", "ada")}
    assert learned.state


# Many prompts


async def test_a_batch_is_answered_each_once_under_its_id(tmp_path: Path) -> None:
    texts = [f"Was ist {number % 7}, und warum?" for number in range(20)]
    async with opened(tmp_path) as client:
        outcomes = [outcome async for outcome in client.arbitrate(texts)]
    asked = sorted(outcome.request.prompt.text for outcome in outcomes)
    assert asked == sorted(texts)
    assert all(outcome.sample and outcome.sample.winner for outcome in outcomes)
    assert len(published(tmp_path / "out")) == 7


async def test_a_request_that_fails_is_an_outcome_and_the_others_go_on(tmp_path: Path) -> None:
    prompt = Prompt.of(QUESTION)
    requests = [
        Request("good", prompt),
        Request("bad", prompt, Routing(teachers=frozenset({"eve"}))),
        Request("", prompt),
    ]
    async with opened(tmp_path) as client:
        outcomes = {one.request.request_id: one async for one in client.arbitrate(requests)}
    assert outcomes["good"].sample is not None
    for name, field in (("bad", "options.teachers[0]"), ("", "request_id")):
        error = outcomes[name].error
        assert isinstance(error, errors.InvalidPrompt)
        assert error.field == field


async def test_no_more_is_taken_than_is_worked_on_and_read(tmp_path: Path) -> None:
    taken = 0

    async def endless() -> AsyncIterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield f"Was ist {taken}?"

    async with opened(tmp_path, job=config.Job(max_in_flight=2)) as client:
        outcomes = client.arbitrate(endless(), max_in_flight=50)
        await anext(outcomes)
        before = -1
        while taken != before:  # once nothing is taken any more, all windows are full
            before = taken
            await asyncio.sleep(0.3)
        assert taken <= 52  # one that was read, one that waits to be sent
        await outcomes.aclose()  # type: ignore[attr-defined] # a generator, behind an iterator


async def test_what_the_callers_iterator_raises_reaches_the_caller(tmp_path: Path) -> None:
    def broken() -> Iterator[str]:
        yield QUESTION
        raise KeyError("mine")

    async with opened(tmp_path) as client:
        with pytest.raises(KeyError, match="mine"):
            async for _ in client.arbitrate(broken()):
                pass
        with pytest.raises(errors.InvalidPrompt):
            async for _ in client.arbitrate([QUESTION, " "]):
                pass


class Breaking(Partial):
    """Answers two requests of each stream, and then ends it as a dying server would."""

    def __init__(self, streams: int) -> None:
        self.asked: list[list[str]] = []
        self._breaks = streams

    async def Arbitrate(  # noqa: N802 - gRPC's name
        self, request_iterator: AsyncIterator[pb.ArbitrateRequest], context: Context
    ) -> AsyncIterator[pb.ArbitrateResponse]:
        asked: list[str] = []
        self.asked.append(asked)
        async for request in request_iterator:
            asked.append(request.request_id)
            if len(asked) == 3 and len(self.asked) <= self._breaks:
                await asyncio.sleep(0.05)  # what was answered is on its way
                await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            sample = service_wire.sample_to(stored_sample(1), include_candidates=False)
            yield pb.ArbitrateResponse(request_id=request.request_id, sample=sample)


async def test_a_lost_stream_is_taken_up_where_it_was_lost() -> None:
    breaking = Breaking(2)
    requests = [Request(f"r{number}", Prompt.of(QUESTION)) for number in range(8)]
    async with scripted_service(breaking) as address, AsyncClient(address) as client:
        outcomes = [one.request.request_id async for one in client.arbitrate(requests)]
    assert sorted(outcomes) == [f"r{number}" for number in range(8)]
    assert len(breaking.asked) == 3
    # what has no outcome comes first, and what has one never again
    answered: set[str] = set()
    for stream in breaking.asked:
        assert not answered & set(stream)
        answered |= set(stream[:2])


async def test_a_stream_that_is_lost_again_and_again_is_given_up() -> None:
    class Gone(Partial):
        calls = 0

        async def Arbitrate(  # noqa: N802 - gRPC's name
            self, request_iterator: AsyncIterator[pb.ArbitrateRequest], context: Context
        ) -> AsyncIterator[pb.ArbitrateResponse]:
            del request_iterator
            Gone.calls += 1
            for _ in range(1):
                await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            yield pb.ArbitrateResponse()

    async with scripted_service(Gone()) as address, AsyncClient(address, attempts=2) as client:
        with pytest.raises(errors.Unavailable, match="gone"):
            async for _ in client.arbitrate([QUESTION]):
                pass
    assert Gone.calls == 2


# Jobs


async def test_a_job_is_created_watched_listed_and_cancelled(tmp_path: Path) -> None:
    prompts = tuple(Prompt.of(f"Was ist {number}?", language="de") for number in range(5))
    async with opened(tmp_path) as client:
        spec = Spec(prompts=prompts, budget_usd=1.0, routing=Routing(fan_out=1))
        created = await client.create_job(spec, job_id="first")
        seen = [job async for job in client.watch_job("first")]
        again = await client.create_job(spec, job_id="first")
        other = await client.create_job(Spec(prompts=prompts, limit=1))
        _ = [job async for job in client.watch_job(other.job_id)]
        listed = [job.job_id async for job in client.jobs("succeeded")]
        assert [job async for job in client.jobs("failed")] == []
        cancelled = await client.cancel_job("first")
        with pytest.raises(errors.NotFound):
            await client.job("none")
        with pytest.raises(errors.AlreadyExists):
            await client.create_job(Spec(prompts=prompts[:1]), job_id="first")
        with pytest.raises(errors.InvalidPrompt) as caught:
            await client.create_job(Spec(files=("../etc/passwd",)))
        assert await client.job("first") == cancelled
    assert created.state in {"pending", "running"}
    assert created.spec == spec
    assert seen[-1].state == again.state == cancelled.state == "succeeded"
    assert (seen[-1].progress.samples, seen[-1].progress.total) == (5, 5)
    assert seen[-1].ended is not None
    assert listed == [other.job_id, "first"]
    assert caught.value.field == "spec.files.paths[0]"


async def test_more_jobs_than_a_page_holds_are_listed() -> None:
    class Paged(Partial):
        async def ListJobs(  # noqa: N802 - gRPC's name
            self, request: pb.ListJobsRequest, context: Context
        ) -> pb.ListJobsResponse:
            del context
            number = int(request.page_token or "0")
            spec = pb.JobSpec(prompts=pb.PromptList(prompts=[pb.Prompt(text="Was?")]))
            job = pb.Job(job_id=f"j{number}", spec=spec, state=pb.JOB_STATE_RUNNING)
            more = str(number + 1) if number < 2 else ""
            return pb.ListJobsResponse(jobs=[job], next_page_token=more)

    async with scripted_service(Paged()) as address, AsyncClient(address) as client:
        assert [job.job_id async for job in client.jobs()] == ["j0", "j1", "j2"]


# Errors, and what is done about them


ERRORS = [
    errors.InvalidPrompt("prompt.messages[2].role", "unknown 'x'"),
    errors.NotFound("no such"),
    errors.AlreadyExists("other"),
    errors.Overloaded("too much"),
    errors.Unavailable("not now"),
    errors.DeadlinePassed("too late"),
    errors.NoWinner("nobody", stored_sample(won=False)),
    errors.BudgetSpent("spent"),
    errors.NotBuilt("no"),
    errors.Unauthenticated("who?"),
    errors.PermissionDenied("not you", scope="jobs"),
    errors.ConfigError("bad file"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_comes_back_as_what_was_raised(error: errors.ArbitrageError) -> None:
    told = error_of(status_of(error))
    assert type(told) is type(error)
    assert str(told) == str(error)
    assert getattr(told, "field", None) == getattr(error, "field", None)
    assert getattr(told, "scope", None) == getattr(error, "scope", None)
    timed = isinstance(error, errors.Overloaded | errors.Unavailable)
    assert told.retry_after_seconds == (1.0 if timed else None)


def test_an_unknown_status_is_an_error_too() -> None:
    assert str(error_of(status_pb2.Status(code=13, message="oh"))) == "INTERNAL: oh"
    assert str(error_of(status_pb2.Status(code=99, message="oh"))) == "UNKNOWN: oh"
    assert isinstance(error_of(status_pb2.Status(code=3, message="oh")), errors.InvalidPrompt)


@pytest.mark.parametrize(
    ("seconds", "left", "pushback"),
    [(2.5, None, "2500"), (2.5, 60.0, "2500"), (2.5, 2.0, "-1"), (45.0, None, "-1")],
)
def test_a_refusal_says_to_grpc_when_to_try_again(
    seconds: float, left: float | None, pushback: str
) -> None:
    status = status_of(errors.NoTeacherAvailable("none", retry_after_seconds=seconds))
    assert dict(trailers_of(status, left))["grpc-retry-pushback-ms"] == pushback


def test_an_error_that_lasts_has_no_time_to_try_again() -> None:
    trailers = dict(trailers_of(status_of(errors.NotFound("no"))))
    assert list(trailers) == ["grpc-status-details-bin"]


class Refusing(Partial):
    """Refuses the first calls as a server that is too busy does."""

    def __init__(self, times: int, seconds: float, *, pushback: bool = True) -> None:
        self.at: list[float] = []
        self._times = times
        self._error = errors.NoTeacherAvailable("not now", retry_after_seconds=seconds)
        self._pushback = pushback

    async def ListTeachers(  # noqa: N802 - gRPC's name
        self, request: pb.ListTeachersRequest, context: Context
    ) -> pb.ListTeachersResponse:
        del request
        self.at.append(asyncio.get_running_loop().time())
        if len(self.at) <= self._times:
            status = status_of(self._error)
            trailers = trailers_of(status, context.time_remaining())
            if not self._pushback:
                trailers = trailers[:1]
            await context.abort(grpc.StatusCode.UNAVAILABLE, status.message, trailers)
        return pb.ListTeachersResponse()


async def test_what_is_unavailable_is_tried_again_after_as_long_as_the_service_says() -> None:
    refusing = Refusing(1, 1.2)
    async with scripted_service(refusing) as address, AsyncClient(address) as client:
        assert await client.teachers() == ()
    first, second = refusing.at
    assert second - first >= 1.19


async def test_a_service_says_itself_when_to_try_again(tmp_path: Path) -> None:
    down, well = chat_server.sends(status=503), chat_server.sends(chat_server.body(GOOD))
    async with (
        chat_server.serve(chat_server.in_turn(down, well)) as chat,
        opened(tmp_path, chat.settings(max_attempts=1)) as client,
    ):
        begun = asyncio.get_running_loop().time()
        sample = await client.complete(QUESTION)
        took = asyncio.get_running_loop().time() - begun
    assert sample.winner is not None
    assert took >= 1.0  # and not half of it, with which gRPC would begin
    assert len(chat.bodies) == 2


async def test_an_error_comes_at_once_where_waiting_would_be_in_vain() -> None:
    refusing = Refusing(9, 20.0)
    async with scripted_service(refusing) as address, AsyncClient(address) as client:
        with pytest.raises(errors.Unavailable, match="not now") as caught:
            await client._call(client._arbitrage.ListTeachers, pb.ListTeachersRequest(), 5.0)
    assert caught.value.retry_after_seconds == 20.0
    assert len(refusing.at) == 1


async def test_attempts_have_an_end() -> None:
    refusing = Refusing(9, 0.0, pushback=False)
    async with scripted_service(refusing) as address, AsyncClient(address, attempts=2) as client:
        with pytest.raises(errors.Unavailable):
            await client.teachers()
    assert len(refusing.at) == 2
    refusing = Refusing(9, 0.0, pushback=False)
    async with scripted_service(refusing) as address, AsyncClient(address, attempts=1) as client:
        with pytest.raises(errors.Unavailable):
            await client.teachers()
    assert len(refusing.at) == 1


async def test_a_service_that_begins_late_is_found() -> None:
    port = free_port()
    async with AsyncClient(f"127.0.0.1:{port}") as client:
        asking = asyncio.create_task(client.teachers())
        await asyncio.sleep(0.3)
        async with scripted_service(Refusing(0, 0.0), port):
            assert await asking == ()


async def test_where_nobody_answers_the_error_says_what_to_do() -> None:
    address = f"127.0.0.1:{free_port()}"
    async with AsyncClient(address, attempts=1) as client:
        with pytest.raises(
            errors.Unavailable, match=f"{address}: nobody answers; start: arbitrage"
        ):
            await client.complete(QUESTION)


async def test_a_deadline_ends_a_call_and_its_work(tmp_path: Path) -> None:
    async with (
        chat_server.serve(chat_server.hangs) as chat,
        opened(tmp_path, chat.settings()) as client,
    ):
        with pytest.raises(errors.DeadlinePassed):
            await client.complete(QUESTION, timeout_seconds=0.5)
        await chat.dropped.wait()
        with pytest.raises(errors.DeadlinePassed):
            async for _ in client.arbitrate([QUESTION], timeout_seconds=0.5):
                pass


async def test_a_peer_that_died_silently_is_noticed() -> None:
    """A proxy takes what comes and answers nothing more, as a broken network does."""
    frozen = asyncio.Event()

    class Waiting(Partial):
        async def ListTeachers(  # noqa: N802 - gRPC's name
            self, request: pb.ListTeachersRequest, context: Context
        ) -> pb.ListTeachersResponse:
            del request, context
            frozen.set()
            await asyncio.Event().wait()
            return pb.ListTeachersResponse()

    async with scripted_service(Waiting()) as address:

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(4096):
                if not frozen.is_set():
                    writer.write(data)

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            other_reader, other_writer = await asyncio.open_connection(*address.split(":"))
            writers.extend((writer, other_writer))
            await asyncio.gather(pump(reader, other_writer), pump(other_reader, writer))

        writers: list[asyncio.StreamWriter] = []
        proxy = await asyncio.start_server(relay, "127.0.0.1", 0)
        host, port = proxy.sockets[0].getsockname()
        async with AsyncClient(f"{host}:{port}", attempts=1, keepalive_seconds=0.5) as client:
            with pytest.raises(errors.Unavailable):
                await client.teachers()
        proxy.close()
        for one in writers:
            one.close()
            await one.wait_closed()


def test_every_method_is_tried_again_but_the_stream_that_resumes_itself() -> None:
    stream, rest = json.loads(service_config(4))["methodConfig"]
    assert stream["name"] == [{"service": "arbitrage.v1.ArbitrageService", "method": "Arbitrate"}]
    assert "retryPolicy" not in stream
    assert rest["retryPolicy"]["maxAttempts"] == 4
    assert [name["service"] for name in rest["name"]] == [
        service.full_name for service in pb.DESCRIPTOR.services_by_name.values()
    ]


# Who calls


async def test_a_token_is_sent_with_every_kind_of_call(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    token = tokens.new(file, "me", ["complete"])
    service = config.Service("127.0.0.1:0", "", jobs=tmp_path / "jobs", auth_tokens=file)
    async with serving(settings(tmp_path, service=service)) as server:
        address = server.running.address
        async with AsyncClient(address, token=token) as client:
            assert (await client.complete(QUESTION)).winner
            assert [one async for one in client.stream(QUESTION)]
            assert [one async for one in client.arbitrate([QUESTION])]
            with pytest.raises(errors.PermissionDenied) as denied:
                await client.job("any")
        async with AsyncClient(address) as stranger:
            with pytest.raises(errors.Unauthenticated):
                await stranger.complete(QUESTION)
            with pytest.raises(errors.Unauthenticated):
                async for _ in stranger.arbitrate([QUESTION]):
                    pass
    assert denied.value.scope == "jobs"


async def test_client_and_service_prove_who_they_are(tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    files = {name: tmp_path / f"{name}.pem" for name in ("roots", "mine", "key", "its", "its_key")}
    for path, made in (
        (files["roots"], authority.cert_pem),
        (files["its"], (shown := authority.issue_cert("127.0.0.1")).cert_chain_pems[0]),
        (files["its_key"], shown.private_key_pem),
        (files["mine"], (own := authority.issue_cert("client")).cert_chain_pems[0]),
        (files["key"], own.private_key_pem),
        (tmp_path / "other.pem", other.cert_pem),
    ):
        made.write_to_path(str(path))
    service = config.Service(
        "127.0.0.1:0",
        "",
        jobs=tmp_path / "jobs",
        tls_certificate=files["its"],
        tls_key=files["its_key"],
        tls_clients=files["roots"],
    )
    trusted = TLS(files["roots"], files["mine"], files["key"])
    async with serving(settings(tmp_path, service=service)) as server:
        address = server.running.address
        async with AsyncClient(address, tls=trusted) as client:
            assert (await client.complete(QUESTION)).winner
        for tls in (TLS(files["roots"]), replace(trusted, roots=tmp_path / "other.pem"), None):
            async with AsyncClient(address, tls=tls, attempts=1) as stranger:
                with pytest.raises(errors.Unavailable):
                    await stranger.complete(QUESTION)


async def test_a_token_goes_to_no_other_machine_in_the_clear() -> None:
    with pytest.raises(errors.ConfigError, match="in the clear; give tls"):
        AsyncClient("192.0.2.1:50051", token="secret")  # noqa: S106 - none
    for address in ("localhost:1", "127.0.0.1:1", "[::1]:1", "unix:/tmp/x"):
        await AsyncClient(address, token="secret").close()  # noqa: S106 - none
    await AsyncClient("192.0.2.1:1", token="secret", plaintext=True).close()  # noqa: S106 - none
    await AsyncClient("192.0.2.1:1", token="secret", tls=TLS()).close()  # noqa: S106 - none


def test_options_that_cannot_be_are_mistakes(tmp_path: Path) -> None:
    async def made(**options: Any) -> None:
        AsyncClient("127.0.0.1:1", **options)

    for options, reason in (
        ({"attempts": 0}, "attempts: 0: must be from 1 to 5"),
        ({"tls": TLS(certificate=tmp_path)}, "certificate and key together"),
        ({"tls": TLS(roots=tmp_path / "none.pem")}, "none.pem: cannot be read"),
    ):
        with pytest.raises(errors.ConfigError, match=reason):
            asyncio.run(made(**options))


def test_commands_take_token_and_authorities_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ARBITRAGE_TOKEN", raising=False)
    assert environment(attempts=1) == {"attempts": 1}
    monkeypatch.setenv("ARBITRAGE_TOKEN", "arb_x")
    monkeypatch.setenv("ARBITRAGE_TLS_ROOTS", str(tmp_path / "ca.pem"))
    assert environment() == {"token": "arb_x", "tls": TLS(tmp_path / "ca.pem")}
    monkeypatch.setenv("ARBITRAGE_TLS_ROOTS", "")
    assert environment() == {"token": "arb_x", "tls": TLS()}
    monkeypatch.delenv("ARBITRAGE_TLS_ROOTS")
    monkeypatch.delenv("ARBITRAGE_TOKEN")
    monkeypatch.setenv("ARBITRAGE_TLS_CERTIFICATE", "mine.pem")
    monkeypatch.setenv("ARBITRAGE_TLS_KEY", "key.pem")
    assert environment() == {"tls": TLS(None, Path("mine.pem"), Path("key.pem"))}


def test_a_command_shows_its_certificate_where_the_service_wants_one(tmp_path: Path) -> None:
    authority = trustme.CA()
    files = {name: tmp_path / f"{name}.pem" for name in ("roots", "mine", "key", "its", "its_key")}
    for path, made in (
        (files["roots"], authority.cert_pem),
        (files["its"], (shown := authority.issue_cert("127.0.0.1")).cert_chain_pems[0]),
        (files["its_key"], shown.private_key_pem),
        (files["mine"], (own := authority.issue_cert("client")).cert_chain_pems[0]),
        (files["key"], own.private_key_pem),
    ):
        made.write_to_path(str(path))
    tls = f"""[service]
tls_certificate = "{files["its"]}"
tls_key = "{files["its_key"]}"
tls_clients = "{files["roots"]}"
"""
    roots = {"ARBITRAGE_TLS_ROOTS": str(files["roots"])}
    mine = {
        "ARBITRAGE_TLS_CERTIFICATE": str(files["mine"]),
        "ARBITRAGE_TLS_KEY": str(files["key"]),
    }
    with served(write_config(tmp_path, "[service]\n", tls)) as running:
        ask = ("complete", "-a", running.address, QUESTION)
        assert arbitrage(*ask, env=roots | mine).code == 0
        show = ("policy", "show", "-a", running.address)
        assert arbitrage(*show, env=roots | mine).code == 0
        assert arbitrage(*ask, env=roots).code == 1
        half = roots | {"ARBITRAGE_TLS_KEY": str(files["key"])}
        assert arbitrage(*ask, env=half).complaint.endswith("give certificate and key together")


# Without asyncio


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("server")
    with served(write_config(folder, "[service]", f'[service]\njobs = "{folder}/jobs"')) as running:
        yield running


@pytest.fixture
def client(server: Served) -> Iterator[Client]:
    with Client(server.address) as opened:
        yield opened


def test_the_same_calls_without_asyncio(client: Client) -> None:
    sample = client.complete(QUESTION, include_candidates=True)
    assert sample.winner is not None
    assert sample.winner.teacher == "ada"
    assert client.feedback(sample, 1.0, feedback_id="sync")
    assert not client.feedback(sample, 1.0, feedback_id="sync")
    kinds = [type(event) for event in client.stream(QUESTION)]
    assert kinds[0] is Decided
    assert kinds[-1] is Result
    assert [teacher.name for teacher in client.teachers()] == ["ada", "bob"]
    assert client.policy("de").estimates
    with pytest.raises(errors.InvalidPrompt, match="language"):
        client.complete(QUESTION, language="klingon")


def test_jobs_without_asyncio(client: Client) -> None:
    job = client.create_job(Spec(prompts=(Prompt.of(QUESTION, language="de"),)), job_id="sync")
    assert [job.state for job in client.watch_job(job.job_id)][-1] == "succeeded"
    assert client.job("sync").progress.samples == 1
    assert [job.job_id for job in client.jobs()] == ["sync"]
    assert client.cancel_job("sync").state == "succeeded"


def test_a_batch_takes_prompts_from_an_iterator_that_blocks(client: Client) -> None:
    answered = threading.Event()

    def prompts() -> Iterator[str]:
        yield QUESTION
        answered.wait(30)  # for what comes only if this blocks nobody
        yield "Und warum?"

    outcomes = client.arbitrate(prompts())
    first = next(outcomes)
    answered.set()
    assert first.request.prompt.text == QUESTION
    assert [one.request.prompt.text for one in outcomes] == ["Und warum?"]


def test_a_batch_may_be_left_and_its_iterator_may_fail(client: Client) -> None:
    endless = iter(lambda: "Was ist das?", None)
    for outcome in client.arbitrate(endless):
        assert outcome.sample
        break

    def broken() -> Iterator[str]:
        yield QUESTION
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        list(client.arbitrate(broken()))
    assert client.complete(QUESTION).winner


def test_threads_share_a_client(client: Client) -> None:
    winners: list[str] = []

    def ask(number: int) -> None:
        winner = client.complete(f"Was ist {number}?").winner
        winners.append(winner.teacher if winner else "")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert winners == ["ada"] * 8


def test_a_server_that_is_restarted_is_found_again(tmp_path: Path) -> None:
    port = free_port()
    listen = f'jobs = "{tmp_path}/jobs"\nlisten = "127.0.0.1:{port}"'
    path = write_config(tmp_path, 'listen = "127.0.0.1:0"', listen)
    with Client(f"127.0.0.1:{port}") as client:
        with served(path) as first:
            before = client.complete(QUESTION)
            first.stop(signal.SIGTERM)
        with served(path) as second:
            assert client.complete(QUESTION).sample_id == before.sample_id
            second.stop(signal.SIGTERM)


# Examples


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("complete", (QUESTION,), "Dafür gibt es"),
        ("stream", (QUESTION,), "won: ada"),
        ("batch", ("-",), '"teacher": "ada"'),
        ("feedback", (), "-1 recorded"),
    ],
)
def test_an_example_runs(server: Served, name: str, arguments: tuple[str, ...], said: str) -> None:
    script = EXAMPLES / f"{name}.py"
    command = [sys.executable, "-W", "error", str(script), *arguments, server.address]
    done = subprocess.run(
        command, input=f"{QUESTION}\n\n", capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, said in done.stdout) == (0, True), done


# What is sent


@given(st.builds(
    Routing,
    fan_out=st.none() | st.integers(1, 9),
    teachers=st.frozensets(st.text(min_size=1, max_size=5), max_size=3),
    max_cost_usd=st.none() | st.floats(0.0, 1e6),
    latency_budget_seconds=st.none() | st.integers(1, 10**9).map(lambda n: n / 1000),
    learn=st.booleans(),
))  # fmt: skip
def test_routing_arrives_as_it_was_sent(routing: Routing) -> None:
    arrived = service_wire.routing_from(wire.routing_to(routing))
    seconds = routing.latency_budget_seconds
    assert arrived.latency_budget_seconds == (None if seconds is None else pytest.approx(seconds))
    assert arrived == Routing(
        routing.fan_out,
        routing.teachers,
        routing.max_cost_usd,
        arrived.latency_budget_seconds,
        routing.learn,
    )


def test_a_sample_arrives_as_it_was_sent() -> None:
    kept = stored_sample(1)
    message = service_wire.sample_to(kept, include_candidates=True)
    message = pb.Sample.FromString(message.SerializeToString())
    arrived = wire.sample_from(message, kept.prompt)
    assert arrived.decision == kept.decision
    assert arrived.created_at == kept.created_at
    assert arrived.winner in arrived.candidates
    assert [one.teacher for one in arrived.candidates] == [one.teacher for one in kept.candidates]
    assert [one.failure for one in arrived.candidates] == [one.failure for one in kept.candidates]
    assert [one.gates for one in arrived.candidates] == [one.gates for one in kept.candidates]
    assert [one.reward for one in arrived.candidates] == [one.reward for one in kept.candidates]


def test_half_a_surrogate_pair_is_no_prompt() -> None:
    with pytest.raises(errors.InvalidPrompt, match="prompt: cannot be sent"):
        wire.prompt_to(Prompt.of("Was ist \ud800?"))


def test_an_event_of_a_newer_service_is_passed_over() -> None:
    assert wire.event_from(pb.StreamCompleteResponse(), Prompt.of(QUESTION)) is None


def test_the_time_to_try_again_is_read_from_the_details() -> None:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromTimedelta(timedelta(seconds=2.5))
    status = status_pb2.Status(code=8, message="full")
    status.details.add().Pack(retry)
    told = error_of(status)
    assert isinstance(told, errors.Overloaded)
    assert told.retry_after_seconds == 2.5
