"""The OpenAI-compatible adapter against a real server: what it sends, and how it ends."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from arbitrage import config
from arbitrage.errors import TeacherUnavailable
from arbitrage.types import Message, Prompt
from teachers import Pool
from teachers.openai import OpenAITeacher
from tests.chat_server import ASK, MESSAGES, ChatServer, ask, breaks, failure, hangs, sends, serve

SECRET = "s3cret-0123456789/abc"  # noqa: S105 - of a server that the tests run


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_API_KEY", SECRET)


async def test_the_request_holds_what_is_set_and_nothing_else() -> None:
    sampling = config.Sampling(temperature=0.0, max_tokens=5, stop=("\n",))
    async with serve(sends()) as server:
        await ask(server, sampling=sampling, api_key_env="TEST_API_KEY")
        await ask(server)
    assert server.bodies == [
        {"model": "m", "messages": MESSAGES, "temperature": 0.0, "max_tokens": 5, "stop": ["\n"]},
        {"model": "m", "messages": MESSAGES},
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


async def test_a_schema_is_sent_as_the_format_of_the_response() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    async with serve(sends()) as server:
        await ask(server, sampling=config.Sampling(json_schema=schema))
    assert server.bodies[0]["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": True},
    }


async def test_a_prompt_arrives_as_it_is() -> None:
    texts = ("你好 🌊 é", "half a pair: \ud83d", 'a "quoted" \\ \n line \0')
    async with serve(sends()) as server:
        teacher = OpenAITeacher(server.settings())
        for text in texts:
            await teacher.complete([Message("user", text)])
        await teacher.close()
    assert [sent["messages"][0]["content"] for sent in server.bodies] == list(texts)
    assert all(headers["Content-Type"] == "application/json" for headers in server.headers)


async def test_a_refused_connection_is_unavailable() -> None:
    async with serve(sends()) as server:
        settings = server.settings()
    teacher = OpenAITeacher(settings)
    with pytest.raises(TeacherUnavailable, match=f"127.0.0.1:{server.port}"):
        await teacher.complete(ASK)
    await teacher.close()


async def test_a_connection_that_breaks_is_unavailable() -> None:
    assert isinstance(await failure(breaks), TeacherUnavailable)


async def test_closing_ends_a_body_that_is_being_read() -> None:
    begun = asyncio.Event()

    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"choices": [')
        begun.set()
        return await hangs(request)

    async with serve(reply) as server:
        teacher = OpenAITeacher(server.settings())
        call = asyncio.create_task(teacher.complete(ASK))
        async with asyncio.timeout(60):
            await begun.wait()
            while not teacher._replies:  # noqa: ASYNC110 - there is no such event
                await asyncio.sleep(0)
            await teacher.close()
            with pytest.raises(TeacherUnavailable):
                await call


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
        (candidate,) = await pool.ask("t", Prompt.of("Why?"))
        assert candidate.failure
        assert candidate.failure.outcome == "timeout"
        if server.busy.is_set():
            async with asyncio.timeout(60):
                await server.dropped.wait()
        await pool.close()


def test_openai_itself_is_told_of_the_longest_answer_in_its_newer_words() -> None:
    sampling = config.Sampling(max_tokens=7)
    server = ChatServer()
    own = OpenAITeacher(server.settings(sampling=sampling, base_url="https://api.openai.com/v1"))
    assert own._fields["max_completion_tokens"] == 7
    assert "max_tokens" not in own._fields
    assert OpenAITeacher(server.settings(sampling=sampling))._fields["max_tokens"] == 7
