"""The LiteLLM adapter against real servers: what it sends in each protocol, and each fault."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import logging
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from arbitrage import config
from arbitrage.errors import (
    TeacherAnswerInvalid,
    TeacherError,
    TeacherMisconfigured,
    TeacherRateLimited,
    TeacherRejected,
    TeacherUnavailable,
)
from arbitrage.types import Completion, Message, Prompt
from teachers import open_pool
from teachers.litellm import LiteLLMTeacher, open_teachers
from tests.provider_server import (
    ANTHROPIC,
    ANTHROPIC_BEGIN,
    IGNORE_ITS_WARNINGS,
    KEY,
    OPENAI,
    PROTOCOLS,
    Protocol,
    Provider,
    Reply,
    anthropic_answer,
    anthropic_delta,
    breaks,
    hangs,
    openai_answer,
    openai_chunk,
    replies,
    resets,
    sends,
    serve,
    streams,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = IGNORE_ITS_WARNINGS
ASK = (Message("system", "Be brief."), Message("user", "Why?"))
HELLO = Completion("Hello.", "stop", 7, 2)
REFUSAL = {"type": "error", "error": {"type": "e", "message": f"no:\n{KEY} is wrong"}}

every_protocol = pytest.mark.parametrize(
    "protocol", PROTOCOLS, ids=lambda protocol: protocol.model.partition("/")[0]
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_API_KEY", KEY)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def opened(provider: Provider, **settings: Any) -> LiteLLMTeacher:
    (teacher,) = await open_teachers([provider.settings(**settings)])
    return teacher


async def ask(
    provider: Provider, on_delta: Callable[[str], None] | None = None, **settings: Any
) -> list[Completion]:
    teacher = await opened(provider, **settings)
    try:
        return await teacher.complete(ASK, on_delta)
    finally:
        await teacher.close()


async def failure(
    protocol: Protocol, reply: Reply, on_delta: Callable[[str], None] | None = None
) -> TeacherError:
    async with serve(protocol, reply) as provider:
        with pytest.raises(TeacherError) as caught:
            await ask(provider, on_delta)
    # a request is never sent again behind the pool's back
    assert len(provider.bodies) == 1
    for text in (str(caught.value), repr(caught.value)):
        assert KEY not in text
        assert "\n" not in text
    return caught.value


@every_protocol
async def test_an_answer_is_read_with_its_tokens(protocol: Protocol) -> None:
    async with serve(protocol, sends(protocol.answer)) as provider:
        assert await ask(provider) == [HELLO]
    assert provider.paths == [protocol.path]
    name, value = protocol.key_header
    assert provider.headers[0][name] == value.format(KEY)


async def test_the_conversation_is_sent_as_each_protocol_has_it() -> None:
    sampling = config.Sampling(temperature=0.0, max_tokens=5, stop=("!",))
    sent = []
    for protocol in PROTOCOLS:
        async with serve(protocol, sends(protocol.answer)) as provider:
            await ask(provider, sampling=sampling)
        sent += provider.bodies
    openai, anthropic, gemini = sent
    assert openai == {
        "model": "gpt-4o",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Why?"},
        ],
        "temperature": 0.0,
        "max_tokens": 5,
        "stop": ["!"],
    }
    assert anthropic["system"] == [{"type": "text", "text": "Be brief."}]
    assert [turn["role"] for turn in anthropic["messages"]] == ["user"]
    assert (anthropic["max_tokens"], anthropic["stop_sequences"]) == (5, ["!"])
    assert gemini["system_instruction"] == {"parts": [{"text": "Be brief."}]}
    assert gemini["generationConfig"] == {
        "temperature": 0.0,
        "max_output_tokens": 5,
        "stop_sequences": ["!"],
    }


async def test_options_reach_the_provider() -> None:
    options = {"top_k": 3, "extra_headers": {"X-Team": "blue"}}
    async with serve(ANTHROPIC, sends(ANTHROPIC.answer)) as provider:
        await ask(provider, options=options)
    assert provider.bodies[0]["top_k"] == 3
    assert {name.lower(): value for name, value in provider.headers[0].items()}["x-team"] == "blue"


async def test_a_json_schema_is_asked_for() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    async with serve(OPENAI, sends(openai_answer('{"a": "b"}'))) as provider:
        await ask(provider, sampling=config.Sampling(json_schema=schema))
    asked = provider.bodies[0]["response_format"]
    assert asked["json_schema"]["schema"]["properties"] == schema["properties"]


async def test_no_key_of_the_environment_is_sent_but_the_named_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, "another-key")
    for protocol in PROTOCOLS:
        async with serve(protocol, sends(protocol.answer)) as provider:
            await ask(provider, api_key_env=None)
        assert "another-key" not in str(provider.headers)
        assert "another-key" not in str(provider.paths)


@every_protocol
async def test_pieces_are_heard_as_they_come(protocol: Protocol) -> None:
    heard: list[str] = []
    async with serve(protocol, streams(protocol.events)) as provider:
        assert await ask(provider, heard.append) == [HELLO]
    assert heard == ["He", "ll", "o."]
    assert provider.paths == [protocol.streamed_path]


async def test_a_listener_that_fails_is_not_the_providers_fault() -> None:
    def deaf(piece: str) -> None:
        raise ZeroDivisionError(piece)

    async with serve(OPENAI, streams(OPENAI.events)) as provider:
        with pytest.raises(ZeroDivisionError):
            await ask(provider, deaf)


async def test_several_answers_are_streamed_side_by_side() -> None:
    def of(index: int, chunk: dict[str, Any]) -> dict[str, Any]:
        return chunk | {"choices": [chunk["choices"][0] | {"index": index}]}

    events = (
        of(0, openai_chunk(content="Hi.")),
        of(1, openai_chunk(content="Hel")),
        of(0, openai_chunk("stop")),
        of(1, openai_chunk(content="lo.")),
        of(1, openai_chunk("stop")),
        *OPENAI.events[-2:],
    )
    heard: list[str] = []
    async with serve(OPENAI, streams(events)) as provider:
        completions = await ask(provider, heard.append, sampling=config.Sampling(n=2))
    assert [c.text for c in completions] == ["Hi.", "Hello."]
    assert heard == ["Hi."]
    assert len(provider.bodies) == 1


@pytest.mark.parametrize("protocol", [OPENAI, ANTHROPIC])
async def test_a_stream_that_is_cut_off_is_no_answer(protocol: Protocol) -> None:
    error = await failure(protocol, streams(protocol.events[:4]), lambda _: None)
    assert isinstance(error, TeacherUnavailable)
    assert "cut off" in str(error)


@pytest.mark.parametrize(
    ("protocol", "said", "kind", "overloaded"),
    [
        (ANTHROPIC, {"type": "overloaded_error"}, TeacherUnavailable, True),
        (ANTHROPIC, {"type": "rate_limit_error"}, TeacherRateLimited, None),
        (OPENAI, {"code": 503}, TeacherUnavailable, True),
        (OPENAI, {"code": "weary"}, TeacherUnavailable, False),
    ],
)
async def test_an_error_in_a_stream_is_what_it_says(
    protocol: Protocol, said: dict[str, Any], kind: type, overloaded: object
) -> None:
    late = {"type": "error", "error": {"message": "too much", **said}}
    error = await failure(protocol, streams((*protocol.events[:3], late)), lambda _: None)
    assert isinstance(error, kind)
    assert getattr(error, "overloaded", None) is overloaded
    assert str(error).endswith("too much")


@pytest.mark.parametrize(
    ("protocol", "answer"),
    [
        (OPENAI, openai_answer("Hello.", reasoning_content="Hm.")),
        (OPENAI, openai_answer("<think>\nHm.\n</think>\n\nHello.")),
        (
            ANTHROPIC,
            anthropic_answer(
                {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                {"type": "text", "text": "Hello."},
            ),
        ),
    ],
)
async def test_thoughts_are_kept_apart(protocol: Protocol, answer: dict[str, Any]) -> None:
    async with serve(protocol, sends(answer)) as provider:
        assert await ask(provider) == [Completion("Hello.", "stop", 7, 2, reasoning="Hm.")]


@pytest.mark.parametrize(
    ("protocol", "events"),
    [
        (
            OPENAI,
            (
                openai_chunk(content="<thi"),
                openai_chunk(content="nk>Hm.</think>"),
                *OPENAI.events[1:],
            ),
        ),
        (OPENAI, (openai_chunk(reasoning_content="Hm."), *OPENAI.events[1:])),
        (
            ANTHROPIC,
            (
                ANTHROPIC_BEGIN[0],
                {
                    "type": "content_block_start",
                    "index": 0,
                    "content_block": {"type": "thinking", "thinking": "", "signature": ""},
                },
                anthropic_delta(type="thinking_delta", thinking="Hm."),
                *ANTHROPIC.events[1:],
            ),
        ),
    ],
)
async def test_streamed_thoughts_are_not_heard(protocol: Protocol, events: Any) -> None:
    heard: list[str] = []
    async with serve(protocol, streams(events)) as provider:
        (completion,) = await ask(provider, heard.append)
    assert (completion.text, completion.reasoning) == ("Hello.", "Hm.")
    assert "".join(heard) == "Hello."


@pytest.mark.parametrize("streamed", [False, True])
async def test_tokens_are_counted_where_the_provider_does_not(streamed: bool) -> None:
    uncounted = [e for e in OPENAI.events if isinstance(e, str) or "usage" not in e]
    whole = openai_answer("Hello.") | {"usage": None}
    async with serve(OPENAI, streams(uncounted) if streamed else sends(whole)) as provider:
        (completion,) = await ask(provider, (lambda _: None) if streamed else None)
    # how many it takes to mark a turn is nobody's to know
    assert completion.prompt_tokens in range(5, 20)
    assert completion.completion_tokens == 2


async def test_several_answers_come_in_one_call_where_the_provider_can() -> None:
    async with serve(OPENAI, sends(openai_answer("Hi.", "Hello."))) as provider:
        completions = await ask(provider, sampling=config.Sampling(n=2, seed=4))
    assert [c.text for c in completions] == ["Hi.", "Hello."]
    assert [c.prompt_tokens for c in completions] == [7, 0]
    assert [(b["n"], b["seed"]) for b in provider.bodies] == [(2, 4)]


async def test_answers_that_a_provider_leaves_out_are_asked_for_again() -> None:
    async with serve(OPENAI, sends(openai_answer("Hi."))) as provider:
        completions = await ask(provider, sampling=config.Sampling(n=3, seed=4))
    assert [c.text for c in completions] == ["Hi."] * 3
    asked = [(b.get("n"), b["seed"]) for b in provider.bodies]
    assert sorted(asked, key=str) == [(3, 4), (None, 5), (None, 6)]


async def test_a_provider_without_n_is_asked_side_by_side() -> None:
    waiting, all_there = [], asyncio.Event()

    async def reply(request: web.Request) -> web.StreamResponse:
        waiting.append(request)
        if len(waiting) == 3:
            all_there.set()
        await all_there.wait()
        return await sends(ANTHROPIC.answer)(request)

    async with serve(ANTHROPIC, reply) as provider:
        assert await ask(provider, sampling=config.Sampling(n=3)) == [HELLO] * 3
    assert not any("n" in body for body in provider.bodies)


async def test_of_several_calls_one_that_fails_is_left_out() -> None:
    seen = []

    async def reply(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        return await sends(ANTHROPIC.answer, status=200 if len(seen) > 1 else 500)(request)

    async with serve(ANTHROPIC, reply) as provider:
        assert await ask(provider, sampling=config.Sampling(n=3)) == [HELLO] * 2


async def test_an_answer_that_was_heard_in_part_is_not_replaced_by_another() -> None:
    async def reply(request: web.Request) -> web.StreamResponse:
        if (await request.json()).get("stream"):
            return await streams(ANTHROPIC.events[:4])(request)
        return await sends(ANTHROPIC.answer)(request)

    async with serve(ANTHROPIC, reply) as provider:
        with pytest.raises(TeacherUnavailable) as caught:
            await ask(provider, lambda _: None, sampling=config.Sampling(n=2))
    assert (caught.value.prompt_tokens, caught.value.completion_tokens) == (7, 2)


@every_protocol
@pytest.mark.parametrize(
    ("status", "kind", "hint"),
    [
        (301, TeacherRejected, ""),
        (307, TeacherRejected, ""),
        (400, TeacherRejected, ""),
        (401, TeacherMisconfigured, "api_key_env"),
        (403, TeacherMisconfigured, "api_key_env"),
        (404, TeacherMisconfigured, "model"),
        (413, TeacherRejected, ""),
        (422, TeacherRejected, ""),
        (429, TeacherRateLimited, ""),
        (500, TeacherUnavailable, ""),
        (502, TeacherUnavailable, ""),
        (503, TeacherUnavailable, ""),
        (529, TeacherUnavailable, ""),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_status_is_told_with_the_providers_words(
    protocol: Protocol, status: int, kind: type, hint: str, streamed: bool
) -> None:
    # also for a redirect, which is not followed
    headers = {"Retry-After": "7", "Location": "http://127.0.0.1:1/"}
    reply = sends(REFUSAL, status=status, headers=headers)
    error = await failure(protocol, reply, (lambda _: None) if streamed else None)
    assert type(error) is kind
    assert f"HTTP {status}: no: *** is wrong" in str(error)
    assert hint in str(error)
    assert getattr(error, "overloaded", False) is (status in {503, 529})
    waits = kind in {TeacherRateLimited, TeacherUnavailable}
    assert error.retry_after_seconds == (7.0 if waits else None)


async def test_a_wait_until_a_date_is_read() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    reply = sends(REFUSAL, status=429, headers={"Retry-After": date})
    error = await failure(ANTHROPIC, reply)
    assert error.retry_after_seconds
    assert 3000 < error.retry_after_seconds <= 3600


@every_protocol
@pytest.mark.parametrize("answer", ['{"choices": [', "<html>", "", "[]", "{}", '{"error": "x"}'])
async def test_an_answer_that_breaks_the_protocol_is_invalid(
    protocol: Protocol, answer: str
) -> None:
    assert isinstance(await failure(protocol, sends(answer)), TeacherAnswerInvalid)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (openai_answer(), "choices is empty"),
        (openai_answer("half \ud83d"), "half a surrogate pair"),
    ],
)
async def test_an_answer_without_a_text_is_invalid(answer: dict[str, Any], reason: str) -> None:
    error = await failure(OPENAI, sends(answer))
    assert isinstance(error, TeacherAnswerInvalid)
    assert reason in str(error)


async def test_an_answer_without_end_is_given_up() -> None:
    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        while True:
            await response.write(b" " * (1 << 20))

    error = await failure(OPENAI, reply)
    assert isinstance(error, TeacherAnswerInvalid)
    assert "over 32 MB" in str(error)


@every_protocol
@pytest.mark.parametrize("reply", [resets, breaks])
async def test_a_connection_that_breaks_is_unavailable(protocol: Protocol, reply: Reply) -> None:
    assert isinstance(await failure(protocol, reply), TeacherUnavailable)


@every_protocol
async def test_a_connection_that_is_refused_is_unavailable(
    protocol: Protocol, unused_tcp_port: int
) -> None:
    provider = Provider(protocol, unused_tcp_port)
    with pytest.raises(TeacherUnavailable, match=r"127\.0\.0\.1"):
        await ask(provider)


@every_protocol
@pytest.mark.parametrize("streamed", [False, True])
async def test_cancelling_closes_the_connection(protocol: Protocol, streamed: bool) -> None:
    reply = streams(protocol.events[:3], then=asyncio.Event().wait) if streamed else hangs
    async with serve(protocol, reply) as provider:
        teacher = await opened(provider)
        call = asyncio.create_task(teacher.complete(ASK, (lambda _: None) if streamed else None))
        await provider.busy.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await provider.dropped.wait()
        await teacher.close()
    assert len(provider.bodies) == 1


async def test_a_call_can_be_cancelled_at_any_moment() -> None:
    async with serve(ANTHROPIC, sends(ANTHROPIC.answer)) as provider:
        teacher = await opened(provider)
        for turns in range(12):
            call = asyncio.create_task(teacher.complete(ASK))
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait([call])
        assert await teacher.complete(ASK) == [HELLO]
        await teacher.close()
    # what was begun and forgotten would complain
    gc.collect()


async def test_calls_share_a_connection() -> None:
    for reply, streamed in ((sends(OPENAI.answer), False), (streams(OPENAI.events), True)):
        async with serve(OPENAI, reply) as provider:
            teacher = await opened(provider)
            for _ in range(3):
                await teacher.complete(ASK, (lambda _: None) if streamed else None)
            assert len(provider.peers) == 1
            await teacher.close()


async def test_two_teachers_of_a_provider_keep_to_their_own_connections_and_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTHER_KEY", "other-key")
    async with serve(ANTHROPIC, sends(ANTHROPIC.answer)) as provider:
        first, second = await open_teachers(
            [provider.settings(), provider.settings(api_key_env="OTHER_KEY")]
        )
        await asyncio.gather(first.complete(ASK), second.complete(ASK))
        assert {h["x-api-key"] for h in provider.headers} == {KEY, "other-key"}
        await first.close()
        assert await second.complete(ASK) == [HELLO]
        await second.close()


async def test_a_compressed_answer_is_read() -> None:
    async def reply(_: web.Request) -> web.Response:
        content = gzip.compress(json.dumps(ANTHROPIC.answer).encode())
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        return web.Response(body=content, headers=headers)

    async with serve(ANTHROPIC, reply) as provider:
        assert await ask(provider) == [HELLO]


async def test_the_environments_proxy_is_used_but_not_for_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serve(ANTHROPIC, sends(ANTHROPIC.answer)) as provider:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{provider.port}")
        await ask(provider, base_url="http://provider.invalid")
        assert provider.paths == ["/v1/messages"]
        assert provider.headers[0]["Host"] == "provider.invalid"
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        assert await ask(provider) == [HELLO]


@pytest.mark.parametrize("status", [200, 401, 429, 500])
async def test_a_secret_is_not_logged(status: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for protocol in PROTOCOLS:
        async with serve(protocol, sends(REFUSAL, status=status)) as provider:
            teacher = await opened(provider)
            with pytest.raises(TeacherError) as caught:
                await teacher.complete(ASK)
            await teacher.close()
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        for text in (caplog.text, repr(teacher), str(caught.value)):
            assert KEY not in text


async def test_the_pool_takes_the_price_of_the_list_where_none_is_configured() -> None:
    async with serve(ANTHROPIC, sends(ANTHROPIC.answer)) as provider:
        listed = await open_pool([provider.settings()])
        own = await open_pool([provider.settings(price_per_million=config.Price(1.0, 2.0))])
        costs = [(await pool.ask("t", Prompt.of("Why?")))[0].cost_usd for pool in (listed, own)]
        # at 3 and 15 dollars a million for 7 and 2 tokens, and at 1 and 2
        assert costs == [0.000051, 0.000011]
        for pool in (listed, own):
            await pool.close()


async def test_a_program_that_uses_litellm_itself_is_left_alone() -> None:
    for protocol in (OPENAI, ANTHROPIC):
        async with serve(protocol, sends(protocol.answer)) as provider:
            await ask(provider)
            litellm: Any = import_module("litellm")
            answer = await litellm.acompletion(
                model=protocol.model,
                messages=[{"role": "user", "content": "Why?"}],
                base_url=f"http://127.0.0.1:{provider.port}{protocol.base}",
                api_key="its own",
            )
            assert answer.choices[0].message.content == "Hello."
            assert "its own" in str(provider.headers[1])
            # it closes what it finds in its cache; ours is not to be among that
            await litellm.close_litellm_async_clients()
            assert await ask(provider) == [HELLO]


QUIET = """
import asyncio, sys

def watch(event, arguments):
    if event == "socket.connect":
        assert arguments[1][0] == "127.0.0.1", arguments
    elif event == "socket.getaddrinfo":
        assert arguments[0] == "127.0.0.1", arguments

sys.addaudithook(watch)
from arbitrage import config
from arbitrage.types import Message
from teachers.litellm import open_teachers

async def main(model, base_url):
    settings = config.LiteLLMTeacher(name="t", kind="litellm", model=model, base_url=base_url)
    (teacher,) = await open_teachers([settings])
    for on_delta in (None, str):
        print(await teacher.complete([Message("user", "Why?")], on_delta))
    await teacher.close()

asyncio.run(main(*sys.argv[1:]))
"""


@every_protocol
async def test_nothing_is_asked_of_anybody_but_the_provider(protocol: Protocol) -> None:
    async with serve(protocol, replies(protocol)) as provider:
        base_url = f"http://127.0.0.1:{provider.port}{protocol.base}"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", QUIET, protocol.model, base_url),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert output.decode() == f"[{HELLO}]\n" * 2
