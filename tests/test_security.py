"""Strangers, tokens, limits and logs: what a server tells whom, over real sockets."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import pytest
from google.rpc import error_details_pb2 as details_pb
from grpc_health.v1 import health_pb2, health_pb2_grpc

from arbitrage import config
from arbitrage.errors import ConfigError
from arbitrage.v1 import arbitrage_pb2 as pb
from arbitrage.v1 import arbitrage_pb2_grpc as pb_grpc
from arbitrage.v1.arbitrage_pb2_grpc import ArbitrageServiceStub, JobServiceStub
from service.health import MOST_WATCHERS
from service.identity import SCOPES, Scope
from service.logs import discreet
from service.tokens import Tokens, new, revoke
from tests.callers import answering, named, naming
from tests.processes import arbitrage, served, write_config
from tests.service import (
    Client,
    channel_to,
    detail,
    refused,
    scripted,
    serving,
    settings,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

_REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
_METHODS = [
    f"/{service.full_name}/{method.name}"
    for service in pb.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
_ELSEWHERE = [_REFLECTION, "/arbitrage.v1.ArbitrageService/NoSuch", "/no.such.Service/Method", "/"]
_OK, _UNIMPLEMENTED = grpc.StatusCode.OK, grpc.StatusCode.UNIMPLEMENTED
_PATIENCE = 20.0
_UNKNOWN = "arb_" + 43 * "A"

Metadata = tuple[tuple[str, str | bytes], ...]


def service(folder: Path, **fields: Any) -> config.Service:
    chosen: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "metrics": "127.0.0.1:0",
        "jobs": folder / "jobs",
    }
    return config.Service(**chosen | fields)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


@pytest.fixture
def tokens(file: Path) -> Mapping[Scope, str]:
    """One for each scope, named like it."""
    return {scope: new(file, scope, [scope]) for scope in SCOPES}


@pytest.fixture
async def client(tmp_path: Path, file: Path, tokens: Mapping[Scope, str]) -> AsyncIterator[Client]:
    assert tokens
    chosen = settings(tmp_path, service=service(tmp_path, auth_tokens=file))
    async with serving(chosen) as opened:
        yield opened


def bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


async def code(channel: grpc.aio.Channel, method: str, metadata: Metadata = ()) -> grpc.StatusCode:
    """What a method answers to one empty message, which suits whatever it takes."""
    ask: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(method)
    call = ask(b"", metadata=metadata, timeout=_PATIENCE)
    with suppress(grpc.aio.AioRpcError):
        async for _ in call:
            pass
    return await call.code()


@pytest.mark.parametrize("method", [*_METHODS, *_ELSEWHERE])
async def test_without_a_token_that_is_known_nothing_answers(
    client: Client, tokens: Mapping[Scope, str], method: str
) -> None:
    known = tokens["admin"]
    wrong: list[Metadata] = [
        (),
        bearer(_UNKNOWN),
        bearer(""),
        bearer(known[:-1]),
        bearer(f"{known} {known}"),
        (("authorization", "Bearer"),),
        (("authorization", ""),),
        (("authorization", known),),
        (("authorization", f"Basic {known}"),),
        bearer(known) + bearer(_UNKNOWN),
        (("authorization-bin", f"Bearer {known}".encode()),),
        (("x-authorization", f"Bearer {known}"),),
    ]
    for metadata in wrong:
        assert await code(client.channel, method, metadata) is grpc.StatusCode.UNAUTHENTICATED


async def test_health_answers_everybody(client: Client) -> None:
    stub: Any = health_pb2_grpc.HealthStub(client.channel)
    for metadata in ((), bearer(_UNKNOWN)):
        answer = await stub.Check(health_pb2.HealthCheckRequest(), metadata=metadata)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_of_strangers_only_so_many_watch_the_health(tmp_path: Path) -> None:
    chosen = settings(tmp_path, service=service(tmp_path))
    request = health_pb2.HealthCheckRequest()
    async with serving(chosen) as client:
        stub: Any = health_pb2_grpc.HealthStub(client.channel)
        watching = [stub.Watch(request) for _ in range(MOST_WATCHERS)]
        for call in watching:
            assert (await call.read()).status == health_pb2.HealthCheckResponse.SERVING
        one_more = stub.Watch(request)
        error = await refused(one_more.read())
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert detail(error, details_pb.RetryInfo).retry_delay.seconds > 0
        assert (await stub.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
        watching.pop().cancel()
        async with asyncio.timeout(_PATIENCE):
            while True:
                one_more = stub.Watch(request)
                with suppress(grpc.aio.AioRpcError):
                    assert (await one_more.read()).status
                    break
        last = watching.pop()
        told = asyncio.create_task(_rest_of(last))
        # the server waits for none of them
    with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
        await told


async def test_metrics_may_want_a_token_of_an_admin(
    tmp_path: Path, file: Path, tokens: Mapping[Scope, str]
) -> None:
    chosen = settings(tmp_path, service=service(tmp_path, auth_tokens=file, metrics_auth=True))
    async with serving(chosen) as client, aiohttp.ClientSession() as session:
        url = client.running.metrics_url
        for place in (url, url.replace("/metrics", "/"), url.replace("/metrics", "/state")):
            for sent, status in ((None, 401), (_UNKNOWN, 401), (tokens["jobs"], 403)):
                headers = {"Authorization": f"Bearer {sent}"} if sent else {}
                async with session.get(place, headers=headers) as response:
                    assert response.status == status
            admin = {"Authorization": f"Bearer {tokens['admin']}"}
            async with session.get(place, headers=admin) as response:
                assert response.status == 200
    with pytest.raises(ConfigError, match="metrics_auth: needs tokens; set auth_tokens"):
        async with serving(settings(tmp_path, service=service(tmp_path, metrics_auth=True))):
            pass


async def test_a_stranger_is_refused_before_he_has_sent_anything(client: Client) -> None:
    ask: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
    ask = client.channel.stream_stream(_METHODS[0])
    call = ask(timeout=_PATIENCE)
    assert await call.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("method", _METHODS)
@pytest.mark.parametrize("scope", SCOPES)
async def test_a_token_opens_what_its_scope_is_for_and_nothing_else(
    client: Client, tokens: Mapping[Scope, str], method: str, scope: Scope
) -> None:
    needed = "jobs" if "JobService" in method else "complete"
    got = await code(client.channel, method, bearer(tokens[scope]))
    if scope in {needed, "admin"}:
        assert got in {_OK, grpc.StatusCode.INVALID_ARGUMENT}
    else:
        assert got is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("scope", SCOPES)
async def test_any_token_may_look_around(
    client: Client, tokens: Mapping[Scope, str], scope: Scope
) -> None:
    metadata = bearer(tokens[scope])
    assert await code(client.channel, _REFLECTION, metadata) is _OK
    assert await code(client.channel, "/no.such/Method", metadata) is _UNIMPLEMENTED


async def test_refusals_say_why_and_what_would_help(
    client: Client, tokens: Mapping[Scope, str]
) -> None:
    nobody = await refused(client.complete())
    assert nobody.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "authorization: Bearer TOKEN" in str(nobody.details())
    assert detail(nobody, details_pb.ErrorInfo) == details_pb.ErrorInfo(
        reason="UNAUTHENTICATED", domain="arbitrage.v1"
    )
    listing = client.jobs.ListJobs(pb.ListJobsRequest(), metadata=bearer(tokens["complete"]))
    without = await refused(listing)
    assert without.code() is grpc.StatusCode.PERMISSION_DENIED
    assert detail(without, details_pb.ErrorInfo) == details_pb.ErrorInfo(
        reason="SCOPE_MISSING", domain="arbitrage.v1", metadata={"scope": "jobs"}
    )
    for error in (nobody, without):
        assert not any(token in repr(error) for token in tokens.values())


async def test_what_a_policy_has_learned_is_shown_to_all_and_its_state_to_admins(
    client: Client, tokens: Mapping[Scope, str]
) -> None:
    shown, state = pb.GetPolicyRequest(), pb.GetPolicyRequest(include_state=True)
    own, admin = bearer(tokens["complete"]), bearer(tokens["admin"])
    assert not (await client.arbitrage.GetPolicy(shown, metadata=own)).state
    error = await refused(client.arbitrage.GetPolicy(state, metadata=own))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert detail(error, details_pb.ErrorInfo).metadata["scope"] == "admin"
    assert (await client.arbitrage.GetPolicy(state, metadata=admin)).state


async def test_a_token_counts_from_the_call_after_it_is_made_to_the_call_after_it_is_revoked(
    client: Client, file: Path
) -> None:
    method = "/arbitrage.v1.ArbitrageService/ListTeachers"
    token = new(file, "late", ["complete"])
    for _ in range(2):
        assert await code(client.channel, method, bearer(token)) is _OK
    revoke(file, "late")
    for _ in range(2):
        got = await code(client.channel, method, bearer(token))
        assert got is grpc.StatusCode.UNAUTHENTICATED


def shrink(file: Path, name: str) -> None:
    """Takes a token's scopes, and gives it another."""
    text = file.read_text("utf-8")
    head, _, rest = text.partition(f"[{name}]\n")
    assert rest
    file.write_text(f'{head}[{name}]\nscopes = ["{_OTHER[name]}"]\n{rest.partition(chr(10))[2]}')


