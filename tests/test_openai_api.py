"""The pool as one model of OpenAI's chat API: asked by OpenAI's client, LiteLLM and raw HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

import aiohttp
import openai
import pytest
import trustme
import yarl
from aiohttp import web

from arbitrage import config
from arbitrage.errors import ConfigError
from arbitrage.v1 import arbitrage_pb2 as pb
from service import tokens
from tests import chat_server
from tests.processes import free_port, published
from tests.service import Client, figure, scripted, serving, settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from openai.types.chat import ChatCompletionMessageParam

QUESTION = "Warum trinken Menschen so viel Wasser?"
ASKED: list[ChatCompletionMessageParam] = [{"role": "user", "content": QUESTION}]
ONE_ARM = config.Policy(kind="fixed", fan_out=1, experts={"default": ("t",)})
IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}
GOOD = "Weil der Körper ohne Wasser nicht lange leben kann."


@asynccontextmanager
async def opened(
    folder: Path, *teachers: config.AnyTeacher, key: str = "none", **sections: Any
) -> AsyncIterator[tuple[Client, openai.AsyncOpenAI]]:
    """A service with the port open, and OpenAI's client of it, which tries once."""
    places = config.Service(
        "127.0.0.1:0", "127.0.0.1:0", jobs=folder / "jobs", openai="127.0.0.1:0"
    )
    service = replace(places, **sections.pop("service", {}))
    async with serving(settings(folder, *teachers, service=service, **sections)) as client:
        url = client.running.openai_url
        async with openai.AsyncOpenAI(api_key=key, base_url=url, max_retries=0) as asked:
            yield client, asked


async def post(client: Client, **sent: Any) -> tuple[int, dict[str, Any]]:
    """Status and body of a request as it stands."""
    url = f"{client.running.openai_url}/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, **sent) as response:
        return response.status, await response.json()


async def refused(asked: openai.AsyncOpenAI, **parameters: Any) -> openai.APIStatusError:
    """The error that a request ends in."""
    request: dict[str, Any] = {"model": "arbitrage", "messages": ASKED} | parameters
    with pytest.raises(openai.APIStatusError) as caught:
        await asked.chat.completions.create(**request)
    return caught.value


async def test_the_winner_is_the_answer(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, asked):
        answer = await asked.chat.completions.create(model="arbitrage", messages=ASKED)
    (choice,) = answer.choices
    assert choice.message.content is not None
    assert choice.message.content.startswith("Dafür gibt es")
    assert (choice.message.role, choice.finish_reason) == ("assistant", "stop")
    assert (answer.object, answer.model) == ("chat.completion", "arbitrage")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    told = (answer.model_extra or {})["arbitrage"]
    assert (told["teacher"], told["language"]) == ("ada", "de")
    assert set(told["asked"]) == {"ada", "bob"}
    assert published(tmp_path / "out") == [told["sample_id"]]
    assert answer.id == f"chatcmpl-{told['sample_id']}"


async def test_there_is_one_model(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, asked):
        assert [model.id async for model in asked.models.list()] == ["arbitrage"]
        assert (await asked.models.retrieve("arbitrage")).owned_by == "data-arbitrage"
        with pytest.raises(openai.NotFoundError, match="there is no 'gpt-5'"):
            await asked.models.retrieve("gpt-5")
        other = await refused(asked, model="gpt-5")
        assert (other.status_code, other.code) == (404, "model_not_found")


@pytest.mark.parametrize(
    "given",
    [
        {"metadata": {"language": "fr", "domain": "chat", "team": "blue"}},
        {"metadata": {"domain": "chat", "team": "blue"}},
    ],
)
async def test_the_language_is_told_beside_the_messages(
    tmp_path: Path, given: dict[str, Any]
) -> None:
    headers = {} if "language" in given["metadata"] else {"x-arbitrage-language": "fr-CA"}
    async with opened(tmp_path) as (client, asked):
        messages: list[ChatCompletionMessageParam] = [
            {"role": "developer", "content": "Sois bref."},
            {"role": "user", "content": [{"type": "text", "text": word} for word in ("Et ", "?")]},
        ]
        answer = await asked.chat.completions.create(
            model="arbitrage", messages=messages, extra_headers=headers, **given
        )
        policy = await client.arbitrage.GetPolicy(pb.GetPolicyRequest())
    assert (answer.model_extra or {})["arbitrage"]["language"] == "fr"
    assert [entry.language for entry in policy.languages] == ["fr"]


