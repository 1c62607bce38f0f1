"""Room for prompts: who is refused, who waits, and who is next."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from time import sleep
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arbitrage.errors import Overloaded, Stopping
from service.admission import Admission
from service.quota import Quota
from service.strain import Strain, lateness
from tests.virtual_time import in_virtual_time

if TYPE_CHECKING:
    from arbitrage.types import Priority


async def entered(admission: Admission, client: str, order: list[str]) -> None:
    await admission.wait(client)
    order.append(client)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_call_is_refused_where_there_is_no_room() -> None:
    admission = Admission(2)
    with ExitStack() as held:
        for client in ("a", "b"):
            held.enter_context(admission.at_once(client))
        with pytest.raises(Overloaded, match="2 prompts are in flight"), admission.at_once("c"):
            pass
    with admission.at_once("c"):
        assert admission.in_flight == 1
    assert admission.in_flight == 0


async def test_a_client_has_no_more_than_its_own_limit() -> None:
    admission = Admission(10, most_a_client=1)
    with admission.at_once("a"):
        with pytest.raises(Overloaded, match="of this client"), admission.at_once("a"):
            pass
        with admission.at_once("b"):
            assert admission.in_flight == 2


async def test_streams_leave_a_part_to_calls() -> None:
    admission, order = Admission(4), list[str]()
    tasks = [asyncio.create_task(entered(admission, "batch", order)) for _ in range(5)]
    await turns()
    assert len(order) == 3
    with admission.at_once("person"):
        admission.leave("batch")
        await turns()
        assert len(order) == 3  # a call has taken that room
    await turns()
    assert len(order) == 4
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_client_with_the_fewest_in_flight_is_next() -> None:
    admission, order = Admission(4), list[str]()
    tasks = [asyncio.create_task(entered(admission, "greedy", order)) for _ in range(6)]
    await turns()
    tasks.append(asyncio.create_task(entered(admission, "late", order)))
    await turns()
    admission.leave("greedy")
    await turns()
    assert order == ["greedy"] * 3 + ["late"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_who_waits_hears_that_nothing_more_is_admitted() -> None:
    admission, order = Admission(1), list[str]()
    await admission.wait("a")
    waiting = asyncio.create_task(entered(admission, "b", order))
    await turns()
    admission.close()
    with pytest.raises(Stopping):
        await waiting
    with pytest.raises(Stopping), admission.at_once("a"):
        pass
    admission.leave("a")
    assert admission.in_flight == 0


@given(
    most=st.integers(1, 6),
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(("in", "out", "give up")))),
)
async def test_nobody_is_forgotten_and_the_limit_holds(
    most: int, steps: list[tuple[str, str]]
) -> None:
    admission, order = Admission(most), list[str]()
    waiting: list[asyncio.Task[None]] = []
    inside: list[str] = []
    for client, step in steps:
        if step == "in":
            waiting.append(asyncio.create_task(entered(admission, client, order)))
        elif step == "out" and inside:
            admission.leave(inside.pop())
        elif step == "give up" and waiting:
            waiting.pop().cancel()
        await turns()
        inside += order
        order.clear()
        waiting = [task for task in waiting if not task.done()]
        assert admission.in_flight == len(inside) <= most
    while waiting:
        assert inside
        admission.leave(inside.pop())
        await turns()
        inside += order
        order.clear()
        waiting = [task for task in waiting if not task.done()]
    for client in inside:
        admission.leave(client)
    assert admission.in_flight == 0


async def test_batches_leave_a_part_to_what_somebody_waits_for() -> None:
    admission = Admission(4)
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(admission.at_once("nightly", "batch"))
        with pytest.raises(Overloaded, match="for batches"), admission.at_once("x", "batch"):
            pass
        with admission.at_once("x"):
            assert admission.in_flight == 4


async def test_what_is_interactive_is_admitted_before_batches_that_came_first() -> None:
    admission, order = Admission(1), list[str]()
    await admission.wait("first")

    async def enter(client: str, priority: Priority) -> None:
        await admission.wait(client, priority)
        order.append(client)
        admission.leave(client)

    tasks = [asyncio.create_task(enter("batch", "batch")) for _ in range(3)]
    await turns()
    tasks.append(asyncio.create_task(enter("person", "interactive")))
    await turns()
    assert admission.waiting == 4
    admission.leave("first")
    await asyncio.gather(*tasks)
    assert order == ["person", "batch", "batch", "batch"]
    assert admission.waiting == 0


@in_virtual_time
async def test_those_who_are_refused_are_sent_to_moments_apart() -> None:
    admission = Admission(4)
    for _ in range(200):  # each takes two seconds, so that one in half a second is done
        with admission.at_once("a"):
            await asyncio.sleep(2.0)
    with ExitStack() as held:
        for _ in range(4):
            held.enter_context(admission.at_once("a"))
        waits = [retry_of(admission) for _ in range(6)]
    assert waits == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.5, 3.0], rel=0.05)


@in_virtual_time
async def test_a_client_that_has_used_up_its_minute_hears_when_to_come_again() -> None:
    admission = Admission(100, quota=Quota(60))
    for _ in range(10):
        with admission.at_once("a"):
            pass
    assert retry_of(admission, "a") == pytest.approx(1.0)
    with admission.at_once("b"):  # whose quota is its own
        pass
    await asyncio.sleep(1.0)
    with admission.at_once("a"):
        pass


@in_virtual_time
async def test_a_stream_waits_for_its_quota_and_a_job_has_none() -> None:
    admission, loop = Admission(100, quota=Quota(60)), asyncio.get_running_loop()
    started = loop.time()
    for _ in range(15):
        await admission.wait("a")
    assert loop.time() - started == pytest.approx(5.0)
    for _ in range(50):
        await admission.wait_unmetered("job a")
    assert loop.time() - started == pytest.approx(5.0)


@in_virtual_time
async def test_who_waits_for_a_quota_hears_that_nothing_more_is_admitted() -> None:
    admission = Admission(1, quota=Quota(1))
    await admission.wait("a")
    waiting = asyncio.create_task(admission.wait("a"))
    await turns()
    admission.close()
    with pytest.raises(Stopping):
        await waiting


async def test_fewer_are_admitted_while_the_loop_is_late_and_then_again_more() -> None:
    admission = Admission(100)
    with ExitStack() as held:
        for _ in range(60):
            held.enter_context(admission.at_once("a"))
        for _ in range(8):
            admission.bear(0.3)
        assert admission.limit == 54
        with pytest.raises(Overloaded, match="60 prompts are in flight"), admission.at_once("a"):
            pass
        for _ in range(40):
            admission.bear(0.0)
        assert admission.limit == 68  # as far as they come
        with admission.at_once("a"):
            pass


def test_a_loop_that_is_late_now_and_then_is_not_strained() -> None:
    strain = Strain(100)
    for late in [0.5, 0.5, 0.5, 0.0] * 20:
        strain.look(late, in_flight=100)
    assert strain.limit == 100


async def test_a_loop_tells_how_late_it_is() -> None:
    heard: asyncio.Queue[float] = asyncio.Queue()
    async with lateness(heard.put_nowait):
        await heard.get()
        asyncio.get_running_loop().call_soon(sleep, 0.2)  # work that holds the loop up
        assert await heard.get() > 0.1


@given(st.integers(1, 600), st.lists(st.floats(0.0, 30.0), max_size=80))
def test_no_minute_has_more_than_the_quota_and_its_burst(
    per_minute: int, pauses: list[float]
) -> None:
    now, taken = 0.0, list[float]()
    quota = Quota(per_minute, lambda: now)
    for pause in pauses:
        now += pause
        for _ in range(5):
            if quota.take("a") == 0.0:
                taken.append(now)
    for start in taken:
        among = sum(start <= one < start + 60.0 for one in taken)
        assert among <= per_minute + per_minute / 6 + 1


def retry_of(admission: Admission, client: str = "z") -> float:
    """When one that is refused is to come again."""
    with pytest.raises(Overloaded) as refused, admission.at_once(client):
        pass
    assert refused.value.retry_after_seconds is not None
    return refused.value.retry_after_seconds
