"""The circuit breaker, and what a call's end tells of a teacher's health."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arbitrage.errors import (
    TeacherAnswerInvalid,
    TeacherLeftAlone,
    TeacherMisconfigured,
    TeacherRateLimited,
    TeacherRejected,
    TeacherUnavailable,
)
from teachers.breaker import Breaker, Circuit
from teachers.health import Health

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arbitrage.errors import TeacherError

FAILURES = 5
FIRST_BREAK, LONGEST_BREAK = 1.0, 60.0
JITTER = 1.25
DOWN = TeacherUnavailable("down")


@dataclass
class Clock:
    """A clock that a test turns."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(name="clock")
def _clock() -> Iterator[Clock]:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("teachers.breaker.monotonic", clock)
        patch.setattr("teachers.limits.monotonic", clock)
        yield clock


def enter(breaker: Breaker) -> Circuit:
    circuit = breaker.enter()
    assert circuit is not None
    return circuit


def closed(breaker: Breaker) -> bool:
    return breaker.closed


def ready(breaker: Breaker) -> bool:
    return breaker.ready


def opened() -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES):
        breaker.failed(enter(breaker))
    assert not closed(breaker)
    return breaker


def test_five_failures_in_a_row_open_the_circuit_for_a_second(clock: Clock) -> None:
    breaker = Breaker()
    news = [breaker.failed(enter(breaker)) for _ in range(FAILURES)]
    assert news == [False] * 4 + [True]
    assert not closed(breaker)
    assert not ready(breaker)
    assert breaker.enter() is None
    assert FIRST_BREAK <= breaker.remaining_seconds <= JITTER * FIRST_BREAK
    clock.now += JITTER * FIRST_BREAK
    assert ready(breaker)
    assert not closed(breaker)
    assert breaker.remaining_seconds == 0.0


@pytest.mark.usefixtures("clock")
def test_an_answer_between_failures_keeps_it_closed() -> None:
    breaker = Breaker()
    for _ in range(10):
        for _ in range(FAILURES - 1):
            breaker.failed(enter(breaker))
        breaker.succeeded(enter(breaker))
    assert closed(breaker)


def test_calls_sent_before_it_opened_say_nothing_new(clock: Clock) -> None:
    breaker = Breaker()
    sent = [enter(breaker) for _ in range(FAILURES + 7)]
    for circuit in sent[:FAILURES]:
        breaker.failed(circuit)
    remaining = breaker.remaining_seconds
    assert [breaker.failed(circuit) for circuit in sent[FAILURES:]] == [False] * 7
    breaker.succeeded(sent[0])
    breaker.left(sent[1])
    assert breaker.remaining_seconds == remaining
    assert not closed(breaker)
    # nor do they when a probe is under way, or has closed it
    clock.now += remaining
    probe = enter(breaker)
    breaker.failed(sent[0])
    breaker.left(sent[1])
    assert breaker.enter() is None
    breaker.succeeded(probe)
    for circuit in sent:
        breaker.failed(circuit)
    assert closed(breaker)


def test_one_probe_is_sent_at_a_time(clock: Clock) -> None:
    breaker = opened()
    clock.now += breaker.remaining_seconds
    probe = enter(breaker)
    assert not ready(breaker)
    assert breaker.enter() is None
    breaker.left(probe)
    assert ready(breaker)
    assert enter(breaker) == probe
    assert breaker.enter() is None


def test_a_probe_that_succeeds_closes_it_and_makes_the_break_short_again(clock: Clock) -> None:
    breaker = opened()
    for _ in range(3):
        clock.now += breaker.remaining_seconds
        assert breaker.failed(enter(breaker))
    clock.now += breaker.remaining_seconds
    breaker.succeeded(enter(breaker))
    assert closed(breaker)
    for _ in range(FAILURES - 1):
        breaker.failed(enter(breaker))
    assert closed(breaker)
    breaker.failed(enter(breaker))
    assert FIRST_BREAK <= breaker.remaining_seconds <= JITTER * FIRST_BREAK


def test_each_probe_that_fails_doubles_the_break_up_to_a_minute(clock: Clock) -> None:
    breaker = opened()
    for seconds in (2, 4, 8, 16, 32, 60, 60, 60):
        clock.now += breaker.remaining_seconds
        assert breaker.failed(enter(breaker))
        assert seconds <= breaker.remaining_seconds <= JITTER * seconds


ENDS = st.sampled_from(["succeeded", "failed", "left"])