async def test_wishes_are_passed_over_and_named(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, asked):
        answer = await asked.chat.completions.with_raw_response.create(
            model="arbitrage",
            messages=ASKED,
            temperature=0.2,
            max_tokens=5,
            n=1,
            stop=None,
            tools=[],
            response_format={"type": "text"},
        )
    assert answer.headers["x-arbitrage-ignored"] == "max_tokens, temperature"
    assert answer.parse().choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"n": 2}, "n"),
        ({"stop": ["\n"]}, "stop"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"extra_body": {"guided_json": {}}}, "guided_json"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content[0]"),
        ({"metadata": {"language": "klingon"}}, "metadata.language"),
        ({"metadata": {"k": 1}}, "metadata"),
        ({"stream": "yes"}, "stream"),
    ],
)  # fmt: skip
async def test_what_would_change_the_answer_is_refused_by_name(
    tmp_path: Path, parameters: dict[str, Any], name: str
) -> None:
    async with opened(tmp_path) as (client, asked):
        error = await refused(asked, **parameters)
        labels = {"method": "ChatCompletions", "code": "INVALID_ARGUMENT"}
        code = figure(await client.metrics(), "requests_total", **labels)
    assert (error.status_code, error.type, error.param) == (400, "invalid_request_error", name)
    assert code == 1.0


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"data": b"{", "headers": {"Content-Type": "application/json"}}, 400),
        ({"data": b"[" * 100_000, "headers": {"Content-Type": "application/json"}}, 400),
        ({"json": [1]}, 400),
        ({"json": {}}, 400),
        # what a page of another site may send unasked
        ({"data": b"{}", "headers": {"Content-Type": "text/plain"}}, 415),
        ({"data": BytesIO(b" " * (2 << 20)), "headers": {"Content-Type": "application/json"}}, 413),
    ],
)
async def test_what_is_no_request_is_refused_in_openais_shape(
    tmp_path: Path, sent: dict[str, Any], status: int
) -> None:
    async with opened(tmp_path, service={"max_message_mb": 1}) as (client, _):
        got, body = await post(client, **sent)
        assert got == status
        assert set(body["error"]) == {"message", "type", "param", "code"}


async def test_the_text_of_the_only_teacher_comes_as_it_is_written(tmp_path: Path) -> None:
    first_is_read = asyncio.Event()

    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        words = GOOD.split(" ", 1)
        await response.write(chat_server.events(chat_server.chunk(words[0]), end=""))
        await first_is_read.wait()  # so the first word was not kept back
        rest = (chat_server.chunk(f" {words[1]}"), chat_server.LAST, chat_server.USAGE)
        await response.write(chat_server.events(*rest))
        return response

    async with (
        chat_server.serve(reply) as chat,
        opened(tmp_path, chat.settings(), policy=ONE_ARM) as (_, asked),
    ):
        stream = await asked.chat.completions.create(
            model="arbitrage", messages=ASKED, stream=True, stream_options={"include_usage": True}
        )
        chunks = []
        async for chunk in stream:
            first_is_read.set()
            chunks.append(chunk)
    said = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert len(said) > 1
    assert "".join(said) == GOOD
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (7, 2)
    assert len({c.id for c in chunks}) == 1


async def test_of_several_teachers_the_winners_answer_comes_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, asked):
        stream = await asked.chat.completions.create(model="arbitrage", messages=ASKED, stream=True)
        said = [chunk.choices[0].delta.content async for chunk in stream]
    first, last = said
    assert first is not None
    assert first.startswith("Dafür gibt es")
    assert last is None


