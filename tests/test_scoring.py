"""The scoring engine over devices that the tests hold up, make ill, and read the record of.

A work item is a text; its letters are its tokens, and its result is the text in capitals.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Self

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from arbitrage.errors import RewardError
from reward.scoring import ScoringEngine
from reward.scoring.backlog import _LOOK_AHEAD, Backlog, Item, next_batch
from reward.scoring.worker import (
    _MOST_PATIENCE_BATCHES,
    _PATIENCE_BATCHES,
    Budget,
    runs_out_of_memory,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from arbitrage.events import Batched

Engine = ScoringEngine[str, str]


class Device:
    """Shouts, and keeps a record. Inside `with`, batches wait until one is let go, or all."""

    def __init__(self, check: Callable[[Sequence[str]], object] = lambda _: None) -> None:
        self.batches: list[list[str]] = []
        self.threads: set[str] = set()
        self._check = check
        self._begun = threading.Semaphore(0)
        self._permits = threading.Semaphore(0)
        self._held = False

    def compute(self, batch: Sequence[str]) -> list[str]:
        self.batches.append(list(batch))
        self.threads.add(threading.current_thread().name)
        self._begun.release()
        if self._held:
            self._permits.acquire()
        self._check(batch)
        return [text.upper() for text in batch]

    def __enter__(self) -> Self:
        self._held = True
        return self

    def __exit__(self, *_: object) -> None:
        self._held = False
        self._permits.release(100)

    def let_one_go(self) -> None:
        self._permits.release()

    def wait_for_a_batch(self) -> None:
        self._begun.acquire()

    async def begins_a_batch(self) -> None:
        await asyncio.to_thread(self.wait_for_a_batch)


def engine(
    *devices: Device,
    budget: int = 10,
    max_waiting: int = 1024,
    hear: Callable[[Batched], None] = lambda _: None,
) -> Engine:
    return ScoringEngine(
        {f"fake:{number}": device for number, device in enumerate(devices)},
        tokens=len,
        max_tokens_per_batch=budget,
        max_waiting=max_waiting,
        hear=hear,
    )


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
async def scoring(device: Device) -> AsyncIterator[Engine]:
    engine_ = engine(device)
    yield engine_
    await engine_.close()
    assert engine_.queue_depth == 0
    assert engine_.waiting == 0


Tasks = list[asyncio.Task[str]]


async def ask(scoring: Engine, *texts: str) -> Tasks:
    """Begins a call a text, one after another."""
    tasks = [asyncio.create_task(scoring.score(text)) for text in texts]
    await asyncio.sleep(0)
    return tasks


async def ask_while_busy(scoring: Engine, device: Device, *texts: str) -> Tasks:
    """Begins a call that keeps a held device busy, and then the others."""
    tasks = await ask(scoring, "first")
    await device.begins_a_batch()
    return tasks + await ask(scoring, *texts)


async def ends(tasks: Tasks) -> list[str]:
    """What became of calls: the result, or the error's name and message."""
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    return [o if isinstance(o, str) else f"{type(o).__name__}: {o}" for o in outcomes]


def cause(task: asyncio.Task[str]) -> BaseException | None:
    error = task.exception()
    return error and error.__cause__


def raises(error: BaseException) -> object:
    raise error


def items(sizes: Sequence[int]) -> list[Item[int, int]]:
    loop = asyncio.new_event_loop()
    loop.close()
    return [Item(n, size, asyncio.Future(loop=loop)) for n, size in enumerate(sizes)]


SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=200)


@settings(deadline=None)
@given(SIZES, st.integers(1, 40))
def test_a_batch_holds_the_oldest_and_is_over_budget_only_alone(
    sizes: list[int], budget: int
) -> None:
    waiting = items(sizes)
    batch = next_batch(waiting, budget)
    assert waiting[0] in batch
    assert len(batch) == 1 or sum(item.tokens for item in batch) <= budget
    assert [item.tokens for item in batch] == sorted(item.tokens for item in batch)


@settings(deadline=None)
@given(SIZES, st.integers(1, 40))
def test_an_item_is_passed_over_only_where_it_does_not_fit(sizes: list[int], budget: int) -> None:
    waiting = items(sizes)
    batch = set(next_batch(waiting, budget))
    room, passed_over = budget, 0
    for item in waiting:
        if room <= 0 or passed_over == _LOOK_AHEAD:
            assert item not in batch
        elif item in batch:
            room -= item.tokens
        else:
            assert item.tokens > room
            passed_over += 1


