"""The nearest-neighbour policy, and how neighbours are found among many prompts."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from arbitrage import config
from arbitrage.types import Candidate, Completion, Context, Score, Verdict
from router import neighbours
from router.experience.memory import Memory
from router.experience.sums import STOPPED_AT
from router.knn import Knn
from router.neighbours import Neighbours
from router.snapshots.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router.arrays import Features, FloatArray, IntArray

ARMS = ("a", "b", "c")
TOPICS = np.eye(512, dtype=np.float32)[:2]


def scored(arm: str, reward: float) -> Candidate:
    return Candidate(arm, Completion("."), score=Score(reward, {}))


def stopped(arm: str) -> Candidate:
    return Candidate(arm, Completion("."), gates=(Verdict("language", "en"),))


def make(**chosen: Any) -> Knn:
    settings = {"fan_out": 1, "audit_rate": 0.0, "newcomer_share": 1.0, **chosen}
    return Knn(config.Policy(kind="knn", **settings))


def on_topic(topic: int, rng: np.random.Generator, language: str = "de") -> Context:
    features = TOPICS[topic] + rng.normal(0.0, 0.02, 512).astype(np.float32)
    return Context(language, None, features / np.linalg.norm(features))


def asked(policy: Knn, context: Context, arms: Sequence[str] = ARMS) -> str:
    decision = policy.select(context, arms, [])
    assert decision is not None
    return decision.arms[0]


def live(
    policy: Knn, prompts: int, best: Sequence[str] = "ab", language: str = "de", seed: int = 1
) -> None:
    """Each topic has an arm that is best there, and only there."""
    rng = np.random.default_rng(seed)
    for number in range(prompts):
        topic = number % 2
        rewards = {arm: float(rng.normal(arm == best[topic], 0.3)) for arm in ARMS}
        answers = [scored(arm, reward) for arm, reward in rewards.items()]
        policy.update(on_topic(topic, rng, language), answers)


# What it chooses


def test_the_favourite_of_a_topic_is_found_among_prompts_like_it() -> None:
    policy = make(features=config.Features(types=1), neighbours=20)
    live(policy, 300)
    rng = np.random.default_rng(2)
    chosen = [[asked(policy, on_topic(topic, rng)) for _ in range(20)] for topic in (0, 1)]
    assert chosen == [["a"] * 20, ["b"] * 20]


def test_from_one_answer_a_prompt_it_learns_whom_to_ask_about_what() -> None:
    policy = make(features=config.Features(types=1))
    rng = np.random.default_rng(3)
    right = Counter[int]()
    for number in range(600):
        topic = number % 2
        context = on_topic(topic, rng)
        arm = asked(policy, context)
        policy.update(context, [scored(arm, float(rng.normal(arm == "ab"[topic], 0.3)))])
        right[number // 200] += arm == "ab"[topic]
    assert right[2] > 190
    assert right[2] > right[0]


@pytest.mark.parametrize("fan_out", [1, 2])
def test_arms_nobody_has_asked_are_asked(fan_out: int) -> None:
    policy = make(fan_out=fan_out)
    rng = np.random.default_rng(5)
    seen = set()
    for _ in range(200):
        decision = policy.select(Context("de"), "abcdef", [])
        assert decision is not None
        assert decision.propensities == (1.0,) * fan_out
        seen |= set(decision.arms)
        policy.update(Context("de"), [scored(arm, float(rng.normal())) for arm in decision.arms])
    assert seen == set("abcdef")


def test_a_prompt_without_features_is_chosen_for_by_what_is_believed_of_its_language() -> None:
    policy = make()
    for language, best in (("de", "a"), ("ja", "c")):
        for number in range(60):
            rewards = {arm: (arm == best) + 0.1 * (number % 3) for arm in ARMS}
            policy.update(Context(language), [scored(*item) for item in rewards.items()])
    assert asked(policy, Context("de")) == "a"
    assert asked(policy, Context("ja")) == "c"
    assert asked(policy, Context("sw")) in "ac"


def test_what_an_arm_costs_is_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make(features=config.Features(types=1))
    live(policy, 200)
    context = on_topic(0, np.random.default_rng(2))
    assert asked(policy, context) == "a"
    monkeypatch.setattr(policy, "_toll", lambda _, arms: np.where(np.array(arms) == "a", 9.0, 0.0))
    assert asked(policy, context) != "a"


def test_with_a_half_life_new_prompts_count_more_than_old_ones() -> None:
    def after_the_turn(half_life: float | None) -> float:
        policy = make(half_life=half_life, features=config.Features(types=1))
        live(policy, 300)
        live(policy, 100, best="ca", seed=7)
        _, x = policy.experience.place(on_topic(0, np.random.default_rng(2)))
        assert x is not None
        answers, totals = policy._answers("de", x, ARMS)
        means = totals / answers
        return float(means[2] - means[0])

    assert after_the_turn(20.0) > 0.5
    assert after_the_turn(None) < -0.2


# How neighbours are counted


def counted(policy: Knn, languages: set[str], x: FloatArray, arm: str) -> tuple[float, float]:
    """Answers of neighbours and their sum, by a plain loop over all that is remembered."""
    memory = policy.experience.memory
    column = memory.arms[arm]
    of = [memory.leaf_of[leaf][0] for leaf in memory.leaf[: memory.size]]
    among = [row for row in range(memory.size) if of[row] in languages]
    cosines = memory.x[: memory.size] @ x.astype(np.float32)
    count = min(policy._count, len(among) // 8)
    answers = total = 0.0
    for row in sorted(among, key=lambda row: -float(cosines[row]))[:count]:
        units = policy.belief.units(of[row])
        level, spread = units.level, units.spread
        weight = float(cosines[row]) ** 4 if cosines[row] > 0.0 else 0.0
        if memory.scored[row, column]:
            total += weight * (float(memory.rewards[row, column]) - level) / spread
        elif memory.stopped[row, column]:
            total += weight * STOPPED_AT
        else:
            continue
        answers += weight
    return answers, total


def test_neighbours_are_counted_as_by_a_plain_loop() -> None:
    policy = make(neighbours=60)
    rng = np.random.default_rng(4)
    for number in range(700):
        language = ("de", "ja", "sw")[number % 3]
        context = on_topic(number % 2, rng, language)
        if number % 7 == 0:
            context = Context(language)
        told = [
            scored("a", float(rng.normal(number % 2, 0.3))),
            stopped("b") if number % 5 == 0 else scored("b", float(rng.normal(0.5, 3.0))),
            scored("c", float(rng.normal(number % 3, 0.3))),
        ]
        policy.update(context, [told[i] for i in rng.permutation(3)[: 1 + number % 3]])
    for language in ("de", "ja"):
        _, x = policy.experience.place(on_topic(1, rng, language))
        assert x is not None
        own = [counted(policy, {language}, x, arm) for arm in ARMS]
        others = [counted(policy, {"de", "ja", "sw"} - {language}, x, arm) for arm in ARMS]
        answers, totals = policy._answers(language, x, (*ARMS, "new"))
        most = 15.0 - sum(n for n, _ in own) / 4 / 4
        for i, ((n, total), (m, theirs)) in enumerate(zip(own, others, strict=True)):
            assert answers[i] == pytest.approx(n + m * most / (most + m), rel=1e-5)
            assert totals[i] == pytest.approx(total + theirs * most / (most + m), rel=1e-4)
        assert (answers[3], totals[3]) == (0.0, 0.0)


def test_other_languages_count_for_little_beside_many_of_the_own_and_for_much_beside_none() -> None:
    policy = make(features=config.Features(types=1), neighbours=400)
    live(policy, 400, best="ab", language="de")
    live(policy, 400, best="ba", language="fr", seed=7)
    rng = np.random.default_rng(5)
    for language, favourites in (("de", "ab"), ("fr", "ba")):
        for topic in (0, 1):
            assert asked(policy, on_topic(topic, rng, language)) == favourites[topic]
    other = make(features=config.Features(types=1), neighbours=400)
    live(other, 400, best="ab", language="de")
    assert [asked(other, on_topic(topic, rng, "sw")) for topic in (0, 1)] == ["a", "b"]


# What it keeps


def test_a_restored_policy_goes_on_as_it_was() -> None:
    policy, again = make(audit_rate=0.2), make(audit_rate=0.2, seed=9)
    live(policy, 200)
    again.restore(Snapshot.decode(Snapshot.of(policy).encode()).state)
    rng = np.random.default_rng(6)
    for number in range(40):
        context = on_topic(number % 2, rng)
        assert again.select(context, ARMS, []) == policy.select(context, ARMS, [])
        for each in (policy, again):
            each.update(context, [scored("a", 0.1 * number), scored("c", 0.5)])


# Finding neighbours


def remembered(x: Features, capacity: int = 100_000, added: int = 0) -> Memory:
    """A memory of prompts that differ in their features alone."""
    size = len(x)
    nobody = np.zeros((size, 1), dtype=np.bool_)
    return Memory.of_state(
        {
            "capacity": capacity,
            "added": added or size,
            "counts": [size],
            "leaves": [["de", ""]],
            "arms": ["a"],
            "x": x,
            "leaf": np.zeros(size, dtype=np.intp),
            "rewards": np.zeros((size, 1)),
            "scored": nobody,
            "stopped": nobody,
        }
    )


def prompts(count: int, features: int, seed: int = 0) -> Features:
    """Unit vectors in clusters, with principal components that matter less and less."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).normal(size=(30, features))
    x = centres[rng.integers(30, size=count)] + rng.normal(size=(count, features))
    x /= np.arange(1, features + 1) ** 0.3
    unit: Features = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return unit


