"""Streamed answers from a real server, whole, cut up and cut off."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from arbitrage import config
from arbitrage.errors import (
    TeacherAnswerInvalid,
    TeacherError,
    TeacherRateLimited,
    TeacherUnavailable,
)
from arbitrage.types import Completion
from teachers.openai import OpenAITeacher
from tests.chat_server import (
    ASK,
    LAST,
    USAGE,
    ChatServer,
    Reply,
    body,
    chunk,
    drops,
    events,
    hangs,
    sends,
    serve,
    streams,
)

HI = (chunk("Hi"), chunk("."), LAST)
A_MINUTE = 60.0


async def listen(server: ChatServer, **settings: Any) -> tuple[list[Completion], list[str]]:
    """What the teacher answers, and the pieces that were heard of it."""
    pieces: list[str] = []
    teacher = OpenAITeacher(server.settings(**settings))
    try:
        return list(await teacher.complete(ASK, pieces.append)), pieces
    finally:
        await teacher.close()


async def answer(reply: Reply, **settings: Any) -> tuple[list[Completion], list[str]]:
    async with serve(reply) as server:
        return await listen(server, **settings)


async def failure(reply: Reply) -> TeacherError:
    with pytest.raises(TeacherError) as caught:
        await answer(reply)
    assert "\n" not in str(caught.value)
    return caught.value


def unheard(_: str) -> None:
    """Makes a call a streamed one."""


async def test_an_answer_is_heard_piece_by_piece() -> None:
    async with serve(streams([events(*HI, USAGE)])) as server:
        answers, pieces = await listen(server)
    assert answers == [Completion("Hi.", "stop", 7, 2)]
    assert pieces == ["Hi", "."]
    assert server.bodies[0]["stream"] is True
    assert server.bodies[0]["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
async def test_bytes_may_be_cut_anywhere(size: int) -> None:
    text = "Eis schwimmt, 你好 🌊é"
    stream = b": ping\r\n\r\nevent: message\r\n" + events(
        chunk("", finish_reason=None),
        *map(chunk, text),
        LAST,
        USAGE,
    ).replace(b"\n", b"\r\n")
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    answers, heard = await answer(streams(pieces))
    assert answers == [Completion(text, "stop", 7, 2)]
    assert "".join(heard) == text


@pytest.mark.parametrize(
    "stream",
    [
        events(*HI, end=""),
        events(*HI)[:-2],
        events(chunk("Hi"), chunk(".")),
        events(chunk("Hi"), chunk(".", finish_reason="stop"), {"type": "ping"}),
        events({"choices": []}, {"usage": None}, *HI),
        events(chunk("Hi"), {"choices": [{"delta": {"content": "."}, "finish_reason": "stop"}]}),
        events(*HI) + b"data: what comes after the end\n\n",
    ],
)
async def test_streams_of_other_servers_are_read(stream: bytes) -> None:
    answers, pieces = await answer(streams([stream]))
    assert answers == [Completion("Hi.")]
    assert "".join(pieces) == "Hi."


@pytest.mark.parametrize(
    "chunks",
    [
        (chunk("<think>\nhm"), chunk("\n</think>"), chunk("\n\nHi"), chunk("."), LAST),
        (*map(chunk, "<think>hm</think>\n\nHi."), LAST),
        (chunk(delta={"reasoning_content": "h"}), chunk(delta={"reasoning": "m"}), *HI),
        (chunk(delta={"reasoning_content": "hm"}), chunk("\n\n"), *HI),
        (chunk(delta={"content": [{"type": "thinking", "thinking": "hm"}]}), *HI),
        (chunk(delta={"content": "\n", "reasoning": "hm"}), *HI),
    ],
)
async def test_thoughts_are_not_heard(chunks: tuple[object, ...]) -> None:
    answers, pieces = await answer(streams([events(*chunks, USAGE)]))
    assert answers == [Completion("Hi.", "stop", 7, 2, reasoning="hm")]
    assert "".join(pieces) == "Hi."


async def test_thoughts_that_leave_no_room_for_an_answer_are_billed() -> None:
    chunks = (chunk(delta={"reasoning": "hm"}), chunk(finish_reason="length"), USAGE)
    error = await failure(streams([events(*chunks)]))
    assert isinstance(error, TeacherAnswerInvalid)
    assert (error.prompt_tokens, error.completion_tokens) == (7, 2)


async def test_a_block_of_thoughts_that_is_not_closed_leaves_an_empty_answer() -> None:
    chunks = (chunk("<think>hm"), chunk(finish_reason="length"), USAGE)
    answers, pieces = await answer(streams([events(*chunks)]))
    assert answers == [Completion("", "length", 7, 2, reasoning="hm")]
    assert pieces == []


async def test_a_template_that_opens_the_thoughts_is_known_after_its_first_stream() -> None:
    chunks = (chunk("hm"), chunk("\n</think>\n\n"), *HI, USAGE)
    async with serve(streams([events(*chunks)])) as server:
        teacher = OpenAITeacher(server.settings())
        with pytest.raises(TeacherAnswerInvalid) as caught:
            await teacher.complete(ASK, unheard)
        assert caught.value.completion_tokens == 2
        pieces: list[str] = []
        answers = await teacher.complete(ASK, pieces.append)
        await teacher.close()
    assert list(answers) == [Completion("Hi.", "stop", 7, 2, reasoning="hm")]
    assert pieces == ["Hi", "."]


@pytest.mark.parametrize("then", [None, drops])
async def test_a_stream_that_is_cut_off_is_unavailable(then: Reply | None) -> None:
    error = await failure(streams([events(chunk("Hi"), end="")], then=then))
    assert isinstance(error, TeacherUnavailable)


async def test_a_stream_that_breaks_behind_its_answer_is_an_answer() -> None:
    answers, pieces = await answer(streams([events(*HI, end="")], then=drops))
    assert answers == [Completion("Hi.")]
    assert pieces == ["Hi", "."]


async def test_a_server_that_keeps_the_stream_open_is_not_waited_for() -> None:
    async with asyncio.timeout(A_MINUTE):
        answers, _ = await answer(streams([events(*HI)], then=hangs))
    assert answers == [Completion("Hi.")]


async def test_streams_share_a_connection() -> None:
    async with serve(streams([events(*HI), b""])) as server:
        teacher = OpenAITeacher(server.settings())
        for _ in range(3):
            await teacher.complete(ASK, unheard)
        await teacher.close()
    assert len(server.peers) == 1


@pytest.mark.parametrize(
    ("stream", "kind", "reason"),
    [
        (events({"error": {"message": "no memory"}}), TeacherUnavailable, "no memory"),
        (events({"error": "no memory"}), TeacherUnavailable, "no memory"),
        (
            events(chunk("H"), {"error": {"message": "slow down", "code": 429}, "choices": []}),
            TeacherRateLimited,
            "HTTP 429: slow down",
        ),
        (events(USAGE), TeacherAnswerInvalid, "choices is empty"),
        (events([]), TeacherAnswerInvalid, "no chunk"),
        (events({"choices": [7]}), TeacherAnswerInvalid, "no choice"),
        (b"data: {\n\n", TeacherAnswerInvalid, "not JSON"),
        (events(chunk("\ud83d"), LAST), TeacherAnswerInvalid, "half a surrogate pair"),
        (b"", TeacherUnavailable, "cut off"),
    ],
)
async def test_faults_within_a_stream(stream: bytes, kind: type[TeacherError], reason: str) -> None:
    error = await failure(streams([stream]))
    assert type(error) is kind
    assert reason in str(error)


async def test_a_stream_that_is_too_large_is_refused() -> None:
    piece = b"data: " + b" " * (1 << 20)
    error = await failure(streams([piece] * 40))
    assert isinstance(error, TeacherAnswerInvalid)
    assert "answer over 32 MB" in str(error)


async def test_a_refused_stream_is_refused_as_any_request() -> None:
    error = await failure(sends("wait", status=429, headers={"Retry-After": "3"}))
    assert isinstance(error, TeacherRateLimited)
    assert error.retry_after_seconds == 3


async def test_a_server_that_does_not_stream_is_heard_at_once() -> None:
    answers, pieces = await answer(sends(body("<think>hm</think>Hi.")))
    assert answers == [Completion("Hi.", "stop", 7, 2, reasoning="hm")]
    assert pieces == ["Hi."]


async def test_of_several_answers_the_first_is_heard() -> None:
    chunks = (
        chunk("Two", index=1),
        chunk("One", index=0),
        chunk("Nine", index=8),
        chunk(".", index=1, finish_reason="stop"),
        chunk(".", index=0, finish_reason="length"),
        USAGE,
    )
    answers, pieces = await answer(streams([events(*chunks)]), sampling=config.Sampling(n=2))
    assert answers == [Completion("One.", "length", 7, 1), Completion("Two.", "stop", 0, 1)]
    assert pieces == ["One", "."]


async def test_what_is_heard_is_the_first_answer_that_is_usable() -> None:
    chunks = (chunk(index=0, finish_reason="content_filter"), chunk("Two.", index=1), LAST)
    sampling = config.Sampling(n=2)
    answers, pieces = await answer(streams([events(*chunks)]), sampling=sampling)
    assert [a.text for a in answers] == pieces == ["Two."]


async def test_cancelling_a_stream_closes_its_connection() -> None:
    heard = asyncio.Event()
    async with serve(streams([events(chunk("Hi"), end="")], then=hangs)) as server:
        teacher = OpenAITeacher(server.settings())
        call = asyncio.create_task(teacher.complete(ASK, lambda _: heard.set()))
        async with asyncio.timeout(A_MINUTE):
            await heard.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await server.dropped.wait()
        await teacher.close()


async def test_closing_ends_a_stream() -> None:
    heard = asyncio.Event()
    async with serve(streams([events(chunk("Hi"), end="")], then=hangs)) as server:
        teacher = OpenAITeacher(server.settings())
        call = asyncio.create_task(teacher.complete(ASK, lambda _: heard.set()))
        async with asyncio.timeout(A_MINUTE):
            await heard.wait()
            await teacher.close()
            with pytest.raises(TeacherUnavailable):
                await call