async def test_a_draft_that_did_not_win_is_no_answer(tmp_path: Path) -> None:
    refusal = "I am sorry, but as an AI language model I cannot help you with that request."
    pieces = [chat_server.events(chat_server.chunk(refusal), chat_server.LAST)]
    async with (
        chat_server.serve(chat_server.streams(pieces)) as chat,
        opened(tmp_path, chat.settings(), scripted("ada"), policy=ONE_ARM) as (_, asked),
    ):
        stream = await asked.chat.completions.create(model="arbitrage", messages=ASKED, stream=True)
        with pytest.raises(openai.APIError, match="is not the answer that won, which is ada's"):
            async for _ in stream:
                pass
        whole = await asked.chat.completions.create(model="arbitrage", messages=ASKED)
    assert (whole.model_extra or {})["arbitrage"]["teacher"] == "ada"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_has_its_status_also_where_it_was_to_be_streamed(
    tmp_path: Path, stream: bool
) -> None:
    failing = scripted("ada", failure_rate=1.0, max_attempts=1)
    async with opened(tmp_path, failing) as (_, asked):
        error = await refused(asked, stream=stream)
    assert (error.status_code, error.code) == (503, "unavailable")
    assert int(error.response.headers["retry-after"]) >= 1


async def test_an_answer_that_nobody_won_is_not_asked_for_again(tmp_path: Path) -> None:
    stopped = chat_server.sends(chat_server.body("   "))
    async with (
        chat_server.serve(stopped) as chat,
        opened(tmp_path, chat.settings()) as (client, _),
        openai.AsyncOpenAI(api_key="none", base_url=client.running.openai_url) as eager,
    ):
        error = await refused(eager)
        asked = len(chat.bodies)
    assert (error.status_code, error.code) == (422, "no_winner")
    assert asked == 1


async def test_what_is_over_the_limit_is_refused_with_a_time(tmp_path: Path) -> None:
    async with (
        chat_server.serve(chat_server.hangs) as chat,
        opened(tmp_path, chat.settings(), job=config.Job(max_in_flight=1)) as (client, asked),
    ):
        first = asyncio.create_task(
            asked.chat.completions.create(model="arbitrage", messages=ASKED)
        )
        await chat.busy.wait()
        error = await refused(asked)
        assert (error.status_code, error.code) == (429, "rate_limit_exceeded")
        assert error.response.headers["retry-after"] == "1"
        # who leaves is not worked for
        first.cancel()
        await chat.dropped.wait()
        await client.until("in_flight_prompts", 0.0)


