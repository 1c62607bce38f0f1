"""What is read out of whole answers of a real server, and which of them are invalid."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from aiohttp import web

from arbitrage.errors import TeacherAnswerInvalid
from arbitrage.types import Completion
from tests.chat_server import ask, body, body_of, failure, sends, serve

MEGABYTE = 1 << 20


@pytest.mark.parametrize(
    ("payload", "completion"),
    [
        (body("Hi."), Completion("Hi.", "stop", 7, 2)),
        (body(""), Completion("", "stop", 7, 2)),
        (body("\n\n  Hi.\n"), Completion("  Hi.\n", "stop", 7, 2)),
        (body("Hi.", finish_reason="max_tokens"), Completion("Hi.", "length", 7, 2)),
        (body("Hi.", finish_reason="eos"), Completion("Hi.", "stop", 7, 2)),
        (body("Hi.", finish_reason="content_filter"), Completion("Hi.", "content_filter", 7, 2)),
        (body("Hi.", finish_reason="weary"), Completion("Hi.", "weary", 7, 2)),
        (body("Hi.", finish_reason="\ud83d"), Completion("Hi.", "stop", 7, 2)),
        (body("Hi.", finish_reason=None), Completion("Hi.", "stop", 7, 2)),
        (body("Hi.", logprobs=float("nan")), Completion("Hi.", "stop", 7, 2)),
        ({"choices": body("Hi.")["choices"]}, Completion("Hi.")),
        (body("Hi.") | {"usage": None}, Completion("Hi.")),
        (
            body("Hi.") | {"usage": {"prompt_tokens": -1, "completion_tokens": True}},
            Completion("Hi."),
        ),
        (
            body(["Hi", {"type": "text", "text": "."}, {"type": "image", "text": "no"}]),
            Completion("Hi.", "stop", 7, 2),
        ),
        (
            {"choices": body("One.")["choices"] + body("Two.")["choices"]},
            Completion("One."),
        ),
    ],
)
async def test_answers_are_read(payload: dict[str, Any], completion: Completion) -> None:
    async with serve(sends(payload)) as server:
        assert list(await ask(server)) == [completion]


@pytest.mark.parametrize(
    "payload",
    [
        body_of(content="\n\nHi.", reasoning_content="\nhm\n"),
        body_of(content="Hi.", reasoning="hm"),
        body_of(content="Hi.", reasoning="hm", reasoning_content="hm"),
        body([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Hi."}]),
        body(
            [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "Hi."},
            ]
        ),
        body([{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "Hi."}]),
        body("<think>\nhm\n</think>\n\nHi."),
        body("hm\n</think>\n\nHi."),
    ],
)
async def test_thoughts_are_kept_apart_from_the_answer(payload: dict[str, Any]) -> None:
    async with serve(sends(payload)) as server:
        (answer,) = await ask(server)
    assert answer == Completion("Hi.", "stop", 7, 2, reasoning="hm")


async def test_thoughts_in_a_field_and_in_the_text_are_both_kept() -> None:
    async with serve(sends(body_of(content="<think>b</think>Hi.", reasoning="a"))) as server:
        (answer,) = await ask(server)
    assert (answer.reasoning, answer.text) == ("a\n\nb", "Hi.")


async def test_thoughts_that_leave_no_room_for_an_answer_are_billed() -> None:
    payload = body_of(content=None, reasoning_content="hm")
    payload["choices"][0]["finish_reason"] = "length"
    error = await failure(sends(payload))
    assert isinstance(error, TeacherAnswerInvalid)
    assert "raise max_tokens" in str(error)
    assert (error.prompt_tokens, error.completion_tokens) == (7, 2)


@pytest.mark.parametrize("content", ["", "<think>hm"])
async def test_an_answer_that_is_empty_behind_its_thoughts_is_an_answer(content: str) -> None:
    thoughts = None if content else "hm"
    payload = body_of(content=content, reasoning=thoughts)
    payload["choices"][0]["finish_reason"] = "length"
    async with serve(sends(payload)) as server:
        assert list(await ask(server)) == [Completion("", "length", 7, 2, reasoning="hm")]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ('{"choices": [', "not JSON"),
        ("<html>", "not JSON but text/plain; check base_url"),
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ([], "choices are missing"),
        ({}, "choices are missing"),
        ({"choices": [{}]}, "no text"),
        ({"choices": [7]}, "no text"),
        ({"choices": [{"message": {"role": "assistant"}}]}, "no text"),
        (body(None, finish_reason="tool_calls"), "no text (finish_reason 'tool_calls')"),
        (body(7), "no text"),
        ({"error": {"message": "model is\nloading"}}, "instead of choices: model is loading"),
        (body("\ud83d"), "half a surrogate pair"),
        (body_of(content="Hi.", reasoning="\ud83d"), "half a surrogate pair"),
    ],
)
async def test_an_answer_that_breaks_the_protocol_is_invalid(payload: object, reason: str) -> None:
    error = await failure(sends(payload))
    assert isinstance(error, TeacherAnswerInvalid)
    assert reason in str(error)


async def test_what_an_empty_answer_cost_is_told() -> None:
    error = await failure(sends(body() | {"choices": []}))
    assert isinstance(error, TeacherAnswerInvalid)
    assert "choices is empty" in str(error)
    assert (error.prompt_tokens, error.completion_tokens) == (7, 2)


async def test_an_answer_that_is_too_large_is_refused_while_it_is_read() -> None:
    sent = 0

    async def reply(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * MEGABYTE)
            sent += MEGABYTE

    error = await failure(reply)
    assert isinstance(error, TeacherAnswerInvalid)
    assert "answer over 32 MB" in str(error)
    assert 32 * MEGABYTE <= sent < 64 * MEGABYTE


async def test_what_a_large_answer_is_packed_in_does_not_count() -> None:
    packed = gzip.compress(b" " * 33 * MEGABYTE)

    async def reply(_: web.Request) -> web.StreamResponse:
        return web.Response(body=packed, headers={"Content-Encoding": "gzip"})

    assert "answer over 32 MB" in str(await failure(reply))


async def test_a_large_answer_is_read() -> None:
    text = "Eis schwimmt, é 你好. " * 50_000
    async with serve(sends(body(text))) as server:
        (answer,) = await ask(server)
    assert answer.text == text


async def test_a_large_answer_that_is_no_json_is_invalid() -> None:
    error = await failure(sends("<p>" * MEGABYTE))
    assert isinstance(error, TeacherAnswerInvalid)
