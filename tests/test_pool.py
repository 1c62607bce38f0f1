"""The pool: who may be asked, and what becomes of a call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from arbitrage import config
from arbitrage.errors import TeacherRateLimited, TeacherRejected
from arbitrage.types import Completion, Message, Prompt, TeacherInfo
from teachers import Pool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from arbitrage.ports import Teacher

PROMPT = Prompt.of("Why?", language="en")


class Stub:
    """A teacher that does as it is told, and keeps count."""

    def __init__(self, answer: Callable[[], Awaitable[Completion]]) -> None:
        self.name = "stub"
        self.under_way = 0
        self.most_under_way = 0
        self.calls = 0
        self.closed = 0
        self._answer = answer

    async def complete(self, messages: Sequence[Message]) -> Completion:
        assert messages == PROMPT.messages
        self.calls += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            return await self._answer()
        finally:
            self.under_way -= 1

    async def close(self) -> None:
        self.closed += 1


def settings(name: str = "a", **fields: Any) -> config.ScriptedTeacher:
    return config.ScriptedTeacher(name=name, kind="scripted", **fields)


def pool_of(teacher: Teacher, **fields: Any) -> Pool:
    return Pool([(settings(**fields), teacher)])


def answers(completion: Completion) -> Callable[[], Awaitable[Completion]]:
    async def answer() -> Completion:
        return completion

    return answer


def raises(error: BaseException) -> Callable[[], Awaitable[Completion]]:
    async def answer() -> Completion:
        raise error

    return answer


async def hang() -> Completion:
    await asyncio.Event().wait()
    raise AssertionError


def named(*entries: config.ScriptedTeacher) -> Pool:
    return Pool([(entry, Stub(hang)) for entry in entries])


@pytest.mark.parametrize(
    ("language", "arms"),
    [
        ("en", ["any"]),
        ("de", ["german", "any"]),
        ("nb", ["norwegian", "any"]),
        ("no", ["norwegian", "any"]),
        ("zh-TW", ["any", "chinese"]),
        (None, ["german", "norwegian", "any", "chinese"]),
    ],
)
def test_the_languages_of_a_teacher_decide_who_is_available_in_order(
    language: str | None, arms: list[str]
) -> None:
    pool = named(
        settings("german", languages=("de-AT",)),
        settings("norwegian", languages=("no",)),
        settings("any"),
        settings("chinese", languages=("zh-Hans", "ja")),
    )
    assert pool.available(Prompt.of("Why?", language=language)) == arms


async def test_an_answer_becomes_a_candidate() -> None:
    completion = Completion("Because.")
    candidate = await pool_of(Stub(answers(completion))).ask("a", PROMPT)
    assert (candidate.teacher, candidate.completion) == ("a", completion)
    assert candidate.failure is None
    assert candidate.latency_seconds > 0
    assert candidate.cost_usd == 0


@pytest.mark.parametrize(
    ("completion", "cost_usd"),
    [
        (Completion("x", prompt_tokens=3, completion_tokens=1), 0.0000009),
        (Completion("x", prompt_tokens=1_000_000, completion_tokens=1_000_000), 0.7),
        (Completion("x", prompt_tokens=3), 0.0000003),
        (Completion("x", completion_tokens=5), 0.000003),
        (Completion("x"), 0.0),
        (Completion("x", prompt_tokens=3, completion_tokens=1, cached=True), 0.0),
    ],
)
async def test_the_cost_is_exact(completion: Completion, cost_usd: float) -> None:
    price = config.Price(prompt=0.1, completion=0.6)
    pool = pool_of(Stub(answers(completion)), price_per_million=price)
    assert (await pool.ask("a", PROMPT)).cost_usd == cost_usd


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (TeacherRateLimited("slow down", retry_after_seconds=3), "rate_limited"),
        (TeacherRejected("no such model"), "rejected"),
    ],
)
async def test_a_teachers_failure_is_data(error: Exception, outcome: str) -> None:
    candidate = await pool_of(Stub(raises(error))).ask("a", PROMPT)
    assert candidate.completion is None
    assert candidate.failure is not None
    assert (candidate.failure.outcome, candidate.failure.message) == (outcome, str(error))


async def test_a_teacher_that_hangs_times_out_and_is_cancelled() -> None:
    teacher = Stub(hang)
    candidate = await pool_of(teacher, timeout_seconds=0.01).ask("a", PROMPT)
    assert candidate.failure is not None
    assert candidate.failure.outcome == "timeout"
    assert "no answer within 0.01 s" in candidate.failure.message
    assert teacher.under_way == 0


async def test_waiting_for_a_permit_counts_towards_the_timeout() -> None:
    leave = asyncio.Event()

    async def lingers() -> Completion:
        try:
            return await hang()
        finally:
            await leave.wait()

    teacher = Stub(lingers)
    pool = pool_of(teacher, timeout_seconds=0.01, max_concurrency=1)
    first = asyncio.create_task(pool.ask("a", PROMPT))
    await asyncio.sleep(0)
    second = await pool.ask("a", PROMPT)
    leave.set()
    assert second.failure is not None
    assert second.failure.outcome == "timeout"
    assert "not asked within 0.01 s" in second.failure.message
    assert (await first).failure is not None
    assert teacher.calls == 1


@pytest.mark.parametrize("error", [ZeroDivisionError("bug"), TimeoutError("not the pool's")])
async def test_a_bug_in_an_adapter_is_raised(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        await pool_of(Stub(raises(error))).ask("a", PROMPT)


async def test_at_most_max_concurrency_calls_are_under_way() -> None:
    async def takes_turns() -> Completion:
        for _ in range(5):
            await asyncio.sleep(0)
        return Completion("x")

    teacher = Stub(takes_turns)
    pool = pool_of(teacher, max_concurrency=3)
    candidates = await asyncio.gather(*(pool.ask("a", PROMPT) for _ in range(20)))
    assert all(c.completion for c in candidates)
    assert (teacher.calls, teacher.most_under_way) == (20, 3)


async def test_cancelling_an_ask_cancels_the_call_and_frees_its_permit() -> None:
    teacher = Stub(hang)
    pool = pool_of(teacher, max_concurrency=1)
    for calls in (1, 2):
        ask = asyncio.create_task(pool.ask("a", PROMPT))
        await asyncio.sleep(0)
        assert (teacher.calls, teacher.under_way) == (calls, 1)
        ask.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ask
        assert teacher.under_way == 0


async def test_an_unknown_arm_is_a_bug() -> None:
    with pytest.raises(KeyError):
        await named(settings("a")).ask("b", PROMPT)


def test_describe_tells_of_every_teacher() -> None:
    pool = named(
        settings(
            "a",
            languages=("de-AT", "de"),
            license="MIT",
            price_per_million=config.Price(prompt=0.1, completion=0.2),
            max_concurrency=3,
        ),
        settings("b"),
    )
    first, second = pool.describe()
    assert first == TeacherInfo(
        "a", "scripted", "scripted", available=True, languages=("de",), license="MIT",
        prompt_price=0.1, completion_price=0.2, max_concurrency=3,
    )  # fmt: skip
    assert second == TeacherInfo("b", "scripted", "scripted", available=True, max_concurrency=8)


async def test_a_shared_teacher_is_closed_once_and_all_in_spite_of_an_error() -> None:
    class Stuck(Stub):
        async def close(self) -> None:
            raise OSError("stuck")

    shared = Stub(hang)
    pool = Pool(
        [(settings("a"), Stuck(hang)), (settings("b"), shared), (settings("c"), shared)],
    )
    with pytest.raises(ExceptionGroup, match="did not close"):
        await pool.close()
    assert shared.closed == 1
