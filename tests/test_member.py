"""One teacher of the pool: attempts, limits and deadlines, and what a cancelled call leaves."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arbitrage import config
from arbitrage.errors import (
    BudgetSpent,
    TeacherAnswerInvalid,
    TeacherMisconfigured,
    TeacherRateLimited,
    TeacherRejected,
    TeacherTimeout,
    TeacherUnavailable,
)
from arbitrage.types import Completion
from teachers import Budget, Pool
from tests.stub_teacher import ANSWER, PROMPT, StubTeacher, answers, fails, hang, hangs, pool_of
from tests.stub_teacher import settings as arm
from tests.virtual_time import VirtualTimeLoop, in_virtual_time, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage.types import Candidate

DOWN = TeacherUnavailable("down")
MINUTE = 60.0


def now() -> float:
    return asyncio.get_running_loop().time()


def beside_another(teacher: StubTeacher, **fields: Any) -> Pool:
    """A pool in which somebody else could answer instead."""
    return Pool([(arm("other"), answers()), (arm(**fields), teacher)])


async def ask(pool: Pool, deadline: float | None = None, **fields: Any) -> Candidate:
    """Asks teacher `a`, with a deadline so many seconds from now."""
    at = None if deadline is None else now() + deadline
    (candidate,) = await pool.ask("a", PROMPT, deadline=at, **fields)
    return candidate


def outcome(candidate: Candidate) -> str:
    return candidate.failure.outcome if candidate.failure else "ok"


def gaps(times: Sequence[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]


def most_in_a_minute(sent: Sequence[float]) -> int:
    return max(sum(begin <= at < begin + MINUTE - 1e-6 for at in sent) for begin in sent)


def nothing_is_held(pool: Pool, name: str = "a") -> None:
    member = pool._members[name]
    assert member.idle
    assert member._health.concurrency._under_way == 0
    assert not member._health.concurrency._waiting
    assert not member._health.breaker._probing
    assert not member._next.locked()
    assert pool.budget.in_flight == 0


@pytest.mark.parametrize("error", [DOWN, TeacherAnswerInvalid("not JSON")])
@in_virtual_time
async def test_what_may_pass_is_tried_again(error: Exception) -> None:
    teacher = fails(error, error, seconds=1.0)
    candidate = await ask(pool_of(teacher))
    assert candidate.completion == ANSWER
    assert len(teacher.sent) == 3
    first, second = gaps(teacher.sent)
    assert 1.1 <= first <= 1.36
    assert 1.2 <= second <= 1.46
    assert candidate.latency_seconds == pytest.approx(1.0 + first + second, abs=1e-3)


@pytest.mark.parametrize("max_attempts", [1, 2, 4])
@in_virtual_time
async def test_it_is_tried_max_attempts_times_at_most(max_attempts: int) -> None:
    teacher = fails(DOWN)
    assert outcome(await ask(pool_of(teacher, max_attempts=max_attempts))) == "unavailable"
    assert len(teacher.sent) == max_attempts


@pytest.mark.parametrize(
    "error",
    [TeacherRejected("too long"), TeacherMisconfigured("wrong key"), TeacherTimeout("too late")],
)
@in_virtual_time
async def test_what_will_not_pass_is_not_tried_again(error: TeacherRejected) -> None:
    teacher = fails(error)
    assert outcome(await ask(pool_of(teacher))) == error.outcome
    assert len(teacher.sent) == 1


@in_virtual_time
async def test_a_teacher_that_hangs_times_out_is_cancelled_and_not_asked_again() -> None:
    teacher = hangs()
    candidate = await ask(pool_of(teacher, timeout_seconds=5.0))
    assert candidate.failure is not None
    assert candidate.failure.outcome == "timeout"
    assert "no answer within 5 s" in candidate.failure.message
    assert candidate.latency_seconds == pytest.approx(5.0, abs=0.1)
    assert (len(teacher.sent), teacher.under_way) == (1, 0)


@in_virtual_time
async def test_the_attempts_of_a_call_share_its_timeout() -> None:
    teacher = fails(DOWN, seconds=4.0)
    candidate = await ask(pool_of(teacher, timeout_seconds=10.0, max_attempts=9))
    assert outcome(candidate) == "timeout"
    assert len(teacher.sent) == 3
    assert 10.0 <= candidate.latency_seconds <= 10.8  # and the pauses between


@in_virtual_time
async def test_waiting_for_a_permit_does_not_count_towards_the_timeout() -> None:
    teacher = answers(seconds=4.0)
    pool = pool_of(teacher, timeout_seconds=5.0, max_concurrency=1)
    candidates = await asyncio.gather(*(ask(pool) for _ in range(5)))
    assert [outcome(c) for c in candidates] == ["ok"] * 5
    assert [round(c.latency_seconds) for c in candidates] == [4, 8, 12, 16, 20]


@in_virtual_time
async def test_waiting_for_the_rate_does_not_count_towards_the_timeout() -> None:
    teacher = answers(seconds=0.5)
    pool = pool_of(teacher, timeout_seconds=1.0, requests_per_minute=6)
    candidates = await asyncio.gather(*(ask(pool) for _ in range(5)))
    assert [outcome(c) for c in candidates] == ["ok"] * 5
    assert gaps(teacher.sent) == pytest.approx([10.0] * 4, abs=1e-3)


@in_virtual_time
async def test_at_most_max_concurrency_calls_are_under_way() -> None:
    teacher = answers(seconds=1.0)
    pool = pool_of(teacher, max_concurrency=3)
    begin = now()
    candidates = await asyncio.gather(*(ask(pool) for _ in range(20)))
    assert all(c.completion for c in candidates)
    assert (len(teacher.sent), teacher.most_under_way) == (20, 3)
    assert now() - begin == pytest.approx(7.0, abs=1e-3)


@pytest.mark.parametrize("error", [DOWN, TeacherRateLimited("slow down")])
@in_virtual_time
async def test_nothing_is_sent_after_the_deadline(error: Exception) -> None:
    teacher = fails(error, seconds=0.4)
    begin = now()
    pool = pool_of(teacher, max_attempts=1000)
    candidate = await ask(pool, deadline=2.0)
    assert candidate.failure is not None
    assert now() - begin <= 2.0 + 1e-3
    assert max(teacher.sent) <= begin + 2.0
    await asyncio.sleep(100.0)
    assert max(teacher.sent) <= begin + 2.0
    nothing_is_held(pool)


@in_virtual_time
async def test_the_deadline_ends_a_call_under_way() -> None:
    teacher = hangs()
    candidate = await ask(pool_of(teacher), deadline=2.0)
    assert candidate.failure is not None
    assert candidate.failure.outcome == "timeout"
    assert candidate.failure.message == "no answer before the prompt's time was over"
    assert candidate.latency_seconds == pytest.approx(2.0, abs=0.1)
    assert teacher.under_way == 0


@in_virtual_time
async def test_a_call_that_never_got_its_turn_says_so() -> None:
    pool = pool_of(hangs(), max_concurrency=1)
    first = asyncio.create_task(ask(pool))
    await asyncio.sleep(0)
    second = await ask(pool, deadline=2.0)
    first.cancel()
    assert second.failure is not None
    assert second.failure.outcome == "timeout"
    assert "not asked before the prompt's time was over" in second.failure.message


class Drafting(StubTeacher):
    """Tells a piece of its answer, and only then does as its script says."""

    async def complete(self, messages: Any, on_delta: Any = None) -> Sequence[Completion]:
        if on_delta:
            on_delta("Be")
        return await super().complete(messages)


@pytest.mark.parametrize(
    "error", [DOWN, TeacherAnswerInvalid("torn"), TeacherRateLimited("slow down")]
)
@in_virtual_time
async def test_nothing_is_tried_again_once_a_piece_was_told(error: Exception) -> None:
    async def script(_: int) -> Sequence[Completion]:
        raise error

    teacher, pieces = Drafting(script), list[str]()
    candidate = await ask(pool_of(teacher), on_delta=pieces.append)
    assert candidate.failure is not None
    assert pieces == ["Be"]
    assert len(teacher.sent) == 1


@in_virtual_time
async def test_before_a_piece_was_told_a_call_is_tried_again() -> None:
    teacher, pieces = fails(DOWN, DOWN), list[str]()
    assert (await ask(pool_of(teacher), on_delta=pieces.append)).completion == ANSWER
    assert pieces == [ANSWER.text]
    assert len(teacher.sent) == 3


SLOW_DOWN = TeacherRateLimited("slow down", retry_after_seconds=30)


@in_virtual_time
async def test_a_limited_call_fails_at_once_where_another_may_answer() -> None:
    teacher = fails(SLOW_DOWN, SLOW_DOWN)
    candidate = await ask(beside_another(teacher))
    assert outcome(candidate) == "rate_limited"
    assert candidate.latency_seconds < 0.001
    assert len(teacher.sent) == 1


@pytest.mark.parametrize("alone", [True, False])
@in_virtual_time
async def test_a_limited_call_waits_where_it_should_or_nobody_else_may_answer(
    alone: bool,
) -> None:
    teacher = fails(SLOW_DOWN, SLOW_DOWN)
    fields = {"when_limited": "route_around" if alone else "wait", "timeout_seconds": 1.0}
    pool = pool_of(teacher, **fields) if alone else beside_another(teacher, **fields)
    candidate = await ask(pool)
    assert candidate.completion == ANSWER
    first, second = gaps(teacher.sent)
    assert 30.0 <= first < 30.1
    assert 30.0 <= second < 30.1


@in_virtual_time
async def test_a_limited_call_is_not_left_to_those_who_were_tried() -> None:
    teacher = fails(SLOW_DOWN, SLOW_DOWN)
    candidate = await ask(beside_another(teacher), tried={"other"})
    assert candidate.completion == ANSWER


@in_virtual_time
async def test_an_overloaded_teacher_is_not_tried_again_where_another_may_answer() -> None:
    busy = TeacherUnavailable("busy", overloaded=True)
    teacher = fails(busy, busy)
    assert outcome(await ask(beside_another(teacher))) == "unavailable"
    assert len(teacher.sent) == 1
    teacher = fails(busy, busy)
    assert outcome(await ask(pool_of(teacher))) == "ok"


@pytest.mark.parametrize("when_limited", ["wait", "route_around"])
@in_virtual_time
async def test_a_pause_longer_than_the_deadline_fails_at_once(when_limited: str) -> None:
    teacher = fails(SLOW_DOWN, SLOW_DOWN)
    pool = pool_of(teacher, when_limited=when_limited)
    for sent in (1, 1):
        candidate = await ask(pool, deadline=20.0)
        assert outcome(candidate) == "rate_limited"
        assert candidate.latency_seconds < 0.001
        assert len(teacher.sent) == sent
    assert candidate.failure is not None
    assert "its provider takes no calls for another 30.0 s" in candidate.failure.message


@in_virtual_time
async def test_a_pause_holds_for_the_calls_of_all_prompts() -> None:
    async def script(number: int) -> Sequence[Completion]:
        await asyncio.sleep(0.2)
        if number == 3:
            raise SLOW_DOWN
        return (ANSWER,)

    teacher = StubTeacher(script)
    pool = pool_of(teacher, max_concurrency=4, when_limited="wait")
    begin = now()
    early = [asyncio.create_task(ask(pool)) for _ in range(20)]
    await asyncio.sleep(10.0)
    late = [asyncio.create_task(ask(pool)) for _ in range(20)]
    candidates = await asyncio.gather(*early, *late)
    assert [outcome(c) for c in candidates] == ["ok"] * 40
    assert len(teacher.sent) == 41
    refused = begin + 0.2
    in_the_pause = [at for at in teacher.sent if refused < at < refused + 30.0]
    # the three that were answered beside the refused one had followers in the very same turn
    assert all(at - refused < 1e-6 for at in in_the_pause)
    assert len(in_the_pause) <= 3


@in_virtual_time
async def test_an_overloaded_provider_gets_half_the_calls_and_slowly_more() -> None:
    async def script(number: int) -> Sequence[Completion]:
        await asyncio.sleep(1.0)
        if number < 8:
            raise TeacherRateLimited("slow down", retry_after_seconds=1.0)
        return (ANSWER,)

    teacher = StubTeacher(script)
    pool = pool_of(teacher, max_concurrency=8, when_limited="wait")
    await asyncio.gather(*(ask(pool) for _ in range(60)))
    rounds = Counter(round(at - teacher.sent[0]) for at in teacher.sent)
    sizes = [rounds[second] for second in sorted(rounds)]
    assert sizes[:2] == [8, 4]
    assert max(sizes[2:]) == 8
    assert all(after - before in {0, 1} for before, after in pairwise(sizes[1:-1]))


LATENCIES = st.lists(st.sampled_from([0.0, 0.1, 1.0, 7.0, 40.0]), min_size=1, max_size=8)
FAULTS = st.lists(
    st.sampled_from(
        [
            None, None, None, DOWN, TeacherRateLimited("1"),
            TeacherRateLimited("2", retry_after_seconds=20.0), TeacherRejected("3"),
        ]
    ),
    min_size=1,
    max_size=8,
)  # fmt: skip


@given(
    per_minute=st.integers(1, 80),
    tokens=st.none() | st.integers(100, 3000),
    latencies=LATENCIES,
    faults=FAULTS,
    asks=st.lists(
        st.tuples(st.floats(0.0, 100.0), st.none() | st.floats(0.0, 200.0)),
        min_size=1,
        max_size=60,
    ),
)
@settings(max_examples=150, deadline=None)
@example(60, None, [1.0], [TeacherRateLimited("", retry_after_seconds=50.0), None], [(0.0, None)])
def test_no_minute_has_more_calls_than_allowed_whatever_happens(
    per_minute: int,
    tokens: int | None,
    latencies: Sequence[float],
    faults: Sequence[Exception | None],
    asks: Sequence[tuple[float, float | None]],
) -> None:
    pauses: list[tuple[float, float]] = []

    async def script(number: int) -> Sequence[Completion]:
        await asyncio.sleep(latencies[number % len(latencies)])
        if fault := faults[number % len(faults)]:
            pauses.append((now(), getattr(fault, "retry_after_seconds", None) or 0.0))
            raise fault
        return (Completion("x", prompt_tokens=60, completion_tokens=40),)

    teacher = StubTeacher(script)

    async def prompts() -> None:
        pool = pool_of(
            teacher,
            requests_per_minute=per_minute,
            tokens_per_minute=tokens,
            max_concurrency=32,
            when_limited="wait",
            sampling=config.Sampling(max_tokens=98),  # with the prompt's, 100 are expected
        )

        async def one(begin: float, give_up: float | None) -> None:
            await asyncio.sleep(begin)
            try:
                async with asyncio.timeout(give_up):
                    await ask(pool, deadline=1000.0)
            except TimeoutError:
                return

        await asyncio.gather(*(one(*each) for each in asks))
        nothing_is_held(pool)

    run(prompts())
    if teacher.sent:
        most = most_in_a_minute(teacher.sent)
        assert most <= per_minute
        assert tokens is None or 100 * most <= tokens
    for begin, seconds in pauses:
        assert not [at for at in teacher.sent if begin + 1e-6 < at < begin + seconds]


@in_virtual_time
async def test_a_cooldown_does_not_save_up_calls_for_its_end() -> None:
    async def script(number: int) -> Sequence[Completion]:
        await asyncio.sleep(1.0)
        if number == 0:
            raise TeacherRateLimited("slow down", retry_after_seconds=50.0)
        return (ANSWER,)

    teacher = StubTeacher(script)
    pool = pool_of(teacher, max_concurrency=64, requests_per_minute=60, when_limited="wait")
    await asyncio.gather(*(ask(pool) for _ in range(200)))
    refused = teacher.sent[0] + 1.0
    assert not [at for at in teacher.sent if refused + 1e-3 < at < refused + 50.0]
    assert sum(refused + 50.0 <= at < refused + 60.0 for at in teacher.sent) <= 12
    assert most_in_a_minute(teacher.sent) <= 60


@in_virtual_time
async def test_answers_shorter_than_expected_leave_their_tokens_to_the_next() -> None:
    short = Completion("x", prompt_tokens=10, completion_tokens=10)
    teacher = answers(short, seconds=1.0)
    pool = pool_of(teacher, tokens_per_minute=6000, sampling=config.Sampling(max_tokens=4000))
    begin = now()
    await asyncio.gather(*(ask(pool) for _ in range(200)))  # 4000 tokens in truth
    assert now() - begin <= 100.0


@in_virtual_time
async def test_a_teacher_that_hangs_holds_few_calls() -> None:
    max_concurrency, failures, timeout_seconds = 8, 5, 10.0
    teacher = hangs()
    pool = pool_of(teacher, max_concurrency=max_concurrency, timeout_seconds=timeout_seconds)
    begin = now()
    candidates = await asyncio.gather(*(ask(pool, deadline=300.0) for _ in range(100)))
    assert all(c.failure for c in candidates)
    together = [at for at in teacher.sent if at <= begin + timeout_seconds + 1e-3]
    probes = teacher.sent[len(together) :]
    assert len(together) <= max_concurrency + failures
    assert teacher.most_under_way <= max_concurrency
    assert min(gaps(probes)) > timeout_seconds  # one at a time, each after its break
    breaks = [gap - timeout_seconds for gap in gaps(probes)]
    for expected, seconds in zip((2, 4, 8, 16, 32, 60, 60), breaks, strict=False):
        assert expected <= seconds <= 1.25 * expected + 0.2
    nothing_is_held(pool)


@in_virtual_time
async def test_those_who_wait_are_turned_away_when_the_circuit_opens() -> None:
    teacher = hangs()
    pool = beside_another(teacher, max_concurrency=2, timeout_seconds=10.0)
    begin = now()
    candidates = await asyncio.gather(*(ask(pool) for _ in range(100)))
    outcomes = Counter(map(outcome, candidates))
    assert outcomes["timeout"] <= 2 + 5
    assert outcomes["left_alone"] == 100 - outcomes["timeout"]
    assert now() - begin <= 3 * 10.0 + 10.0
    turned_away = next(c.failure for c in candidates if outcome(c) == "left_alone")
    assert turned_away is not None
    assert "left alone for another" in turned_away.message
    assert "no answer within 10 s" in turned_away.message


@in_virtual_time
async def test_those_who_wait_are_turned_away_though_no_permit_comes_free() -> None:
    async def script(number: int) -> Sequence[Completion]:
        await asyncio.sleep(50.0 if number < 2 else 0.1)
        if number >= 2:
            raise DOWN
        return (ANSWER,)

    pool = beside_another(StubTeacher(script), max_concurrency=4, max_attempts=1)
    candidates = await asyncio.gather(*(ask(pool) for _ in range(30)))
    late = [c for c in candidates if c.latency_seconds > 1.0]
    assert [outcome(c) for c in late] == ["ok", "ok"]


@in_virtual_time
async def test_where_nobody_else_may_answer_a_prompt_waits_for_recovery() -> None:
    async def script(_: int) -> Sequence[Completion]:
        await asyncio.sleep(0.1)
        if now() < well_again:
            raise DOWN
        return (ANSWER,)

    teacher = StubTeacher(script)
    pool = pool_of(teacher, max_concurrency=4)
    well_again = now() + 10.0
    candidates = await asyncio.gather(*(ask(pool, deadline=600.0) for _ in range(50)))
    lost = [c for c in candidates if c.failure]
    # those that were under way when it opened, and those that were probes
    assert len(lost) <= 4 + 5 + 5
    assert now() <= well_again + 30.0
    nothing_is_held(pool)


@in_virtual_time
async def test_those_who_waited_for_recovery_keep_their_order() -> None:
    async def script(number: int) -> Sequence[Completion]:
        await asyncio.sleep(0.1 if number < 5 else 1.0)
        if number < 5:
            raise DOWN
        return (ANSWER,)

    async def one(number: int) -> None:
        await ask(pool, deadline=600.0)
        order.append(number)

    pool, order = pool_of(StubTeacher(script), max_concurrency=1, max_attempts=1), list[int]()
    await asyncio.gather(*map(one, range(12)))
    assert order == list(range(12))


@in_virtual_time
async def test_recovery_is_not_waited_for_beyond_the_deadline() -> None:
    pool = pool_of(fails(DOWN), max_attempts=1)
    for _ in range(5):
        await ask(pool)
    candidate = await ask(pool, deadline=0.9)
    assert outcome(candidate) == "left_alone"
    assert candidate.latency_seconds < 0.001


@in_virtual_time
async def test_after_the_break_one_probe_decides() -> None:
    async def script(number: int) -> Sequence[Completion]:
        await asyncio.sleep(0.0 if number < 5 else 3.0)
        if number < 5:
            raise DOWN
        return (ANSWER,)

    teacher = StubTeacher(script)
    pool = beside_another(teacher, max_attempts=1)
    for _ in range(5):
        await ask(pool)
    await asyncio.sleep(1.3)
    candidates = await asyncio.gather(*(ask(pool) for _ in range(10)))
    assert Counter(map(outcome, candidates)) == {"ok": 1, "left_alone": 9}
    assert len(teacher.sent) == 6
    candidates = await asyncio.gather(*(ask(pool) for _ in range(4)))
    assert Counter(map(outcome, candidates)) == {"ok": 4}


@in_virtual_time
async def test_a_probe_whose_prompt_leaves_makes_room_for_another() -> None:
    teacher = fails(DOWN, DOWN, DOWN, DOWN, DOWN, seconds=0.5)
    pool = beside_another(teacher, max_attempts=1)
    for _ in range(5):
        await ask(pool)
    await asyncio.sleep(1.3)
    probe = asyncio.create_task(ask(pool))
    await asyncio.sleep(0.1)
    assert "a" not in pool.available(PROMPT)
    probe.cancel()
    await asyncio.wait([probe])
    assert "a" in pool.available(PROMPT)
    assert outcome(await ask(pool)) == "ok"


@in_virtual_time
async def test_a_refusal_that_comes_after_the_timeout_is_not_followed_by_another_call() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)

    async def script(_: int) -> Sequence[Completion]:
        loop.stand_still(10.0)
        raise TeacherRateLimited("slow down", retry_after_seconds=0.0)

    teacher = StubTeacher(script)
    candidate = await ask(pool_of(teacher, timeout_seconds=4.0), deadline=100.0)
    assert outcome(candidate) == "rate_limited"
    assert len(teacher.sent) == 1


STAGES: dict[str, dict[str, Any]] = {
    "waits for a permit": {"max_concurrency": 1},
    "waits for a request": {"requests_per_minute": 1},
    "waits for tokens": {"tokens_per_minute": 4},
    "waits for the end of a pause": {"requests_per_minute": 600},
    "is under way": {},
    "waits for another attempt": {"max_attempts": 100, "timeout_seconds": 1e6},
}


@pytest.mark.parametrize("stage", STAGES)
@in_virtual_time
async def test_a_call_cancelled_while_it_does_this_leaves_nothing_behind(stage: str) -> None:
    async def script(number: int) -> Sequence[Completion]:
        if stage == "waits for the end of a pause" and number == 0:
            raise TeacherRateLimited("slow down", retry_after_seconds=20.0)
        if stage == "waits for another attempt" and not over:
            raise DOWN
        return await (hang(number) if not over else answers().complete(PROMPT.messages))

    over = False
    pool = Pool(
        [
            (
                arm(**STAGES[stage], price_per_million=config.Price(completion=1.0)),
                StubTeacher(script),
            )
        ],
        budget=Budget(1.0),
    )
    asks = []
    for _ in range(1 if stage == "waits for another attempt" else 3):
        asks.append(asyncio.create_task(ask(pool)))
        await asyncio.sleep(0.3)
    for each in reversed(asks):
        each.cancel()
    await asyncio.wait(asks)
    assert all(each.cancelled() for each in asks)
    nothing_is_held(pool)
    over = True
    await asyncio.sleep(60.0)
    assert outcome(await ask(pool)) == "ok"


@given(
    asks=st.lists(
        st.tuples(st.floats(0.0, 20.0), st.floats(0.0, 20.0), st.integers(0, 3)),
        min_size=1,
        max_size=25,
    ),
    latencies=LATENCIES,
    faults=FAULTS,
    max_concurrency=st.integers(1, 4),
    requests_per_minute=st.none() | st.integers(1, 300),
    tokens_per_minute=st.none() | st.integers(1, 3000),
    hedge_percentile=st.none() | st.just(0.5),
    when_limited=st.sampled_from(["wait", "route_around"]),
)
@settings(max_examples=300, deadline=None)
def test_calls_cancelled_at_any_moment_leave_nothing_behind(
    asks: Sequence[tuple[float, float, int]],
    latencies: Sequence[float],
    faults: Sequence[Exception | None],
    **fields: Any,
) -> None:
    async def script(number: int) -> Sequence[Completion]:
        await asyncio.sleep(latencies[number % len(latencies)])
        if number < 200 and (fault := faults[number % len(faults)]):
            raise fault
        return (ANSWER,)

    async def one(pool: Pool, begin: float, give_up: float, turns: int) -> None:
        await asyncio.sleep(begin)
        call = asyncio.create_task(ask(pool, deadline=300.0))
        await asyncio.sleep(give_up)
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])

    async def prompts() -> None:
        teacher = StubTeacher(script)
        price = config.Price(prompt=1.0, completion=1.0)
        pool = Pool(
            [(arm(**fields, price_per_million=price, timeout_seconds=30.0), teacher)],
            budget=Budget(10.0),
        )
        await asyncio.gather(*(one(pool, *each) for each in asks))
        nothing_is_held(pool)
        assert teacher.under_way == 0
        assert teacher.most_under_way <= fields["max_concurrency"]

    run(prompts())


@in_virtual_time
async def test_those_who_wait_for_a_permit_leave_for_another_when_a_pause_begins() -> None:
    pool = beside_another(
        fails(TeacherRateLimited("slow", retry_after_seconds=60)), max_concurrency=2
    )
    begin = now()
    ends = await asyncio.gather(*(ask(pool, deadline=600.0) for _ in range(50)))
    assert now() - begin < 1.0
    assert {outcome(end) for end in ends} == {"rate_limited"}


@in_virtual_time
async def test_the_call_that_opens_the_circuit_goes_on_if_nobody_else_can_answer() -> None:
    teacher = fails(*[DOWN] * 6)
    candidate = await ask(pool_of(teacher, max_attempts=9), deadline=120.0)
    assert candidate.completion == ANSWER
    assert len(teacher.sent) == 7


@in_virtual_time
async def test_the_little_time_left_for_a_retry_is_no_silence() -> None:
    async def script(number: int) -> Sequence[Completion]:
        if number % 2:
            return await hang(number)
        await asyncio.sleep(9.9)
        raise DOWN

    teacher = StubTeacher(script)
    pool = beside_another(teacher, timeout_seconds=10.0)
    for _ in range(4):
        await ask(pool)
    assert "a" in pool.available(PROMPT)


@in_virtual_time
async def test_money_that_is_only_reserved_is_waited_for() -> None:
    price = config.Price(prompt=0.0, completion=1_000_000.0)  # an answer costs 3 dollars
    teacher = arm(price_per_million=price, sampling=config.Sampling(max_tokens=3))
    pool = Pool([(teacher, answers(seconds=5.0))], budget=Budget(8.0))
    await ask(pool)
    call = asyncio.create_task(ask(pool))
    await asyncio.sleep(1.0)
    assert pool.available(PROMPT) == []
    assert await pool.another(PROMPT, (), now() + 60.0)
    await call
    assert not await pool.another(PROMPT, (), now() + 60.0)
    assert isinstance(pool.refusal(PROMPT), BudgetSpent)


@in_virtual_time
async def test_thoughts_that_were_billed_without_an_answer_are_not_bought_again() -> None:
    teacher = fails(TeacherAnswerInvalid("no text", prompt_tokens=1, completion_tokens=99))
    candidate = await ask(pool_of(teacher, price_per_million=config.Price(completion=1e6)))
    assert outcome(candidate) == "invalid_answer"
    assert candidate.cost_usd == 99.0
    assert len(teacher.sent) == 1


@in_virtual_time
async def test_a_small_budget_is_waited_for_and_loses_no_prompt_that_it_can_pay() -> None:
    price = config.Price(completion=1e6)  # an answer costs 3 dollars
    teacher = arm(price_per_million=price, sampling=config.Sampling(max_tokens=3))
    pool = Pool([(teacher, answers(seconds=1.0))], budget=Budget(30.0))
    candidates = await asyncio.gather(*(ask(pool, deadline=600.0) for _ in range(15)))
    assert Counter(map(outcome, candidates)) == {"ok": 10, "over_budget": 5}
    assert pool.budget.spent == 30


@in_virtual_time
async def test_prompts_of_one_moment_leave_a_full_minute_to_the_others() -> None:
    teacher = answers(seconds=0.5)
    pool = beside_another(teacher, requests_per_minute=60)
    begin = now()
    candidates = await asyncio.gather(*(ask(pool, deadline=60.0) for _ in range(32)))
    assert now() - begin < 3.0
    assert set(map(outcome, candidates)) == {"ok", "rate_limited"}


@in_virtual_time
async def test_a_hedge_is_reserved_when_it_is_decided_and_its_failure_is_learned() -> None:
    async def script(number: int) -> Sequence[Completion]:
        if number < 20:
            await asyncio.sleep(1.0)
        elif number % 2 == 0:
            await asyncio.sleep(1.5)
            raise TeacherRateLimited("slow down", retry_after_seconds=30.0)
        else:
            await asyncio.sleep(1.0)
        return (ANSWER,)

    teacher = StubTeacher(script)
    pool = pool_of(teacher, hedge_percentile=0.9)
    for _ in range(20):
        await ask(pool)
    assert outcome(await ask(pool)) == "ok"
    assert len(teacher.sent) == 22
    assert pool._members["a"]._health.cooldown.remaining_seconds > 25.0
    nothing_is_held(pool)