@given(steps=st.lists(st.one_of(st.just("enter"), st.floats(0.0, 90.0), ENDS), max_size=80))
def test_whatever_happens_it_lets_one_probe_through_or_everyone(
    steps: Sequence[str | float],
) -> None:
    clock, breaker = Clock(), Breaker()
    sent: list[tuple[Circuit, bool]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("teachers.breaker.monotonic", clock)
        for step in steps:
            if isinstance(step, float):
                clock.now += step
            elif step == "enter":
                probes = not closed(breaker)
                probe_under_way = probes and any(probe for _, probe in sent)
                circuit = breaker.enter()
                if circuit is None:
                    assert probes
                    assert probe_under_way or breaker.remaining_seconds > 0
                else:
                    assert not probe_under_way
                    sent.append((circuit, probes))
            elif sent:
                circuit, _ = sent.pop(0)
                getattr(breaker, step)(circuit)
            assert breaker.remaining_seconds <= JITTER * LONGEST_BREAK
        # it is never shut for good: the probes end, and the break is over
        for circuit, _ in sent:
            breaker.left(circuit)
        clock.now += JITTER * LONGEST_BREAK
        assert breaker.enter() is not None


def fail(health: Health, error: TeacherError, number: int = FAILURES) -> None:
    for _ in range(number):
        health.failed(health.enter(), error, called_at=0.0)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    "error", [DOWN, TeacherAnswerInvalid("not JSON"), TeacherMisconfigured("wrong key")]
)
def test_a_teacher_that_fails_is_left_alone_with_the_reason(error: TeacherError) -> None:
    health = Health(8)
    fail(health, error)
    with pytest.raises(TeacherLeftAlone, match=rf"left alone for another 1\.\d s.*: {error}"):
        health.enter()
    assert health.concurrency.limit == 4


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    "error", [TeacherRejected("too long"), TeacherRateLimited("slow down", retry_after_seconds=1)]
)
def test_a_teacher_that_refuses_is_alive(error: TeacherError) -> None:
    health = Health(8)
    for _ in range(3):
        fail(health, DOWN, FAILURES - 1)
        fail(health, error, 1)
    assert closed(health.breaker)


def test_a_refusal_closes_the_circuit_as_an_answer_does(clock: Clock) -> None:
    health = Health(8)
    fail(health, DOWN)
    clock.now += health.breaker.remaining_seconds
    fail(health, TeacherRejected("too long"), 1)
    assert closed(health.breaker)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("error", "limit"),
    [
        (TeacherRateLimited("slow down"), 4),
        (TeacherUnavailable("busy", overloaded=True), 4),
        (TeacherUnavailable("busy", retry_after_seconds=3.0), 4),
        (DOWN, 8),
        (TeacherRejected("too long"), 8),
        (TeacherAnswerInvalid("not JSON"), 8),
    ],
)
def test_a_provider_that_has_too_much_to_do_is_given_time_and_half_the_calls(
    error: TeacherError, limit: int
) -> None:
    health = Health(8)
    fail(health, error, 1)
    assert health.concurrency.limit == limit
    assert health.limited is (limit == 4)
    assert (health.cooldown.remaining_seconds > 0) is (limit == 4)


def test_a_call_given_up_early_says_nothing_and_one_given_up_late_counts(clock: Clock) -> None:
    health = Health(8)
    for _ in range(3 * FAILURES):  # nobody knows yet how long answers take
        health.silent(health.enter(), seconds=14.9, timeout_seconds=60.0)
    assert closed(health.breaker)
    for _ in range(FAILURES):
        health.silent(health.enter(), seconds=15.0, timeout_seconds=60.0)
    assert not closed(health.breaker)
    clock.now += health.breaker.remaining_seconds
    for _ in range(20):
        health.answered(health.enter(), 0.0, seconds=2.0)
    for _ in range(3 * FAILURES):  # by now it is known
        health.silent(health.enter(), seconds=3.9, timeout_seconds=60.0)
    assert closed(health.breaker)
    for _ in range(FAILURES):
        health.silent(health.enter(), seconds=4.0, timeout_seconds=60.0)
    assert "no answer within 4 s" in str(health.refusal())


@pytest.mark.usefixtures("clock")
def test_a_timeout_counts_however_long_answers_usually_take() -> None:
    health = Health(8)
    for _ in range(20):
        health.answered(health.enter(), 0.0, seconds=50.0)
    for _ in range(FAILURES):
        health.silent(health.enter(), seconds=60.0, timeout_seconds=60.0)
    assert not closed(health.breaker)


def test_while_a_probe_is_under_way_the_refusal_says_so(clock: Clock) -> None:
    health = Health(8)
    fail(health, DOWN)
    clock.now += health.breaker.remaining_seconds
    probe = health.enter()
    with pytest.raises(TeacherLeftAlone, match=r"left alone while a probe is under way.*down"):
        health.enter()
    health.breaker.left(probe)
    health.enter()