@settings(deadline=None)
@given(SIZES, st.integers(1, 40), st.integers(1, 50), st.sets(st.integers(0, 199)))
def test_a_backlog_loses_nothing_and_gives_nothing_twice(
    sizes: list[int], budget: int, max_waiting: int, cancelled: set[int]
) -> None:
    backlog: Backlog[int, int] = Backlog(max_waiting)
    put = items(sizes)
    for item in put:
        backlog.put(item)
        assert len(backlog) <= max_waiting
    for item in put:
        if item.work in cancelled:
            backlog.discard(item)
    kept = [item.work for item in put if item.work not in cancelled]
    taken: list[int] = []
    while len(backlog):
        batch = backlog.take(budget)
        assert min(set(kept) - set(taken)) in [item.work for item in batch]
        assert len(backlog) <= max_waiting
        taken += [item.work for item in batch]
    assert sorted(taken) == kept
    assert backlog.close() == []


def test_looking_for_what_fits_has_an_end() -> None:
    sizes = [1, *[10] * _LOOK_AHEAD, 1]
    assert len(next_batch(items(sizes), 10)) == 1
    assert len(next_batch(items(sizes[:1] + sizes[2:]), 10)) == 2


async def test_everyone_gets_the_result_of_their_own_work(scoring: Engine) -> None:
    texts = [f"{number:x}" for number in range(500)]
    assert await asyncio.gather(*map(scoring.score, texts)) == [text.upper() for text in texts]


async def test_a_batch_takes_in_age_what_still_fits_and_sorts_it_by_size(
    scoring: Engine, device: Device
) -> None:
    texts = ["aaaaa", "bbbbbb", "cc", "ddd", "e", "f" * 14, ""]
    with device:
        tasks = await ask_while_busy(scoring, device, *texts)
        assert scoring.queue_depth == 8
        assert scoring.waiting == 7
    assert await ends(tasks) == ["FIRST", *map(str.upper, texts)]
    assert device.batches == [["first"], ["cc", "ddd", "aaaaa"], ["e", "", "bbbbbb"], ["f" * 14]]


async def test_an_oversized_item_is_not_starved_by_small_ones(
    scoring: Engine, device: Device
) -> None:
    with device:
        tasks = await ask_while_busy(scoring, device, "a", "b" * 50, *["c" * 9] * 20)
    await ends(tasks)
    assert device.batches[1:3] == [["a", "c" * 9], ["b" * 50]]


async def test_under_load_the_oldest_of_a_batch_is_older_than_that_of_the_next(
    scoring: Engine, device: Device
) -> None:
    texts = [f"{number:03}" + "x" * (number % 13) for number in range(300)]
    await asyncio.gather(*map(scoring.score, texts))
    oldest = [min(batch) for batch in device.batches]
    assert oldest == sorted(oldest)
    assert sorted(text for batch in device.batches for text in batch) == texts


async def test_two_devices_share_the_work_and_each_stays_on_its_thread() -> None:
    first, second = Device(), Device()
    scoring = engine(first, second)
    with first, second:
        tasks = await ask(scoring, *["x" * 10] * 2)
        await asyncio.gather(first.begins_a_batch(), second.begins_a_batch())
        assert scoring.waiting == 0
        assert scoring.queue_depth == 2
    await ends(tasks)
    await asyncio.gather(*(scoring.score("y" * 10) for _ in range(100)))
    await scoring.close()
    assert first.threads == {"reward-fake:0"}
    assert second.threads == {"reward-fake:1"}
    assert len(first.batches) + len(second.batches) == 102


async def test_one_device_goes_on_while_the_other_hangs() -> None:
    hung, well = Device(), Device()
    scoring = engine(hung, well)
    with hung:
        with well:
            tasks = await ask(scoring, *["x" * 10] * 2)
            await asyncio.gather(hung.begins_a_batch(), well.begins_a_batch())
        assert len(await asyncio.gather(*(scoring.score("y" * 10) for _ in range(50)))) == 50
    await ends(tasks)
    await scoring.close()


async def test_the_loop_goes_on_while_a_device_computes(scoring: Engine, device: Device) -> None:
    with device:
        tasks = await ask_while_busy(scoring, device)
        for _ in range(50):  # a loop that the device blocked would never get here
            await asyncio.sleep(0.001)
        assert not tasks[0].done()
    assert await ends(tasks) == ["FIRST"]


