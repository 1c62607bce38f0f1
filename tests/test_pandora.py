"""Opening teachers in waves: what is worth its price, and when to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import router
from arbitrage import config
from arbitrage.types import Candidate, Completion, Context, Failure, Score, Verdict
from router.joint import Joint
from router.pandora import Pandora

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage.types import Decision

ARMS = ("a", "b", "c", "d")
GERMAN = Context("de")


def scored(arm: str, reward: float, **more: Any) -> Candidate:
    return Candidate(arm, Completion("."), score=Score(reward, {}), **more)


def make(**fan_out: Any) -> Pandora:
    waves = config.FanOut(**{"min": 1, "max": 4, "waves": 4, **fan_out})
    policy = router.build(
        config.Policy(kind="pandora", fan_out=waves, audit_rate=0.0, newcomer_share=0.0)
    )
    assert isinstance(policy, Pandora)
    return policy


def teach(policy: Pandora, rewards: np.ndarray[Any, Any], context: Context = GERMAN) -> None:
    for row in rewards:
        asked = [(a, float(r)) for a, r in zip(ARMS, row, strict=True) if not np.isnan(r)]
        policy.update(context, [scored(a, r) for a, r in asked])


def played(policy: Pandora, row: Sequence[float], context: Context = GERMAN) -> list[str]:
    """The arms asked for a prompt on which each arm's reward is given, wave by wave."""
    seen: list[Candidate] = []
    waves: list[str] = []
    while True:
        asked = {c.teacher for c in seen}
        left = [arm for arm in ARMS if arm not in asked]
        decision = policy.select(context, left, seen, wave=len(waves)) if left else None
        if decision is None:
            return waves
        waves.append("".join(decision.arms))
        seen += [scored(arm, row[ARMS.index(arm)]) for arm in decision.arms]


# The joint


draws = st.lists(
    st.lists(st.floats(-2.0, 2.0), min_size=2, max_size=2), min_size=1, max_size=12
).map(np.array)


@settings(deadline=None, derandomize=True)
@given(rewards=draws, price=st.floats(0.001, 0.5))
def test_a_reservation_value_is_where_looking_just_pays(
    rewards: np.ndarray[Any, Any], price: float
) -> None:
    joint = Joint(rewards, np.full(len(rewards), 1.0 / len(rewards)))
    reservations = joint.reservations(np.full(2, price))
    for arm, z in enumerate(reservations):
        gain = np.maximum(rewards[:, arm] - z, 0.0).mean()
        assert gain == pytest.approx(price, abs=0.005)


def test_the_sure_thing_is_worth_less_than_the_gamble() -> None:
    """Weitzman's example: the lower mean with the larger chance of a prize is opened first."""
    rewards = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 3.6]])
    joint = Joint(rewards, np.full(4, 0.25))
    sure, gamble = joint.reservations(np.full(2, 0.1))
    assert gamble > sure


def test_what_is_seen_of_one_arm_tells_of_another() -> None:
    rng = np.random.default_rng(1)
    common = rng.normal(size=(500, 1))
    joint = Joint(common + rng.normal(0.0, 0.3, (500, 2)), np.full(500, 1.0 / 500))
    assert joint.given(0, 1.5).gains(0.5)[1] > 2.0 * joint.gains(0.5)[1]
    assert joint.given(0, -1.5).gains(0.5)[1] < 0.1
    assert joint.given(0, 1.5).weights.sum() == pytest.approx(1.0)
    assert np.isfinite(joint.given(0, 1e6).weights).all(), "even where nothing is alike"


# Waves


