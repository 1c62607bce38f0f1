"""The pool: who may be asked, why nobody may, and what becomes of an answer."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest

from arbitrage import config
from arbitrage.errors import (
    BudgetSpent,
    TeacherError,
    TeacherMisconfigured,
    TeacherRateLimited,
    TeacherRejected,
    TeacherUnavailable,
)
from arbitrage.types import Completion, Prompt, TeacherInfo
from teachers import Budget, Pool
from tests.stub_teacher import ANSWER, PROMPT, StubTeacher, answers, fails, hang, hangs, pool_of
from tests.stub_teacher import settings as arm
from tests.virtual_time import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage.events import Called

DOWN = TeacherUnavailable("down")
PRICE = config.Price(prompt=0.1, completion=0.2)


def named(*entries: config.ScriptedTeacher, **fields: Any) -> Pool:
    return Pool([(entry, hangs()) for entry in entries], **fields)


def able_and(name: str, teacher: StubTeacher, **fields: Any) -> Pool:
    """A pool of a teacher that answers, called `able`, and another."""
    return Pool([(arm("able"), answers()), (arm(name, **fields), teacher)])


async def open_circuit(pool: Pool, name: str) -> None:
    """Fails until the teacher is left alone."""
    while name in pool.available(PROMPT):
        await pool.ask(name, PROMPT, deadline=asyncio.get_running_loop().time() + 0.01)


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
        arm("german", languages=("de-AT",)),
        arm("norwegian", languages=("no",)),
        arm("any"),
        arm("chinese", languages=("zh-Hans", "ja")),
    )
    assert pool.available(Prompt.of("Why?", language=language)) == arms


@in_virtual_time
async def test_an_answer_becomes_a_candidate() -> None:
    (candidate,) = await pool_of(answers(ANSWER, seconds=1.5)).ask("a", PROMPT)
    assert (candidate.teacher, candidate.completion) == ("a", ANSWER)
    assert candidate.failure is None
    assert candidate.latency_seconds == pytest.approx(1.5)
    assert candidate.cost_usd == 0


async def test_each_of_several_answers_becomes_a_candidate() -> None:
    several = [Completion("x", prompt_tokens=10), Completion("y"), Completion("z", "length")]
    teacher = answers(*several)
    price = config.Price(prompt=1.0)
    pool = pool_of(teacher, sampling=config.Sampling(n=3), price_per_million=price)
    candidates = await pool.ask("a", PROMPT)
    assert [c.completion for c in candidates] == several
    assert {c.teacher for c in candidates} == {"a"}
    assert [c.cost_usd for c in candidates] == [0.00001, 0.0, 0.0]
    assert len(teacher.sent) == 1


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (TeacherRejected("too long"), "rejected"),
        (TeacherMisconfigured("no such model"), "rejected"),
        (TeacherError("something"), "error"),
    ],
)
async def test_a_teachers_failure_is_data(error: Exception, outcome: str) -> None:
    (candidate,) = await pool_of(fails(error)).ask("a", PROMPT)
    assert candidate.completion is None
    assert candidate.failure is not None
    assert (candidate.failure.outcome, candidate.failure.message) == (outcome, str(error))


@pytest.mark.parametrize("error", [ZeroDivisionError("bug"), TimeoutError("not the pool's")])
async def test_a_bug_in_an_adapter_is_raised(error: Exception) -> None:
    pool = pool_of(fails(error), max_concurrency=1)
    for _ in range(2):
        with pytest.raises(type(error), match=str(error)):
            await pool.ask("a", PROMPT)


async def test_an_unknown_arm_is_a_bug() -> None:
    with pytest.raises(KeyError):
        await named(arm("a")).ask("b", PROMPT)


@in_virtual_time
async def test_every_attempt_is_told_of() -> None:
    heard: list[Called] = []
    pool = Pool([(arm(), fails(DOWN, TeacherRejected("no"), seconds=1.0))], hear=heard.append)
    for _ in range(2):
        await pool.ask("a", PROMPT)
    hung = Pool([(arm("b", timeout_seconds=3.0), hangs())], hear=heard.append)
    await hung.ask("b", PROMPT)
    ask = asyncio.create_task(hung.ask("b", PROMPT))
    await asyncio.sleep(2.0)
    ask.cancel()
    await asyncio.wait([ask])
    assert [(c.teacher, c.outcome, round(c.seconds, 3)) for c in heard] == [
        ("a", "unavailable", 1.0),
        ("a", "rejected", 1.0),
        ("a", "ok", 1.0),
        ("b", "timeout", 3.0),
        ("b", "cancelled", 2.0),
    ]


def test_describe_tells_of_every_teacher() -> None:
    pool = named(
        arm(
            "a",
            languages=("de-AT", "de"),
            license="MIT",
            price_per_million=PRICE,
            max_concurrency=3,
            trainable=True,
        ),
        arm("b"),
    )
    first, second = pool.describe()
    assert first == TeacherInfo(
        "a", "scripted", "scripted", available=True, languages=("de",), license="MIT",
        prompt_price=0.1, completion_price=0.2, max_concurrency=3, trainable=True,
    )  # fmt: skip
    assert second == TeacherInfo("b", "scripted", "scripted", available=True, max_concurrency=8)


def test_an_adapter_may_know_its_price_and_the_configuration_knows_better() -> None:
    class Priced(StubTeacher):
        price = config.Price(prompt=3.0, completion=4.0)

    teacher = Priced(hang)
    pool = Pool(
        [
            (arm("known"), teacher),
            (arm("told", price_per_million=PRICE), teacher),
            (arm("free", price_per_million=config.Price()), teacher),
        ]
    )
    prices = [(info.prompt_price, info.completion_price) for info in pool.describe()]
    assert prices == [(3.0, 4.0), (0.1, 0.2), (0.0, 0.0)]


@in_virtual_time
async def test_a_teacher_that_is_left_alone_is_not_available_until_a_probe_is_due() -> None:
    pool = able_and("ill", fails(DOWN), max_attempts=1)
    await open_circuit(pool, "ill")
    assert [info.available for info in pool.describe()] == [True, False]
    await asyncio.sleep(1.3)
    assert pool.available(PROMPT) == ["able", "ill"]
    assert [info.available for info in pool.describe()] == [True, False]


@in_virtual_time
async def test_a_limited_teacher_is_routed_around_while_another_may_answer() -> None:
    limited = fails(TeacherRateLimited("slow down", retry_after_seconds=30))
    pool = able_and("limited", limited)
    assert pool.available(PROMPT) == ["able", "limited"]
    await pool.ask("limited", PROMPT)
    assert pool.available(PROMPT) == ["able"]
    assert [info.available for info in pool.describe()] == [True, False]
    await asyncio.sleep(31.0)
    assert pool.available(PROMPT) == ["able", "limited"]


@in_virtual_time
async def test_limited_teachers_are_available_when_nobody_else_is_left() -> None:
    limited = fails(TeacherRateLimited("slow down", retry_after_seconds=30))
    pool = Pool(
        [
            (arm("a", max_attempts=1), fails(DOWN)),
            (arm("b"), limited),
            (arm("c", requests_per_minute=1), answers()),
        ]
    )
    assert pool.available(PROMPT) == ["a", "b", "c"]
    await pool.ask("b", PROMPT, deadline=asyncio.get_running_loop().time() + 1)
    await pool.ask("c", PROMPT)
    assert pool.available(PROMPT) == ["a"]
    await open_circuit(pool, "a")
    assert pool.available(PROMPT) == ["b", "c"]


@in_virtual_time
async def test_a_limited_teacher_that_prompts_should_wait_for_stays_available() -> None:
    pool = Pool(
        [
            (arm("able"), answers()),
            (arm("slow", when_limited="wait", requests_per_minute=1), answers()),
            (arm("tight", when_limited="route_around", tokens_per_minute=5), answers()),
        ]
    )
    assert pool.available(PROMPT) == ["able", "slow", "tight"]
    await pool.ask("slow", PROMPT)
    await pool.ask("tight", PROMPT)
    assert pool.available(PROMPT) == ["able", "slow"]


@in_virtual_time
async def test_a_teacher_whose_permits_the_provider_has_taken_counts_as_limited() -> None:
    async def script(number: int) -> Sequence[Completion]:
        await asyncio.sleep(1.0 if number == 0 else 100.0)
        if number == 0:
            raise TeacherRateLimited("slow down", retry_after_seconds=0.5)
        return (ANSWER,)

    pool = able_and("squeezed", StubTeacher(script), max_concurrency=2)
    await pool.ask("squeezed", PROMPT)
    await asyncio.sleep(1.0)
    assert pool.available(PROMPT) == ["able", "squeezed"]
    ask = asyncio.create_task(pool.ask("squeezed", PROMPT))
    await asyncio.sleep(1.0)
    assert pool.available(PROMPT) == ["able"]
    await ask
    assert pool.available(PROMPT) == ["able", "squeezed"]


@pytest.mark.parametrize(("trainable", "arms"), [(False, ["a", "b", "c"]), (True, ["a"])])
async def test_only_those_are_asked_whose_outputs_may_train_others(
    trainable: bool, arms: list[str]
) -> None:
    pool = named(
        arm("a", trainable=True),
        arm("b", trainable=False),
        arm("c"),
        only_trainable=trainable,
    )
    assert pool.available(PROMPT) == arms
    assert [info.name for info in pool.describe() if info.available] == arms


def test_the_refusal_says_that_nobody_is_configured() -> None:
    refusal = named(arm("a", languages=("de",))).refusal(PROMPT)
    assert str(refusal) == "no teacher is configured for 'en'; add it to languages"
    assert refusal.retry_after_seconds is None
    assert not isinstance(refusal, BudgetSpent)
    refusal = named(arm("a"), only_trainable=True).refusal(PROMPT)
    assert str(refusal).startswith("no teacher whose outputs may train others is configured")


@in_virtual_time
async def test_the_refusal_says_who_fails_and_when_to_try_again() -> None:
    pool = Pool(
        [
            (arm("a", max_attempts=1), fails(DOWN)),
            (arm("b", max_attempts=1), fails(TeacherMisconfigured("wrong key"))),
            (arm("c", price_per_million=PRICE), answers()),
        ],
        budget=Budget(1.0),
    )
    pool.budget.spent += 1
    await open_circuit(pool, "a")
    await asyncio.sleep(0.5)
    await open_circuit(pool, "b")
    assert pool.available(PROMPT) == []
    refusal = pool.refusal(PROMPT)
    assert not isinstance(refusal, BudgetSpent)
    assert "\n" not in str(refusal)
    for part in ("'en'", "a is left alone", "down", "b is left alone", "wrong key"):
        assert part in str(refusal)
    assert "c is" not in str(refusal)
    assert refusal.retry_after_seconds is not None
    assert 0.4 < refusal.retry_after_seconds <= 0.75


@in_virtual_time
async def test_the_refusal_is_of_the_budget_where_nothing_else_is_in_the_way() -> None:
    pool = named(arm("a", price_per_million=PRICE), budget=Budget(0.5))
    pool.budget.spent += 1
    refusal = pool.refusal(PROMPT)
    assert isinstance(refusal, BudgetSpent)
    assert "0.5 USD allows no other call (1.000000 USD spent so far); raise" in str(refusal)


@in_virtual_time
async def test_another_waits_for_the_first_that_may_be_asked_again() -> None:
    loop = asyncio.get_running_loop()
    pool = Pool([(arm("a", max_attempts=1), fails(DOWN)), (arm("b", max_attempts=1), fails(DOWN))])
    await open_circuit(pool, "a")
    assert not await pool.another(PROMPT, {"a", "b"}, math.inf)
    await open_circuit(pool, "b")
    begin = loop.time()
    assert not await pool.another(PROMPT, {"a"}, begin + 0.9)
    assert loop.time() - begin < 0.001
    assert await pool.another(PROMPT, {"a"}, begin + 60.0)
    assert "b" in pool.available(PROMPT)
    assert 0.9 < loop.time() - begin <= 1.3


@in_virtual_time
async def test_another_is_not_waited_for_where_it_cannot_be_paid() -> None:
    pool = named(arm("a", price_per_million=PRICE), budget=Budget(1.0))
    pool.budget.spent += 1
    assert not await pool.another(PROMPT, (), math.inf)


async def test_a_shared_teacher_is_closed_once_and_all_in_spite_of_an_error() -> None:
    class Stuck(StubTeacher):
        async def close(self) -> None:
            raise OSError("stuck")

    shared, stuck = hangs(), Stuck(hang)
    pool = Pool([(arm("a"), stuck), (arm("b"), shared), (arm("c"), shared)])
    with pytest.raises(ExceptionGroup, match="did not close"):
        await pool.close()
    assert shared.closed == 1
