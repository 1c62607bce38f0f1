"""A second call beside one that takes unusually long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbitrage import config
from teachers.hedge import Latencies, hedged
from tests.stub_teacher import ANSWER, PROMPT, StubTeacher, pool_of
from tests.virtual_time import in_virtual_time, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage.types import Completion
    from teachers import Pool

USUAL, SLOW = 1.0, 30.0


def of(seconds: Sequence[float]) -> Latencies:
    latencies = Latencies()
    for one in seconds:
        latencies.add(one)
    return latencies


def test_a_percentile_needs_twenty_answers() -> None:
    assert of([1.0] * 19).percentile(0.5) is None
    assert of([1.0] * 20).percentile(0.5) == 1.0


def test_a_percentile_is_a_latency_within_which_that_share_ended() -> None:
    latencies = of(list(range(100)))
    assert [latencies.percentile(share) for share in (0.01, 0.5, 0.95, 0.999)] == [1, 50, 95, 99]


def test_only_the_last_answers_count() -> None:
    assert of([100.0] * 1000 + [1.0] * 128).percentile(0.999) == 1.0


class Half:
    """One of the two calls: ends after some seconds with its name, or with an error."""

    def __init__(self, name: str, seconds: float, error: Exception | None = None) -> None:
        self.name = name
        self.begun: float | None = None
        self.ended: str | None = None
        self._seconds = seconds
        self._error = error

    async def __call__(self) -> str:
        self.begun = asyncio.get_running_loop().time()
        try:
            await asyncio.sleep(self._seconds)
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        self.ended = "failed" if self._error else "answered"
        if self._error:
            raise self._error
        return self.name


async def test_a_call_that_is_back_in_time_has_no_second() -> None:
    first, second = Half("first", 0.0), Half("second", 0.0)
    assert await hedged(first, 60.0, second) == "first"
    assert second.begun is None


@in_virtual_time
async def test_the_second_is_sent_when_the_first_had_its_time() -> None:
    first, second = Half("first", 100.0), Half("second", 5.0)
    begin = asyncio.get_running_loop().time()
    assert await hedged(first, 2.0, second) == "second"
    assert second.begun == pytest.approx(begin + 2.0)
    assert first.ended == "cancelled"


@in_virtual_time
async def test_the_first_may_still_be_the_first() -> None:
    first, second = Half("first", 3.0), Half("second", 5.0)
    assert await hedged(first, 2.0, second) == "first"
    assert second.ended == "cancelled"


@in_virtual_time
async def test_a_failure_waits_for_the_other_call() -> None:
    for first, second in (
        (Half("first", 3.0, OSError("1")), Half("second", 5.0)),
        (Half("first", 8.0), Half("second", 5.0, OSError("2"))),
    ):
        winner = await hedged(first, 2.0, second)
        assert {first.name: first, second.name: second}[winner].ended == "answered"


@in_virtual_time
async def test_when_both_fail_the_last_failure_is_raised() -> None:
    with pytest.raises(OSError, match="2"):
        await hedged(Half("a", 3.0, OSError("1")), 2.0, Half("b", 5.0, OSError("2")))
    with pytest.raises(OSError, match="1"):
        await hedged(Half("a", 9.0, OSError("1")), 2.0, Half("b", 5.0, OSError("2")))
    with pytest.raises(OSError, match=r"[12]"):  # in one turn of the loop
        await hedged(Half("a", 7.0, OSError("1")), 2.0, Half("b", 5.0, OSError("2")))


async def test_a_call_that_fails_at_once_has_no_second() -> None:
    second = Half("second", 0.0)
    with pytest.raises(OSError, match="1"):
        await hedged(Half("first", 0.0, OSError("1")), 60.0, second)
    assert second.begun is None


@in_virtual_time
async def test_without_room_for_a_second_the_first_goes_on() -> None:
    assert await hedged(Half("first", 5.0), 2.0, lambda: None) == "first"


@pytest.mark.parametrize("after_seconds", [1.0, 3.0])
@in_virtual_time
async def test_cancelling_it_cancels_both(after_seconds: float) -> None:
    first, second = Half("first", 100.0), Half("second", 100.0)
    both = asyncio.create_task(hedged(first, 2.0, second))
    await asyncio.sleep(after_seconds)
    both.cancel()
    await asyncio.wait([both])
    assert both.cancelled()
    assert first.ended == "cancelled"
    assert second.ended == (None if after_seconds < 2.0 else "cancelled")


def slow(*numbers: int) -> StubTeacher:
    """Takes long for the calls of these numbers."""

    async def script(number: int) -> Sequence[Completion]:
        await asyncio.sleep(SLOW if number in numbers else USUAL)
        return (ANSWER,)

    return StubTeacher(script)


async def known(teacher: StubTeacher, **fields: object) -> Pool:
    """A pool that knows how long the teacher usually takes."""
    pool = pool_of(teacher, **{"hedge_percentile": 0.9, **fields})
    for _ in range(20):
        await pool.ask("a", PROMPT)
    return pool


@in_virtual_time
async def test_a_slow_call_is_sent_again_after_the_usual_time() -> None:
    teacher = slow(20)
    pool = await known(teacher)
    begin = asyncio.get_running_loop().time()
    (candidate,) = await pool.ask("a", PROMPT)
    assert candidate.completion == ANSWER
    assert candidate.latency_seconds == pytest.approx(2 * USUAL, abs=1e-3)
    assert teacher.sent[20:] == pytest.approx([begin, begin + USUAL], abs=1e-3)
    assert teacher.under_way == 0


@in_virtual_time
async def test_without_a_percentile_a_slow_call_is_waited_for() -> None:
    teacher = slow(20)
    pool = await known(teacher, hedge_percentile=None)
    (candidate,) = await pool.ask("a", PROMPT)
    assert candidate.latency_seconds == pytest.approx(SLOW, abs=1e-3)
    assert len(teacher.sent) == 21


@in_virtual_time
async def test_an_answer_that_is_told_piece_by_piece_has_no_second() -> None:
    teacher = slow(20)
    pool = await known(teacher)
    pieces: list[str] = []
    await pool.ask("a", PROMPT, on_delta=pieces.append)
    assert pieces == [ANSWER.text]
    assert len(teacher.sent) == 21


@pytest.mark.parametrize(
    "limits",
    [{"max_concurrency": 1}, {"requests_per_minute": 1}, {"tokens_per_minute": 4}],
    ids=lambda limits: next(iter(limits)),
)
@in_virtual_time
async def test_a_second_call_is_only_sent_where_there_is_room(limits: dict[str, int]) -> None:
    teacher = slow(20)
    pool = await known(teacher, **limits)
    await asyncio.sleep(600.0)
    (candidate,) = await pool.ask("a", PROMPT)
    assert candidate.latency_seconds == pytest.approx(SLOW, abs=1e-3)
    assert len(teacher.sent) == 21


@in_virtual_time
async def test_second_calls_count_to_the_requests_of_a_minute() -> None:
    async def script(number: int) -> Sequence[Completion]:
        await asyncio.sleep(USUAL if number < 20 or number % 2 else SLOW)
        return (ANSWER,)

    teacher = StubTeacher(script)
    pool = await known(teacher, requests_per_minute=60, max_concurrency=64)
    asks = []
    for _ in range(200):
        asks.append(asyncio.create_task(pool.ask("a", PROMPT)))
        await asyncio.sleep(1.1)
    await asyncio.wait(asks)
    assert len(teacher.sent) > 220
    assert max(sum(s <= t < s + 60 - 1e-6 for t in teacher.sent) for s in teacher.sent) <= 60


@in_virtual_time
async def test_both_calls_are_reserved_while_they_are_under_way() -> None:
    pool = await known(slow(20), price_per_million=config.Price(prompt=1.0, completion=1.0))
    ask = asyncio.create_task(pool.ask("a", PROMPT))
    reserved = []
    for _ in range(3):
        await asyncio.sleep(0.75)
        reserved.append(pool.budget.in_flight * 1_000_000)
    assert reserved == [4, 8, 0]
    await ask


@in_virtual_time
async def test_every_permit_comes_back_whichever_call_wins() -> None:
    teacher = slow(*range(20, 60, 3))
    pool = await known(teacher, max_concurrency=3)
    for _ in range(3):
        await asyncio.gather(*(pool.ask("a", PROMPT) for _ in range(8)))
        assert teacher.most_under_way <= 3
    assert pool._members["a"]._health.concurrency._under_way == 0


@given(after_seconds=st.floats(0.0, 3.0), turns=st.integers(0, 4))
@settings(max_examples=50, deadline=None)
def test_cancelling_a_hedged_call_at_any_moment_frees_both_permits(
    after_seconds: float, turns: int
) -> None:
    async def cancelled() -> None:
        teacher = slow(*range(20, 99))
        pool = await known(teacher, max_concurrency=2)
        ask = asyncio.create_task(pool.ask("a", PROMPT))
        await asyncio.sleep(after_seconds)
        for _ in range(turns):
            await asyncio.sleep(0)
        ask.cancel()
        await asyncio.wait([ask])
        assert ask.cancelled()
        assert teacher.under_way == 0
        member = pool._members["a"]
        assert member._health.concurrency._under_way == 0
        assert pool.budget.in_flight == 0

    run(cancelled())
