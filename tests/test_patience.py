"""A timeout that gives back the time in which this process stood still, once over at most."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from teachers.patience import Patience


async def test_an_answer_that_came_while_the_loop_stood_still_is_taken() -> None:
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    answer: asyncio.Future[bytes] = loop.create_future()

    async def wait() -> bytes:
        with Patience(0.05):
            return await answer

    with near, far:
        loop.add_reader(near, lambda: answer.set_result(near.recv(1)))
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        far.send(b"x")
        time.sleep(0.3)  # noqa: ASYNC251 - it stands still
        assert await waiting == b"x"
        loop.remove_reader(near)


async def test_a_loop_that_is_always_late_does_not_put_the_timeout_off_for_ever() -> None:
    async def lag() -> None:
        while True:
            time.sleep(0.07)  # noqa: ASYNC251 - as a model on the same thread would
            await asyncio.sleep(0)

    lagging = asyncio.create_task(lag())
    with pytest.raises(TimeoutError), Patience(0.2):
        await asyncio.Event().wait()
    lagging.cancel()


@pytest.mark.parametrize("seconds", [0.0, -1.0])
async def test_no_time_is_over_at_once(seconds: float) -> None:
    with pytest.raises(TimeoutError), Patience(seconds) as limit:
        await asyncio.Event().wait()
    assert limit.over