def exactly(memory: Memory, x: Features, count: int) -> set[int]:
    cosines = memory.x[: memory.size] @ x
    order = np.argsort(-cosines, kind="stable")[:count]
    return {int(row) for row in order if cosines[row] > 0.0}


def rows(found: tuple[IntArray, Features]) -> set[int]:
    return set(found[0].tolist())


def near(finder: Neighbours, memory: Memory, x: Features, count: int) -> tuple[IntArray, Features]:
    everyone = np.ones(memory.size, dtype=np.bool_)
    return finder.nearest(memory, x.astype(np.float64), count, everyone)


def recall(finder: Neighbours, memory: Memory, asked_for: Features, count: int) -> float:
    found = wanted = 0
    for x in asked_for:
        truth = exactly(memory, x, count)
        found += len(truth & rows(near(finder, memory, x, count)))
        wanted += len(truth)
    return found / wanted


@settings(deadline=None, derandomize=True)
@given(
    values=some.arrays(
        np.float32, st.integers(1, 400), elements=st.floats(-1.0, 1.0, width=32), fill=st.nothing()
    ),
    count=st.integers(1, 60),
)
def test_the_largest_are_those_that_sorting_finds(values: Features, count: int) -> None:
    found = neighbours._largest(values, count)
    assert len(set(found.tolist())) == len(found) == min(count, len(values))
    assert sorted(values[found]) == sorted(values)[-count:]