def rewards(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """`a` mostly answers well and `b` where it does not; `c` is like `a` but poorer; `d` poor."""
    rng = np.random.default_rng(seed)
    luck = rng.random(count) < 0.6
    a = np.where(luck, 1.0, 0.0)
    return np.stack((a, 1.0 - a, 0.9 * a, 0.1 + 0.0 * a), axis=1) + rng.normal(
        0.0, 0.05, (count, 4)
    )


def test_a_good_answer_ends_the_search_and_a_poor_one_calls_who_makes_up_for_it() -> None:
    policy = make()
    teach(policy, rewards(300))
    assert played(policy, (1.0, 0.0, 0.9, 0.1)) == ["a"]
    assert played(policy, (0.0, 1.0, 0.0, 0.1)) == ["a", "b"]


def test_one_wave_asks_those_who_make_up_for_one_another() -> None:
    policy = make(min=2, max=2, waves=1)
    teach(policy, rewards(300))
    assert played(policy, (1.0, 0.0, 0.9, 0.1)) == ["ab"], "not a and c, whose means are larger"


def test_the_least_gain_decides_how_many_are_asked() -> None:
    sizes = []
    for least_gain in (0.0, 0.05, 5.0):
        policy = make(least_gain=least_gain)
        rng = np.random.default_rng(2)
        teach(policy, rng.normal(0.0, 1.0, (300, 4)))
        prompts = rng.normal(0.0, 1.0, (100, 4)).tolist()
        sizes.append(np.mean([len("".join(played(policy, row))) for row in prompts]))
    assert sizes[0] > sizes[1] > sizes[2] == 1.0


@pytest.mark.parametrize(("waves", "sizes"), [(1, [4]), (2, [1, 3]), (3, [1, 2, 1])])
def test_what_may_be_asked_is_spread_over_the_waves(waves: int, sizes: list[int]) -> None:
    policy = make(waves=waves, least_gain=0.0)
    teach(policy, np.random.default_rng(3).normal(0.0, 1.0, (300, 4)))
    asked = played(policy, (-3.0, -3.0, -3.0, -3.0))
    assert [len(wave) for wave in asked] == sizes


def test_a_stopped_answer_counts_as_poor_and_a_failure_as_nothing() -> None:
    policy = make()
    teach(policy, rewards(300))
    stopped = Candidate("a", Completion("."), gates=(Verdict("language", "en"),))
    failed = Candidate("a", failure=Failure("timeout", "no answer"))
    for first in (stopped, failed):
        decision = policy.select(GERMAN, ARMS[1:], [first], wave=1)
        assert decision is not None
        assert decision.arms[0] in {"b", "c"}
    after = policy.select(GERMAN, ARMS[2:], [stopped, scored("b", 1.0)], wave=2)
    assert after is None, "b is as good as it gets"


def test_who_is_too_slow_is_not_asked_late() -> None:
    policy = make(max=2, waves=2, latency_budget=10.0)
    rng = np.random.default_rng(4)
    for row in rewards(300):
        seconds = {"a": 2.0, "b": 9.0, "c": 2.0, "d": 2.0}
        policy.update(
            GERMAN,
            [
                scored(arm, float(r), latency_seconds=seconds[arm] * rng.uniform(0.9, 1.1))
                for arm, r in zip(ARMS, row, strict=True)
            ],
        )
    poor = [scored("a", 0.0)]
    in_time = policy.select(GERMAN, ARMS[1:], poor, wave=1, elapsed=0.0)
    late = policy.select(GERMAN, ARMS[1:], poor, wave=1, elapsed=4.0)
    assert in_time is not None
    assert in_time.arms == ("b",)
    assert late is None or "b" not in late.arms


def test_a_price_makes_the_cheap_arm_worth_more() -> None:
    policy = make(max=1)
    free = make(max=1)
    rng = np.random.default_rng(5)
    for _ in range(400):
        good, cheap = rng.normal(0.6, 0.1), rng.normal(0.5, 0.1)
        for one in (policy, free):
            one.update(GERMAN, [scored("a", good, cost_usd=0.1), scored("b", cheap)])
    assert played(free, (1.0,) * 4)[0] == "a"
    budget = router.build(
        config.Policy(
            kind="pandora",
            fan_out=config.FanOut(min=1, max=1, waves=2),
            audit_rate=0.0,
            newcomer_share=0.0,
            usd_per_prompt=0.001,
        )
    )
    for _ in range(400):
        good, cheap = rng.normal(0.6, 0.1), rng.normal(0.5, 0.1)
        budget.update(GERMAN, [scored("a", good, cost_usd=0.1), scored("b", cheap)])
    decision = budget.select(GERMAN, ("a", "b"), [])
    assert decision is not None
    assert decision.arms == ("b",)


# From partial logs


def test_what_was_not_asked_is_filled_in_from_prompts_alike() -> None:
    """An arm asked only where another failed is not taken for better than it is."""
    policy = make()
    complete = rewards(400, seed=6)
    partial = complete.copy()
    partial[complete[:, 0] > 0.5, 1:] = np.nan  # b, c and d are asked only where a failed ...
    partial[:40] = complete[:40]  # ... but for an audit
    teach(policy, partial)
    assert played(policy, (1.0, 0.0, 0.9, 0.1)) == ["a"]
    assert played(policy, (0.0, 1.0, 0.0, 0.1)) == ["a", "b"]


def test_a_language_seen_little_searches_as_its_relatives_do() -> None:
    policy = make()
    teach(policy, rewards(300), Context("nl"))
    teach(policy, rewards(3), GERMAN)
    assert played(policy, (0.0, 1.0, 0.0, 0.1))[:2] == ["a", "b"]


def test_the_search_goes_on_the_same_after_a_restart() -> None:
    policy = make(least_gain=0.1)
    teach(policy, np.random.default_rng(7).normal(0.0, 1.0, (157, 4)))
    played(policy, (0.1, 0.2, 0.3, 0.4))
    state = policy.state()
    again = make(least_gain=0.1)
    again.restore(state)
    for row in np.random.default_rng(8).normal(0.0, 1.0, (40, 4)):
        assert played(again, row.tolist()) == played(policy, row.tolist())
        for one in (policy, again):
            teach(one, row[None])


def test_a_newcomer_is_asked_beside_the_chosen_on_its_share() -> None:
    policy = router.build(config.Policy(kind="pandora", fan_out=1, audit_rate=0.0, seed=3))
    for row in rewards(300):
        policy.update(GERMAN, [scored(arm, float(r)) for arm, r in zip(ARMS, row, strict=True)])
    arms = (*ARMS, "new")

    def decided() -> Decision:
        decision = policy.select(GERMAN, arms, [])
        assert decision is not None
        return decision

    rounds = [decided() for _ in range(1500)]
    share = sum("new" in decision.arms for decision in rounds) / len(rounds)
    assert 0.15 < share < 0.25
    chances = [dict(zip(d.arms, d.propensities, strict=True)) for d in rounds]
    assert {chance.get("new", 0.2) for chance in chances} == {0.2}
