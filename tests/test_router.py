"""What single policies promise, and the arithmetic beneath them."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import numpy as np
import pytest

import router
from arbitrage import config
from arbitrage.errors import ConfigError
from arbitrage.types import Candidate, Completion, Context, Score, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arbitrage import ports

ARMS = ("a", "b", "c", "d", "e", "f")


def scored(arm: str, reward: float) -> Candidate:
    return Candidate(arm, Completion("."), score=Score(reward, {}))


def stopped(arm: str) -> Candidate:
    return Candidate(arm, Completion("."), gates=(Verdict("language", "en"),))


def asked(policy: ports.Policy, language: str, arms: Sequence[str] = ARMS) -> tuple[str, ...]:
    decision = policy.select(Context(language), arms, [])
    assert decision is not None
    return decision.arms


# Policies


def test_thompson_finds_each_languages_favourite_and_beats_random() -> None:
    quality = {
        "de": dict(zip(ARMS, (0.9, 0.5, 0.4, 0.4, 0.3, 0.1), strict=True)),
        "ja": dict(zip(ARMS, (100.0, 200.0, 500.0, 300.0, 300.0, 200.0), strict=True)),
    }
    noise = {"de": 0.2, "ja": 100.0}

    def regret(kind: Any) -> tuple[ports.Policy, dict[str, float]]:
        policy = router.build(config.Policy(kind=kind, fan_out=1, audit_rate=0.0, seed=7))
        rng = np.random.default_rng(8)
        lost = dict.fromkeys(quality, 0.0)
        for turn in range(600):
            language = ("de", "ja")[turn % 2]
            arms = asked(policy, language)
            truth = quality[language]
            lost[language] += max(truth.values()) - max(truth[arm] for arm in arms)
            rewards = {arm: float(rng.normal(truth[arm], noise[language])) for arm in arms}
            policy.update(Context(language), [scored(a, r) for a, r in rewards.items()])
        return policy, lost

    thompson, lost = regret("thompson")
    _, lost_at_random = regret("random")
    for language, favourite in (("de", "a"), ("ja", "c")):
        shares = {e.arm: e.share for e in thompson.estimates(ARMS) if e.language == language}
        assert max(shares, key=shares.__getitem__) == favourite
        assert shares[favourite] > 0.9
        assert sum(shares.values()) == pytest.approx(1.0, abs=2e-3)
        assert lost[language] < 0.25 * lost_at_random[language]


def test_thompson_learns_that_an_arm_answers_in_the_wrong_language() -> None:
    policy = router.build(config.Policy(kind="thompson", fan_out=1, audit_rate=0.0))
    for _ in range(10):
        policy.update(Context("sw"), [scored("a", 0.4), scored("b", 0.6), stopped("c")])
    shares = {e.arm: e.share for e in policy.estimates(("a", "b", "c"))}
    assert shares["c"] < 0.01
    assert shares["b"] > 0.5


def test_thompson_starts_a_new_language_with_what_is_good_elsewhere() -> None:
    policy = router.build(config.Policy(kind="thompson", fan_out=1, audit_rate=0.0))
    for language in ("de", "fr", "ja", "sw"):
        for _ in range(20):
            policy.update(Context(language), [scored("a", 1.0), scored("b", 0.0), scored("c", 0.1)])
    first = [asked(policy, "fi", ("c", "b", "a"))[0] for _ in range(300)]
    assert first.count("a") > 150


def fixed(experts: Mapping[str, Sequence[str]], fan_out: int = 1) -> ports.Policy:
    lists = {tag: tuple(arms) for tag, arms in experts.items()}
    return router.build(config.Policy(kind="fixed", fan_out=fan_out, audit_rate=0.0, experts=lists))


def test_fixed_goes_from_the_language_to_its_parent_to_the_default() -> None:
    policy = fixed({"zh-CN": "b", "nb": "c", "default": "a"})
    assert [asked(policy, tag) for tag in ("zh", "zh-Hant", "nb", "nn", "de")] == [
        ("b",), ("b",), ("c",), ("a",), ("a",)
    ]  # fmt: skip


def test_fixed_asks_in_the_lists_order_and_passes_over_whom_it_cannot_ask() -> None:
    policy = fixed({"de": "dbdc", "default": "fe"}, fan_out=2)
    assert asked(policy, "de") == ("d", "b")
    assert asked(policy, "de", ("a", "b", "c", "f")) == ("b", "c")
    assert asked(policy, "de", ("a", "c", "f")) == ("c",), "nobody beside the experts"
    assert asked(policy, "de", ("a", "f")) == ("f",)
    assert asked(policy, "de", ("a", "new", "newer")) == ("a", "new")


def test_fixed_needs_default_experts_and_one_list_a_language() -> None:
    with pytest.raises(ConfigError, match=r"^policy\.experts\.default: is required for kind 'fix"):
        fixed({"de": "a"})
    with pytest.raises(ConfigError, match=r"^policy\.experts\.zh-CN: 'zh' has a list already"):
        fixed({"zh": "a", "zh-CN": "b", "default": "c"})


def test_an_unknown_kind_is_named_with_those_that_are_known() -> None:
    kind: Any = "oracle"
    with pytest.raises(ConfigError, match=r"policy\.kind: unknown 'oracle'; use best_of, fixed"):
        router.build(config.Policy(kind=kind))


def test_every_kind_of_the_configuration_can_be_built() -> None:
    kinds = get_args(get_type_hints(config.Policy)["kind"])
    assert set(kinds) == set(router.KINDS)


def test_importing_the_router_imports_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "scipy", "pyarrow", "aiohttp", "grpc"}
    check = f"import router, sys; print(sorted({heavy!r} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# Newcomers


def experienced(newcomer_share: float, prompts: int = 300) -> ports.Policy:
    """A policy that knows the first four arms well, `a` as the best."""
    policy = router.build(config.Policy(fan_out=2, newcomer_share=newcomer_share, seed=4))
    for number in range(prompts):
        context = Context(("de", "fr", "ja")[number % 3])
        answers = [scored(arm, -place + number % 2) for place, arm in enumerate(ARMS[:4])]
        policy.update(context, answers)
    return policy


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("language", ["de", "never seen"])
def test_a_new_arm_is_asked_on_a_bounded_share_of_the_prompts(share: float, language: str) -> None:
    policy = experienced(share)
    audits = 0.05
    arms = (*ARMS[:4], "new")
    rounds = 3000
    count = sum("new" in asked(policy, language, arms) for _ in range(rounds))
    expected = audits + (1 - audits) * share
    assert count / rounds == pytest.approx(expected, abs=3 * (expected / rounds) ** 0.5)


def test_newcomers_take_turns() -> None:
    policy = experienced(0.5)
    arms = (*ARMS[:4], "new", "newer")
    waves = [asked(policy, "de", arms) for _ in range(2000)]
    for newcomer in ("new", "newer"):
        assert sum(newcomer in wave for wave in waves) / 2000 == pytest.approx(0.285, abs=0.04)
    assert {len(wave) for wave in waves} == {2, 3, 6}


def test_the_propensities_of_a_new_arm_are_those_of_the_draw() -> None:
    policy = experienced(0.2)
    arms = (*ARMS[:4], "new")
    rounds = 4000
    counts = dict.fromkeys(arms, 0)
    told: dict[str, float] = {}
    for _ in range(rounds):
        decision = policy.select(Context("de"), arms, [])
        assert decision is not None
        for arm, propensity in zip(decision.arms, decision.propensities, strict=True):
            counts[arm] += 1
            told[arm] = propensity
    for arm, propensity in told.items():
        assert counts[arm] / rounds == pytest.approx(propensity, abs=0.03)


def test_a_new_arm_that_is_good_becomes_an_arm_like_others() -> None:
    policy = experienced(0.2)
    arms = (*ARMS[:4], "new")
    for _ in range(100):
        policy.update(Context("de"), [scored("new", 5.0), scored("a", 0.0)])
    assert sum("new" in asked(policy, "de", arms) for _ in range(200)) == 200
    assert {len(asked(policy, "de", arms)) for _ in range(200)} == {2, 5}


def test_when_all_arms_are_new_none_is_held_back() -> None:
    policy = router.build(config.Policy(fan_out=1, audit_rate=0.0, newcomer_share=0.0))
    assert {asked(policy, "de") for _ in range(200)} == {(arm,) for arm in ARMS}
