"""The softmax policy: shares fitted to smoothed rewards, drawn one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from arbitrage import config
from arbitrage.types import Candidate, Completion, Context, Score, Verdict
from router.logits import Logits, shares
from router.snapshots.snapshot import Snapshot
from router.softmax import PlackettLuce, Softmax
from router.thompson import Thompson

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arbitrage import ports

ARMS = ("a", "b", "c", "d")
QUALITY = {"de": (0.9, 0.5, 0.3, 0.1), "ja": (10.0, 30.0, 50.0, 20.0)}
NOISE = {"de": 0.3, "ja": 15.0}
TOPICS = np.eye(512, dtype=np.float32)[:2]


def scored(arm: str, reward: float) -> Candidate:
    return Candidate(arm, Completion("."), score=Score(reward, {}))


def stopped(arm: str) -> Candidate:
    return Candidate(arm, Completion("."), gates=(Verdict("language", "en"),))


def make(**chosen: Any) -> Softmax:
    settings = {"fan_out": 1, "audit_rate": 0.0, "temperature": 0.1, **chosen}
    return Softmax(config.Policy(kind="softmax", **settings))


def live(policy: ports.Policy, prompts: int, judged: int = len(ARMS), seed: int = 1) -> None:
    """Prompts in two languages, on each of which so many arms were judged."""
    rng = np.random.default_rng(seed)
    for number in range(prompts):
        language = ("de", "ja")[number % 2]
        rewards = rng.normal(QUALITY[language], NOISE[language])
        asked = rng.permutation(len(ARMS))[:judged]
        policy.update(Context(language), [scored(ARMS[i], float(rewards[i])) for i in asked])


def share(policy: Softmax, context: Context, arms: Sequence[str] = ARMS) -> Mapping[str, float]:
    return dict(zip(arms, policy.shares(context, arms), strict=True))


def on_topic(topic: int, rng: np.random.Generator) -> Context:
    features = TOPICS[topic] + rng.normal(0.0, 0.01, 512).astype(np.float32)
    return Context("de", None, features / np.linalg.norm(features))


def live_with_topics(policy: ports.Policy, prompts: int, seed: int = 2) -> None:
    """The first two arms are as good on average, each on a topic of its own."""
    rng = np.random.default_rng(seed)
    for number in range(prompts):
        topic = number % 2
        rewards = rng.normal((1.0 - topic, float(topic), 0.2, 0.1), 0.3)
        answers = [scored(arm, float(r)) for arm, r in zip(ARMS, rewards, strict=True)]
        policy.update(on_topic(topic, rng), answers)


# What it learns


@pytest.mark.parametrize("judged", [4, 2])
def test_each_languages_favourite_is_learned_from_whoever_was_judged(judged: int) -> None:
    policy = make()
    live(policy, 400, judged)
    for language, favourite in (("de", "a"), ("ja", "c")):
        of = share(policy, Context(language))
        assert max(of, key=of.__getitem__) == favourite
        assert of[favourite] > 0.6
        assert sum(of.values()) == pytest.approx(1.0)


def test_a_language_never_seen_has_what_is_good_elsewhere() -> None:
    policy = make()
    for number in range(150):
        rewards = ((0.9, 0.4, 0.2, 0.1), (0.8, 0.6, 0.1, 0.3), (0.7, 0.2, 0.3, 0.3))[number % 3]
        answers = [scored(arm, reward) for arm, reward in zip(ARMS, rewards, strict=True)]
        policy.update(Context(("de", "fr", "ja")[number % 3]), answers)
    assert share(policy, Context("sw"))["a"] > 0.6


def test_a_favourite_by_topic_is_learned_from_the_features() -> None:
    policy = make()
    live_with_topics(policy, 300)
    rng = np.random.default_rng(3)
    for topic, favourite in enumerate("ab"):
        assert share(policy, on_topic(topic, rng))[favourite] > 0.8
    plain = share(policy, Context("de"))
    assert max(plain["a"], plain["b"]) < 0.8


def test_an_arm_that_gates_stop_is_asked_no_more() -> None:
    policy = make()
    for _ in range(100):
        policy.update(Context("de"), [scored("a", 0.4), scored("b", 0.5), stopped("c")])
    assert share(policy, Context("de"), "abc")["c"] < 0.02


def test_one_judged_arm_teaches_no_shares_but_is_remembered() -> None:
    policy = make()
    live(policy, 100)
    before = share(policy, Context("de"))
    policy.update(Context("de"), [scored("b", 100.0)])
    policy.update(Context("de"), [scored("c", 100.0), Candidate("d")])
    assert share(policy, Context("de")) == before
    assert policy.experience.memory.added == 102


def test_a_new_arm_is_taken_for_an_average_one() -> None:
    policy = make()
    live(policy, 200)
    of = share(policy, Context("sw"), (*ARMS, "new"))
    ranked = sorted(of.values())
    assert ranked[0] < of["new"] < ranked[-1]
    for _ in range(30):
        policy.update(Context("de"), [scored("new", 3.0), scored("a", 0.9)])
    assert share(policy, Context("de"), (*ARMS, "new"))["new"] > 0.5


def loss(policy: Softmax) -> float:
    """KL(targets || shares) over all remembered prompts."""
    lessons = policy._lessons(policy.experience.memory.order())
    arms = list(policy._logits.arms)
    leaf_of, leaf = policy.experience.memory.leaf_of, policy.experience.memory.leaf
    rows = zip(leaf, lessons.x, strict=False)
    logits = np.array([policy._logits.at(leaf_of[k], x, arms) for k, x in rows])
    p, t = shares(logits, lessons.judged), lessons.targets
    terms = np.where(t > 0.0, t * np.log(np.maximum(t, 1e-300) / np.maximum(p, 1e-300)), 0.0)
    return float(terms.sum(axis=1).mean())


def test_the_divergence_falls_with_every_pass() -> None:
    policy = make(smoothing=1.0, temperature=0.5)
    live_with_topics(policy, 256)
    policy.fit(epochs=0)
    losses = [loss(policy)]
    for epochs in (1, 4, 16):
        policy.fit(epochs)
        losses.append(loss(policy))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.7 * losses[0]


def test_fitting_again_gives_the_same() -> None:
    policy, twin = make(), make()
    for each in (policy, twin):
        live(each, 150)
    policy.fit()
    twin.fit()
    twin.fit()
    assert share(policy, Context("de")) == share(twin, Context("de"))


def test_rewards_are_smoothed_towards_the_languages_means() -> None:
    def targets(smoothing: float) -> Any:
        policy = make(smoothing=smoothing, temperature=0.5)
        live(policy, 200)
        of = policy._lessons(policy.experience.memory.order()).targets[::2]  # German ones
        return of[:, [policy._logits.arms[arm] for arm in ARMS]]

    own, smoothed, usual = targets(1.0), targets(0.3), targets(0.0)
    assert np.ptp(usual, axis=0) == pytest.approx(0.0, abs=1e-9)
    assert usual[0].argmax() == 0, "the language's favourite"
    assert (smoothed.std(axis=0) < own.std(axis=0)).all()
    assert (smoothed.std(axis=0) > 0.0).all()
    assert len(set(own.argmax(axis=1).tolist())) > 1, "prompts differ by themselves"


def test_a_hot_softmax_is_even_and_a_cold_one_is_not() -> None:
    def largest(temperature: float) -> float:
        policy = make(temperature=temperature)
        live(policy, 300)
        return max(share(policy, Context("de")).values())

    assert 0.3 > largest(20.0) > 0.25
    assert largest(0.5) < largest(0.05)
    assert largest(0.05) > 0.9


def test_what_an_arm_costs_lowers_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make()
    live(policy, 200)
    free = share(policy, Context("de"))
    monkeypatch.setattr(policy, "_toll", lambda _, arms: np.where(np.array(arms) == "a", 1.0, 0.0))
    dear = share(policy, Context("de"))
    odds = free["a"] / free["b"] / (dear["a"] / dear["b"])
    assert odds == pytest.approx(np.exp(1.0 / 0.1))


def test_with_a_half_life_a_turn_of_fortune_is_followed_sooner() -> None:
    def after_the_turn(**chosen: Any) -> float:
        policy = make(**chosen)
        for best in ("a",) * 600 + ("b",) * 60:
            policy.update(Context("de"), [scored(arm, float(arm == best)) for arm in "ab"])
        return share(policy, Context("de"), "ab")["b"]

    assert after_the_turn(half_life=30) > 0.5 > after_the_turn()


# How it draws


@pytest.mark.parametrize("count", [1, 2, 3])
def test_arms_are_drawn_as_often_as_is_said(count: int) -> None:
    lottery = PlackettLuce(np.array([0.0, 1.0, -1.0, 2.0, -900.0]), count)
    rng = np.random.default_rng(4)
    draws = 20_000
    counts = np.zeros(5)
    for _ in range(draws):
        drawn = lottery.draw(rng)
        assert len(set(drawn.tolist())) == count
        counts[drawn] += 1.0
    p = lottery.inclusion(np.arange(5))
    assert p.sum() == pytest.approx(count, abs=1e-4)
    assert np.all(np.abs(counts / draws - p) <= 4.5 * np.sqrt(p * (1.0 - p) / draws) + 1e-6)
    if count == 1:
        odds = np.exp([0.0, 1.0, -1.0, 2.0])
        assert p[:4] == pytest.approx(odds / odds.sum())


def test_the_order_of_arms_and_of_learning_them_changes_nothing() -> None:
    policy, twin = make(), make()
    for each, arms in ((policy, ARMS), (twin, ARMS[::-1])):
        rng = np.random.default_rng(5)
        for number in range(200):
            rewards = dict(zip(ARMS, rng.normal(QUALITY["de"], 0.3), strict=True))
            context = on_topic(number % 2, np.random.default_rng(number))
            each.update(context, [scored(arm, float(rewards[arm])) for arm in arms])
    context = on_topic(0, np.random.default_rng(6))
    expected = share(policy, context)
    for arm, probability in share(twin, context, ("d", "b", "a", "c")).items():
        assert probability == pytest.approx(expected[arm], rel=1e-6)


# What it keeps


def test_a_restored_policy_goes_on_as_it_was() -> None:
    policy, again = make(audit_rate=0.2), make(audit_rate=0.2, seed=9)
    live_with_topics(policy, 200)
    again.restore(Snapshot.decode(Snapshot.of(policy).encode()).state)
    live_with_topics(policy, 60, seed=7)
    live_with_topics(again, 60, seed=7)
    rng = np.random.default_rng(8)
    for topic in (0, 1, 0, 1):
        context = on_topic(topic, rng)
        assert share(again, context) == pytest.approx(share(policy, context), rel=1e-6)
        assert again.select(context, ARMS, []) == policy.select(context, ARMS, [])


def test_what_another_kind_has_learned_is_taken_over() -> None:
    other = Thompson(config.Policy(kind="thompson"))
    live(other, 200)
    policy = make()
    Snapshot.of(other).restore(policy)
    assert share(policy, Context("de"))["a"] > 0.6
    assert share(policy, Context("ja"))["c"] > 0.6


def merged(first: Softmax, *others: Softmax, **chosen: Any) -> Softmax:
    total = make(**chosen)
    total.restore(first.state())
    for other in others:
        total.merge(other.state())
    return total


def replicas(**chosen: Any) -> tuple[Softmax, Softmax, Softmax]:
    three = make(**chosen), make(**chosen), make(**chosen)
    for seed, (policy, prompts) in enumerate(zip(three, (40, 100, 70), strict=True)):
        live(policy, prompts, judged=3, seed=seed)
    return three


NO_FEATURES = config.Features(kind="none")


@pytest.mark.parametrize("features", [NO_FEATURES, config.Features()])
def test_replicas_add_up_whatever_the_order(features: config.Features) -> None:
    a, b, c = replicas(features=features)
    totals = [
        merged(a, b, c, features=features),
        merged(c, b, a, features=features),
        merged(a, merged(b, c, features=features), features=features),
    ]
    for language in ("de", "ja", "sw"):
        expected = share(totals[0], Context(language))
        for total in totals[1:]:
            assert share(total, Context(language)) == pytest.approx(expected, rel=1e-9)
    assert share(totals[0], Context("de"))["a"] > 0.5
    assert share(totals[0], Context("ja"))["c"] > 0.5


def test_logits_merge_as_means_that_what_they_rest_on_weighs() -> None:
    a, b, _ = replicas(features=NO_FEATURES)
    one, two = Logits.of_state(a._logits.state()), Logits.of_state(b._logits.state())
    weights = a._logits._prompts[0, 0], b._logits._prompts[0, 0]
    leaf = ("de", "")
    mine, theirs = one.at(leaf, None, "a"), two.at(leaf, None, "a")
    one.merge(two)
    both = (weights[0] * mine + weights[1] * theirs) / sum(weights)
    assert one.at(leaf, None, "a") == pytest.approx(both, rel=0.2)
    swapped = Logits.of_state(b._logits.state())
    swapped.merge(Logits.of_state(a._logits.state()))
    assert swapped.at(leaf, None, ARMS).tolist() == one.at(leaf, None, ARMS).tolist()


def test_a_language_that_one_replica_knows_stays_as_it_is_there() -> None:
    german, japanese = make(features=NO_FEATURES), make(features=NO_FEATURES)
    for policy, language in ((german, "de"), (japanese, "ja")):
        rng = np.random.default_rng(5)
        for _ in range(80):
            rewards = rng.normal(QUALITY[language], NOISE[language])
            answers = [scored(arm, float(r)) for arm, r in zip(ARMS, rewards, strict=True)]
            policy.update(Context(language), answers)
    total = merged(german, japanese, features=NO_FEATURES)
    for policy, language in ((german, "de"), (japanese, "ja")):
        expected = share(policy, Context(language))
        assert share(total, Context(language)) == pytest.approx(expected, rel=1e-9)


def test_replicas_in_different_coordinates_learn_from_each_others_prompts() -> None:
    one, two = make(), make()
    live_with_topics(one, 200, seed=1)
    live_with_topics(two, 200, seed=2)
    assert one.experience.coordinates != two.experience.coordinates
    one.merge(two.state())
    assert one.experience.memory.added == 400
    rng = np.random.default_rng(3)
    for topic, favourite in enumerate("ab"):
        assert share(one, on_topic(topic, rng))[favourite] > 0.8