_OTHER = {"complete": "jobs", "jobs": "complete"}
_TAKEN: tuple[tuple[Callable[[Path, str], None], grpc.StatusCode], ...] = (
    (revoke, grpc.StatusCode.UNAUTHENTICATED),
    (shrink, grpc.StatusCode.PERMISSION_DENIED),
)


@pytest.mark.parametrize(("take", "expected"), _TAKEN)
@pytest.mark.parametrize("method", ["Arbitrate", "StreamComplete", "WatchJob"])
async def test_an_open_stream_ends_with_the_token_that_opened_it(  # noqa: PLR0917
    tmp_path: Path,
    file: Path,
    tokens: Mapping[Scope, str],
    method: str,
    take: Callable[[Path, str], None],
    expected: grpc.StatusCode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.standing._EVERY_SECONDS", 0.05)
    slow = scripted("ada", latency_seconds=1e6)
    chosen = settings(tmp_path, slow, service=service(tmp_path, auth_tokens=file))
    prompt = pb.Prompt(text="Was ist das?")
    async with serving(chosen) as client:
        if method == "Arbitrate":
            scope: Scope = "complete"
            call: Any = client.arbitrage.Arbitrate(metadata=bearer(tokens[scope]))
            await call.write(pb.ArbitrateRequest(request_id="a", prompt=prompt))
        elif method == "StreamComplete":
            scope = "complete"
            request = pb.StreamCompleteRequest(prompt=prompt)
            call = client.arbitrage.StreamComplete(request, metadata=bearer(tokens[scope]))
            assert (await call.read()).HasField("decision")
        else:
            scope = "jobs"
            metadata = bearer(tokens[scope])
            spec = pb.JobSpec(prompts=pb.PromptList(prompts=[prompt]), output="a")
            asked = pb.CreateJobRequest(spec=spec, job_id="slow")
            await client.jobs.CreateJob(asked, metadata=metadata)
            call = client.jobs.WatchJob(pb.WatchJobRequest(job_id="slow"), metadata=metadata)
            assert (await call.read()).job.job_id == "slow"
        if scope == "complete":
            await client.until("in_flight_prompts", 1)
        await asyncio.sleep(0.2)  # has been looked at, and goes on
        assert not call.done()
        take(file, scope)
        async with asyncio.timeout(_PATIENCE):
            error = await refused(_rest_of(call))
            if scope == "complete":
                await client.until("in_flight_prompts", 0)
        cancel = pb.CancelJobRequest(job_id="slow")
        if scope == "jobs":  # which goes on without being watched
            await client.jobs.CancelJob(cancel, metadata=bearer(tokens["admin"]))
    assert error.code() is expected
    assert detail(error, details_pb.ErrorInfo).domain


class _Endless(pb_grpc.ArbitrageServiceServicer):
    """Answers more than anybody reads."""

    def __init__(self) -> None:
        self.sent = 0
        self.ended = asyncio.Event()

    async def StreamComplete(  # noqa: N802 - gRPC names it
        self, request: pb.StreamCompleteRequest, context: Any
    ) -> AsyncIterator[pb.StreamCompleteResponse]:
        del request, context
        text = "x" * 1_000_000
        try:
            while True:
                self.sent += 1
                yield pb.StreamCompleteResponse(token_delta=pb.TokenDelta(text=text))
        finally:
            self.ended.set()


async def test_a_stream_that_nobody_reads_ends_with_its_token_too(
    file: Path, tokens: Mapping[Scope, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.standing._EVERY_SECONDS", 0.05)
    endless = _Endless()  # type: ignore[abstract] # is asked no others
    async with (
        answering(endless, Tokens(file)) as address,
        channel_to(address) as channel,
        asyncio.timeout(_PATIENCE),
    ):
        metadata = bearer(tokens["complete"])
        call = ArbitrageServiceStub(channel).StreamComplete(
            pb.StreamCompleteRequest(), metadata=metadata
        )
        before = -1
        while before != endless.sent:  # until all between the two is full
            before = endless.sent
            await asyncio.sleep(0.5)
        revoke(file, "complete")
        await endless.ended.wait()
        error = await refused(_rest_of(call))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


async def _rest_of(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_a_broken_file_of_tokens_leaves_those_before_and_a_line(
    client: Client, file: Path, tokens: Mapping[Scope, str], caplog: pytest.LogCaptureFixture
) -> None:
    method, metadata = "/arbitrage.v1.ArbitrageService/ListTeachers", bearer(tokens["complete"])
    for break_it in (
        lambda: file.write_text("[half"),
        lambda: file.write_text('[odd]\nscopes = ["root"]\nsha256 = "x"\n'),
        file.unlink,
    ):
        break_it()
        for _ in range(3):
            assert await code(client.channel, method, metadata) is _OK
    new(file, "other", ["complete"])
    assert await code(client.channel, method, metadata) is grpc.StatusCode.UNAUTHENTICATED
    lines = [record.message for record in caplog.records if record.name == "service.watched"]
    assert len(lines) == 3
    for line, reason in zip(lines, ("is not TOML", "odd: is not", "no such file"), strict=True):
        assert f"stays in force: {file}: {reason}" in line


async def test_a_server_does_not_start_without_its_tokens(tmp_path: Path, file: Path) -> None:
    chosen = settings(tmp_path, service=service(tmp_path, auth_tokens=file))
    with pytest.raises(ConfigError, match=f"{file}: no such file; make a token: arbitrage token"):
        async with serving(chosen):
            pass


async def test_refusals_are_counted_by_methods_that_there_are(client: Client) -> None:
    for method in ("/arbitrage.v1.ArbitrageService/Complete", *_ELSEWHERE):
        await code(client.channel, method)
    await client.until("requests_total", 1.0, method="Complete", code="UNAUTHENTICATED")
    counted = {
        dict(labels)["method"]
        for name, labels in await client.metrics()
        if name == "arbitrage_requests_total"
    }
    assert counted == {"Complete"}


async def test_whatever_works_for_a_call_knows_who_calls_whoever_else_does(file: Path) -> None:
    secrets = {name: new(file, name, ["complete"]) for name in ("one", "two", "three")}
    async with naming(Tokens(file)) as address:
        told = await asyncio.gather(*(named(address, token=secrets[name]) for name in secrets))
    assert told == [f"token {name}" for name in secrets]


async def test_without_tokens_the_machine_is_the_caller() -> None:
    async with naming() as address:
        assert await named(address) == "peer ipv4:127.0.0.1"


async def test_a_message_may_be_as_large_as_configured_and_no_larger(tmp_path: Path) -> None:
    chosen = settings(tmp_path, service=service(tmp_path, max_message_mb=1))
    async with serving(chosen) as client:
        short = await client.complete(metadata={"k": "x" * 1_000_000})
        assert short.winner.teacher == "ada"
        error = await refused(client.complete(metadata={"k": "x" * (1 << 20)}))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await client.complete("Und danach?")).winner.teacher == "ada"


async def test_metadata_may_be_as_large_as_configured_and_no_larger(tmp_path: Path) -> None:
    chosen = settings(tmp_path, service=service(tmp_path, max_metadata_kb=4))
    async with serving(chosen) as client:
        method = "/arbitrage.v1.ArbitrageService/ListTeachers"
        for _ in range(5):  # none is refused by chance
            assert await code(client.channel, method, (("k", "x" * 3_000),)) is _OK
            got = await code(client.channel, method, (("k", "x" * 4_096),))
            assert got is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await code(client.channel, method) is _OK


async def test_a_request_may_bring_as_many_prompts_as_configured(tmp_path: Path) -> None:
    async with serving(settings(tmp_path, service=service(tmp_path, max_prompts=2))) as client:
        prompts = [pb.Prompt(text=f"Was ist {number}?") for number in range(3)]
        two, three = (
            pb.CreateJobRequest(spec=pb.JobSpec(prompts=pb.PromptList(prompts=prompts[:count])))
            for count in (2, 3)
        )
        assert (await client.jobs.CreateJob(two)).job.job_id
        error = await refused(client.jobs.CreateJob(three))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    (violation,) = detail(error, details_pb.BadRequest).field_violations
    assert violation.field == "spec.prompts.prompts"


async def test_a_conversation_may_have_a_thousand_messages(
    client: Client, tokens: Mapping[Scope, str]
) -> None:
    def talk(count: int) -> pb.CompleteRequest:
        messages = [pb.Message(role="user", content="Was ist das?")] * count
        return pb.CompleteRequest(prompt=pb.Prompt(messages=messages))

    metadata = bearer(tokens["complete"])
    assert (await client.arbitrage.Complete(talk(1000), metadata=metadata)).sample.winner.completion
    error = await refused(client.arbitrage.Complete(talk(1001), metadata=metadata))
    (violation,) = detail(error, details_pb.BadRequest).field_violations
    assert violation.field == "prompt.messages"


async def test_reflection_and_metrics_can_be_closed(tmp_path: Path) -> None:
    closed = service(tmp_path, metrics="", reflection=False)
    async with serving(settings(tmp_path, service=closed)) as client:
        assert await code(client.channel, _REFLECTION) is _UNIMPLEMENTED
        assert client.running.metrics_url == ""
        assert (await client.complete()).winner.teacher == "ada"


async def test_a_server_logs_neither_prompts_nor_answers_nor_tokens(tmp_path: Path) -> None:
    file, marked = tmp_path / "tokens.toml", "Kolibri-4711"
    token, old = new(file, "etl", ["complete", "jobs"]), new(file, "old", ["complete"])
    revoke(file, "old")
    path = write_config(
        tmp_path,
        '[[teachers]]\nname = "bob"\nkind = "scripted"',
        '[[teachers]]\nname = "bob"\nkind = "scripted"\nfailure_rate = 1.0\nmax_attempts = 1',
    )
    text = path.read_text().replace("[service]", f'[service]\nauth_tokens = "{file}"')
    path.write_text(text.replace("[service]", f'[service]\njobs = "{tmp_path / "jobs"}"', 1))
    prompts = [pb.Prompt(text=f"{marked}: Was ist das, {number}?") for number in range(8)]
    odd = [pb.Prompt(text=marked, language=f"{marked}!"), pb.Prompt()]
    with served(path, "-v") as process:
        async with channel_to(process.address) as channel:
            asking, jobs = ArbitrageServiceStub(channel), JobServiceStub(channel)
            for prompt in prompts + odd:
                request = pb.CompleteRequest(prompt=prompt)
                for secret in (token, old, marked):
                    with suppress(grpc.aio.AioRpcError):
                        await asking.Complete(request, metadata=bearer(secret))
            spec = pb.JobSpec(prompts=pb.PromptList(prompts=prompts))
            created = pb.CreateJobRequest(job_id="night", spec=spec)
            await jobs.CreateJob(created, metadata=bearer(token))
            watching = jobs.WatchJob(pb.WatchJobRequest(job_id="night"), metadata=bearer(token))
            states = [event.job.state async for event in watching]
        ended = await asyncio.to_thread(process.stop, signal.SIGTERM)
    assert states[-1] == pb.JOB_STATE_SUCCEEDED
    assert ended.code == 0
    for secret in (token, old, token.removeprefix("arb_"), marked):
        assert secret not in ended.out + ended.err


def test_a_server_that_strangers_could_listen_to_does_not_start(tmp_path: Path) -> None:
    path = write_config(tmp_path, 'listen = "127.0.0.1:0"', 'listen = "0.0.0.0:0"')
    ended = arbitrage("serve", "-c", path)
    assert ended.code == 2
    assert "service.listen: 0.0.0.0:0 may be reached from elsewhere" in ended.complaint


def test_an_unforeseen_error_is_logged_with_its_place_and_without_its_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    quoted = "Kolibri-4711"
    before, handlers = logging.root.level, logging.root.handlers[:]
    logging.root.handlers[:] = [logging.StreamHandler(sys.stderr)]
    try:
        discreet(0)
        try:
            _fail(quoted)
        except ExceptionGroup:
            logging.getLogger("test").exception("Complete failed")
    finally:
        logging.root.setLevel(before)
        logging.root.handlers[:] = handlers
    logged = capsys.readouterr().err
    assert quoted not in logged
    assert logged.startswith("ERROR test: Complete failed\n")
    assert "in _fail" in logged
    for kind in ("ValueError", "KeyError", "OSError", "ExceptionGroup"):
        assert f"\n{kind} (" in logged


def _fail(text: str) -> None:
    """Raises what quotes a text at each of its joints."""
    try:
        try:
            int(text)
        except ValueError as error:
            raise KeyError(text) from error
    except KeyError as error:
        raise ExceptionGroup(text, [error, OSError(text)]) from None
