"""What hostile clients send, and benchmarks/fuzz.py has found: a sample, and each finding."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import subprocess
import sys
import weakref
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import fuzz_requests as hostile
import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest

from arbitrage import config, types
from arbitrage.errors import InvalidPrompt
from arbitrage.types import Prompt
from arbitrage.v1 import arbitrage_pb2 as pb
from tests.service import Client, detail, figure, refused, serving, settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

_BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
_GARBAGE = b"\x0a\xff"  # a field of 127 bytes or more that are not there
_OWN = ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", hostile.ELSEWHERE[2]]
_CODES = {code.name for code in grpc.StatusCode}
_SECONDS = 5.0
_MOMENT = 0.5


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    (jobs / "ok.jsonl").write_text('{"prompt": "Was ist das?", "language": "de"}\n', "utf-8")
    ports = config.Service("127.0.0.1:0", "127.0.0.1:0", jobs=jobs, openai="127.0.0.1:0")
    async with serving(settings(tmp_path, service=ports)) as opened:
        yield opened


async def sent(client: Client, method: str, *messages: bytes) -> str:
    """The code in which a call of these bytes ends."""
    opened: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = client.channel.stream_stream(method)
    try:
        async for _ in opened(iter(messages), timeout=_SECONDS):
            pass
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def spilled(address: str, data: bytes) -> bytes:
    """What a port answers to bytes."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        async with asyncio.timeout(_MOMENT):
            return await reader.read(1 << 16)
    except (ConnectionError, TimeoutError):  # such as where it waits for a body
        return b""
    finally:
        writer.close()


async def blameless(client: Client, caplog: pytest.LogCaptureFixture) -> bool:
    """Whether the server answers, and has neither blamed itself nor logged an error."""
    assert (await client.complete()).winner.teacher == "ada"
    figures = await client.metrics()
    bad = [key for key in figures if {"INTERNAL", "UNKNOWN"} & {value for _, value in key[1]}]
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert not bad
    assert not errors
    return True


