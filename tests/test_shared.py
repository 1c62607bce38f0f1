"""Shared engines: opened once, closed with the last lease, whoever is cancelled meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from teachers.shared import Shared


@dataclass(eq=False)
class Engine:
    """Opens and closes when the test lets it."""

    events: list[str]
    may_close: asyncio.Event

    async def close(self) -> None:
        self.events.append("closing")
        await self.may_close.wait()
        self.events.append("closed")


@dataclass
class Factory:
    events: list[str] = field(default_factory=list)
    may_open: asyncio.Event = field(default_factory=asyncio.Event)
    may_close: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Exception | None = None

    async def __call__(self) -> Engine:
        self.events.append("opening")
        await self.may_open.wait()
        if self.failure:
            raise self.failure
        self.events.append("open")
        return Engine(self.events, self.may_close)


@pytest.fixture
def shared() -> Shared[str, Engine]:
    return Shared()


def ready(failure: Exception | None = None) -> Factory:
    factory = Factory(failure=failure)
    factory.may_open.set()
    factory.may_close.set()
    return factory


async def started(factory: Factory, event: str) -> None:
    async with asyncio.timeout(10):
        while event not in factory.events:  # noqa: ASYNC110 - a list has no event
            await asyncio.sleep(0)


async def test_leases_of_a_key_at_once_open_one_engine(shared: Shared[str, Engine]) -> None:
    factory = ready()
    first, second = await asyncio.gather(shared.lease("a", factory), shared.lease("a", factory))
    assert first is second
    assert factory.events == ["opening", "open"]


async def test_another_key_is_another_engine(shared: Shared[str, Engine]) -> None:
    factory = ready()
    first, second = await asyncio.gather(shared.lease("a", factory), shared.lease("b", factory))
    assert first is not second


async def test_the_last_release_closes(shared: Shared[str, Engine]) -> None:
    factory = ready()
    await shared.lease("a", factory)
    await shared.lease("a", factory)
    await shared.release("a")
    assert "closed" not in factory.events
    await shared.release("a")
    assert factory.events == ["opening", "open", "closing", "closed"]
    with pytest.raises(KeyError):
        await shared.release("a")


async def test_an_engine_can_be_leased_again_after_it_was_closed(
    shared: Shared[str, Engine],
) -> None:
    factory = ready()
    first = await shared.lease("a", factory)
    await shared.release("a")
    assert await shared.lease("a", factory) is not first


async def test_the_next_engine_of_a_key_opens_when_the_old_one_is_closed(
    shared: Shared[str, Engine],
) -> None:
    old, new = ready(), ready()
    old.may_close.clear()
    await shared.lease("a", old)
    release = asyncio.create_task(shared.release("a"))
    await started(old, "closing")
    leases = [asyncio.create_task(shared.lease("a", new)) for _ in range(2)]
    await asyncio.sleep(0)
    assert new.events == []
    old.may_close.set()
    first, second = await asyncio.gather(*leases)
    assert first is second
    assert release.done()


async def test_a_failed_open_leaves_nothing_and_is_told_to_everyone_who_waits(
    shared: Shared[str, Engine],
) -> None:
    broken = ready(failure=OSError("no such model"))
    ends = await asyncio.gather(
        *(shared.lease("a", broken) for _ in range(3)), return_exceptions=True
    )
    assert [str(end) for end in ends] == ["no such model"] * 3
    assert broken.events == ["opening"]
    await shared.lease("a", ready())


async def test_a_cancelled_lease_leaves_the_engine_to_the_others(
    shared: Shared[str, Engine],
) -> None:
    factory = ready()
    factory.may_open.clear()
    first = asyncio.create_task(shared.lease("a", factory))
    second = asyncio.create_task(shared.lease("a", factory))
    await started(factory, "opening")
    first.cancel()
    factory.may_open.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    await second
    await shared.release("a")
    assert factory.events == ["opening", "open", "closing", "closed"]


async def test_an_engine_that_nobody_waits_for_any_more_is_closed_once_it_is_open(
    shared: Shared[str, Engine],
) -> None:
    factory = ready()
    factory.may_open.clear()
    lease = asyncio.create_task(shared.lease("a", factory))
    await started(factory, "opening")
    lease.cancel()
    factory.may_open.set()
    with pytest.raises(asyncio.CancelledError):
        await lease
    assert factory.events == ["opening", "open", "closing", "closed"]


async def test_a_cancelled_release_closes_all_the_same(shared: Shared[str, Engine]) -> None:
    factory = ready()
    factory.may_close.clear()
    await shared.lease("a", factory)
    release = asyncio.create_task(shared.release("a"))
    await started(factory, "closing")
    release.cancel()
    with pytest.raises(asyncio.CancelledError):
        await release
    factory.may_close.set()
    await started(factory, "closed")
    await shared.lease("a", ready())


async def test_an_engine_that_does_not_close_is_told_and_held_no_more(
    shared: Shared[str, Engine],
) -> None:
    class Stuck(Engine):
        async def close(self) -> None:
            raise OSError("still in use")

    async def stuck() -> Engine:
        return Stuck([], asyncio.Event())

    await shared.lease("a", stuck)
    with pytest.raises(OSError, match="still in use"):
        await shared.release("a")
    assert not isinstance(await shared.lease("a", ready()), Stuck)


def test_every_loop_has_its_own_engines(shared: Shared[str, Engine]) -> None:
    async def leased() -> Engine:
        return await shared.lease("a", ready())

    first = asyncio.run(leased())
    assert asyncio.run(leased()) is not first
