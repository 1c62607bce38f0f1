"""What calls cost, to the last digit, and that all of them stay within the budget."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbitrage import config
from arbitrage.errors import BudgetSpent, TeacherAnswerInvalid, TeacherRejected
from arbitrage.types import Completion, Prompt
from teachers import Budget, Pool
from teachers.budget import Account, Tariff
from tests.stub_teacher import ANSWER, PROMPT, StubTeacher, answers, fails
from tests.stub_teacher import settings as arm
from tests.virtual_time import in_virtual_time, run

if TYPE_CHECKING:
    from collections.abc import Sequence

PRICE = config.Price(prompt=0.1, completion=0.6)
MILLION = 1_000_000


def counted(prompt_tokens: int, completion_tokens: int) -> Completion:
    return Completion("x", prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)


def account(budget: Budget | None = None, sampling: config.Sampling | None = None) -> Account:
    return Account(Tariff.of(PRICE), sampling or config.Sampling(), budget or Budget())


@given(
    st.decimals(0, 1000, places=4), st.decimals(0, 1000, places=4),
    st.integers(0, 10**9), st.integers(0, 10**9),
)  # fmt: skip
def test_a_cost_is_the_price_as_written_times_the_tokens(
    prompt: Decimal, completion: Decimal, prompt_tokens: int, completion_tokens: int
) -> None:
    price = config.Price(prompt=float(str(prompt)), completion=float(str(completion)))
    cost = Tariff.of(price).cost(prompt_tokens, completion_tokens)
    assert cost * MILLION == prompt * prompt_tokens + completion * completion_tokens


def test_ten_million_calls_add_up_without_dust() -> None:
    cost = Tariff.of(config.Price(prompt=0.1)).cost(1, 0)
    assert cost * 10**7 == 1
    assert sum([cost] * 1000, Decimal(0)) == Decimal("0.0001")


def test_no_price_is_free() -> None:
    assert Tariff.of(None) == Tariff.of(config.Price()) == Tariff()
    assert Tariff().cost(10**9, 10**9) == 0


def test_a_call_is_expected_to_use_what_the_calls_before_it_did() -> None:
    books = account(sampling=config.Sampling(max_tokens=100))
    prompt = Prompt.of("äöü", language="de")  # six bytes
    assert books.expected_tokens(prompt) == (2, 100)
    books.settle(prompt, [counted(10, 30)])
    books.settle(prompt, [counted(20, 50)])
    assert books.expected_tokens(prompt) == (15, 40)


@pytest.mark.parametrize(
    ("sampling", "longest"),
    [
        (config.Sampling(), 512),
        (config.Sampling(n=4), 2048),
        (config.Sampling(max_tokens=7, n=3), 21),
    ],
)
def test_the_first_call_is_expected_to_be_as_long_as_it_may(
    sampling: config.Sampling, longest: int
) -> None:
    assert account(sampling=sampling).expected_tokens(PROMPT) == (2, longest)


def test_all_messages_and_scripts_are_guessed_by_their_bytes() -> None:
    turns = [
        {"role": "system", "content": "空" * 10},
        {"role": "user", "content": "a" * 30},
    ]
    assert account().expected_tokens(Prompt.of(turns))[0] == 20


def test_answers_of_one_call_share_the_tokens_of_its_prompt() -> None:
    budget = Budget()
    used, costs = account(budget).settle(PROMPT, [counted(1000, 10), counted(0, 20)])
    assert used == 1030
    assert costs == [Decimal("0.000106"), Decimal("0.000012")]
    assert budget.spent == sum(costs)


def test_what_nobody_counted_is_guessed_and_charged() -> None:
    budget = Budget()
    thoughtful = Completion("a" * 30, reasoning="b" * 60)
    used, costs = account(budget).settle(PROMPT, [thoughtful, Completion("a" * 30)])
    assert used == 2 + 10 + 20 + 10  # the prompt once, the thoughts, the answers
    assert [cost * MILLION for cost in costs] == [Decimal("18.2"), Decimal("6.0")]
    assert budget.spent == sum(costs)


def test_a_cached_answer_costs_nothing() -> None:
    budget = Budget()
    cached = Completion("x", prompt_tokens=10, completion_tokens=10, cached=True)
    assert account(budget).settle(PROMPT, [cached])[1] == [0]
    assert budget.spent == 0


def test_a_failure_is_charged_what_was_billed() -> None:
    budget = Budget()
    books = account(budget)
    assert books.charge(TeacherAnswerInvalid("no", prompt_tokens=10)) * MILLION == 1
    assert books.charge(TeacherAnswerInvalid("no", completion_tokens=10)) * MILLION == 6
    assert books.charge(TeacherRejected("no")) == 0
    assert budget.spent * MILLION == 7


def test_a_call_is_reserved_until_it_ends_however_it_does() -> None:
    budget = Budget(1.0)
    books = account(budget, config.Sampling(max_tokens=100))

    def call() -> None:
        with books.reserved(PROMPT):
            assert budget.in_flight == Decimal("0.0000602")
            books.settle(PROMPT, [counted(1, 1)])  # what is expected is another thing by now
            raise RuntimeError

    with pytest.raises(RuntimeError):
        call()
    assert budget.in_flight == 0


def test_no_call_starts_that_would_exceed_the_budget() -> None:
    budget = Budget(1.0)
    assert budget.allows(Decimal(1))
    assert not budget.allows(Decimal("1.000001"))
    budget.spent += Decimal("0.5")
    budget.in_flight += Decimal("0.25")
    assert budget.allows(Decimal("0.25"))
    assert not budget.allows(Decimal("0.26"))
    budget.spent = Decimal(1)
    assert not budget.allows(Decimal(0))


def test_a_budget_can_be_raised_and_lowered() -> None:
    budget = Budget(1.0)
    budget.spent += Decimal("1.5")
    limits = (1.0, 2.0, 0.1, None)
    found = []
    for limit_usd in limits:
        budget.allow(limit_usd)
        found.append((budget.remaining_usd, budget.allows(Decimal("0.5"))))
    assert found == [(-0.5, False), (0.5, True), (-1.4, False), (None, True)]


def test_a_teacher_without_a_price_is_always_within_the_budget() -> None:
    budget = Budget(1.0)
    budget.spent += 2
    free = Account(Tariff(), config.Sampling(), budget)
    assert free.within_budget
    assert free.affordable(PROMPT)
    assert not account(budget).within_budget
    assert not account(budget).affordable(PROMPT)


@pytest.mark.parametrize(
    ("completion", "cost_usd"),
    [
        (counted(3, 1), 0.0000009),
        (counted(MILLION, MILLION), 0.7),
        (Completion("x", prompt_tokens=3), 0.0000009),
        (Completion("x", completion_tokens=5), 0.0000032),
        (Completion("x"), 0.0000008),
        (Completion("x", prompt_tokens=3, completion_tokens=1, cached=True), 0.0),
    ],
)
async def test_a_candidate_tells_its_cost(completion: Completion, cost_usd: float) -> None:
    pool = Pool([(arm(price_per_million=PRICE), answers(completion))])
    (candidate,) = await pool.ask("a", PROMPT)
    assert candidate.cost_usd == cost_usd


@in_virtual_time
async def test_the_first_candidate_bears_what_failed_attempts_cost() -> None:
    broken = TeacherAnswerInvalid("no JSON", prompt_tokens=10, completion_tokens=0)
    teacher = fails(broken, broken)
    pool = Pool([(arm(price_per_million=PRICE), teacher)])
    (candidate,) = await pool.ask("a", PROMPT)
    assert candidate.completion == ANSWER
    assert candidate.cost_usd == 0.0000039  # twice 1, and 0.1 + 1.8 for the answer
    assert pool.budget.spent == Decimal("0.0000039")


async def test_a_failed_candidate_tells_what_it_cost_all_the_same() -> None:
    broken = TeacherAnswerInvalid("no JSON", prompt_tokens=10, completion_tokens=20)
    pool = Pool([(arm(price_per_million=PRICE, max_attempts=1), fails(broken))])
    (candidate,) = await pool.ask("a", PROMPT)
    assert candidate.failure is not None
    assert candidate.cost_usd == 0.000013
    assert pool.budget.spent == Decimal("0.000013")


async def test_when_the_budget_is_spent_only_the_free_are_asked() -> None:
    priced, free = answers(counted(MILLION, 0)), answers(counted(MILLION, 0))
    pool = Pool(
        [(arm("priced", price_per_million=PRICE), priced), (arm("free"), free)],
        budget=Budget(0.1),
    )
    assert pool.available(PROMPT) == ["priced", "free"]
    await pool.ask("priced", PROMPT)
    assert pool.budget.remaining_usd == 0
    assert pool.available(PROMPT) == ["free"]
    assert [info.available for info in pool.describe()] == [False, True]
    (candidate,) = await pool.ask("priced", PROMPT)
    assert candidate.failure is not None
    assert candidate.failure.outcome == "over_budget"
    assert len(priced.sent) == 1
    (candidate,) = await pool.ask("free", PROMPT)
    assert candidate.completion is not None
    pool.budget.allow(1.0)
    assert pool.available(PROMPT) == ["priced", "free"]


async def test_a_spent_budget_is_told_as_such() -> None:
    pool = Pool([(arm(price_per_million=PRICE), answers())], budget=Budget(0.25))
    pool.budget.spent = Decimal("0.25")
    assert pool.available(PROMPT) == []
    refusal = pool.refusal(PROMPT)
    assert isinstance(refusal, BudgetSpent)
    assert "the budget of 0.25 USD allows no other call (0.250000 USD spent so far)" in str(refusal)
    assert refusal.retry_after_seconds is None


@in_virtual_time
async def test_a_budget_spent_while_calls_wait_stops_them() -> None:
    teacher = answers(counted(MILLION, 0), seconds=0.001)
    pool = Pool([(arm(price_per_million=PRICE, max_concurrency=1), teacher)], budget=Budget(0.25))
    ends = await asyncio.gather(*(pool.ask("a", PROMPT) for _ in range(10)))
    outcomes = [c.failure.outcome if c.failure else "ok" for (c,) in ends]
    assert outcomes == ["ok", "ok"] + ["over_budget"] * 8
    assert pool.budget.spent == Decimal("0.2")


@dataclass(frozen=True)
class Plan:
    """How one call goes: what it uses, how long it takes, and how it ends."""

    prompt_tokens: int
    completion_tokens: int
    seconds: float
    end: str


@dataclass
class Ledger:
    """What calls to all teachers have really cost, and when the limit was reached."""

    budget: Budget
    spent: Decimal = Decimal(0)
    under_way: dict[int, Decimal] = field(default_factory=dict)
    most: Decimal | None = None

    def begin(self, call: int, cost: Decimal) -> None:
        limit = self.budget.limit
        assert limit is not None
        assert self.most is None, "a call that costs was made after the limit was reached"
        assert self.budget.spent == self.spent
        assert self.spent + self.budget.in_flight <= limit
        self.under_way[call] = cost

    def end(self, call: int, *, billed: bool) -> None:
        limit = self.budget.limit
        assert limit is not None
        if billed:
            before, self.spent = self.spent, self.spent + self.under_way[call]
            if before < limit <= self.spent:
                self.most = limit + sum(self.under_way.values(), Decimal(0))
        del self.under_way[call]


PLANS = st.builds(
    Plan,
    prompt_tokens=st.integers(0, 3000),
    completion_tokens=st.integers(0, 3000),
    seconds=st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.0, 10.0]),
    end=st.sampled_from(["answer", "answer", "answer", "billed failure", "failure", "hang"]),
)
PRICES = st.builds(
    config.Price,
    prompt=st.sampled_from([0.0, 0.1, 0.15, 1.0, 3.3]),
    completion=st.sampled_from([0.6, 3.3, 15.0]),
)


def teacher_of(plans: Sequence[Plan], price: config.Price, ledger: Ledger) -> StubTeacher:
    tariff = Tariff.of(price)

    async def script(number: int) -> Sequence[Completion]:
        plan = plans[number % len(plans)]
        call = id(teacher) + number
        ledger.begin(call, tariff.cost(plan.prompt_tokens, plan.completion_tokens))
        billed = False
        try:
            await asyncio.sleep(1e9 if plan.end == "hang" else plan.seconds)
            billed = plan.end != "failure"
        finally:
            ledger.end(call, billed=billed)
        if plan.end == "failure":
            raise TeacherRejected("no")
        if plan.end == "billed failure":
            raise TeacherAnswerInvalid(
                "no",
                prompt_tokens=plan.prompt_tokens,
                completion_tokens=plan.completion_tokens,
            )
        return (counted(plan.prompt_tokens, plan.completion_tokens),)

    teacher = StubTeacher(script)
    return teacher


@given(
    limit_usd=st.floats(0.001, 0.05),
    prices=st.lists(PRICES, min_size=1, max_size=3),
    plans=st.lists(PLANS, min_size=1, max_size=12),
    max_concurrency=st.integers(1, 8),
    asks=st.lists(
        st.tuples(st.integers(0, 2), st.floats(0.0, 3.0), st.none() | st.floats(0.0, 4.0)),
        min_size=5,
        max_size=40,
    ),
)
@settings(max_examples=1000, deadline=None)
def test_the_budget_is_exceeded_by_no_more_than_what_was_in_flight(
    limit_usd: float,
    prices: Sequence[config.Price],
    plans: Sequence[Plan],
    max_concurrency: int,
    asks: Sequence[tuple[int, float, float | None]],
) -> None:
    async def spend() -> None:
        budget = Budget(limit_usd)
        ledger = Ledger(budget)
        pool = Pool(
            [
                (
                    arm(
                        str(number),
                        price_per_million=price,
                        max_concurrency=max_concurrency,
                        timeout_seconds=20.0,
                        sampling=config.Sampling(max_tokens=50),
                    ),
                    teacher_of(plans[number:] or plans, price, ledger),
                )
                for number, price in enumerate(prices)
            ],
            budget=budget,
        )

        async def ask(arm_number: int, begin: float, give_up: float | None) -> float:
            await asyncio.sleep(begin)
            try:
                async with asyncio.timeout(give_up):
                    found = await pool.ask(str(arm_number % len(prices)), PROMPT)
            except TimeoutError:
                return 0.0
            return sum(candidate.cost_usd for candidate in found)

        costs = await asyncio.gather(*(ask(*one) for one in asks))
        assert budget.spent == ledger.spent
        assert budget.in_flight == 0
        assert ledger.most is None or budget.spent <= ledger.most
        if all(give_up is None for *_, give_up in asks):
            assert sum(costs) == pytest.approx(float(budget.spent))

    run(spend())


@in_virtual_time
async def test_a_cancelled_call_gives_back_what_it_reserved() -> None:
    budget = Budget(0.01)
    pool = Pool([(arm(price_per_million=PRICE), answers(seconds=1.0))], budget=budget)
    asks = [asyncio.create_task(pool.ask("a", PROMPT)) for _ in range(3)]
    await asyncio.sleep(0.5)
    assert budget.in_flight > 0
    for ask in asks:
        ask.cancel()
    await asyncio.wait(asks)
    assert budget.in_flight == 0
    assert budget.spent == 0
