"""What every policy learns: places for prompts, memories of them, and how replicas add up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbitrage import config
from arbitrage.errors import SnapshotError
from arbitrage.types import Candidate, Completion, Context, Score
from router.experience import Experience
from router.experience.basis import Basis
from router.experience.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router.arrays import Features

ARMS = ("a", "b", "c")
TOPICS = 3


def scored(arm: str, reward: float) -> Candidate:
    return Candidate(arm, Completion("."), score=Score(reward, {}))


def texts(count: int, seed: int) -> tuple[Features, Sequence[int]]:
    """Features of prompts about one of three topics, and which."""
    rng = np.random.default_rng(seed)
    topics = rng.integers(TOPICS, size=count)
    centres = np.eye(TOPICS, 24) * 3.0
    features = centres[topics] + rng.normal(0.0, 0.4, (count, 24))
    return features.astype(np.float32), topics.tolist()


def live(experience: Experience, count: int, seed: int, language: str = "de") -> None:
    """On the topic `i`, the arm `i` is best."""
    rng = np.random.default_rng(seed)
    features, topics = texts(count, seed)
    for x, topic in zip(features, topics, strict=True):
        told = [scored(a, float(rng.normal(i == topic, 0.3))) for i, a in enumerate(ARMS)]
        experience.learn(Context(language, None, x), told)


def fresh(types: int = TOPICS) -> Experience:
    return Experience(config.Features(dimensions=4, types=types))


def expected(experience: Experience, context: Context) -> list[float]:
    mean: list[float] = experience.belief.posterior(*experience.place(context), ARMS).mean.tolist()
    return mean


# The basis


def test_prompt_types_are_the_topics() -> None:
    features, topics = texts(400, seed=1)
    basis = Basis.fit(features, dimensions=4, types=TOPICS)
    placed = [basis.place(x) for x in features]
    pairs = {(topic, kind) for topic, (_, kind) in zip(topics, placed, strict=True)}
    assert len(pairs) == TOPICS, "one type a topic"
    assert all(np.linalg.norm(x) == pytest.approx(1.0) for x, _ in placed)
    assert {x.shape for x, _ in placed} == {(4,)}


def test_the_same_prompts_give_the_same_basis() -> None:
    features, _ = texts(200, seed=2)
    one, two = (Basis.fit(features, dimensions=4, types=3) for _ in range(2))
    other = Basis.fit(features[1:], dimensions=4, types=3)
    assert one.name == two.name == Basis.of_state(one.state()).name
    assert one.name != other.name


@pytest.mark.parametrize("prompts", [1, 2, 5])
def test_few_prompts_alike_make_a_basis_too(prompts: int) -> None:
    basis = Basis.fit(np.ones((prompts, 8), dtype=np.float32), dimensions=4, types=6)
    x, kind = basis.place(np.zeros(8, dtype=np.float32))
    assert np.isfinite(x).all()
    assert kind == 0


# Memory


def test_beyond_its_capacity_the_newest_takes_the_oldests_place() -> None:
    memory = Memory(features=1, capacity=3)
    for i in range(5):
        memory.add(("de", f"#{i}"), np.array([float(i)]), [(ARMS[i % 3], float(i))])
    assert memory.size == 3
    assert memory.x[memory.order(), 0].tolist() == [2.0, 3.0, 4.0]
    scored = memory.scored[memory.order()][:, memory.columns(ARMS)]
    assert scored.tolist() == [[False, False, True], [True, False, False], [False, True, False]]
    assert not memory.scored[memory.order()][:, memory.columns(["never"])].any()


def test_an_arm_with_several_answers_is_remembered_by_their_mean() -> None:
    memory = Memory(features=0)
    row = memory.add(("de", ""), None, [("a", 1.0), ("a", None), ("a", 2.0), ("b", None)])
    a, b = memory.columns(["a", "b"])
    assert memory.rewards[row, a] == 1.5
    assert (memory.scored[row, a], memory.stopped[row, a]) == (True, False)
    assert (memory.scored[row, b], memory.stopped[row, b]) == (False, True)


@settings(deadline=None, derandomize=True)
@given(
    told=st.lists(
        st.lists(
            st.tuples(st.sampled_from(ARMS), st.none() | st.floats(-9.0, 9.0)),
            min_size=1,
            max_size=4,
        ),
        max_size=12,
    ),
    capacity=st.integers(1, 8),
)
def test_a_memory_is_its_state(told: list[list[tuple[str, float | None]]], capacity: int) -> None:
    memory = Memory(2, capacity)
    for i, judgements in enumerate(told):
        memory.add((("de", "fr")[i % 2], ""), np.array([float(i), 0.5]), judgements)
    again = Memory.of_state(memory.state())
    for one in (memory, again):
        one.add(("ja", ""), np.ones(2), [("new", 1.0)])
    for name, value in memory.state().items():
        assert np.array_equal(again.state()[name], value), name


# Experience


def test_types_are_told_apart_as_soon_as_there_are_enough_prompts() -> None:
    experience = fresh()
    features, topics = texts(60, seed=9)
    live(experience, 127, seed=3)
    assert experience.place(Context("de", None, features[0])) == (("de", ""), None)
    live(experience, 300, seed=4)
    for x, topic in zip(features, topics, strict=True):
        leaf, place = experience.place(Context("de", None, x))
        assert leaf[1].startswith("#")
        assert place is not None
        mean = expected(experience, Context("de", None, x))
        assert int(np.argmax(mean)) == topic


def test_a_domain_that_is_given_is_no_type() -> None:
    experience = fresh()
    live(experience, 200, seed=3)
    x = texts(1, seed=1)[0][0]
    assert experience.place(Context("de", "math", x))[0] == ("de", "=math")
    assert experience.place(Context("de", "#1", x))[0] == ("de", "=#1")


def test_nothing_is_lost_when_the_basis_changes() -> None:
    experience = fresh()
    for prompts in (127, 1, 384, 1536, 100):
        live(experience, prompts, seed=prompts)
        figures = experience.belief.statistics.of("de", ARMS)
        assert figures[:, 0].tolist() == [float(experience.memory.size)] * 3
        rewards = experience.memory.rewards[: experience.memory.size, :3]
        assert figures[:, 1] == pytest.approx(rewards.sum(axis=0))
    assert experience.memory.size == 2148


@pytest.mark.parametrize("saved", [127, 128, 129, 159, 160, 161, 640])
def test_a_basis_that_was_being_learned_when_it_was_saved_comes_of_the_same_prompts(
    saved: int,
) -> None:
    through, stopped = fresh(), fresh()
    for experience in (through, stopped):
        live(experience, saved, seed=9)
    going_on = fresh()
    going_on.restore(stopped.state())
    for experience in (through, going_on):
        live(experience, 520, seed=10)
    assert going_on.coordinates == through.coordinates
    context = Context("de", None, texts(1, seed=11)[0][0])
    assert expected(going_on, context) == expected(through, context)


def test_until_a_new_basis_is_taken_over_the_old_one_holds() -> None:
    experience = fresh()
    live(experience, 159, seed=9)
    assert not experience.coordinates
    live(experience, 1, seed=10)
    first = experience.coordinates
    live(experience, 479, seed=11)
    assert experience.coordinates == first
    live(experience, 1, seed=12)
    assert experience.coordinates not in {"", first}


def test_without_features_a_policy_learns_by_language_and_domain() -> None:
    experience = Experience(config.Features(kind="none"))
    for domain in (None, "math"):
        experience.learn(Context("de", domain, texts(1, 1)[0][0]), [scored("a", 1.0)])
    assert set(experience.belief.statistics.leaves) == {("de", ""), ("de", "=math")}
    assert experience.memory.x.shape[1] == 0


@pytest.mark.parametrize("prompts", [50, 400, 2500, 2600])
def test_an_experience_is_its_state(prompts: int) -> None:
    experience = fresh()
    live(experience, prompts, seed=5)
    again = fresh()
    again.restore(experience.state())
    for one in (experience, again):
        live(one, 200, seed=6, language="fr")
    features, _ = texts(20, seed=7)
    for x in features:
        for language in ("de", "fr", "ja"):
            context = Context(language, None, x)
            assert expected(again, context) == pytest.approx(
                expected(experience, context), rel=1e-9
            )


def test_replicas_that_began_together_add_up_exactly() -> None:
    common = fresh()
    live(common, 2600, seed=11)
    start = common.state()
    replicas = [fresh(), fresh(), fresh()]
    for i, replica in enumerate(replicas):
        replica.restore(start)
        if i:
            live(replica, 300, seed=20 + i, language=("", "fr", "ja")[i])
    # what both had before they parted would count twice: one of them brings news alone
    one, two = fresh(), fresh()
    one.restore(replicas[1].state())
    two.restore(start)
    live(one, 300, seed=22, language="ja")
    news = fresh()
    news.restore({**start, **nothing_learned()})
    live(news, 300, seed=22, language="ja")
    merged = fresh()
    merged.restore(replicas[1].state())
    merged.merge(news)
    one.belief.tune()
    for x in texts(10, seed=8)[0]:
        for language in ("de", "fr", "ja"):
            context = Context(language, None, x)
            assert expected(merged, context) == pytest.approx(expected(one, context), rel=1e-6)
    assert merged.memory.size == one.memory.size


def nothing_learned() -> dict[str, object]:
    """The start of a replica that shares the basis, and has seen no prompt of its own."""
    empty = fresh()
    return {"belief": empty.belief.state(), "memory": empty.memory.state(), "lessons": None}


def test_replicas_with_bases_of_their_own_share_what_they_know_of_languages() -> None:
    one, two = fresh(), fresh()
    live(one, 2600, seed=31)
    live(two, 2600, seed=32, language="fr")
    before = one.belief.statistics.of("de", ARMS)
    one.merge(two)
    assert one.belief.statistics.of("de", ARMS).tolist() == before.tolist()
    assert one.belief.statistics.of("fr", ARMS)[:, 0].tolist() == [2600.0] * 3
    assert ("fr", "") in one.belief.statistics.leaves
    assert one.memory.size == 5200


@pytest.mark.parametrize("young", [0, 1])
def test_a_young_replica_is_placed_in_the_others_basis(young: int) -> None:
    pair = [fresh(), fresh()]
    live(pair[young], 100, seed=41)
    live(pair[1 - young], 2600, seed=42)
    one, two = pair
    one.merge(two)
    assert one.belief.statistics.of("de", ARMS)[:, 0].tolist() == [2700.0] * 3
    assert all(within.startswith("#") for _, within in one.belief.statistics.leaves)


def test_a_state_with_other_features_is_refused() -> None:
    experience = fresh()
    live(experience, 10, seed=1)
    other = Experience(config.Features(dimensions=5))
    with pytest.raises(SnapshotError, match="hashed, 4 components, not of hashed, 5 components"):
        other.restore(experience.state())
