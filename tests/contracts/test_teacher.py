"""What every teacher owes the pool, whatever it is made of."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from arbitrage import config
from arbitrage.errors import TeacherError
from arbitrage.types import Message
from teachers.openai import OpenAITeacher
from teachers.scripted import ScriptedTeacher
from tests import chat_server, provider_server

if TYPE_CHECKING:
    from aiohttp import web

    from arbitrage.ports import Teacher

ASK = (Message("user", "Why does ice float?"),)
A_MINUTE = 60.0


@dataclass
class Subject:
    """A teacher under test, in four moods.

    Attributes:
        teacher: answers.
        slow: is at work for longer than any test lasts.
        broken: fails every call; None where a teacher can only fail by being closed.
        started, stopped: wait until the work of `slow` has begun, and has ended.
        several: draws two answers a call; None where that is tested elsewhere.
    """

    teacher: Teacher
    slow: Teacher
    broken: Teacher | None
    started: Callable[[], Awaitable[object]]
    stopped: Callable[[], Awaitable[object]]
    several: Teacher | None = None


TWO = config.Sampling(n=2)


async def _at_once() -> None:
    await asyncio.sleep(0)


@asynccontextmanager
async def scripted() -> AsyncIterator[Subject]:
    def teacher(**settings: Any) -> ScriptedTeacher:
        return ScriptedTeacher(config.ScriptedTeacher(name="t", kind="scripted", **settings))

    yield Subject(
        teacher(),
        teacher(latency_seconds=1e6),
        teacher(failure_rate=1.0),
        _at_once,
        _at_once,
        teacher(sampling=TWO),
    )


@asynccontextmanager
async def openai() -> AsyncIterator[Subject]:
    whole = chat_server.sends()
    pieces = [*map(chat_server.chunk, ("He", "ll", "o.")), chat_server.LAST, chat_server.USAGE]
    streamed = chat_server.streams([chat_server.events(*pieces)])
    choices = [chat_server.body(text)["choices"][0] for text in ("Hi.", "Hello.")]

    async def replies(request: web.Request) -> web.StreamResponse:
        return await (streamed if (await request.json()).get("stream") else whole)(request)

    async with (
        chat_server.serve(replies) as well,
        chat_server.serve(chat_server.hangs) as hung,
        chat_server.serve(chat_server.sends("down", status=503)) as down,
        chat_server.serve(chat_server.sends(chat_server.body() | {"choices": choices})) as two,
    ):
        yield Subject(
            OpenAITeacher(well.settings()),
            OpenAITeacher(hung.settings()),
            OpenAITeacher(down.settings()),
            hung.busy.wait,
            hung.dropped.wait,
            OpenAITeacher(two.settings(sampling=TWO)),
        )


@asynccontextmanager
async def litellm() -> AsyncIterator[Subject]:
    from teachers.litellm import open_teachers  # noqa: PLC0415 - not where vLLM's tests run

    protocol, sends = provider_server.OPENAI, provider_server.sends
    async with (
        provider_server.serve(protocol, provider_server.replies(protocol)) as well,
        provider_server.serve(protocol, provider_server.hangs) as hung,
        provider_server.serve(protocol, sends({"error": "down"}, status=503)) as down,
        provider_server.serve(protocol, sends(provider_server.openai_answer("Hi.", "Ho."))) as two,
    ):
        configs = [server.settings(api_key_env=None) for server in (well, hung, down)]
        configs.append(two.settings(api_key_env=None, sampling=TWO))
        teacher, slow, broken, several = await open_teachers(configs)
        with warnings.catch_warnings():
            # LiteLLM's own models, which it makes when it first needs them
            warnings.filterwarnings("ignore", module=r"litellm|pydantic")
            yield Subject(teacher, slow, broken, hung.busy.wait, hung.dropped.wait, several)


@asynccontextmanager
async def llama_cpp() -> AsyncIterator[Subject]:
    from teachers.llama_cpp import open_teachers  # noqa: PLC0415 - as above

    def settings(context: int, tokens: int, slots: int, n: int = 1) -> config.LlamaCppTeacher:
        return config.LlamaCppTeacher(
            name="t",
            kind="llama_cpp",
            model="smollm2-135m-instruct",
            sampling=config.Sampling(max_tokens=tokens, n=n),
            context_length=context,
            max_concurrency=slots,
        )

    # two contexts, and so two engines: closing one leaves the other
    teacher, slow, several = await open_teachers(
        [settings(512, 8, 4), settings(8192, 8000, 1), settings(512, 8, 4, n=2)]
    )
    slow._fields["ignore_eos"] = True
    engine = slow._engine

    async def started() -> None:
        while not engine._free_slots.locked():  # noqa: ASYNC110 - a semaphore has no such event
            await asyncio.sleep(0)

    async def stopped() -> None:
        # its only thread has time for this when the answer has been given up
        await asyncio.get_running_loop().run_in_executor(engine._threads, int)

    yield Subject(teacher, slow, None, started, stopped, several)


Implementation = Callable[[], AbstractAsyncContextManager[Subject]]
IMPLEMENTATIONS: list[Implementation] = [scripted, openai, litellm, llama_cpp]


@pytest.fixture(params=IMPLEMENTATIONS, ids=lambda implementation: implementation.__name__)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    implementation: Implementation = request.param
    async with asyncio.timeout(A_MINUTE), implementation() as subject:
        yield subject
        for teacher in (subject.teacher, subject.slow, subject.broken, subject.several):
            if teacher:
                await teacher.close()


async def test_it_answers_a_prompt(subject: Subject) -> None:
    (completion,) = await subject.teacher.complete(ASK)
    assert completion.text.strip()
    assert completion.finish_reason in {"stop", "length"}
    assert not completion.cached
    assert completion.prompt_tokens
    assert completion.completion_tokens


async def test_its_answer_is_heard_piece_by_piece(subject: Subject) -> None:
    pieces: list[str] = []
    (completion,) = await subject.teacher.complete(ASK, pieces.append)
    assert "".join(pieces) == completion.text
    assert len(pieces) > 1
    assert all(pieces)
    assert completion.prompt_tokens
    assert completion.completion_tokens


async def test_it_draws_as_many_answers_as_it_is_told(subject: Subject) -> None:
    if subject.several is None:
        pytest.skip("its own tests do this")
    first, second = await subject.several.complete(ASK)
    assert first.text.strip()
    assert second.text.strip()
    # the prompt is billed once
    assert first.prompt_tokens
    assert second.prompt_tokens == 0


async def test_it_answers_in_a_conversation(subject: Subject) -> None:
    turns = (
        Message("system", "Be brief."),
        *ASK,
        Message("assistant", "It is light."),
        Message("user", "And why is it light?"),
    )
    (completion,) = await subject.teacher.complete(turns)
    assert completion.text.strip()


async def test_it_answers_calls_side_by_side(subject: Subject) -> None:
    answers = await asyncio.gather(*(subject.teacher.complete(ASK) for _ in range(20)))
    assert all(completion.text.strip() for (completion,) in answers)


async def test_cancelling_a_call_stops_the_work_behind_it(subject: Subject) -> None:
    call = asyncio.create_task(subject.slow.complete(ASK))
    await subject.started()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await subject.stopped()


async def test_the_loop_turns_while_it_works(subject: Subject) -> None:
    call = asyncio.create_task(subject.slow.complete(ASK))
    await subject.started()
    for _ in range(100):
        await asyncio.sleep(0.001)
    assert not call.done()
    call.cancel()
    await asyncio.wait([call])


async def test_a_failed_call_raises_a_teacher_error_on_one_line(subject: Subject) -> None:
    if subject.broken is None:
        pytest.skip("it only fails by being closed")
    with pytest.raises(TeacherError) as caught:
        await subject.broken.complete(ASK)
    assert str(caught.value).count("\n") == 0
    assert str(caught.value)


async def test_closing_ends_calls_under_way(subject: Subject) -> None:
    call = asyncio.create_task(subject.slow.complete(ASK))
    await subject.started()
    await subject.slow.close()
    await asyncio.wait([call])
    assert call.cancelled() or isinstance(call.exception(), TeacherError)


async def test_a_closed_teacher_fails_its_calls_and_may_be_closed_again(subject: Subject) -> None:
    await subject.teacher.complete(ASK)
    await subject.teacher.close()
    await subject.teacher.close()
    with pytest.raises(TeacherError):
        await subject.teacher.complete(ASK)
