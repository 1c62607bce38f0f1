"""What every policy promises, whatever it chooses by."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import astuple, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import router
from arbitrage import config
from arbitrage.errors import SnapshotError
from arbitrage.types import Candidate, Completion, Context, Failure, Score, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage import ports
    from arbitrage.types import Decision

ARMS = ("a", "b", "c", "d", "e")
EXPERTS = {"de": ("b", "a"), "sr": ("d",), "default": ("c", "a", "e")}
GERMAN = Context("de")

every_kind = pytest.mark.parametrize("kind", sorted(router.KINDS))


def make(kind: Any, **chosen: Any) -> ports.Policy:
    return router.build(config.Policy(kind=kind, experts=EXPERTS, **chosen))


def scored(arm: str, reward: float) -> Candidate:
    return Candidate(arm, Completion("Halb drei."), score=Score(reward, {}))


def stopped(arm: str) -> Candidate:
    return Candidate(arm, Completion("Half past two."), gates=(Verdict("language", "en"),))


def failed(arm: str) -> Candidate:
    return Candidate(arm, failure=Failure("timeout", "no answer in 60 s"))


def wave(policy: ports.Policy, context: Context, arms: Sequence[str]) -> Decision:
    decision = policy.select(context, arms, [])
    assert decision is not None
    return decision


def taught(kind: str, **chosen: Any) -> ports.Policy:
    """A policy with some experience in German, of every sort."""
    policy = make(kind, **chosen)
    rng = np.random.default_rng(5)
    for _ in range(6):
        rewards = rng.normal([0.0, 0.3, 0.6], 0.5)
        policy.update(GERMAN, [scored(a, float(r)) for a, r in zip("abc", rewards, strict=True)])
    policy.update(GERMAN, [stopped("d"), failed("e")])
    return policy


candidates = st.one_of(
    st.builds(scored, st.sampled_from(ARMS), st.floats()),
    st.builds(stopped, st.sampled_from(ARMS)),
    st.builds(failed, st.sampled_from(ARMS)),
)
contexts = st.builds(
    Context, st.sampled_from(["de", "nb", "sr-Latn", "und"]), st.sampled_from([None, "math"])
)
histories = st.lists(st.tuples(contexts, st.lists(candidates, max_size=5)), max_size=8)
usual_candidates = st.one_of(
    st.builds(scored, st.sampled_from(ARMS), st.integers(-100, 100).map(float)),
    st.builds(stopped, st.sampled_from(ARMS)),
    st.builds(failed, st.sampled_from(ARMS)),
)
usual_histories = st.lists(st.tuples(contexts, st.lists(usual_candidates, max_size=5)), max_size=8)
pools = st.lists(st.sampled_from((*ARMS, "new")), min_size=1, unique=True)
rates = st.sampled_from([0.0, 0.05, 1.0])


@every_kind
@settings(deadline=None, derandomize=True)
@given(
    history=histories,
    prompts=st.lists(st.tuples(contexts, pools), min_size=1, max_size=4),
    fan_out=st.integers(1, 4),
    audit_rate=rates,
)
def test_any_history_leads_to_valid_decisions_and_finite_estimates(
    kind: str,
    history: list[tuple[Context, list[Candidate]]],
    prompts: list[tuple[Context, list[str]]],
    fan_out: int,
    audit_rate: float,
) -> None:
    policy = make(kind, fan_out=fan_out, audit_rate=audit_rate)
    for context, judged in history:
        policy.update(context, judged)
    for context, pool in prompts:
        decision = wave(policy, context, pool)
        assert decision.policy == kind
        assert decision.version == len(history)
        assert decision.arms
        assert set(decision.arms) <= set(pool)
        assert len(set(decision.arms)) == len(decision.arms)
        assert set(decision.waves) == {0}
        assert all(0.0 < p <= 1.0 for p in decision.propensities)
        if audit_rate == 1.0:
            assert set(decision.arms) == set(pool)
            assert decision.propensities == (1.0,) * len(pool)
        for estimate in policy.estimates(pool):
            figures = [figure for figure in astuple(estimate)[2:] if figure is not None]
            assert all(math.isfinite(figure) for figure in figures)
            assert estimate.standard_error > 0.0
            assert 0.0 <= estimate.share <= 1.0


@every_kind
def test_the_same_seed_and_calls_give_the_same_decisions(kind: str) -> None:
    def run(seed: int) -> list[Decision]:
        policy = make(kind, fan_out=2, audit_rate=0.2, seed=seed)
        rewards = np.random.default_rng(1)
        decisions = []
        for _ in range(30):
            decisions.append(wave(policy, GERMAN, ARMS))
            policy.update(
                GERMAN, [scored(arm, float(rewards.normal())) for arm in decisions[-1].arms]
            )
        return decisions

    assert run(seed=3) == run(seed=3)
    if kind != "best_of":
        assert run(seed=3) != run(seed=4)


@every_kind
@pytest.mark.parametrize("language", ["de", "fr", "sr-Latn", "und"])
@pytest.mark.parametrize("fan_out", [1, 2])
@pytest.mark.parametrize("audit_rate", [0.0, 0.2])
def test_arms_are_asked_as_often_as_the_propensities_say(
    kind: str, language: str, fan_out: int, audit_rate: float
) -> None:
    policy = taught(kind, fan_out=fan_out, audit_rate=audit_rate, seed=11)
    context = Context(language)
    draws = 1500
    asked: Counter[str] = Counter()
    logged: dict[str, float] = {}
    for _ in range(draws):
        decision = wave(policy, context, ARMS)
        asked.update(decision.arms)
        for arm, propensity in zip(decision.arms, decision.propensities, strict=True):
            assert logged.setdefault(arm, propensity) == pytest.approx(propensity)
    for arm in ARMS:
        p = logged.get(arm, 0.0)
        assert abs(asked[arm] / draws - p) <= 4.5 * math.sqrt(p * (1.0 - p) / draws) + 1e-3
    for estimate in policy.estimates(ARMS):
        if estimate.language == language and estimate.arm in logged:
            assert estimate.share == pytest.approx(logged[estimate.arm])


@every_kind
def test_a_passed_answer_ends_the_prompt(kind: str) -> None:
    policy = make(kind)
    assert policy.select(GERMAN, ["c"], [failed("a"), scored("b", -3.0)]) is None


@every_kind
@pytest.mark.parametrize("seen", [[failed("a")], [stopped("a")], [stopped("a"), failed("b")]])
def test_without_a_passed_answer_the_remaining_arms_are_asked_by_the_same_rule(
    kind: str, seen: list[Candidate]
) -> None:
    policy = make(kind, fan_out=1, audit_rate=1.0)
    rescue = policy.select(GERMAN, ["c", "d", "e"], seen)
    assert rescue is not None
    assert set(rescue.arms) <= {"c", "d", "e"}
    assert len(rescue.arms) == (3 if kind == "best_of" else 1), "rescues are not audited"
    assert set(rescue.waves) == {0}


@every_kind
def test_the_fan_out_bounds_a_wave_that_is_no_audit(kind: str) -> None:
    policy = taught(kind, fan_out=2, audit_rate=0.0)
    sizes = {len(wave(policy, Context(tag), ARMS).arms) for tag in ("de", "fr")}
    assert sizes == ({5} if kind == "best_of" else {2})


@every_kind
@pytest.mark.parametrize("most", [1, 2, 4, 9])
def test_a_request_says_how_many_are_asked_at_most(kind: str, most: int) -> None:
    policy = taught(kind, fan_out=3, audit_rate=0.5)
    asked: Counter[tuple[str, float]] = Counter()
    for _ in range(300):
        decision = policy.select(GERMAN, ARMS, [], most=most)
        assert decision is not None
        assert len(decision.arms) <= most
        if most < len(ARMS):
            assert len(decision.arms) == most or kind in {"fixed", "pandora"}
            asked.update(zip(decision.arms, decision.propensities, strict=True))
        elif kind not in {"fixed", "pandora"}:  # which may have reasons to ask fewer
            assert set(decision.arms) == set(ARMS)
    # each as often as it says: within five standard deviations
    for arm in ARMS:
        told = [(propensity, count) for (who, propensity), count in asked.items() if who == arm]
        if len(told) == 1:
            ((propensity, count),) = told
            assert abs(count - 300 * propensity) <= 5 * math.sqrt(300 * propensity) + 1e-9


@every_kind
def test_those_who_were_asked_before_count_towards_it(kind: str) -> None:
    policy = taught(kind, fan_out=3)
    seen = [failed("a"), stopped("b")]
    decision = policy.select(GERMAN, ["c", "d", "e"], seen, wave=1, most=3)
    assert decision is not None
    assert len(decision.arms) == 1
    assert policy.select(GERMAN, ["c", "d", "e"], seen, wave=1, most=2) is None


@every_kind
def test_a_reward_that_comes_later_is_learned_from(kind: str) -> None:
    policy, twin = taught(kind), taught(kind)
    policy.judge(GERMAN, "a", 3.0)
    assert policy.version == twin.version + 1
    before = {one.arm: one.reward for one in twin.estimates(ARMS, ["de"])}
    after = {one.arm: one.reward for one in policy.estimates(ARMS, ["de"])}
    assert after["a"] > before["a"]


@every_kind
def test_the_last_arms_are_asked_for_sure(kind: str) -> None:
    policy = taught(kind, fan_out=3, audit_rate=0.1)
    decision = wave(policy, GERMAN, ["b", "a"])
    assert set(decision.arms) == {"a", "b"}
    assert decision.propensities == (1.0, 1.0)


@every_kind
def test_nothing_is_learned_from_failures_and_from_what_is_no_number(kind: str) -> None:
    policy, twin = taught(kind), taught(kind)
    policy.update(Context("ja"), [failed("a")])
    policy.update(GERMAN, [replace(failed("b"), gates=stopped("b").gates)])
    policy.update(GERMAN, [scored("a", math.nan), scored("b", math.inf), scored("c", 1e300)])
    assert policy.estimates(ARMS) == twin.estimates(ARMS)
    decision, expected = wave(policy, GERMAN, ARMS), wave(twin, GERMAN, ARMS)
    assert (decision.arms, decision.propensities) == (expected.arms, expected.propensities)
    assert decision.version == expected.version + 3


@every_kind
def test_the_pool_may_change_between_calls(kind: str) -> None:
    policy = make(kind, fan_out=2)
    for pool in (["a", "b", "c"], ["c", "d"], ["new"], ["e", "new", "a", "b"]):
        decision = wave(policy, GERMAN, pool)
        assert set(decision.arms) <= set(pool)
        policy.update(GERMAN, [scored(arm, 1.0) for arm in decision.arms])
    known = {(e.language, e.arm) for e in policy.estimates(["never", "a"])}
    assert known == {("de", "never"), ("de", "a")}


@every_kind
def test_estimates_tell_what_was_seen(kind: str) -> None:
    policy = make(kind, audit_rate=0.0)
    assert not policy.estimates(ARMS)
    policy.update(GERMAN, [scored("a", 1.0), scored("b", 3.0), stopped("c"), failed("d")])
    policy.update(Context("fr"), [scored("a", 10.0)])
    estimates = {(e.language, e.arm): e for e in policy.estimates(["a", "b", "c", "d"])}
    assert len(estimates) == 8
    counts = [(estimates["de", arm].scored, estimates["de", arm].stopped) for arm in "abcd"]
    assert counts == [(1, 0), (1, 0), (0, 1), (0, 0)]
    assert estimates["fr", "a"].scored == 1
    rewards = {arm: estimates["de", arm].reward for arm in "abcd"}
    assert rewards["c"] < rewards["a"] < rewards["d"] < rewards["b"]
    assert not policy.estimates([])


# What must hold of every policy, whatever it has seen

learning = pytest.mark.parametrize(
    "kind", sorted(set(router.KINDS) - {"best_of", "fixed", "random"})
)
ODD = (math.nan, math.inf, 1e200)
few = settings(deadline=None, derandomize=True, max_examples=20)


def lived(kind: str, history: list[tuple[Context, list[Candidate]]], **chosen: Any) -> ports.Policy:
    policy = make(kind, **chosen)
    for context, judged in history:
        policy.update(context, judged)
    return policy


def beliefs(policy: ports.Policy) -> dict[tuple[str, str], list[float]]:
    return {
        (e.language, e.arm): [e.scored, e.stopped, e.reward, e.standard_error]
        for e in policy.estimates(ARMS)
    }


def numbers(state: Any) -> list[float]:
    """Every number in a state."""
    if isinstance(state, dict):
        return [number for value in state.values() for number in numbers(value)]
    if isinstance(state, list | tuple):
        return [number for value in state for number in numbers(value)]
    if isinstance(state, np.ndarray):
        return [float(number) for number in state.ravel()]
    return [float(state)] if isinstance(state, int | float) else []


@every_kind
@few
@given(history=histories, fan_out=st.integers(1, 4), audit_rate=rates, domain=st.sampled_from("xy"))
def test_shares_sum_to_the_number_of_arms_asked(
    kind: str,
    history: list[tuple[Context, list[Candidate]]],
    fan_out: int,
    audit_rate: float,
    domain: str,
) -> None:
    policy = lived(kind, history, fan_out=fan_out, audit_rate=audit_rate)
    for language in ("de", "fr"):
        shares = policy.shares(Context(language, domain), ARMS)
        count = len(ARMS) if kind == "best_of" else fan_out
        if kind == "fixed":
            count = min(fan_out, len(EXPERTS.get(language, EXPERTS["default"])))
        expected = audit_rate * len(ARMS) + (1.0 - audit_rate) * count
        assert sum(shares) == pytest.approx(expected, abs=5e-3)


@every_kind
@few
@given(order=st.permutations(ARMS))
def test_the_order_of_the_arms_changes_nothing(kind: str, order: list[str]) -> None:
    policy = taught(kind, fan_out=2)
    for language in ("de", "fr"):
        shares = dict(zip(ARMS, policy.shares(Context(language), ARMS), strict=True))
        for arm, share in zip(order, policy.shares(Context(language), order), strict=True):
            assert share == pytest.approx(shares[arm], abs=1e-6)


@learning
def test_a_dominated_arms_share_goes_to_that_of_the_audits(kind: str) -> None:
    policy = make(kind, fan_out=1, audit_rate=0.05, newcomer_share=0.0)
    rng = np.random.default_rng(3)
    for _ in range(500):
        rewards = zip("abc", rng.normal((1.0, 0.8, -1.0), 0.3), strict=True)
        policy.update(GERMAN, [scored(arm, float(reward)) for arm, reward in rewards])
    shares = dict(zip("abc", policy.shares(GERMAN, "abc"), strict=True))
    assert shares["c"] == pytest.approx(0.05, abs=0.01)
    assert shares["a"] > 0.5


@every_kind
@few
@given(history=histories)
def test_no_state_holds_what_is_no_number(
    kind: str, history: list[tuple[Context, list[Candidate]]]
) -> None:
    odd = [scored(arm, reward) for arm, reward in zip("abc", ODD, strict=True)]
    policy = lived(kind, [*history, (GERMAN, odd)])
    assert all(math.isfinite(number) for number in numbers(policy.state()))


@every_kind
@few
@given(history=usual_histories, after=usual_histories)
def test_a_restored_policy_goes_on_as_the_one_it_was_taken_from(
    kind: str,
    history: list[tuple[Context, list[Candidate]]],
    after: list[tuple[Context, list[Candidate]]],
) -> None:
    policy = lived(kind, history, fan_out=2, audit_rate=0.2, seed=5)
    again = make(kind, fan_out=2, audit_rate=0.2, seed=99)
    again.restore(policy.state())
    for context, judged in [*after, (GERMAN, [])]:
        one, two = wave(policy, context, ARMS), wave(again, context, ARMS)
        assert (one.arms, one.version) == (two.arms, two.version)
        assert one.propensities == pytest.approx(two.propensities, abs=1e-9)
        for each in (policy, again):
            each.update(context, judged)
    expected = beliefs(policy)
    assert beliefs(again).keys() == expected.keys()
    for key, figures in beliefs(again).items():
        assert figures == pytest.approx(expected[key], rel=1e-6, abs=1e-9)


@every_kind
@few
@given(one=usual_histories, two=usual_histories, three=usual_histories)
def test_replicas_add_up_whatever_the_order(
    kind: str,
    one: list[tuple[Context, list[Candidate]]],
    two: list[tuple[Context, list[Candidate]]],
    three: list[tuple[Context, list[Candidate]]],
) -> None:
    def merged(first: ports.Policy, *others: ports.Policy) -> ports.Policy:
        total = make(kind)
        total.restore(first.state())
        for other in others:
            total.merge(other.state())
        return total

    a, b, c = lived(kind, one), lived(kind, two), lived(kind, three)
    whole = beliefs(lived(kind, one + two + three))
    totals = [beliefs(p) for p in (merged(a, b, c), merged(c, b, a), merged(a, merged(b, c)))]
    for total in totals:
        assert total.keys() == whole.keys()
        for key, figures in total.items():
            assert figures[:2] == whole[key][:2]
            assert figures == pytest.approx(totals[0][key], rel=1e-6, abs=1e-9)
    assert merged(a, b, c).version == len(one) + len(two) + len(three)


@every_kind
def test_what_is_no_state_is_refused_in_one_line(kind: str) -> None:
    policy = make(kind)
    state = policy.state()
    for broken in ({}, {"version": "x"}, {**state, "experience": {}}, {**state, "rng": {"a": 1}}):
        with pytest.raises(SnapshotError, match=r"^[^\n]+$"):
            policy.restore(broken)
    with pytest.raises(SnapshotError, match=r"^[^\n]+$"):
        policy.merge({"version": 3})