@pytest.mark.parametrize("size", [1, 7, 500, 5000])
def test_few_prompts_are_compared_each(size: int) -> None:
    memory = remembered(prompts(size, 16))
    for x in prompts(5, 16, seed=9):
        found, cosines = near(Neighbours(), memory, x, 40)
        assert set(found.tolist()) == exactly(memory, x, 40)
        assert cosines == pytest.approx(memory.x[found] @ x)


@pytest.mark.parametrize("share", [2, 20])
def test_only_prompts_that_come_into_question_are_neighbours(share: int) -> None:
    memory = remembered(prompts(3000, 16))
    among = np.arange(3000) % share == 0
    for x in prompts(5, 16, seed=9):
        found, cosines = Neighbours().nearest(memory, x.astype(np.float64), 40, among)
        assert (found % share == 0).all()
        assert set(found.tolist()) == {
            row * share for row in exactly(remembered(memory.x[::share]), x, 40)
        }
        assert cosines == pytest.approx(memory.x[found] @ x)


def test_an_index_finds_those_that_come_into_question() -> None:
    pytest.importorskip("faiss", reason="the extra `neighbours` is not installed")
    memory = remembered(prompts(5000, 16))
    among = np.arange(5000) % 5 > 0
    finder = Neighbours(exact=1000)
    for x in prompts(20, 16, seed=9):
        found, _ = finder.nearest(memory, x.astype(np.float64), 50, among)
        truth = [row for row in np.argsort(-(memory.x @ x)) if among[row]][:50]
        assert among[found].all()
        assert len(set(truth) & set(found.tolist())) >= 40
    assert finder.state()["lists"] > 0


