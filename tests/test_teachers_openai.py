"""The OpenAI-compatible adapter against a real server: what it sends, and each fault."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest

from arbitrage import config
from arbitrage.errors import (
    TeacherAnswerInvalid,
    TeacherError,
    TeacherRateLimited,
    TeacherRejected,
    TeacherUnavailable,
)
from arbitrage.types import Completion, Message, Prompt
from teachers import Pool
from teachers.openai import OpenAITeacher
from tests.chat_server import body, breaks, hangs, sends, serve

if TYPE_CHECKING:
    from aiohttp import web

    from tests.chat_server import ChatServer, Reply

ASK = (Message("user", "Why?"),)
SECRET = "s3cret-0123456789/abc"  # noqa: S105 - of a server that the tests run


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_API_KEY", SECRET)


async def ask(server: ChatServer, **settings: Any) -> Completion:
    teacher = OpenAITeacher(server.settings(**settings))
    try:
        return await teacher.complete(ASK)
    finally:
        await teacher.close()


async def failure(reply: Reply, **settings: Any) -> TeacherError:
    async with serve(reply) as server:
        with pytest.raises(TeacherError) as caught:
            await ask(server, **settings)
    assert "\n" not in str(caught.value)
    return caught.value


async def test_the_request_holds_what_is_set_and_nothing_else() -> None:
    sampling = config.Sampling(temperature=0.0, max_tokens=5, stop=("\n",))
    async with serve(sends()) as server:
        await ask(server, sampling=sampling, api_key_env="TEST_API_KEY")
        await ask(server)
    messages = [{"role": "user", "content": "Why?"}]
    assert server.bodies == [
        {"model": "m", "messages": messages, "temperature": 0.0, "max_tokens": 5, "stop": ["\n"]},
        {"model": "m", "messages": messages},
    ]
    assert server.headers[0]["Authorization"] == f"Bearer {SECRET}"
    assert "Authorization" not in server.headers[1]


async def test_a_query_of_the_base_url_is_kept() -> None:
    queries = []

    async def reply(request: web.Request) -> web.StreamResponse:
        queries.append(request.query_string)
        return await sends()(request)

    async with serve(reply) as server:
        await ask(server, base_url=f"http://127.0.0.1:{server.port}/v1/?api-version=3")
    assert queries == ["api-version=3"]


async def test_calls_share_a_connection() -> None:
    async with serve(sends()) as server:
        teacher = OpenAITeacher(server.settings())
        for _ in range(3):
            await teacher.complete(ASK)
        assert len(server.peers) == 1
        await teacher.close()


@pytest.mark.parametrize(
    ("payload", "completion"),
    [
        (body("Hi."), Completion("Hi.", "stop", 7, 2)),
        (body(""), Completion("", "stop", 7, 2)),
        (body("Hi.", finish_reason="max_tokens"), Completion("Hi.", "length", 7, 2)),
        (body("Hi.", finish_reason="eos"), Completion("Hi.", "stop", 7, 2)),
        (body("Hi.", finish_reason="content_filter"), Completion("Hi.", "content_filter", 7, 2)),
        (body("Hi.", finish_reason="weary"), Completion("Hi.", "weary", 7, 2)),
        (body("Hi.", finish_reason=None), Completion("Hi.", "stop", 7, 2)),
        ({"choices": body("Hi.")["choices"]}, Completion("Hi.")),
        (body("Hi.") | {"usage": None}, Completion("Hi.")),
        (
            body("Hi.") | {"usage": {"prompt_tokens": -1, "completion_tokens": True}},
            Completion("Hi."),
        ),
        (
            body(
                [
                    {"type": "thinking", "thinking": "hm", "text": "hm"},
                    {"type": "text", "text": "Hi"},
                    {"type": "text", "text": "."},
                ]
            ),
            Completion("Hi.", "stop", 7, 2),
        ),
    ],
)
async def test_answers_are_read(payload: dict[str, Any], completion: Completion) -> None:
    async with serve(sends(payload)) as server:
        assert await ask(server) == completion


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ('{"choices": [', "not JSON"),
        ("<html>", "not JSON"),
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ([], "choices are missing"),
        ({}, "choices are missing"),
        ({"choices": []}, "choices is empty"),
        ({"choices": [{}]}, "no message"),
        ({"choices": [{"message": {"role": "assistant"}}]}, "no message"),
        (body(None, finish_reason="tool_calls"), "content is null (finish_reason 'tool_calls')"),
        (body(7), "no message"),
        ({"error": {"message": "model is\nloading"}}, "instead of choices: model is loading"),
        (body("\ud83d"), "half a surrogate pair"),
    ],
)
async def test_an_answer_that_breaks_the_protocol_is_invalid(payload: object, reason: str) -> None:
    error = await failure(sends(payload))
    assert isinstance(error, TeacherAnswerInvalid)
    assert reason in str(error)


@pytest.mark.parametrize(
    ("status", "kind", "hint"),
    [
        (301, TeacherRejected, ""),
        (400, TeacherRejected, ""),
        (401, TeacherRejected, "check api_key_env"),
        (404, TeacherRejected, "check model and base_url"),
        (429, TeacherRateLimited, ""),
        (500, TeacherUnavailable, ""),
        (503, TeacherUnavailable, ""),
    ],
)
@pytest.mark.parametrize(
    "payload",
    [
        {"error": {"message": "because of this", "code": 1}},
        {"error": "because of this"},
        {"detail": "because of this"},
        {"object": "error", "message": "because\n of \x1b this"},
        "because of this",
    ],
)
async def test_a_status_becomes_its_error(
    status: int, kind: type[TeacherError], hint: str, payload: object
) -> None:
    error = await failure(sends(payload, status=status, headers={"Location": "/elsewhere"}))
    assert type(error) is kind
    assert f"HTTP {status}: because of this" in str(error)
    assert str(error).endswith(hint)
    assert error.retry_after_seconds is None


async def test_a_long_reason_is_cut() -> None:
    error = await failure(sends("long " * 10_000, status=400))
    assert len(str(error)) < 250


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("soon", None), ("nan", None), ("inf", None)],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_in_seconds(status: int, value: str, seconds: float | None) -> None:
    error = await failure(sends("wait", status=status, headers={"Retry-After": value}))
    assert error.retry_after_seconds == seconds


async def test_retry_after_as_a_date() -> None:
    async def retry_after(ahead: timedelta) -> float:
        date = format_datetime(datetime.now(UTC) + ahead, usegmt=True)
        error = await failure(sends("wait", status=429, headers={"Retry-After": date}))
        assert error.retry_after_seconds is not None
        return error.retry_after_seconds

    assert 3500 < await retry_after(timedelta(hours=1)) <= 3600
    assert await retry_after(timedelta(hours=-1)) == 0


async def test_a_refused_connection_is_unavailable() -> None:
    async with serve(sends()) as server:
        settings = server.settings()
    teacher = OpenAITeacher(settings)
    with pytest.raises(TeacherUnavailable, match=f"127.0.0.1:{server.port}"):
        await teacher.complete(ASK)
    await teacher.close()


async def test_a_connection_that_breaks_is_unavailable() -> None:
    assert isinstance(await failure(breaks), TeacherUnavailable)


async def test_what_is_no_http_is_unavailable() -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = config.OpenAITeacher(
            name="t", kind="openai", model="m", base_url=f"http://127.0.0.1:{port}",
            api_key_env="TEST_API_KEY",
        )  # fmt: skip
        teacher = OpenAITeacher(settings)
        with pytest.raises(TeacherUnavailable) as caught:
            await teacher.complete(ASK)
        await teacher.close()
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__


async def test_a_slow_answer_times_out_in_the_pool_and_drops_the_connection() -> None:
    async with serve(hangs) as server:
        settings = server.settings(timeout_seconds=0.1)
        pool = Pool([(settings, OpenAITeacher(settings))])
        candidate = await pool.ask("t", Prompt.of("Why?"))
        assert candidate.failure
        assert candidate.failure.outcome == "timeout"
        if server.busy.is_set():
            async with asyncio.timeout(60):
                await server.dropped.wait()
        await pool.close()