async def test_what_is_cancelled_before_its_turn_is_not_computed(
    scoring: Engine, device: Device
) -> None:
    with device:
        tasks = await ask_while_busy(scoring, device, "a", "b", "c")
        tasks[2].cancel()
        await asyncio.sleep(0)
        assert scoring.queue_depth == 3
        assert scoring.waiting == 2
    assert await ends(tasks) == ["FIRST", "A", "CancelledError: ", "C"]
    assert device.batches == [["first"], ["a", "c"]]


async def test_what_is_cancelled_between_two_attempts_is_not_computed_again() -> None:
    device = Device(lambda batch: "b" in batch and raises(ValueError("poison")))
    scoring = engine(device)
    with device:
        tasks = await ask_while_busy(scoring, device, "a", "b", "c")
        device.let_one_go()
        await device.begins_a_batch()
        tasks[3].cancel()
    assert await ends(tasks) == [
        "FIRST",
        "A",
        "RewardError: fake:0: cannot score: ValueError: poison",
        "CancelledError: ",
    ]
    await scoring.close()
    assert device.batches == [["first"], ["a", "b", "c"], ["a"], ["b"]]


async def test_what_is_cancelled_while_it_is_computed_leaves_the_others_their_results(
    scoring: Engine, device: Device
) -> None:
    with device:
        tasks = await ask_while_busy(scoring, device, "a", "b")
        device.let_one_go()
        await device.begins_a_batch()
        tasks[1].cancel()
        await asyncio.wait(tasks[:2])
        assert scoring.queue_depth == 1
    assert await ends(tasks) == ["FIRST", "CancelledError: ", "B"]


async def test_what_is_cancelled_as_it_fails_leaves_no_error_that_nobody_hears() -> None:
    unheard: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unheard.append(context))
    device = Device(lambda batch: "first" in batch and raises(ValueError("bad")))
    scoring = engine(device)
    with device:
        tasks = await ask_while_busy(scoring, device, "x" * 10)
        device.let_one_go()
        device.wait_for_a_batch()  # blocks the loop, so that the error comes with its next turn
        loop.call_soon(tasks[0].cancel)
    assert await ends(tasks) == ["CancelledError: ", "X" * 10]
    await scoring.close()
    del tasks
    gc.collect()
    assert not unheard


async def test_more_callers_than_may_wait_keep_their_order_outside(device: Device) -> None:
    scoring = engine(device, budget=1, max_waiting=2)
    with device:
        tasks = await ask_while_busy(scoring, device, *"abcdef")
        assert scoring.waiting == 2
        assert scoring.queue_depth == 7
        tasks[1].cancel()  # a: waits
        tasks[4].cancel()  # d: is outside
        await asyncio.sleep(0)
        assert scoring.waiting == 2
        assert scoring.queue_depth == 5
    await ends(tasks)
    assert device.batches == [["first"], ["b"], ["c"], ["e"], ["f"]]
    assert scoring.queue_depth == 0
    await scoring.close()


async def test_a_batch_is_made_from_what_may_wait_only(device: Device) -> None:
    scoring = engine(device, max_waiting=3)
    with device:
        tasks = await ask_while_busy(scoring, device, *"abcdef")
    await ends(tasks)
    assert device.batches == [["first"], ["a", "b", "c"], ["d", "e", "f"]]
    await scoring.close()


async def test_close_waits_for_the_batch_under_way_and_refuses_all_others(device: Device) -> None:
    scoring = engine(device, max_waiting=2)
    with device:
        tasks = await ask_while_busy(scoring, device, *"abcd")
        closes = [asyncio.create_task(scoring.close()) for _ in range(2)]
        await asyncio.wait(tasks[1:])
        assert not any(task.done() for task in (tasks[0], *closes))
        with pytest.raises(RewardError, match="is closed; open it again"):
            await scoring.score("late")
    await asyncio.gather(*closes)
    closed = "RewardError: the reward model is closed; open it again to score"
    assert await ends(tasks) == ["FIRST", *[closed] * 4]
    assert device.batches == [["first"]]
    assert scoring.queue_depth == scoring.waiting == 0
    await scoring.close()


async def test_its_threads_end_with_close(device: Device) -> None:
    before = set(threading.enumerate())
    scoring = engine(device, Device())
    await scoring.score("a")
    threads = {t.name for t in set(threading.enumerate()) - before}
    assert threads == {"reward-fake:0", "reward-fake:1"}
    await scoring.close()
    assert not {t.name for t in set(threading.enumerate()) - before} & threads


