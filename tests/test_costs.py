"""What a call costs: how languages and arms share what is known, and what must hold."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbitrage.types import Candidate, Completion, Failure
from router.experience.costs import BILLED, CALLS, LOGS, SQUARES, TIMED, USD, Costs

ARMS = ("a", "b", "c", "d")
LANGUAGES = ("de", "fr", "th")


def answered(arm: str, usd: float = 0.0, seconds: float = 0.0) -> Candidate:
    return Candidate(arm, Completion("."), cost_usd=usd, latency_seconds=seconds)


def failed(arm: str, outcome: str, usd: float = 0.0, seconds: float = 0.0) -> Candidate:
    failure = Failure(outcome, "no answer")
    return Candidate(arm, failure=failure, cost_usd=usd, latency_seconds=seconds)


def cached(arm: str, usd: float = 0.0, seconds: float = 0.0) -> Candidate:
    completion = Completion(".", cached=True)
    return Candidate(arm, completion, cost_usd=usd, latency_seconds=seconds)


usds = st.one_of(st.just(0.0), st.floats(-12.0, 3.0).map(lambda power: 10.0**power))
candidates = st.one_of(
    st.builds(answered, st.sampled_from(ARMS), usds, st.floats(0.01, 100.0)),
    st.builds(failed, st.sampled_from(ARMS), st.sampled_from(["timeout", "error"]), usds),
)
histories = st.lists(
    st.tuples(st.sampled_from(LANGUAGES), st.lists(candidates, max_size=4)), max_size=12
)
History = list[tuple[str, list[Candidate]]]


def taught(*histories: History, keep: float = 1.0) -> Costs:
    costs = Costs(keep)
    for history in histories:
        for language, told in history:
            costs.learn(language, told)
    return costs


def reads(costs: Costs, arms: tuple[str, ...] = (*ARMS, "new")) -> list[float]:
    """Everything that can be read, in one list."""
    return [
        float(figure)
        for language in (*LANGUAGES, "never seen")
        for read in (costs.usd, costs.seconds)
        for figure in read(language, arms)
    ]


def test_nothing_known_costs_nothing() -> None:
    costs = Costs()
    assert costs.usd("de", ARMS).tolist() == [0.0] * 4
    assert costs.seconds("de", ARMS).tolist() == [0.0] * 4
    assert costs.usd("de", []).tolist() == []


def test_a_language_that_is_dear_with_one_arm_is_dear_with_all() -> None:
    costs = Costs()
    for _ in range(100):
        costs.learn("en", [answered("a", 0.01), answered("b", 0.001), answered("free")])
        costs.learn("th", [answered("a", 0.03)])
    usd = costs.usd("th", ["a", "b", "free"])
    assert usd[:2] == pytest.approx([0.03, 0.003], rel=0.05)
    assert usd[2] == 0.0
    assert 0.015 < costs.usd("never seen", ["a"])[0] < 0.025


def test_an_arm_is_not_dear_for_being_asked_where_all_are() -> None:
    costs = Costs()
    for _ in range(200):
        costs.learn("en", [answered("link", 0.01), answered("a", 0.01)])
        costs.learn("th", [answered("link", 0.04), answered("b", 0.04)])
    assert costs.usd("en", ["b"]) == pytest.approx([0.01], rel=0.1)
    assert costs.usd("th", ["a"]) == pytest.approx([0.04], rel=0.1)


def test_what_is_asked_in_a_language_outweighs_what_is_known_of_others() -> None:
    costs = Costs()
    for _ in range(50):
        costs.learn("en", [answered("a", 0.01), answered("b", 0.01)])
        costs.learn("th", [answered("b", 0.01)])
    guess = costs.usd("th", ["a"])[0]
    for _ in range(5):
        costs.learn("th", [answered("a", 0.05)])
    some = costs.usd("th", ["a"])[0]
    for _ in range(400):
        costs.learn("th", [answered("a", 0.05)])
    many = costs.usd("th", ["a"])[0]
    assert guess == pytest.approx(0.01, rel=0.05)
    assert 0.015 < some < 0.04
    assert many == pytest.approx(0.05, rel=0.05)


@settings(deadline=None, derandomize=True)
@given(history=histories)
def test_a_free_arm_is_free_in_every_language(history: History) -> None:
    for _, told in history:
        told.append(answered("free", 0.0, 1.0))
    costs = taught([("de", [answered("free")]), *history])
    for language in (*LANGUAGES, "never seen"):
        assert costs.usd(language, ["free", *ARMS])[0] == 0.0
        assert np.all(costs.usd(language, ["free", *ARMS]) >= 0.0)


@settings(deadline=None, derandomize=True)
@given(left=histories, right=histories)
def test_merged_costs_are_those_of_both_streams(left: History, right: History) -> None:
    whole, one, two = taught(left, right), taught(left), taught(right)
    one.merge(taught(right))
    two.merge(taught(left))
    for merged in (one, two):
        assert set(merged.languages) == set(whole.languages)
        assert set(merged.arms) == set(whole.arms)
        assert reads(merged) == pytest.approx(reads(whole), rel=1e-6)
        for language, row in whole.languages.items():
            for arm, column in whole.arms.items():
                mine = merged.sums[merged.languages[language], merged.arms[arm]]
                assert mine == pytest.approx(whole.sums[row, column], rel=1e-12)


@settings(deadline=None, derandomize=True)
@given(before=histories, after=histories, keep=st.sampled_from([1.0, 0.9]))
def test_a_restored_state_goes_on_exactly_as_before(
    before: History, after: History, keep: float
) -> None:
    costs, restored = taught(before, keep=keep), taught(after, keep=keep)
    restored.restore(costs.state())
    assert reads(restored) == reads(costs)
    for language, told in after:
        costs.learn(language, told)
        restored.learn(language, told)
    assert reads(restored) == reads(costs)


def test_a_state_is_plain_and_a_copy() -> None:
    costs = taught([("de", [answered("a", 0.5, 2.0)])])
    state = costs.state()
    costs.learn("de", [answered("a", 5.0, 2.0)])
    plain = {key: part if isinstance(part, list) else part.tolist() for key, part in state.items()}
    again = Costs()
    again.restore(json.loads(json.dumps(plain)))
    assert again.usd("de", ["a"]) == pytest.approx([0.5])


@settings(deadline=None, derandomize=True)
@given(history=histories, order=st.permutations((*ARMS, "new")))
def test_the_order_of_arms_changes_nothing(history: History, order: list[str]) -> None:
    costs = taught(history)
    by_name = dict(zip((*ARMS, "new"), costs.usd("de", (*ARMS, "new")).tolist(), strict=True))
    assert costs.usd("de", order) == pytest.approx([by_name[arm] for arm in order], rel=1e-12)


@settings(deadline=None, derandomize=True)
@given(
    usd=st.lists(st.floats(0.01, 1.0), min_size=12, max_size=12),
    factor=st.sampled_from([1e-6, 1e3]),
)
def test_the_unit_of_money_does_not_matter(usd: list[float], factor: float) -> None:
    plain, other = Costs(), Costs()
    for i, cost in enumerate(usd):
        language, arm = LANGUAGES[i % 2], ARMS[i % 3]
        plain.learn(language, [answered(arm, cost)])
        other.learn(language, [answered(arm, factor * cost)])
    for language in LANGUAGES:
        assert other.usd(language, ARMS) == pytest.approx(factor * plain.usd(language, ARMS))


@settings(deadline=None, derandomize=True)
@given(
    history=histories,
    bad=st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 1e300]),
    arm=st.sampled_from([*ARMS, "new"]),
)
def test_what_is_no_cost_and_no_time_never_enters(history: History, bad: float, arm: str) -> None:
    costs, twin = taught(history), taught(history)
    costs.learn("de", [answered(arm, bad, bad), failed(arm, "timeout", bad, bad)])
    assert reads(costs) == reads(twin)
    assert all(math.isfinite(figure) and figure >= 0.0 for figure in reads(costs))


def test_a_bad_time_does_not_spoil_a_good_cost() -> None:
    costs = taught([("de", [answered("a", 0.5, math.nan)]), ("de", [answered("b", math.nan, 2.0)])])
    assert costs.sums[0, costs.arms["a"]].tolist() == [1.0, 1.0, 0.5, 0.0, 0.0, 0.0]
    log = math.log(2.0)
    assert costs.sums[0, costs.arms["b"]].tolist() == [0.0, 0.0, 0.0, 1.0, log, log * log]


def test_failures_count_if_they_were_billed_and_cached_answers_never() -> None:
    costs = taught([
        ("de", [answered("a", 0.2)]),
        ("de", [failed("a", "error", 0.1, 0.5)]),
        ("de", [failed("a", "rate_limited", 0.0, 0.001)]),
        ("de", [failed("a", "over_budget")]),
        ("de", [cached("a", 0.0, 0.001)]),
    ])  # fmt: skip
    cell = costs.sums[0, 0]
    assert cell[[CALLS, BILLED]].tolist() == [2.0, 2.0]
    assert cell[USD] == pytest.approx(0.3)
    assert cell[TIMED] == 0.0
    assert costs.usd("de", ["a"]) == pytest.approx([0.15])


def test_a_timeout_is_a_long_answer() -> None:
    costs = taught([("de", [failed("a", "timeout", 0.0, 60.0)])] * 20)
    assert costs.sums[0, 0, [CALLS, TIMED]].tolist() == [0.0, 20.0]
    assert costs.seconds("de", ["a"])[0] > 60.0
    assert costs.usd("de", ["a"])[0] == 0.0


def test_the_answers_of_one_call_are_one_call() -> None:
    costs = taught([("de", [answered("a", 0.3, 2.0), answered("a", 0.1, 3.0), answered("b", 0.2)])])
    assert costs.usd("de", ["a", "b"]) == pytest.approx([0.4, 0.2])
    cell = costs.sums[0, costs.arms["a"]]
    assert cell[[CALLS, TIMED]].tolist() == [1.0, 1.0]
    assert cell[[LOGS, SQUARES]] == pytest.approx([math.log(3.0), math.log(3.0) ** 2])


def test_an_arm_never_seen_costs_the_mean_of_the_others_asked() -> None:
    costs = taught([("de", [answered("a", 0.1, 1.0), answered("b", 0.3, 2.0), answered("c", 9.0)])])
    a, b = costs.usd("de", ["a", "b"])
    assert costs.usd("de", ["new", "b", "a"])[0] == pytest.approx((a + b) / 2.0)
    assert costs.usd("de", ["new"])[0] == pytest.approx(costs.usd("de", ["a", "b", "c"]).mean())
    seconds = costs.seconds("de", ["a", "b", "new"])
    assert seconds[2] == pytest.approx(seconds[:2].mean())


@pytest.mark.parametrize("sd", [0.2, 0.5, 1.0])
def test_nine_of_ten_calls_take_no_longer_than_said(sd: float) -> None:
    rng = np.random.default_rng(5)
    costs = Costs()
    for _ in range(500):
        costs.learn("de", [answered("a", seconds=float(rng.lognormal(1.0, sd)))])
        costs.learn("de", [answered("b", seconds=float(rng.lognormal(-1.0, 0.1)))])
    longest = costs.seconds("de", ["a", "b"])
    assert 0.87 < np.mean(rng.lognormal(1.0, sd, 10_000) <= longest[0]) < 0.93
    assert longest[1] < math.exp(-1.0) * 1.25


def test_a_slow_language_is_slow_with_all_arms() -> None:
    costs = Costs()
    for _ in range(100):
        costs.learn("en", [answered("a", seconds=1.0), answered("b", seconds=0.1)])
        costs.learn("th", [answered("a", seconds=4.0)])
    english, thai = costs.seconds("en", ["b"])[0], costs.seconds("th", ["b"])[0]
    assert thai > 1.5 * english


def test_what_was_paid_long_ago_is_forgotten_where_asked_for() -> None:
    forgetful, faithful = Costs(keep=0.98), Costs()
    for usd in (0.01, 0.03):
        for _ in range(400):
            for costs in (forgetful, faithful):
                costs.learn("de", [answered("a", usd), answered("free")])
    assert forgetful.usd("de", ["a", "free"]) == pytest.approx([0.03, 0.0], rel=0.02)
    assert faithful.usd("de", ["a"]) == pytest.approx([0.02], rel=0.02)
