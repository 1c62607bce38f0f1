"""Room for prompts: who is refused, who waits, and who is next."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arbitrage.errors import Overloaded, Stopping
from service.admission import Admission


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