def test_it_is_made_anywhere_and_closes_unused(device: Device) -> None:
    scoring = engine(device)
    asyncio.run(scoring.close())
    with pytest.raises(RewardError, match="is closed"):
        asyncio.run(scoring.score("late"))
    with pytest.raises(ValueError, match="needs a device"):
        engine()


def test_it_belongs_to_the_loop_that_asked_first(device: Device) -> None:
    scoring = engine(device)
    assert asyncio.run(scoring.score("a")) == "A"
    with pytest.raises(RewardError, match="belongs to another event loop"):
        asyncio.run(scoring.score("b"))
    asyncio.run(scoring.close())


def test_a_loop_that_closes_before_the_answer_harms_nobody(device: Device) -> None:
    unanswered = engine(device)

    async def leave() -> None:
        await ask_while_busy(unanswered, device, "a")

    with device:
        asyncio.run(leave())
    asyncio.run(unanswered.close())
    assert not any(thread.is_alive() for thread in unanswered._threads)


async def test_an_engine_that_nobody_closed_lets_its_thread_and_device_go() -> None:
    scoring = engine(device := Device())
    await scoring.score("a")
    (thread,) = scoring._threads
    forgotten = weakref.ref(device)
    del scoring, device
    gc.collect()
    await asyncio.to_thread(thread.join)
    assert forgotten() is None


async def test_an_idle_engine_keeps_nothing_of_the_last_batch(
    scoring: Engine, device: Device
) -> None:
    class Text(str):
        __slots__ = ("__weakref__",)

    text = Text("a")
    kept = weakref.ref(text)
    await scoring.score(text)
    device.batches.clear()
    del text
    for _ in range(1000):  # until the thread is back at the queue
        if kept() is None:
            break
        await asyncio.sleep(0.001)
    assert kept() is None


def short_of_memory_above(tokens: int) -> Callable[[Sequence[str]], object]:
    error = RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB")
    return lambda batch: len("".join(batch)) > tokens and raises(error)


async def test_out_of_memory_the_same_items_are_computed_in_smaller_batches(
    caplog: pytest.LogCaptureFixture,
) -> None:
    device = Device(short_of_memory_above(5))
    scoring = engine(device)
    with device:
        tasks = await ask_while_busy(scoring, device, *["a", "bb", "ccc", "dddd"], *"efgh")
    assert await ends(tasks) == ["FIRST", "A", "BB", "CCC", "DDDD", *"EFGH"]
    assert device.batches == [
        ["first"],
        ["a", "bb", "ccc", "dddd"],
        ["a", "bb"],
        ["ccc"],
        ["dddd"],
        ["e", "f", "g", "h"],
    ]
    (warning,) = caplog.messages
    assert warning == (
        "fake:0: out of memory with 10 tokens at once; goes on with 5; "
        "lower reward.max_tokens_per_batch"
    )
    await scoring.close()


async def test_only_the_device_that_ran_out_of_memory_gets_less() -> None:
    small, large = Device(short_of_memory_above(1)), Device()
    scoring = engine(small, large)
    with small, large:
        tasks = await ask(scoring, *["x" * 10] * 2)
        await asyncio.gather(small.begins_a_batch(), large.begins_a_batch())
        tasks += await ask(scoring, *"abcdefghij" * 2)
    await ends(tasks)
    await scoring.close()
    assert all(len(batch) == 10 for batch in large.batches[1:])
    assert sum(len(batch) == 10 for batch in small.batches) <= 1


async def test_an_item_too_large_for_the_memory_fails_alone_and_says_what_to_do() -> None:
    device = Device(short_of_memory_above(2))
    scoring = engine(device)
    with device:
        tasks = await ask_while_busy(scoring, device, "a", "bb", "c" * 7)
    outcomes = await ends(tasks)
    assert outcomes[1:3] == ["A", "BB"]
    assert outcomes[3] == (
        "RewardError: fake:0: out of memory with one text of 7 tokens; "
        "lower reward.max_tokens_per_batch or send shorter texts"
    )
    assert isinstance(cause(tasks[3]), RuntimeError)
    await scoring.close()


async def test_memory_of_a_failed_attempt_is_free_before_the_next() -> None:
    class Tensor:
        pass

    allocated: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def allocate(batch: Sequence[str]) -> None:
        alive.append(sum(tensor() is not None for tensor in allocated))
        tensor = Tensor()
        allocated.append(weakref.ref(tensor))
        if len(batch) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    device = Device(allocate)
    scoring = engine(device)
    with device:
        tasks = await ask_while_busy(scoring, device, *"abcd")
    await ends(tasks)
    await scoring.close()
    assert alive == [0] * 7  # first, abcd, ab, a, b, c, d


