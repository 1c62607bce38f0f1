"""How likely an arm is among the k first: by simulation, by enumeration, and by what must hold."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.inclusion import race, top_k

mixed_arms = pytest.mark.parametrize(
    ("mean", "sd"),
    [
        pytest.param([0.0, 1e-9, -1e-9, 0.0, 0.0], [1.0] * 5, id="near-equal"),
        pytest.param([0.0, 0.3, 0.7, 1.5, -2.0, 0.1], [1.0, 0.5, 0.2, 1.0, 2.0, 0.1], id="mixed"),
        pytest.param([0.0, 0.1, 0.0, 0.05], [1e-4, 10.0, 1.0, 1e-3], id="very-different-sds"),
        pytest.param([5.0, 5.0, 5.001, 0.0, 0.0], [1e-3, 1e-3, 1e-3, 3.0, 3.0], id="narrow-ties"),
        pytest.param(list(np.linspace(-1e4, 1e4, 12)), [2e3] * 12, id="large-scale"),
        pytest.param([0.0] * 40, list(np.linspace(0.1, 3.0, 40)), id="many"),
        pytest.param([9.0, 8.0, 0.0, 0.1, -9.0], [0.1, 0.1, 1.0, 1.0, 0.1], id="certain-and-not"),
    ],
)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@mixed_arms
def test_the_inclusion_integral_agrees_with_simulation(
    mean: list[float], sd: list[float], k: int
) -> None:
    arms, draws = len(mean), 40_000
    rng = np.random.default_rng(2)
    drawn = rng.normal(mean, sd, (draws, arms))
    kept = np.argpartition(-drawn, k - 1, axis=1)[:, :k]
    frequency = np.bincount(kept.ravel(), minlength=arms) / draws
    p = top_k(np.array(mean), np.array(sd), k, np.arange(arms))
    assert np.all(np.abs(p - frequency) <= 4.5 * np.sqrt(p * (1 - p) / draws) + 1e-3)
    assert p.sum() == pytest.approx(k, abs=1e-4)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@mixed_arms
def test_the_inclusion_integral_agrees_with_a_fine_grid(
    mean: list[float], sd: list[float], k: int
) -> None:
    m, s = np.array(mean), np.array(sd)
    ladder = np.linspace(-8.0, 8.0, 401)
    grid = np.unique(m[:, None] + s[:, None] * ladder)
    middle = (grid[1:] + grid[:-1]) / 2.0
    tail = np.vectorize(lambda z: 0.5 * math.erfc(z / math.sqrt(2.0)))
    above = tail((middle - m[:, None]) / s[:, None])
    ends = tail((grid - m[:, None]) / s[:, None])
    expected = []
    for i in range(len(m)):
        counts = np.zeros((k, len(middle)))
        counts[0] = 1.0
        for row in np.delete(above, i, axis=0):
            rising = counts * row
            counts -= rising
            counts[1:] += rising[:-1]
        expected.append(((ends[i, :-1] - ends[i, 1:]) * counts.sum(axis=0)).sum())
    assert top_k(m, s, k, np.arange(len(m))) == pytest.approx(expected, abs=5e-5)


gaussians = st.lists(
    st.tuples(st.floats(-5.0, 5.0), st.floats(0.01, 10.0)), min_size=2, max_size=12
)


@settings(deadline=None, derandomize=True)
@given(arms=gaussians, k=st.integers(1, 12), data=st.data())
def test_inclusion_sums_to_k_and_ignores_the_order_of_arms(
    arms: list[tuple[float, float]], k: int, data: st.DataObject
) -> None:
    order = np.array(data.draw(st.permutations(range(len(arms)))))
    mean, sd = np.array(arms).T
    everyone = np.arange(len(arms))
    p = top_k(mean, sd, k, everyone)
    assert np.all((p > 0.0) & (p <= 1.0))
    assert p.sum() == pytest.approx(min(k, len(arms)), abs=1e-3)
    assert top_k(mean[order], sd[order], k, everyone) == pytest.approx(p[order], abs=1e-9)
    assert top_k(mean, sd, k, order[:2]) == pytest.approx(p[order[:2]], abs=1e-6)


@settings(deadline=None, derandomize=True)
@given(
    arms=gaussians,
    k=st.integers(1, 5),
    factor=st.sampled_from([1e-25, 1.0, 1e25]),
    shift=st.sampled_from([0.0, -3.0, 1e3]),
)
def test_inclusion_does_not_depend_on_unit_or_origin(
    arms: list[tuple[float, float]], k: int, factor: float, shift: float
) -> None:
    mean, sd = np.array(arms).T
    everyone = np.arange(len(arms))
    moved = top_k(factor * (mean + shift), factor * sd, k, everyone)
    assert moved == pytest.approx(top_k(mean, sd, k, everyone), abs=1e-6)


def test_two_arms_have_a_closed_form() -> None:
    p = top_k(np.array([0.0, 1.0]), np.array([3.0, 4.0]), 1, np.arange(2))
    assert p == pytest.approx([0.4207402906, 0.5792597094], abs=1e-5)


def test_a_hopeless_arm_keeps_a_positive_probability() -> None:
    p = top_k(np.array([0.0, 1e6]), np.array([1.0, 1.0]), 1, np.arange(2))
    assert 0.0 < p[0] < 1e-9
    assert p[1] == pytest.approx(1.0)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_sds_that_rounding_loses_do_no_harm(k: int) -> None:
    mean = np.array([1e30, 1e30, -1e30, 0.0, 1e30])
    p = top_k(mean, np.full(5, 1e-30), k, np.arange(5))
    assert p.sum() == pytest.approx(k, abs=1e-4)
    assert p[[0, 1, 4]] == pytest.approx(np.full(3, min(k / 3.0, 1.0)), abs=1e-4)


# Races

rate_lists = st.lists(st.floats(-12.0, 12.0).map(math.exp), min_size=2, max_size=6)


def enumerated(rates: list[float], k: int) -> list[float]:
    """Inclusion probabilities by going through all orders of the k first."""
    p = [0.0] * len(rates)
    for order in itertools.permutations(range(len(rates)), k):
        left = set(range(len(rates)))
        probability = 1.0
        for arm in order:
            probability *= rates[arm] / math.fsum(rates[i] for i in left)
            left.remove(arm)
        for arm in order:
            p[arm] += probability
    return p


@settings(deadline=None, derandomize=True)
@given(rates=rate_lists, k=st.integers(1, 6))
def test_races_agree_with_the_enumeration_of_all_orders(rates: list[float], k: int) -> None:
    everyone = np.arange(len(rates))
    expected = enumerated(rates, min(k, len(rates)))
    assert race(np.array(rates), k, everyone) == pytest.approx(expected, abs=1e-5)


@settings(deadline=None, derandomize=True)
@given(rates=rate_lists, k=st.integers(1, 6), data=st.data())
def test_races_sum_to_k_and_ignore_the_order_and_the_unit(
    rates: list[float], k: int, data: st.DataObject
) -> None:
    order = np.array(data.draw(st.permutations(range(len(rates)))))
    weights, everyone = np.array(rates), np.arange(len(rates))
    p = race(weights, k, everyone)
    assert np.all((p > 0.0) & (p <= 1.0))
    assert p.sum() == pytest.approx(min(k, len(rates)), abs=1e-5)
    assert race(1e-20 * weights[order], k, everyone) == pytest.approx(p[order], abs=1e-9)
    assert race(weights, k, order[:2]) == pytest.approx(p[order[:2]], abs=1e-9)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_gumbel_draws_are_a_race(k: int) -> None:
    rng = np.random.default_rng(3)
    arms, draws = 20, 40_000
    scores = rng.normal(0.0, 2.0, arms)
    drawn = scores + rng.gumbel(size=(draws, arms))
    kept = np.argpartition(-drawn, k - 1, axis=1)[:, :k]
    frequency = np.bincount(kept.ravel(), minlength=arms) / draws
    p = race(np.exp(scores), k, np.arange(arms))
    assert np.all(np.abs(p - frequency) <= 4.5 * np.sqrt(p * (1 - p) / draws) + 1e-4)
    assert p.sum() == pytest.approx(k, abs=1e-5)


def test_arms_without_a_rate_come_last_and_alike() -> None:
    rates = np.array([0.0, 5.0, 0.0, 0.0])
    assert race(rates, 1, np.arange(4)) == pytest.approx([0.0, 1.0, 0.0, 0.0], abs=1e-9)
    assert race(rates, 2, np.arange(4)) == pytest.approx([1 / 3, 1.0, 1 / 3, 1 / 3], abs=1e-5)
    assert race(rates, 1, np.arange(1))[0] > 0.0
    assert race(rates, 4, np.arange(4)).tolist() == [1.0] * 4
