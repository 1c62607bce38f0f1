"""Lines of the log, and the names of requests in them."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from contextlib import contextmanager, suppress
from io import StringIO
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import pytest

from arbitrage import config
from arbitrage.errors import ConfigError
from arbitrage.v1 import arbitrage_pb2 as pb
from arbitrage.v1.arbitrage_pb2_grpc import ArbitrageServiceStub
from service.identity import Caller, caller
from service.logs import discreet
from service.request import Request, current
from service.tokens import new
from tests.processes import served, write_config
from tests.service import channel_to, refused, serving, settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Literal

MARK = "Kolibri-4711"


@contextmanager
def logged(verbosity: int, form: Literal["text", "json"]) -> Iterator[StringIO]:
    """What a server's log has, of this process."""
    root, told = logging.root, StringIO()
    before, handlers = root.level, root.handlers[:]
    root.handlers[:] = [logging.StreamHandler(told)]
    try:
        discreet(verbosity, form)
        yield told
    finally:
        root.setLevel(before)
        root.handlers[:] = handlers


def asks(text: str = "Was ist das?", **prompt: Any) -> pb.CompleteRequest:
    return pb.CompleteRequest(prompt=pb.Prompt(text=text, **prompt))


async def name_of(call: Any) -> str:
    """What the server has called a request, whatever became of it."""
    with suppress(grpc.aio.AioRpcError):
        await call
    return str(dict(await call.trailing_metadata())["x-request-id"])