def test_a_budget_halves_down_to_one_and_grows_again_when_enough_has_fitted() -> None:
    budget = Budget(100)
    budget.shrink(90)
    assert budget.tokens == 45
    for _ in range(2 * _PATIENCE_BATCHES - 1):
        budget.fits()
    assert budget.tokens == 45
    budget.fits()
    assert budget.tokens == 90
    for _ in range(2 * _PATIENCE_BATCHES):
        budget.fits()
    assert budget.tokens == 100
    for _ in range(100):
        budget.shrink(budget.tokens)
    assert budget.tokens == 1
    for _ in range(_MOST_PATIENCE_BATCHES):
        budget.fits()
    assert budget.tokens == 2


def test_memory_that_torch_or_python_lacks_is_known_as_such() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8)
    assert runs_out_of_memory(caught.value)
    assert runs_out_of_memory(torch.OutOfMemoryError("CUDA"))
    assert runs_out_of_memory(MemoryError())
    assert runs_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"))
    assert not runs_out_of_memory(RuntimeError("CUDA error: an illegal memory access"))
    assert not runs_out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize(
    "error", [ValueError("bad\nlines"), SystemExit("bad"), KeyboardInterrupt()]
)
async def test_a_poisonous_item_fails_alone(error: BaseException) -> None:
    device = Device(lambda batch: "poison" in batch and raises(error))
    scoring = engine(device)
    with device:
        tasks = await ask_while_busy(scoring, device, "a", "poison", "b")
    first, a, poison, b = await ends(tasks)
    assert [first, a, b] == ["FIRST", "A", "B"]
    named = f"{type(error).__name__}: bad" if error.args else type(error).__name__
    assert poison == f"RewardError: fake:0: cannot score: {named}"
    assert cause(tasks[2]) is error
    assert device.batches == [["first"], ["a", "b", "poison"], ["a"], ["b"], ["poison"]]
    assert await scoring.score("next") == "NEXT"
    await scoring.close()


async def test_a_wrong_number_of_results_is_an_error() -> None:
    class Forgetful(Device):
        def compute(self, batch: Sequence[str]) -> list[str]:
            return [text for text in super().compute(batch) if text != "LOST"]

    device = Forgetful()
    scoring = engine(device)
    with device:
        tasks = await ask_while_busy(scoring, device, "a", "lost")
    assert await ends(tasks) == [
        "FIRST",
        "A",
        "RewardError: fake:0: cannot score: 0 results for 1 inputs",
    ]
    await scoring.close()


async def test_whatever_breaks_on_a_devices_thread_its_callers_hear_of_it() -> None:
    device = Device(lambda batch: len(batch) > 1 and raises(ValueError("bad")))
    scoring = ScoringEngine(
        {"fake": device},
        tokens=len,
        max_tokens_per_batch=10,
        is_out_of_memory=lambda error: bool(raises(SystemExit(str(error)))),
    )
    with device:
        tasks = await ask_while_busy(scoring, device, "a", "b")
    broken = "RewardError: fake: cannot score: SystemExit: bad"
    assert await ends(tasks) == ["FIRST", broken, broken]
    assert await scoring.score("next") == "NEXT"
    await scoring.close()


async def test_each_batch_computed_is_told_of_on_the_loop() -> None:
    heard: list[tuple[int, threading.Thread]] = []
    device = Device(short_of_memory_above(5))
    scoring = engine(device, hear=lambda b: heard.append((b.tokens, threading.current_thread())))
    with device:
        tasks = await ask_while_busy(scoring, device, "aa", "bbb", "cccc")
    await ends(tasks)
    await scoring.close()
    assert [tokens for tokens, _ in heard] == [5, 2, 3, 4]
    assert {thread for _, thread in heard} == {threading.current_thread()}


async def test_results_arrive_though_the_listener_fails() -> None:
    unheard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))

    def listener(_: Batched) -> None:
        raise ValueError("deaf")

    scoring = engine(Device(), hear=listener)
    assert await scoring.score("a") == "A"
    await scoring.close()
    assert len(unheard) == 1


async def test_a_size_that_cannot_be_told_is_the_callers_own_error(device: Device) -> None:
    scoring = engine(device)
    with pytest.raises(TypeError):
        await scoring.score(None)  # type: ignore[arg-type]
    assert scoring.queue_depth == 0
    await scoring.close()


def test_it_is_imported_without_torch() -> None:
    code = "import sys, reward.scoring; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