async def test_a_token_is_wanted_as_of_every_other_call(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    keys = {scope: tokens.new(file, scope, [scope]) for scope in ("complete", "jobs")}
    async with opened(tmp_path, service={"auth_tokens": file}) as (client, asked):
        error = await refused(asked)
        assert (error.status_code, error.code) == (401, "invalid_api_key")
        with pytest.raises(openai.AuthenticationError):
            await asked.models.list()
        error = await refused(asked.with_options(api_key=keys["jobs"]))
        assert error.status_code == 403
        known = asked.with_options(api_key=keys["complete"])
        assert (await known.chat.completions.create(model="arbitrage", messages=ASKED)).choices
        status, _ = await post(client, json={"model": "arbitrage"})
        assert status == 401


async def test_a_prompt_is_routed_as_its_request_wants(tmp_path: Path) -> None:
    async with opened(tmp_path) as (client, asked):
        for options, expected in (
            ({"teachers": ["bob"]}, ["bob"]),
            ({"fan_out": 1, "teachers": ["ada", "bob"], "learn": False}, None),
            ({"policy": "best_of", "max_cost_usd": 0, "latency_budget_seconds": 30}, None),
            ({"priority": "batch", "learn": None}, ["ada", "bob"]),
        ):
            answer = await asked.chat.completions.create(
                model="arbitrage", messages=ASKED, extra_body={"arbitrage": options}
            )
            told = answer.model_extra["arbitrage"] if answer.model_extra else {}
            if expected:
                assert sorted(told["asked"]) == expected
            elif "fan_out" in options:
                assert len(told["asked"]) == 1
        stream = await asked.chat.completions.create(
            model="arbitrage",
            messages=ASKED,
            stream=True,
            extra_body={"arbitrage": {"teachers": ["bob"]}},
        )
        told = [(chunk.model_extra or {}).get("arbitrage") async for chunk in stream]
        assert [one["teacher"] for one in told if one] == ["bob"]
        assert figure(await client.metrics(), "in_flight_prompts") == 0.0


@pytest.mark.parametrize(
    ("options", "param", "said"),
    [
        ("fast", "arbitrage", "must be an object"),
        ({"policy": "random"}, "arbitrage.policy", "decides by 'best_of'"),
        ({"policy": 1}, "arbitrage.policy", "must be a text"),
        ({"fan_out": -1}, "arbitrage.fan_out", "must be a whole number"),
        ({"fan_out": True}, "arbitrage.fan_out", "must be a whole number"),
        ({"fan_out": 1.5}, "arbitrage.fan_out", "must be a whole number"),
        ({"teachers": "ada"}, "arbitrage.teachers", "must be a list"),
        ({"teachers": ["ada", "eve"]}, "arbitrage.teachers[1]", "no 'eve' in the pool"),
        ({"max_cost_usd": -1}, "arbitrage.max_cost_usd", "must be a number from 0 on"),
        ({"max_cost_usd": 10**400}, "arbitrage.max_cost_usd", "must be a number from 0 on"),
        ({"latency_budget_seconds": 0}, "arbitrage.latency_budget_seconds", "above 0"),
        ({"latency_budget_seconds": "1"}, "arbitrage.latency_budget_seconds", "above 0"),
        ({"learn": 1}, "arbitrage.learn", "must be true or false"),
        ({"priority": "urgent"}, "arbitrage.priority", "'interactive' or 'batch'"),
        ({"latency_budget": 1}, "arbitrage.latency_budget", "is not known; use policy, fan_out"),
    ],
)
async def test_a_wrong_option_is_named(
    tmp_path: Path, options: object, param: str, said: str
) -> None:
    async with opened(tmp_path) as (_, asked):
        error = await refused(asked, extra_body={"arbitrage": options})
    assert error.status_code == 400
    assert error.param == param
    assert said in error.message


@pytest.mark.parametrize("stream", [False, True])
async def test_who_stops_waiting_is_worked_for_no_longer(tmp_path: Path, stream: bool) -> None:
    slow = scripted("t", latency_seconds=1e6)
    async with opened(tmp_path, slow) as (client, asked):
        hasty = asked.with_options(timeout=0.5)
        with pytest.raises(openai.APITimeoutError):
            await hasty.chat.completions.create(model="arbitrage", messages=ASKED, stream=stream)
        await client.until("in_flight_prompts", 0)
        await client.until("requests_total", 1, method="ChatCompletions", code="CANCELLED")
        # a budget of its own ends the asking, and says so
        error = await refused(asked, extra_body={"arbitrage": {"latency_budget_seconds": 0.2}})
        assert error.status_code in {422, 503, 504}


async def test_the_port_shows_the_certificate_as_it_is_now(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate, key, roots = (tmp_path / name for name in ("its.pem", "key.pem", "roots.pem"))
    authority.cert_pem.write_to_path(str(roots))

    def issue(name: str) -> str:
        made = authority.issue_cert("127.0.0.1", common_name=name)
        made.private_key_pem.write_to_path(str(key))
        made.cert_chain_pems[0].write_to_path(str(certificate))
        return name

    async def seen(client: Client, **shown: Path) -> str:
        """The name in the certificate that a connection meets."""
        context = ssl.create_default_context(cafile=roots)
        if shown:
            context.load_cert_chain(shown["certificate"], shown["key"])
        port = yarl.URL(client.running.openai_url).port
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        try:
            writer.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b'"arbitrage"' in await reader.read()
            peer = writer.get_extra_info("peercert")
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        return str(dict(part[0] for part in peer["subject"])["commonName"])

    first = issue("first")
    tls = {"tls_certificate": certificate, "tls_key": key}
    async with opened(tmp_path, service=tls) as (client, _):
        assert client.running.openai_url.startswith("https://")
        assert await seen(client) == first
        second = issue("second")
        assert await seen(client) == second
        certificate.write_text("broken")
        assert await seen(client) == second
    issue("third")
    clients = tmp_path / "clients.pem"
    authority.cert_pem.write_to_path(str(clients))
    async with opened(tmp_path, service=tls | {"tls_clients": clients}) as (client, _):
        with pytest.raises((AssertionError, OSError)):
            await seen(client)
        assert await seen(client, certificate=certificate, key=key) == "third"
        other = trustme.CA()
        mine, its = tmp_path / "other.pem", tmp_path / "other_key.pem"
        made = other.issue_cert("client")
        made.private_key_pem.write_to_path(str(its))
        made.cert_chain_pems[0].write_to_path(str(mine))
        with pytest.raises((AssertionError, OSError)):
            await seen(client, certificate=mine, key=its)
        other.cert_pem.write_to_path(str(clients))
        for _ in range(2):
            with pytest.raises((AssertionError, OSError)):
                await seen(client, certificate=certificate, key=key)
            assert await seen(client, certificate=mine, key=its) == "third"


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/nothing", "/"])
async def test_what_is_not_offered_is_told_in_openais_shape(tmp_path: Path, path: str) -> None:
    async with opened(tmp_path) as (client, _), aiohttp.ClientSession() as session:
        url = client.running.openai_url.removesuffix("/v1")
        async with session.post(url + path, json={}) as response:
            assert response.status == 404
            assert "error" in await response.json()


async def test_stopping_answers_what_is_in_flight(tmp_path: Path) -> None:
    going_on = asyncio.Event()

    async def reply(request: web.Request) -> web.StreamResponse:
        await going_on.wait()
        return await chat_server.sends(chat_server.body(GOOD))(request)

    async with chat_server.serve(reply) as chat:
        async with opened(tmp_path, chat.settings()) as (client, _):
            url = client.running.openai_url
            asked = openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=0)
            answer = asyncio.create_task(
                asked.chat.completions.create(model="arbitrage", messages=ASKED)
            )
            await chat.busy.wait()
            asyncio.get_running_loop().call_later(0.2, going_on.set)
        assert (await answer).choices[0].message.content == GOOD
        await asked.close()


async def test_a_port_that_is_taken_or_open_to_strangers_is_a_mistake(tmp_path: Path) -> None:
    for place, reason in (
        ("0.0.0.0:0", "service.openai: 0.0.0.0:0 may be reached from elsewhere"),
        ("here", "service.openai: 'here' is not host:port"),
        ("192.0.2.1:0", "plaintext|cannot listen"),
    ):
        with pytest.raises(ConfigError, match=reason):
            async with opened(tmp_path, service={"openai": place}):
                pass
    port = free_port()
    async with opened(tmp_path, service={"openai": f"127.0.0.1:{port}"}) as (client, _):
        assert client.running.openai_url == f"http://127.0.0.1:{port}/v1"


async def test_without_the_key_the_port_is_closed(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as client:
        assert client.running.openai_url == ""


LITELLM = """
import asyncio, json, litellm, sys

ASKED = [{"role": "user", "content": sys.argv[2]}]

async def ask(**options):
    return await litellm.acompletion(
        model="openai/arbitrage", api_base=sys.argv[1], api_key="none", messages=ASKED,
        extra_headers={"x-arbitrage-language": "de"}, num_retries=0, **options,
    )

async def main():
    whole = (await ask(temperature=0.7)).choices[0].message.content
    pieces = [c.choices[0].delta.content or "" async for c in await ask(stream=True)]
    try:
        await ask(n=2)
    except litellm.BadRequestError as error:
        refusal = str(error)
    print(json.dumps([whole, "".join(pieces), refusal]))

asyncio.run(main())
"""


async def test_litellm_takes_the_pool_for_a_model_of_an_openai_compatible_host(
    tmp_path: Path,
) -> None:
    # a process of its own, since LiteLLM leaves connections open
    async with opened(tmp_path) as (client, _):
        asked = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", LITELLM, client.running.openai_url, QUESTION),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        )
        told, _ = await asked.communicate()
    whole, pieces, refusal = json.loads(told.splitlines()[-1])  # it says more before
    assert whole.startswith("Dafür gibt es")
    assert pieces.startswith("Dafür gibt es")
    assert "is not offered" in refusal
