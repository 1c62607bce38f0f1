"""The hierarchical linear model of rewards: sums that add up, and what follows from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.experience.belief import Belief
from router.experience.leaf import leaf_of
from router.experience.statistics import Statistics
from router.experience.tree import ROOT, Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router.arrays import FloatArray
    from router.experience.judgement import Judgement
    from router.experience.leaf import Leaf

ARMS = ("a", "b", "c", "d", "e", "f")
FEATURES = 2

Lesson = tuple["Leaf", "FloatArray", "Sequence[Judgement]"]

judgements = st.tuples(st.sampled_from(ARMS), st.one_of(st.none(), st.integers(-50, 50).map(float)))
lessons = st.tuples(
    st.builds(leaf_of, st.sampled_from(["de", "fr", "ja"]), st.sampled_from([None, "math"])),
    st.lists(st.integers(-4, 4).map(float), min_size=FEATURES, max_size=FEATURES).map(np.array),
    st.lists(judgements, min_size=1, max_size=4),
)
histories = st.lists(lessons, max_size=12)


def seen(history: Sequence[Lesson]) -> Statistics:
    statistics = Statistics(FEATURES)
    for leaf, x, told in history:
        statistics.add(leaf, x, told)
    return statistics


def figures(statistics: Statistics) -> dict[tuple[Leaf, str], list[float]]:
    return {
        (leaf, arm): statistics.sums[row, column].tolist()
        for leaf, row in statistics.leaves.items()
        for arm, column in statistics.arms.items()
        if statistics.sums[row, column].any()
    }


def added(*parts: Statistics) -> Statistics:
    total = Statistics(FEATURES)
    for part in parts:
        total.merge(part)
    return total


def scatter(statistics: Statistics) -> dict[str, list[float]]:
    return {
        arm: statistics.scatter[column].ravel().tolist() for arm, column in statistics.arms.items()
    }


# Statistics


@settings(deadline=None, derandomize=True)
@given(one=histories, two=histories, three=histories)
def test_statistics_add_up_whatever_the_order(
    one: list[Lesson], two: list[Lesson], three: list[Lesson]
) -> None:
    whole = seen(one + two + three)
    a, b, c = seen(one), seen(two), seen(three)
    sums = [
        added(a, b, c),
        added(c, b, a),
        added(added(a, b), c),
        added(a, added(b, c)),
    ]
    for total in sums:
        assert figures(total) == figures(whole), "integers add up exactly"
        assert scatter(total).keys() == scatter(whole).keys()
        for arm, expected in scatter(whole).items():
            assert scatter(total)[arm] == pytest.approx(expected, rel=1e-9, abs=1e-9)
        assert total.answers(ARMS).tolist() == whole.answers(ARMS).tolist()
    assert figures(a) == figures(seen(one)), "what is added stays as it was"


@settings(deadline=None, derandomize=True)
@given(history=histories)
def test_the_scatter_is_that_around_the_means_of_leaf_and_arm(history: list[Lesson]) -> None:
    rows: dict[tuple[Leaf, str], list[FloatArray]] = {}
    for leaf, x, told in history:
        for arm, _ in told:
            rows.setdefault((leaf, arm), []).append(x)
    expected = dict.fromkeys({arm for _, arm in rows}, np.zeros((FEATURES, FEATURES)))
    for (_, arm), xs in rows.items():
        away = np.array(xs) - np.mean(xs, axis=0)
        expected[arm] = expected[arm] + away.T @ away
    for arm, found in scatter(seen(history)).items():
        assert found == pytest.approx(expected[arm].ravel(), abs=1e-9)


@settings(deadline=None, derandomize=True)
@given(history=histories)
def test_statistics_are_their_state(history: list[Lesson]) -> None:
    statistics = seen(history)
    again = Statistics.of_state(statistics.state())
    assert figures(again) == figures(statistics)
    assert scatter(again) == scatter(statistics)
    assert again.of("de", ARMS).tolist() == statistics.of("de", ARMS).tolist()


def test_without_types_the_answers_of_a_language_stay() -> None:
    statistics = Statistics(1)
    statistics.add(("de", "#1"), np.ones(1), [("a", 1.0), ("b", None)])
    statistics.add(("de", "#2"), np.ones(1), [("a", 2.0)])
    statistics.add(("de", "=math"), np.ones(1), [("a", 4.0)])
    plain = statistics.plain()
    assert set(plain.leaves) == {("de", ""), ("de", "=math")}
    assert plain.of("de", ARMS).tolist() == statistics.of("de", ARMS).tolist()
    assert not plain.scatter.any()


def test_what_is_forgotten_fades_in_its_language_alone() -> None:
    statistics = Statistics(1)
    for language in ("de", "fr"):
        for i in range(4):
            statistics.add((language, ""), np.array([float(i % 2)]), [("a", 1.0)])
    before = statistics.scatter[0, 0, 0]
    statistics.add(("de", ""), np.array([0.5]), [("b", 1.0)], keep=0.5)
    assert statistics.of("de", ["a"])[0, 0] == 2.0
    assert statistics.of("fr", ["a"])[0, 0] == 4.0
    assert statistics.scatter[0, 0, 0] == pytest.approx(0.75 * before)
    assert statistics.answers(["a", "b"]).tolist() == [6.0, 1.0]


# The tree


def brute_force(tree: Tree, path: Sequence[int]) -> tuple[float, float]:
    """Mean and variance at the end of a path, from the joint covariance of all nodes."""
    size = len(tree.parents)
    above = np.zeros((size, size))
    for node in range(size):
        above[node, node] = tree.steps[tree.depths[node]]
    loading = np.zeros((size, size))
    for node in range(size):
        at = node
        while True:
            loading[node, at] = 1.0
            if at == ROOT:
                break
            at = tree.parents[at]
    covariance = loading @ above @ loading.T
    leaves = [n for n in range(size) if n not in set(tree.parents) and tree.evidence[n, 0, 0] > 0]
    noise = np.diag([1.0 / tree.evidence[n, 0, 0] for n in leaves])
    observed = np.array([tree.evidence[n, 0, 1] / tree.evidence[n, 0, 0] for n in leaves])
    end = path[-1]
    if not leaves:
        return 0.0, float(covariance[end, end])
    gain = np.linalg.solve(covariance[np.ix_(leaves, leaves)] + noise, covariance[leaves, end])
    return float(gain @ observed), float(covariance[end, end] - gain @ covariance[leaves, end])


@settings(deadline=None, derandomize=True)
@given(
    shape=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    steps=st.lists(st.floats(0.01, 2.0), min_size=3, max_size=3).map(np.array),
    data=st.data(),
)
def test_the_tree_says_what_the_joint_gaussian_does(
    shape: list[int], steps: FloatArray, data: st.DataObject
) -> None:
    tree = Tree(steps, arms=1, features=0)
    paths = []
    for leaves in shape:
        language = tree.add(ROOT)
        rows = [tree.add(language) for _ in range(leaves)]
        paths += [(ROOT, language, row) for row in rows]
        for _ in range(2 if rows else 0):  # the second time replaces the first
            told = [
                (data.draw(st.sampled_from([0.0, 0.1, 1.0, 30.0])), data.draw(st.floats(-2.0, 2.0)))
                for _ in rows
            ]
            evidence = np.array([[[p, p * y]] for p, y in told])
            tree.tell(np.array(rows), evidence)
    for path in paths:
        precision, weighted = tree.believe(path, np.arange(1))[0]
        mean, variance = brute_force(tree, path)
        assert weighted / precision == pytest.approx(mean, abs=1e-6)
        assert 1.0 / precision == pytest.approx(variance, rel=1e-6)
    before = tree.evidence.copy()
    tree.retell()
    assert tree.evidence == pytest.approx(before, abs=1e-9)


def test_the_steps_are_found_from_many_nodes() -> None:
    rng = np.random.default_rng(3)
    truth = np.array([1.0, 0.5, 0.05])
    arms = 40
    tree = Tree(np.array([0.2, 0.2, 0.2]), arms, features=0)
    root = rng.normal(0.0, np.sqrt(truth[0]), arms)
    for _ in range(40):
        language = tree.add(ROOT)
        value = root + rng.normal(0.0, np.sqrt(truth[1]), arms)
        rows = np.array([tree.add(language) for _ in range(4)])
        at = value + rng.normal(0.0, np.sqrt(truth[2]), (4, arms))
        heard = at + rng.normal(0.0, 0.2, at.shape)
        tree.tell(rows, np.stack((np.full(at.shape, 25.0), 25.0 * heard), axis=-1))
    tree.learn_steps(strength=1.0, turns=40)
    assert tree.steps[1:] == pytest.approx(truth[1:], rel=0.15)
    assert tree.steps[0] == pytest.approx(truth[0], rel=0.5), "of forty arms"


# Belief


@settings(deadline=None, derandomize=True)
@given(
    rewards=st.lists(st.floats(-1.0, 1.0), min_size=12, max_size=40).filter(
        lambda rewards: np.std(rewards) > 0.1
    ),
    factor=st.sampled_from([1e-6, 1.0, 1e3]),
    shift=st.sampled_from([0.0, -2.0, 30.0]),
)
def test_beliefs_do_not_depend_on_the_rewards_scale(
    rewards: list[float], factor: float, shift: float
) -> None:
    plain, other = Belief(1), Belief(1)
    for i, reward in enumerate(rewards):
        leaf, arm = (("de", "fr")[i % 2], ""), ARMS[i % 3]
        x = np.array([float(i % 5)])
        plain.learn(leaf, x, [(arm, reward), ("e", None)])
        other.learn(leaf, x, [(arm, factor * (reward + shift)), ("e", None)])
    plain.tune()
    other.tune()
    for language in ("de", "fr", "unseen"):
        expected = plain.posterior((language, ""), np.ones(1), ARMS)
        actual = other.posterior((language, ""), np.ones(1), ARMS)
        assert actual.mean == pytest.approx(
            factor * (expected.mean + shift), rel=1e-5, abs=1e-5 * factor
        )
        assert actual.sd == pytest.approx(factor * expected.sd, rel=1e-5)


def test_rewards_at_the_edge_of_what_is_a_number_do_no_harm() -> None:
    belief = Belief()
    belief.learn(("de", ""), None, [("a", 1e-29), ("b", -1e-29)])
    belief.learn(("fr", ""), None, [("a", 1e30), ("b", 1e30), ("a", -1e30)])
    belief.learn(("ja", ""), None, [("a", 0.5)] * 3)
    belief.tune()
    for language in ("de", "fr", "ja", "unseen"):
        posterior = belief.posterior((language, ""), None, ARMS)
        assert np.isfinite(posterior.mean).all()
        assert np.isfinite(posterior.sd).all()
        assert (posterior.sd > 0.0).all()


def test_a_language_with_two_prompts_borrows_its_spread() -> None:
    belief = Belief()
    rng = np.random.default_rng(0)
    for _ in range(200):
        belief.learn(("de", ""), None, [(arm, float(rng.normal(0.0, 0.01))) for arm in ("a", "b")])
    belief.learn(("sw", ""), None, [("a", 0.501), ("b", 0.497)])
    sd = belief.posterior(("sw", ""), None, ["a", "b", "new"]).sd
    assert np.all((sd > 0.002) & (sd < 0.02)), "of the order of 0.01, not of 1"


def taught(languages: Sequence[str], prompts: int, quality: FloatArray, seed: int) -> Belief:
    belief = Belief()
    rng = np.random.default_rng(seed)
    for _ in range(prompts):
        for i, language in enumerate(languages):
            rewards = rng.normal(quality[i], 0.5)
            belief.learn((language, ""), None, list(zip(ARMS, rewards.tolist(), strict=False)))
    return belief


def test_a_language_with_few_prompts_borrows_and_one_with_many_does_not() -> None:
    elsewhere, here = np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])
    languages = ("de", "fr", "es", "ja", "ru", "tr")
    belief = taught(languages, 60, np.tile(elsewhere, (6, 1)), seed=1)
    rng = np.random.default_rng(2)
    favourites = []
    for count in range(1, 1500):
        belief.learn(
            ("sw", ""), None, list(zip(ARMS, rng.normal(here, 0.5).tolist(), strict=False))
        )
        if count in {1, 1499}:
            mean = belief.posterior(("sw", ""), None, ARMS[:3]).mean
            favourites.append(ARMS[int(mean.argmax())])
    assert favourites == ["a", "c"]


def test_a_relative_is_believed_more_than_a_stranger() -> None:
    quality = np.array([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 4)
    belief = taught(("es", "fr", "it", "ca", "ru", "pl", "cs", "uk"), 80, quality, seed=4)
    romance = belief.posterior(("pt", ""), None, ARMS[:2]).mean
    slavic = belief.posterior(("bg", ""), None, ARMS[:2]).mean
    assert romance[0] > romance[1]
    assert slavic[1] > slavic[0]


def test_slopes_are_shared_between_languages() -> None:
    belief = Belief(features=3)
    rng = np.random.default_rng(5)
    slopes = {"a": np.array([1.0, 0.0, 0.0]), "b": np.array([-1.0, 0.0, 0.0])}
    for i in range(1200):
        x = rng.normal(size=3)
        told = [(arm, float(w @ x + rng.normal(0.0, 0.3))) for arm, w in slopes.items()]
        belief.learn((("de", "fr", "ja")[i % 3], ""), x, told)
    for language in ("de", "never seen"):
        up = belief.posterior((language, ""), np.array([1.0, 0.0, 0.0]), ["a", "b"])
        down = belief.posterior((language, ""), np.array([-1.0, 0.0, 0.0]), ["a", "b"])
        assert up.mean[0] - up.mean[1] == pytest.approx(2.0, abs=0.2)
        assert down.mean[0] - down.mean[1] == pytest.approx(-2.0, abs=0.2)


def test_intervals_hold_what_they_promise() -> None:
    """Of the true values of a hierarchy, two standard errors cover about 95 %."""
    rng = np.random.default_rng(6)
    languages = ("de", "fr", "ja", "ru", "tr", "fi", "sw", "zh", "ar", "hi")
    root = rng.normal(0.0, 0.5, 6)
    quality = root + rng.normal(0.0, 0.3, (len(languages), 6))
    belief = taught(languages, 12, quality, seed=7)
    covered = []
    for i, language in enumerate(languages):
        posterior = belief.posterior((language, ""), None, ARMS)
        covered += (np.abs(posterior.mean - quality[i]) < 2.0 * posterior.sd).tolist()
    assert 0.85 <= np.mean(covered) <= 1.0


def test_a_merged_belief_is_that_of_both_streams() -> None:
    rng = np.random.default_rng(8)
    parts, whole = (Belief(2), Belief(2)), Belief(2)
    for i in range(300):
        leaf = leaf_of(("de", "fr", "ja")[i % 3], (None, "math")[i % 2])
        x = rng.normal(size=2)
        told = [(arm, float(rng.normal(n, 1.0) + x[0])) for n, arm in enumerate(ARMS[:4])]
        whole.learn(leaf, x, told[: 1 + i % 4])
        parts[i % 7 % 2].learn(leaf, x, told[: 1 + i % 4])
    merged, other = parts
    merged.merge(other)
    whole.tune()
    for leaf in (("de", ""), ("fr", "=math"), ("sw", "")):
        expected = whole.posterior(leaf, np.ones(2), ARMS)
        actual = merged.posterior(leaf, np.ones(2), ARMS)
        assert actual.mean == pytest.approx(expected.mean, rel=1e-6, abs=1e-9)
        assert actual.sd == pytest.approx(expected.sd, rel=1e-6)


def test_a_restored_belief_goes_on_as_before() -> None:
    rng = np.random.default_rng(9)
    belief = Belief(2)

    def lesson(i: int) -> Lesson:
        told = [(arm, float(rng.normal(n, 1.0))) for n, arm in enumerate(ARMS[: 1 + i % 4])]
        return leaf_of(("de", "fr", "ja")[i % 3], None, i % 5), rng.normal(size=2), told

    for i in range(157):
        belief.learn(*lesson(i))
    again = Belief.of_state(belief.state())
    for i in range(157, 400):
        following = lesson(i)
        belief.learn(*following)
        again.learn(*following)
    for leaf in (("de", "#1"), ("fr", ""), ("sw", "")):
        expected = belief.posterior(leaf, np.ones(2), ARMS)
        actual = again.posterior(leaf, np.ones(2), ARMS)
        assert actual.mean == pytest.approx(expected.mean, rel=1e-9)
        assert actual.sd == pytest.approx(expected.sd, rel=1e-9)