async def test_a_line_of_json_tells_of_a_call_that_ended(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    token = new(file, "etl", ["complete"])
    path = write_config(tmp_path)
    ours = f'[service]\nlog = "json"\nauth_tokens = "{file}"'
    path.write_text(path.read_text("utf-8").replace("[service]", ours, 1), "utf-8")
    metadata = (("authorization", f"Bearer {token}"), ("x-request-id", "from-the-client"))
    with served(path, "-v") as process:
        async with channel_to(process.address) as channel:
            asking = ArbitrageServiceStub(channel)
            await asking.Complete(asks(MARK), metadata=metadata)
            await refused(asking.Complete(asks(MARK, language=f"{MARK}!"), metadata=metadata))
            stranger = await name_of(asking.Complete(asks(MARK)))
        ended = await asyncio.to_thread(process.stop, signal.SIGTERM)
    lines = [json.loads(line) for line in ended.err.splitlines()]
    for line in lines:
        assert {"timestamp", "level", "logger", "event"} <= line.keys()
        assert line["timestamp"].endswith("Z")
    answered, wrong, unknown = (line for line in lines if line["event"] == "ended")
    assert answered.pop("seconds") > 0.0
    assert answered.pop("timestamp")
    assert answered == {
        "level": "info",
        "logger": "service.guard",
        "event": "ended",
        "code": "OK",
        "request_id": "from-the-client",
        "method": "Complete",
        "caller": "token etl",
    }
    assert (wrong["code"], wrong["request_id"]) == ("INVALID_ARGUMENT", "from-the-client")
    assert (unknown["code"], unknown["request_id"]) == ("UNAUTHENTICATED", stranger)
    assert unknown["caller"].startswith("peer ")
    assert MARK not in ended.err
    assert token not in ended.err


async def test_text_is_the_default_and_says_the_same(tmp_path: Path) -> None:
    with logged(1, "text") as told:
        async with serving(settings(tmp_path)) as client:
            named = await name_of(client.arbitrage.Complete(asks()))
    (line,) = (line for line in told.getvalue().splitlines() if "service.guard" in line)
    assert line.startswith("INFO service.guard: ended code=OK seconds=0.")
    assert line.endswith(f'request_id={named} method=Complete caller="peer ipv4:127.0.0.1"')


async def test_without_v_no_line_tells_of_calls(tmp_path: Path) -> None:
    with logged(0, "text") as told:
        async with serving(settings(tmp_path)) as client:
            await client.complete()
    assert told.getvalue() == ""


@pytest.mark.parametrize("sent", ["x", "a/b:c=1", "~" * 128])
async def test_a_clients_name_of_its_request_is_kept(tmp_path: Path, sent: str) -> None:
    named = (("x-request-id", sent),)
    async with serving(settings(tmp_path)) as client:
        assert await name_of(client.arbitrage.Complete(asks(), metadata=named)) == sent
        assert (
            await name_of(client.arbitrage.Complete(pb.CompleteRequest(), metadata=named)) == sent
        )
        stream = client.arbitrage.StreamComplete(pb.StreamCompleteRequest(), metadata=named)
        await refused(_all(stream))
        assert dict(await stream.trailing_metadata())["x-request-id"] == sent


async def _all(stream: Any) -> None:
    async for _ in stream:
        pass


@pytest.mark.parametrize("sent", ["", "two words", "~" * 129])
async def test_a_name_that_is_not_sane_is_replaced(tmp_path: Path, sent: str) -> None:
    async with serving(settings(tmp_path)) as client:
        calls = [
            client.arbitrage.Complete(pb.CompleteRequest(), metadata=(("x-request-id", sent),))
            for _ in range(2)
        ]
        names = {await name_of(call) for call in calls}
    assert len(names) == 2
    assert all(len(name) == 16 for name in names)


async def test_a_bug_is_found_by_the_requests_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def complete(*_: object) -> None:
        raise ZeroDivisionError(MARK)

    monkeypatch.setattr("teachers.scripted.ScriptedTeacher.complete", complete)
    places = config.Service("127.0.0.1:0", "127.0.0.1:0", tmp_path / "jobs", openai="127.0.0.1:0")
    with logged(0, "json") as told:
        async with serving(settings(tmp_path, service=places)) as client:
            error = await refused(client.arbitrage.Complete(asks()))
            many = [pb.ArbitrateRequest(request_id="1", prompt=pb.Prompt(text="Was?"))]
            (answer,) = [one async for one in client.arbitrate_many(many)]
            body = {"model": "arbitrage", "messages": [{"role": "user", "content": "Was?"}]}
            url = f"{client.running.openai_url}/chat/completions"
            async with (
                aiohttp.ClientSession() as session,
                session.post(url, json=body) as response,
            ):
                failed = (await response.json())["error"]["message"]
                named = response.headers["x-request-id"]
            spec = pb.JobSpec(prompts=pb.PromptList(prompts=[pb.Prompt(text="Was?")]))
            await client.jobs.CreateJob(pb.CreateJobRequest(job_id="night", spec=spec))
            await _all(client.jobs.WatchJob(pb.WatchJobRequest(job_id="night")))
    lines = [json.loads(line) for line in told.getvalue().splitlines()]
    bugs = {line.get("request_id") or line["job"]: line for line in lines if "exception" in line}
    said = "internal error; see the server's log for request "
    for message in (error.details() or "", answer.error.message, failed):
        assert message.startswith(said)
        assert bugs.pop(message.removeprefix(said))["exception"].count("ZeroDivisionError")
    assert failed.endswith(named)
    assert "request_id" not in bugs.pop("night")
    assert not bugs
    assert MARK not in told.getvalue()


@pytest.mark.parametrize("form", ["text", "json"])
async def test_only_vv_tells_what_an_unforeseen_error_says(form: Literal["text", "json"]) -> None:
    for verbosity, frank in ((0, False), (1, False), (2, True)):
        with logged(verbosity, form) as told:
            try:
                int(MARK)
            except ValueError:
                logging.getLogger("test").exception("failed")
            asyncio.get_running_loop().call_exception_handler(
                {"message": "Task exception was never retrieved", "future": MARK}
            )
        assert (MARK in told.getvalue()) is frank
        assert "ValueError" in told.getvalue()
        assert "Task exception was never retrieved" in told.getvalue()


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_value_cannot_pass_for_another(form: Literal["text", "json"]) -> None:
    spoofed = 'eve code=OK" \nERROR test: no'
    with logged(0, form) as told:
        known, about = caller.set(Caller("certificate", spoofed)), current.set(Request.of("X"))
        try:
            logging.getLogger("test").warning("seen")
        finally:
            caller.reset(known)
            current.reset(about)
    line, rest = told.getvalue().split("\n", 1)
    assert rest == ""
    quoted = line.partition("caller=")[2] if form == "text" else line
    found = json.loads(quoted)
    assert (found if form == "text" else found["caller"]) == f"certificate {spoofed}"


def test_a_form_that_is_none_is_refused() -> None:
    teacher = {"name": "a", "kind": "scripted"}
    with pytest.raises(ConfigError, match=r"service\.log"):
        config.parse({"teachers": [teacher], "service": {"log": "xml"}})
