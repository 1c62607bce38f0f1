"""What a provider allows: permits, amounts in any minute, and pauses it asked for."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from teachers.limits import Concurrency, Cooldown, Rate
from tests.virtual_time import in_virtual_time, run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from teachers.limits import Taken

MINUTE = 60.0
JITTER = (0.75, 1.25)


class Crowd:
    """Callers of one `Concurrency`, each a task that holds its permit until it is told."""

    def __init__(self, most: int) -> None:
        self.permits = Concurrency(most)
        self.calls: list[asyncio.Task[None]] = []
        self.entered: list[int] = []
        self.ends: list[asyncio.Event] = []

    def call(self, *, first: bool = False) -> None:
        number = len(self.calls)
        end = asyncio.Event()

        async def hold() -> None:
            await self.permits.acquire(first=first)
            try:
                self.entered.append(number)
                await end.wait()
            finally:
                self.permits.release()

        self.ends.append(end)
        self.calls.append(asyncio.create_task(hold()))

    @property
    def under_way(self) -> int:
        return self.permits._under_way

    async def disperse(self) -> None:
        """All that hold a permit give it back, and all that wait get theirs and do so, too."""
        for end in self.ends:
            end.set()
        await asyncio.wait(self.calls)
        for call in self.calls:
            if not call.cancelled():
                call.exception()


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


Step = tuple[str, int]
CALLERS = st.integers(0, 30)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["call", "call first", "turn", "shrink", "grow"]), st.just(0)),
        st.tuples(st.sampled_from(["end", "cancel", "end and cancel"]), CALLERS),
        st.tuples(st.sampled_from(["end and cancel next"]), CALLERS),
        st.tuples(st.just("allow"), st.integers(1, 6)),
        st.tuples(st.just("turn away"), st.just(0)),
    ),
    max_size=60,
)


def step(crowd: Crowd, what: str, which: int) -> None:
    permits, there = crowd.permits, which < len(crowd.calls)
    match what:
        case "call" | "call first":
            crowd.call(first=what == "call first")
        case "shrink":
            permits.shrink()
        case "grow":
            permits.grow()
        case "allow":
            permits.allow(which)
        case "turn away":
            permits.turn_away(lambda: RuntimeError("no"))
        case "end" if there:
            crowd.ends[which].set()
        case "cancel" if there:
            crowd.calls[which].cancel()
        case "end and cancel" if there:
            crowd.ends[which].set()
            crowd.calls[which].cancel()
        case "end and cancel next" if there and permits._waiting:
            # the permit is given to the next, who is cancelled before it can take it
            crowd.ends[which].set()
            waiting = permits._waiting[0]
            waiting.add_done_callback(lambda _: [call.cancel() for call in crowd.calls[which:]])


@given(most=st.integers(1, 5), steps=STEPS)
@settings(max_examples=400, deadline=None)
@example(1, [("call", 0), ("call", 0), ("turn", 0), ("end and cancel next", 0), ("turn", 0)])
def test_no_permit_is_ever_lost_or_given_twice(most: int, steps: Sequence[Step]) -> None:
    async def steps_of_a_crowd() -> None:
        crowd = Crowd(most)
        for what, which in steps:
            before = crowd.under_way
            if what == "turn":
                await asyncio.sleep(0)
            else:
                step(crowd, what, which)
            permits = crowd.permits
            assert 1 <= permits.limit <= permits.most
            assert crowd.under_way <= max(before, permits.limit)
            if any(not permit.done() for permit in permits._waiting):
                assert crowd.under_way >= permits.limit
        if crowd.calls:
            await crowd.disperse()
        assert crowd.under_way == 0
        assert not any(not permit.done() for permit in crowd.permits._waiting)
        taken = [crowd.permits.try_acquire() for _ in range(crowd.permits.limit + 1)]
        assert taken == [True] * crowd.permits.limit + [False]

    run(steps_of_a_crowd())


@in_virtual_time
async def test_who_comes_first_is_served_first() -> None:
    crowd = Crowd(1)
    for _ in range(6):
        crowd.call()
    await turns()
    crowd.calls[2].cancel()
    await crowd.disperse()
    assert crowd.entered == [0, 1, 3, 4, 5]


@in_virtual_time
async def test_a_call_that_had_a_permit_goes_before_all_others() -> None:
    crowd = Crowd(1)
    for _ in range(3):
        crowd.call()
    await turns()
    crowd.call(first=True)
    await turns()
    await crowd.disperse()
    assert crowd.entered == [0, 3, 1, 2]


@in_virtual_time
async def test_nobody_overtakes_those_who_wait() -> None:
    crowd = Crowd(1)
    for _ in range(2):
        crowd.call()
    await turns()
    crowd.ends[0].set()
    await turns(2)
    crowd.call()
    await turns()
    assert crowd.entered == [0, 1]
    await crowd.disperse()


@in_virtual_time
async def test_a_permit_given_to_a_cancelled_call_goes_to_the_next() -> None:
    permits = Concurrency(1)
    await permits.acquire()
    cancelled, after = (asyncio.create_task(permits.acquire()) for _ in range(2))
    await turns()
    permits.release()
    cancelled.cancel()  # it has the permit by now, and does not know yet
    await asyncio.wait([cancelled])
    assert cancelled.cancelled()
    await after
    assert not permits.try_acquire()


def test_the_limit_is_halved_down_to_one() -> None:
    permits = Concurrency(10)
    limits = []
    for _ in range(6):
        permits.shrink()
        limits.append(permits.limit)
    assert limits == [5, 2, 1, 1, 1, 1]


@pytest.mark.parametrize("most", [2, 8, 64])
def test_a_round_of_answers_adds_one_permit(most: int) -> None:
    permits = Concurrency(most)
    permits.shrink()
    before = permits.limit
    for _ in range(before + 1):
        permits.grow()
    assert permits.limit == before + 1
    for _ in range(most * most):
        permits.grow()
    assert permits.limit == most


@in_virtual_time
async def test_calls_beyond_a_lowered_limit_are_left_to_end() -> None:
    crowd = Crowd(4)
    for _ in range(6):
        crowd.call()
    await turns()
    crowd.permits.shrink()
    assert crowd.permits.squeezed
    for number, under_way in enumerate((3, 2, 2, 2)):
        crowd.ends[number].set()
        await turns()
        assert crowd.under_way == under_way
    await crowd.disperse()
    assert not crowd.permits.squeezed


@in_virtual_time
async def test_another_configuration_raises_the_limit_at_once() -> None:
    crowd = Crowd(1)
    for _ in range(5):
        crowd.call()
    await turns()
    crowd.permits.allow(3)
    await turns()
    assert crowd.under_way == 3
    crowd.permits.allow(2)
    assert crowd.permits.limit == 2
    await crowd.disperse()
    assert crowd.entered == [0, 1, 2, 3, 4]


def test_another_configuration_does_not_forget_what_the_provider_asked_for() -> None:
    permits = Concurrency(8)
    permits.shrink()
    permits.allow(100)
    assert permits.limit == 4
    permits.allow(3)
    assert permits.limit == 3
    permits.allow(10)
    assert permits.limit == 10


@in_virtual_time
async def test_turning_away_fails_those_who_wait_and_nobody_else() -> None:
    crowd = Crowd(2)
    for _ in range(5):
        crowd.call()
    await turns()
    crowd.calls[3].cancel()
    crowd.permits.turn_away(lambda: RuntimeError("no"))
    crowd.call()
    await crowd.disperse()
    ends = Counter(
        "cancelled" if call.cancelled() else type(call.exception()).__name__ for call in crowd.calls
    )
    assert ends == {"NoneType": 3, "RuntimeError": 2, "cancelled": 1}
    assert crowd.entered == [0, 1, 5]


def most_in_a_minute(used: Sequence[tuple[float, float]]) -> float:
    """The most that was used in any minute which begins with a call."""
    return max(
        sum(amount for at, amount in used if begin <= at < begin + MINUTE - 1e-6)
        for begin, _ in used
    )


async def use(
    rate: Rate, amounts: Sequence[float], gaps: Sequence[float] = (0.0,)
) -> list[tuple[float, float]]:
    """Takes the amounts one after the other, with pauses between; tells when it was each."""
    used = []
    for number, amount in enumerate(amounts):
        await rate.take(amount)
        used.append((asyncio.get_running_loop().time(), amount))
        await asyncio.sleep(gaps[number % len(gaps)])
    return used


GAPS = st.lists(st.floats(0.0, 90.0), min_size=1, max_size=10)


@given(per_minute=st.integers(1, 90), gaps=GAPS, number=st.integers(1, 200))
@settings(max_examples=100, deadline=None)
@example(per_minute=1, gaps=[0.0], number=5)
def test_no_minute_has_more_requests_than_allowed(
    per_minute: int, gaps: Sequence[float], number: int
) -> None:
    used = run(use(Rate.of_requests(per_minute), [1.0] * number, gaps))
    assert most_in_a_minute(used) <= per_minute


@pytest.mark.parametrize("per_minute", [900, 1000, 1800])
def test_no_minute_has_more_requests_than_allowed_where_many_are(per_minute: int) -> None:
    used = run(use(Rate.of_requests(per_minute), [1.0] * (2 * per_minute + 10)))
    assert most_in_a_minute(used) == per_minute


@given(
    per_minute=st.integers(1, 2000),
    shares=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40),
    gaps=GAPS,
)
@settings(max_examples=200, deadline=None)
@example(per_minute=1000, shares=[0.3] * 20, gaps=[0.0])
@example(per_minute=1000, shares=[1.0, 1.0, 0.01, 0.01], gaps=[0.0])
def test_no_minute_has_more_tokens_than_allowed(
    per_minute: int, shares: Sequence[float], gaps: Sequence[float]
) -> None:
    amounts = [float(round(share * per_minute)) for share in shares]
    used = run(use(Rate.of_tokens(per_minute), amounts, gaps))
    assert most_in_a_minute(used) <= per_minute


@given(
    calls=st.lists(st.tuples(st.integers(1, 900), st.integers(0, 900)), min_size=1, max_size=40),
    gaps=GAPS,
)
@settings(max_examples=200, deadline=None)
@example(calls=[(900, 1)] * 20 + [(1, 1)] * 20, gaps=[0.0, 70.0])
def test_no_minute_has_more_tokens_than_allowed_though_the_guess_was_too_high(
    calls: Sequence[tuple[int, int]], gaps: Sequence[float]
) -> None:
    async def calls_in_turn() -> list[tuple[float, float]]:
        rate, used = Rate.of_tokens(1000), []
        for number, (first, second) in enumerate(calls):
            guessed, needed = max(first, second), min(first, second)
            taken = await rate.take(guessed)
            used.append((asyncio.get_running_loop().time(), float(needed)))
            await asyncio.sleep(gaps[number % len(gaps)])
            rate.correct(taken, needed)
        return used

    assert most_in_a_minute(run(calls_in_turn())) <= 1000


@in_virtual_time
async def test_an_amount_larger_than_any_minute_allows_has_one_to_itself() -> None:
    rate = Rate.of_tokens(100)
    (first, _), (large, _), (last, _) = await use(rate, [10.0, 250.0, 10.0])
    assert large - first >= MINUTE
    assert last - large >= MINUTE


@pytest.mark.parametrize("per_minute", [1, 7, 60, 600, 6000])
def test_requests_come_at_nearly_the_rate_that_is_allowed(per_minute: int) -> None:
    minutes = 10 if per_minute < 1000 else 3
    used = run(use(Rate.of_requests(per_minute), [1.0] * per_minute * minutes))
    took = used[-1][0] - used[0][0]
    assert took <= minutes * MINUTE / 0.9


@pytest.mark.parametrize(("guess", "spread"), [(500, 0), (500, 400), (20, 10), (3000, 2000)])
def test_tokens_come_at_nearly_the_rate_that_is_allowed(guess: int, spread: int) -> None:
    per_minute, latency_seconds, minutes = 60_000, 2.0, 5
    dice = random.Random(0)  # noqa: S311 - no secret

    async def calls_side_by_side() -> float:
        loop, rate = asyncio.get_running_loop(), Rate.of_tokens(per_minute)
        begin, calls, total = loop.time(), [], 0

        async def answer(taken: Taken, needed: int) -> None:
            await asyncio.sleep(latency_seconds)
            rate.correct(taken, needed)

        while loop.time() < begin + minutes * MINUTE:
            taken = await rate.take(guess)
            needed = guess + dice.randint(-spread, spread)
            total += needed
            calls.append(asyncio.create_task(answer(taken, needed)))
        await asyncio.wait(calls)
        return total / minutes

    assert 0.9 * per_minute <= run(calls_side_by_side()) <= 1.01 * per_minute


@in_virtual_time
async def test_the_rate_is_even_and_begins_at_once() -> None:
    used = await use(Rate.of_requests(60), [1.0] * 5)
    assert [at - used[0][0] for at, _ in used] == pytest.approx([0, 1, 2, 3, 4], abs=1e-6)


@in_virtual_time
async def test_what_was_used_beyond_the_guess_delays_the_next() -> None:
    loop, rate = asyncio.get_running_loop(), Rate.of_tokens(6000)
    taken = await rate.take(100)
    rate.correct(taken, 1100)
    begin = loop.time()
    assert not rate.ready(100)
    await rate.take(100)
    seconds_of_the_debt = 1000 / 6000 * MINUTE
    assert seconds_of_the_debt - 3.0 <= loop.time() - begin <= seconds_of_the_debt * 1.1


@in_virtual_time
async def test_what_was_not_used_is_there_for_the_next() -> None:
    loop, rate = asyncio.get_running_loop(), Rate.of_tokens(6000)
    taken = await rate.take(2000)
    rate.correct(taken, 100)
    begin = loop.time()
    assert rate.ready(1900)
    await rate.take(1900)
    assert loop.time() - begin < 1e-3
    assert not rate.ready(300)


@in_virtual_time
async def test_a_cancelled_taker_leaves_nothing_owed_and_nothing_taken() -> None:
    loop, rate = asyncio.get_running_loop(), Rate.of_tokens(6000)
    rate.correct(await rate.take(100), 700)
    taker = asyncio.create_task(rate.take(5000))
    await asyncio.sleep(20.0)
    taker.cancel()
    await asyncio.wait([taker])
    begin = loop.time()
    await rate.take(1000)  # the debt is paid, and more than this was saved up
    assert loop.time() - begin < 1e-3


def nothing_between(_: float, __: float) -> float:
    return 1.0


@in_virtual_time
async def test_a_pause_is_as_long_as_the_provider_says() -> None:
    loop, cooldown = asyncio.get_running_loop(), Cooldown()
    begin = loop.time()
    assert cooldown.begin(begin, 7.5)
    assert cooldown.remaining_seconds == pytest.approx(7.5)
    await cooldown.wait()
    assert 7.5 <= loop.time() - begin < 7.6
    assert cooldown.remaining_seconds == 0.0


@in_virtual_time
async def test_a_pause_that_grows_is_waited_for_to_its_end() -> None:
    loop, cooldown = asyncio.get_running_loop(), Cooldown()
    begin = loop.time()
    cooldown.begin(begin, 5.0)
    wait = asyncio.create_task(cooldown.wait())
    await asyncio.sleep(4.0)
    cooldown.begin(begin, 5.0)
    cooldown.begin(begin, 2.0)  # a shorter one does not cut it
    await wait
    assert 9.0 <= loop.time() - begin < 9.1


@given(pauses=st.lists(st.floats(0.0, 1000.0), min_size=1, max_size=8))
@settings(deadline=None)
def test_no_pause_is_shorter_than_the_provider_says(pauses: Sequence[float]) -> None:
    async def refusals() -> None:
        cooldown = Cooldown()
        for pause in pauses:
            at = asyncio.get_running_loop().time()
            cooldown.begin(at, pause)
            assert cooldown.remaining_seconds >= pause - 1e-9
            await cooldown.wait()
            assert asyncio.get_running_loop().time() >= at + pause - 1e-9
            await asyncio.sleep(0.001)

    run(refusals())


async def pauses_of(
    refusals: int, after_each: Callable[[Cooldown], None] = lambda _: None
) -> list[float]:
    cooldown, found = Cooldown(), []
    for _ in range(refusals):
        await asyncio.sleep(0.001)
        assert cooldown.begin(asyncio.get_running_loop().time(), None)
        found.append(cooldown.remaining_seconds)
        await cooldown.wait()
        after_each(cooldown)
    return found


@in_virtual_time
async def test_the_pause_doubles_up_to_a_minute_where_the_provider_says_nothing() -> None:
    low, high = JITTER
    for doubled, pause in zip(
        (0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60), await pauses_of(10), strict=True
    ):
        assert low * doubled - 1e-6 <= pause <= high * doubled + 1e-6
    assert len({round(pause, 6) for pause in (await pauses_of(1) + await pauses_of(1))}) == 2


@in_virtual_time
async def test_a_long_row_of_refusals_does_not_overflow() -> None:
    assert (await pauses_of(2000))[-1] <= JITTER[1] * MINUTE


@in_virtual_time
async def test_an_answer_makes_the_next_pause_short_again() -> None:
    def answer(cooldown: Cooldown) -> None:
        cooldown.end(asyncio.get_running_loop().time())

    assert max(await pauses_of(20, after_each=answer)) <= JITTER[1] * 0.5


@in_virtual_time
async def test_an_answer_to_a_call_from_before_the_pause_says_nothing_of_it() -> None:
    before = asyncio.get_running_loop().time()
    assert max(await pauses_of(5, after_each=lambda cooldown: cooldown.end(before))) > 4.0


@in_virtual_time
async def test_calls_refused_together_are_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", nothing_between)
    cooldown, sent = Cooldown(), asyncio.get_running_loop().time()
    await asyncio.sleep(1.0)
    news = [cooldown.begin(sent, None) for _ in range(10)]
    assert news == [True] + [False] * 9
    assert cooldown.remaining_seconds == pytest.approx(0.5)
    await cooldown.wait()
    await asyncio.sleep(0.001)
    assert cooldown.begin(asyncio.get_running_loop().time(), None)
    assert cooldown.remaining_seconds == pytest.approx(1.0)


@in_virtual_time
async def test_a_second_refusal_doubles_the_pause_though_the_provider_says_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(random, "uniform", nothing_between)
    cooldown = Cooldown()
    for expected in (0.0, 1.0, 2.0):
        await asyncio.sleep(0.001)
        cooldown.begin(asyncio.get_running_loop().time(), 0.0)
        assert cooldown.remaining_seconds == pytest.approx(expected)
        await cooldown.wait()