def test_prompts_without_features_are_nobodys_neighbours() -> None:
    x = prompts(50, 8)
    x[::2] = 0.0
    found, _ = near(Neighbours(), remembered(x), x[1], 50)
    assert (found % 2 == 1).all()


@pytest.mark.parametrize("features", [16, 64])
def test_an_index_over_many_prompts_finds_nearly_all(features: int) -> None:
    pytest.importorskip("faiss", reason="the extra `neighbours` is not installed")
    memory = remembered(prompts(60_000, features))
    finder = Neighbours()
    assert recall(finder, memory, prompts(60, features, seed=9), count=400) >= 0.95
    assert finder.state()["lists"] > 0, "it was the index that found them"


def test_where_lists_would_not_help_each_prompt_is_compared() -> None:
    pytest.importorskip("faiss", reason="the extra `neighbours` is not installed")
    x = np.random.default_rng(0).normal(size=(4000, 48))
    memory = remembered((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32))
    finder = Neighbours(exact=1000)
    assert recall(finder, memory, memory.x[:20], count=400) == 1.0
    assert finder.state()["lists"] == 0


def test_the_index_follows_a_memory_whose_old_prompts_are_replaced() -> None:
    pytest.importorskip("faiss", reason="the extra `neighbours` is not installed")
    memory = remembered(prompts(5000, 16), capacity=6000)
    finder = Neighbours(exact=1000)
    asked_for = prompts(30, 16, seed=9)
    assert recall(finder, memory, asked_for, count=50) >= 0.95
    learned = [finder.state()["learned"]]
    for batch in range(6):
        for x in prompts(1500, 16, seed=20 + batch):
            memory.add(("de", ""), x.astype(np.float64), [("a", 0.0)])
        assert recall(finder, memory, asked_for, count=50) >= 0.95
        learned.append(finder.state()["learned"])
    assert learned == [5000] * 4 + [11_000] * 3
    newest = memory.x[memory.order()[-1]].copy()
    found, cosines = near(finder, memory, newest, 1)
    assert found.tolist() == memory.order()[-1:].tolist()
    assert cosines[0] == pytest.approx(1.0)


def test_a_restored_index_finds_what_the_one_it_was_taken_from_does() -> None:
    pytest.importorskip("faiss", reason="the extra `neighbours` is not installed")
    memory = remembered(prompts(5000, 16), capacity=6000)
    finder, again = Neighbours(exact=1000), Neighbours(exact=1000)
    near(finder, memory, memory.x[0], 50)
    for x in prompts(2000, 16, seed=5):
        memory.add(("de", ""), x.astype(np.float64), [("a", 0.0)])
    twin = Memory.of_state(memory.state())
    again.restore(finder.state(), twin)
    for x in prompts(30, 16, seed=9):
        assert rows(near(again, twin, x, 50)) == rows(near(finder, memory, x, 50))
    assert again.state()["learned"] == finder.state()["learned"] == 5000


def test_another_memory_gets_an_index_of_its_own() -> None:
    pytest.importorskip("faiss", reason="the extra `neighbours` is not installed")
    finder = Neighbours(exact=1000)
    for seed in (0, 1):
        memory = remembered(prompts(5000, 16, seed=seed))
        assert recall(finder, memory, prompts(30, 16, seed=9), count=50) >= 0.95


def test_without_faiss_each_prompt_is_compared_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    memory = remembered(prompts(3000, 16))
    finder = Neighbours(exact=1000)
    with caplog.at_level(logging.WARNING):
        for x in prompts(3, 16, seed=9):
            assert rows(near(finder, memory, x, 50)) == exactly(memory, x, 50)
    (record,) = caplog.records
    assert "data-arbitrage[neighbours]" in record.getMessage()


def test_importing_the_router_does_not_import_faiss() -> None:
    check = "import router, sys; print('faiss' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