async def test_a_sample_of_hostile_messages_and_bytes_is_answered_and_blames_nobody(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(0)  # noqa: S311 - the same each time, no secrets
    seen = set()
    for method, kind in hostile.METHODS.items():
        for message in hostile.drawn(hostile.messages(kind), 12, 0):
            plain = message.SerializeToString()
            mutants = [hostile.mutant(rng, plain) for _ in range(2)]
            codes = [await sent(client, method, data) for data in (plain, *mutants)]
            seen |= set(codes)
    assert seen >= {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}
    assert seen <= _CODES - {"INTERNAL", "UNKNOWN"}
    assert await blameless(client, caplog)


async def test_a_sample_of_frames_and_noise_leaves_the_port_open(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(0)  # noqa: S311 - the same each time, no secrets
    address = client.running.address
    for _ in range(20):
        calls = b"".join(hostile.call(rng, stream, _GARBAGE) for stream in range(1, 41, 2))
        await spilled(address, hostile.PREFACE + hostile.frame(hostile.SETTINGS) + calls)
        data, _ = hostile.noise(rng)
        host, _, port = address.rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(data)
        writer.close()
    assert await blameless(client, caplog)


async def test_a_sample_of_bad_http_is_answered_and_blames_nobody(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(0)  # noqa: S311 - the same each time, no secrets
    chat = client.running.openai_url.removeprefix("http://").removesuffix("/v1")
    metrics = client.running.metrics_url.removeprefix("http://").removesuffix("/metrics")
    paths = ("/v1/chat/completions",) * 4 + ("/metrics", "/state", "/%ff")
    for body in hostile.drawn(hostile.bodies(), 60, 0):
        data = hostile.http(rng, body, paths).replace(b"content-length: %d" % (len(body) + 7), b"")
        for address in (chat, metrics):
            assert not (await spilled(address, data)).partition(b" ")[2].startswith(b"5")
    assert await blameless(client, caplog)


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed")
def test_atheris_finds_nothing_in_the_decoding() -> None:
    command = [sys.executable, str(_BENCHMARKS / "fuzz_decoding.py"), "--runs=3000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ok ")


@pytest.mark.parametrize("method", [*hostile.METHODS, *_OWN])
async def test_bytes_that_are_no_message_are_the_callers_mistake(
    client: Client, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    assert await sent(client, method, _GARBAGE) == "INVALID_ARGUMENT"
    assert await blameless(client, caplog)


async def test_a_stream_answers_what_came_before_bytes_that_are_no_message(client: Client) -> None:
    request = pb.ArbitrateRequest(request_id="a", prompt=pb.Prompt(text="Was?", language="de"))
    opened: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = client.channel.stream_stream(
        "/arbitrage.v1.ArbitrageService/Arbitrate"
    )
    call = opened(iter([request.SerializeToString(), _GARBAGE]))
    answer = await call.read()
    assert isinstance(answer, bytes)
    assert pb.ArbitrateResponse.FromString(answer).sample.winner.teacher == "ada"
    assert (await refused(call.read())).code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("path", ["/\xff", "/arbitrage.v1.ArbitrageService/\xff", ""])
async def test_a_method_whose_name_is_no_utf_8_does_not_end_the_server(
    client: Client, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x"}
    fields |= {"te": "trailers", "content-type": "application/grpc", "x-request-id": "\xe9"}
    opened = hostile.frame(hostile.HEADERS, hostile.headers([*fields.items()]), 1, flags=5)
    start = hostile.PREFACE + hostile.frame(hostile.SETTINGS)
    await spilled(client.running.address, start + opened)
    assert await blameless(client, caplog)


async def test_a_method_that_is_none_is_unimplemented(client: Client) -> None:
    assert await sent(client, "/arbitrage.v1.ArbitrageService/NoSuch", b"") == "UNIMPLEMENTED"


class _Local:
    """Something that a refused request holds."""


async def test_a_refused_request_is_let_go_without_the_garbage_collector(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[_Local]] = []

    def asked(*_: object) -> None:
        local = _Local()
        held.append(weakref.ref(local))
        raise InvalidPrompt("prompt", "is refused")

    monkeypatch.setattr("service.arbitrage_service.ArbitrageService._asked", asked)
    gc.disable()
    try:
        await refused(client.arbitrage.Complete(pb.CompleteRequest()))
        async with asyncio.timeout(_SECONDS):
            while held[0]():  # noqa: ASYNC110 - nobody tells when it is gone
                await asyncio.sleep(0.01)
    finally:
        gc.enable()


def test_a_long_prompt_is_not_remembered_for_its_hash() -> None:
    before = types._remembered.cache_info()
    Prompt.of("x" * 1_000_000).sample_id("service")
    assert types._remembered.cache_info() == before


_PROMPT = pb.Prompt(text="Was?", language="de")
_SOME = 1_001


def complete(options: Any = None, **prompt: Any) -> pb.CompleteRequest:
    asked = pb.Prompt(**({"text": "Was?", "language": "de"} | prompt))
    return pb.CompleteRequest(prompt=asked, options=options)


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("Complete", complete(language="de" + "-abcde" * 20), "prompt.language"),
        ("Complete", complete(domain="d" * _SOME), "prompt.domain"),
        ("Complete", complete(id="d" * _SOME), "prompt.id"),
        ("Complete", complete(metadata={str(n): "" for n in range(_SOME)}), "prompt.metadata"),
        (
            "Complete",
            complete(pb.RoutingOptions(teachers=["ada"] * _SOME)),
            "options.teachers",
        ),
        ("Complete", complete(pb.RoutingOptions(policy="\0" * 10_000)), "options.policy"),
        ("ListJobs", pb.ListJobsRequest(states=[pb.JOB_STATE_PENDING] * _SOME), "states"),
        (
            "CreateJob",
            pb.CreateJobRequest(spec=pb.JobSpec(files=pb.PromptFiles(paths=["ok.jsonl"] * _SOME))),
            "spec.files.paths",
        ),
        (
            "CreateJob",
            pb.CreateJobRequest(spec=pb.JobSpec(files=pb.PromptFiles(paths=["../" * 100_000]))),
            "spec.files.paths[0]",
        ),
        (
            "CreateJob",
            pb.CreateJobRequest(
                spec=pb.JobSpec(prompts=pb.PromptList(prompts=[_PROMPT]), output="a/" * 100_000)
            ),
            "spec.output",
        ),
    ],
)
async def test_what_would_take_long_to_look_through_is_refused(
    client: Client, method: str, request_: Any, field: str
) -> None:
    stub = client.arbitrage if method == "Complete" else client.jobs
    error = await refused(getattr(stub, method)(request_))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert detail(error, BadRequest).field_violations[0].field == field


_USER = {"role": "user", "content": "Was?"}
_TEXT = {"type": "text", "text": "x"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"\ud800": 1}, "?"),
        ({"x" * 5_000: 1}, "x" * 1_000),
        ({str(number): None for number in range(_SOME)}, "body"),
        ({"messages": [_USER] * _SOME}, "messages"),
        ({"messages": [{"role": "user", "content": [_TEXT] * _SOME}]}, "messages[0].content"),
        ({"metadata": {str(number): "" for number in range(_SOME)}}, "metadata"),
        ({"metadata": {"domain": "d" * _SOME}}, "metadata.domain"),
        ({"messages": [{"role": "\ud800", "content": "Was?"}]}, "messages[0].role"),
    ],
)
async def test_the_chat_port_says_what_is_wrong_whatever_it_is_called(
    client: Client, fields: dict[str, Any], param: str
) -> None:
    body = {"model": "arbitrage", "messages": [_USER]} | fields
    url = f"{client.running.openai_url}/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
        assert response.status == 400
        assert (await response.json())["error"]["param"] == param


@pytest.mark.parametrize(
    "data",
    [
        b"X\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nx: " + b"y" * 20_000 + b"\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_told_so_and_fills_no_log(
    client: Client, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    ports: Sequence[str] = (client.running.openai_url, client.running.metrics_url)
    for url in ports:
        address = url.removeprefix("http://").partition("/")[0]
        assert (await spilled(address, data)).partition(b" ")[2].startswith(b"400")
    assert await blameless(client, caplog)
    figures = await client.metrics()
    assert figure(figures, "requests_total", method="Complete", code="OK") == 1
