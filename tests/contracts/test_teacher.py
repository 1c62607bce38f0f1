"""What every teacher owes the pool, whatever it is made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from arbitrage import config
from arbitrage.errors import TeacherError
from arbitrage.types import Message
from teachers.llama_cpp import open_teachers as open_llama_cpp
from teachers.openai import OpenAITeacher
from teachers.scripted import ScriptedTeacher
from tests import chat_server

if TYPE_CHECKING:
    from arbitrage.ports import Teacher

ASK = (Message("user", "Why does ice float?"),)
A_MINUTE = 60.0


@dataclass
class Subject:
    """A teacher under test, in three moods.

    Attributes:
        teacher: answers.
        slow: is at work for longer than any test lasts.
        broken: fails every call; None where a teacher can only fail by being closed.
        started, stopped: wait until the work of `slow` has begun, and has ended.
    """

    teacher: Teacher
    slow: Teacher
    broken: Teacher | None
    started: Callable[[], Awaitable[object]]
    stopped: Callable[[], Awaitable[object]]


async def _at_once() -> None:
    await asyncio.sleep(0)


@asynccontextmanager
async def scripted() -> AsyncIterator[Subject]:
    def teacher(latency_seconds: float, failure_rate: float) -> ScriptedTeacher:
        return ScriptedTeacher(
            config.ScriptedTeacher(
                name="t",
                kind="scripted",
                latency_seconds=latency_seconds,
                failure_rate=failure_rate,
            )
        )

    yield Subject(teacher(0, 0), teacher(1e6, 0), teacher(0, 1), _at_once, _at_once)


@asynccontextmanager
async def openai() -> AsyncIterator[Subject]:
    async with (
        chat_server.serve(chat_server.sends()) as well,
        chat_server.serve(chat_server.hangs) as hung,
        chat_server.serve(chat_server.sends("down", status=503)) as down,
    ):
        yield Subject(
            OpenAITeacher(well.settings()),
            OpenAITeacher(hung.settings()),
            OpenAITeacher(down.settings()),
            hung.busy.wait,
            hung.dropped.wait,
        )


@asynccontextmanager
async def llama_cpp() -> AsyncIterator[Subject]:
    def settings(context: int, tokens: int, slots: int) -> config.LlamaCppTeacher:
        return config.LlamaCppTeacher(
            name="t",
            kind="llama_cpp",
            model="smollm2-135m-instruct",
            sampling=config.Sampling(max_tokens=tokens),
            context_length=context,
            max_concurrency=slots,
        )

    # two contexts, and so two engines: closing one leaves the other
    teacher, slow = await open_llama_cpp([settings(512, 8, 4), settings(8192, 8000, 1)])
    slow._fields["ignore_eos"] = True
    engine = slow._engine

    async def started() -> None:
        while not engine._free_slots.locked():  # noqa: ASYNC110 - a semaphore has no such event
            await asyncio.sleep(0)

    async def stopped() -> None:
        # its only thread has time for this when the answer has been given up
        await asyncio.get_running_loop().run_in_executor(engine._threads, int)

    yield Subject(teacher, slow, None, started, stopped)


Implementation = Callable[[], AbstractAsyncContextManager[Subject]]
IMPLEMENTATIONS: list[Implementation] = [scripted, openai, llama_cpp]


@pytest.fixture(params=IMPLEMENTATIONS, ids=lambda implementation: implementation.__name__)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    implementation: Implementation = request.param
    async with asyncio.timeout(A_MINUTE), implementation() as subject:
        yield subject
        for teacher in (subject.teacher, subject.slow, subject.broken):
            if teacher:
                await teacher.close()


async def test_it_answers_a_prompt(subject: Subject) -> None:
    completion = await subject.teacher.complete(ASK)
    assert completion.text.strip()
    assert completion.finish_reason in {"stop", "length"}
    assert not completion.cached


async def test_it_answers_in_a_conversation(subject: Subject) -> None:
    turns = (
        Message("system", "Be brief."),
        *ASK,
        Message("assistant", "It is light."),
        Message("user", "And why is it light?"),
    )
    assert (await subject.teacher.complete(turns)).text.strip()


async def test_it_answers_calls_side_by_side(subject: Subject) -> None:
    answers = await asyncio.gather(*(subject.teacher.complete(ASK) for _ in range(20)))
    assert all(answer.text.strip() for answer in answers)


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
