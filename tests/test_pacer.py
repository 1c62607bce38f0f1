"""The price of a dollar: that budgets last, and what must hold whatever was spent."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbitrage import config
from router.pacer import Pacer

ARM_USD = np.array([0.001, 0.01, 0.05])
MERITS = np.array([0.0, 0.7, 1.4])
FREE_SPENDING = 0.05


@dataclass(frozen=True, slots=True)
class Run:
    """What became of a job.

    Attributes:
        spent: by each prompt, `(prompts,)`.
        prices: at each decision, `(prompts,)`.
        worth: mean quality of the chosen arms.
    """

    spent: np.ndarray
    prices: np.ndarray
    worth: float

    def error(self, target: float, prompts: int | None = None) -> float:
        """How far spending was from the budget to date, as a share of it."""
        return abs(float(self.spent[:prompts].mean()) / target - 1.0)


def run(
    pacer: Pacer,
    prompts: int,
    *,
    in_flight: int = 0,
    rise: float = 1.0,
    spread: float = 0.5,
    lost: float = 0.0,
    unit: float = 1.0,
    seed: int = 0,
) -> Run:
    """Lets a greedy policy that knows the arms work under the pacer.

    Args:
        pacer: of the job.
        prompts: in the job.
        in_flight: prompts decided before the first is charged; they return in any order.
        rise: factor of all prices from half way on, of which expectations know.
        spread: of the logarithm of a call's cost.
        lost: share of the prompts that never return, though they were paid for.
        unit: dollars in a unit of the costs above.
        seed: of the prompts' luck.
    """
    rng = np.random.default_rng(seed)
    flying: list[tuple[float, float]] = []
    spent, prices, worth = np.zeros(prompts), np.zeros(prompts), 0.0
    for number in range(prompts):
        if len(flying) > in_flight:
            usd, expected = flying.pop(int(rng.integers(len(flying))))
            pacer.charge(usd, expected=expected)
        means = ARM_USD * unit * (rise if number >= prompts // 2 else 1.0)
        quality = MERITS + rng.normal(0.0, 0.5, len(MERITS))
        prices[number] = pacer.price
        arm = int((quality - pacer.price * means).argmax())
        usd = float(means[arm] * rng.lognormal(-spread * spread / 2.0, spread))
        pacer.commit(float(means[arm]))
        spent[number], worth = usd, worth + quality[arm] / prompts
        if rng.random() >= lost:
            flying.append((usd, float(means[arm])))
    return Run(spent, prices, worth)


def test_the_configuration_says_what_a_prompt_may_cost() -> None:
    assert not Pacer.of(config.Policy()).paces
    assert not Pacer.of(config.Policy(budget_usd=5.0)).paces, "the pool stops when it is spent"
    by_horizon = Pacer.of(config.Policy(budget_usd=10.0, horizon=1000))
    by_prompt = Pacer.of(config.Policy(usd_per_prompt=0.01))
    assert by_horizon.paces
    assert by_prompt.paces
    assert by_horizon.price == by_prompt.price == pytest.approx(100.0)


def test_without_a_budget_a_dollar_is_worth_nothing() -> None:
    pacer = Pacer()
    for _ in range(10):
        pacer.commit(1.0)
        pacer.charge(2.0, expected=1.0)
    assert pacer.price == 0.0
    assert (pacer.prompts, pacer.spent) == (10, 20.0)
    assert pacer.usd_per_prompt == pytest.approx(2.0)


@pytest.mark.parametrize("target", [0.002, 0.01, 0.03])
@pytest.mark.parametrize("horizon", [1000, 4000])
def test_a_budget_is_spent_to_half_a_percent(target: float, horizon: int) -> None:
    errors = [run(Pacer(target, horizon), horizon, seed=s).error(target) for s in range(3)]
    assert max(errors) < 0.005 * (4.0 if horizon == 1000 else 1.0)
    assert np.median(errors) < 0.005


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param({"in_flight": 256}, id="in-flight"),
        pytest.param({"in_flight": 256, "lost": 0.02}, id="lost"),
        pytest.param({"rise": 3.0}, id="dearer"),
        pytest.param({"rise": 3.0, "in_flight": 256}, id="dearer-in-flight"),
        pytest.param({"rise": 0.5, "in_flight": 64}, id="cheaper"),
        pytest.param({"spread": 1.2}, id="heavy-tails"),
    ],
)
def test_a_budget_is_held_through_trouble(trouble: dict[str, float]) -> None:
    target, horizon = 0.01, 6000
    errors = [
        run(Pacer(target, horizon), horizon, seed=s, **trouble).error(target)  # type: ignore[arg-type]
        for s in range(3)
    ]
    assert np.median(errors) < 0.005
    assert max(errors) < 0.01


def test_prompts_in_flight_do_not_make_prices_swing() -> None:
    calm = run(Pacer(0.01, 6000), 6000)
    delayed = run(Pacer(0.01, 6000), 6000, in_flight=256)
    swings = [np.log(each.prices[1000:-500]).std() for each in (calm, delayed)]
    assert swings[1] < 1.5 * swings[0]
    assert delayed.worth > calm.worth - 0.02


def test_quality_is_near_that_of_the_best_fixed_price() -> None:
    target, prompts = 0.01, 6000
    paced = run(Pacer(target, prompts), prompts)
    quality = MERITS + np.random.default_rng(1).normal(0.0, 0.5, (20_000, 3))
    worths = [
        (quality[np.arange(20_000), chosen].mean(), ARM_USD[chosen].mean())
        for price in np.geomspace(1.0, 1e4, 400)
        for chosen in [(quality - price * ARM_USD).argmax(axis=1)]
    ]
    best = max(worth for worth, usd in worths if usd <= target)
    assert paced.worth > best - 0.05


def test_a_budget_that_does_not_bind_has_no_price() -> None:
    pacer = Pacer(10.0 * FREE_SPENDING, 3000)
    done = run(pacer, 3000)
    assert (done.prices[600:] == 0.0).all()
    assert done.prices[60] * FREE_SPENDING < 0.05
    assert done.worth > 1.4


def test_a_budget_below_the_cheapest_arm_has_a_high_price_with_an_end() -> None:
    pacer = Pacer(ARM_USD[0] / 2.0, 3000)
    done = run(pacer, 3000)
    assert done.spent[1000:].mean() == pytest.approx(ARM_USD[0], rel=0.1)
    assert 1e4 < pacer.price < 1e9


def test_a_budget_that_binds_at_last_is_held_from_then_on() -> None:
    target, prompts = 0.06, 8000
    done = run(Pacer(target, prompts), prompts, rise=4.0)
    assert done.prices[3900] == 0.0
    assert done.error(target) < 0.005


def test_an_average_is_kept_without_a_horizon_and_behind_its_end() -> None:
    assert run(Pacer(0.01), 5000).error(0.01) < 0.005
    longer = run(Pacer(0.01, 2000), 5000, in_flight=32)
    assert longer.error(0.01, 2000) < 0.01
    assert longer.error(0.01) < 0.005


def test_the_unit_of_money_does_not_matter() -> None:
    dollars = run(Pacer(0.01, 500), 500, in_flight=16)
    micros = run(Pacer(1e4, 500), 500, in_flight=16, unit=1e6)
    assert micros.prices * 1e6 == pytest.approx(dollars.prices, rel=1e-6)
    assert micros.spent == pytest.approx(dollars.spent * 1e6)


def test_the_waves_of_a_prompt_are_one_prompt() -> None:
    waves, whole = Pacer(0.01, 100), Pacer(0.01, 100)
    for _ in range(20):
        waves.commit(0.01)
        waves.commit(0.02, first=False)
        whole.commit(0.03)
        for pacer in (waves, whole):
            pacer.charge(0.025, expected=0.03)
    assert waves.prompts == 20
    assert waves.price == pytest.approx(whole.price, rel=0.2)
    assert waves.price > 100.0


def test_what_was_decided_before_anything_was_known_is_owed_all_the_same() -> None:
    pacer = Pacer(0.01, 10_000)
    for _ in range(60):
        pacer.commit(0.0)
    before = pacer.price
    for _ in range(60):
        pacer.charge(0.03, expected=0.03)
    assert before == pytest.approx(100.0)
    assert pacer.price > 5.0 * before


moves = st.lists(
    st.tuples(st.sampled_from(["commit", "again", "charge"]), st.floats(0.0, 1.0)), max_size=40
)
Moves = list[tuple[str, float]]


def play(pacer: Pacer, played: Moves) -> list[float]:
    """The price after each move."""
    prices = []
    for move, usd in played:
        if move == "charge":
            pacer.charge(usd, expected=usd / 2.0)
        else:
            pacer.commit(usd, first=move == "commit")
        prices.append(pacer.price)
    return prices


@settings(deadline=None, derandomize=True)
@given(before=moves, after=moves, horizon=st.sampled_from([None, 10, 1000]))
def test_a_restored_pacer_goes_on_exactly_as_before(
    before: Moves, after: Moves, horizon: int | None
) -> None:
    pacer, restored = Pacer(0.1, horizon), Pacer(0.1, horizon)
    play(pacer, before)
    play(restored, after)
    restored.restore(json.loads(json.dumps(pacer.state())))
    assert restored.price == pacer.price
    assert play(restored, after) == play(pacer, after)


@settings(deadline=None, derandomize=True)
@given(played=moves, usd=st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 1e300]))
def test_prices_are_finite_whatever_was_spent(played: Moves, usd: float) -> None:
    pacer = Pacer(0.1, 1000)
    play(pacer, played)
    for first in (True, False):
        pacer.commit(usd, first=first)
        assert 0.0 <= pacer.price < 1e9
    pacer.charge(usd, expected=usd)
    pacer.charge(usd, expected=0.2)
    assert 0.0 <= pacer.price < 1e9
    assert math.isfinite(pacer.usd_per_prompt)
    assert all(math.isfinite(figure) for figure in pacer.state().values())


def test_what_is_no_cost_counts_as_expected() -> None:
    good, bad = Pacer(0.1, 1000), Pacer(0.1, 1000)
    for usd in (math.nan, math.inf, -1.0):
        for pacer in (good, bad):
            pacer.commit(0.3)
        good.charge(0.3, expected=0.3)
        bad.charge(usd, expected=0.3)
    assert bad.state() == good.state()


def test_another_target_leaves_the_price_of_a_dollar_as_it_was() -> None:
    pacer, richer = Pacer(0.01), Pacer(0.02)
    run(pacer, 500)
    richer.restore(pacer.state())
    assert richer.price == pytest.approx(pacer.price)
    assert richer.spent == pacer.spent
    unpaced = Pacer()
    unpaced.restore(pacer.state())
    assert unpaced.price == 0.0
    pacer.restore(unpaced.state())
    assert pacer.price > 0.0


def test_what_two_replicas_have_spent_adds_up() -> None:
    left, right = Pacer(0.01, 10_000), Pacer(0.01, 10_000)
    run(left, 400, seed=1)
    run(right, 200, seed=2)
    one, other = Pacer(0.01, 10_000), Pacer(0.01, 10_000)
    for merged, parts in ((one, (left, right)), (other, (right, left))):
        merged.restore(parts[0].state())
        merged.merge(parts[1].state())
    assert one.prompts == other.prompts == left.prompts + right.prompts
    assert one.spent == pytest.approx(left.spent + right.spent)
    assert one.spent == pytest.approx(other.spent)
    assert one.price == pytest.approx(other.price, rel=0.3), "but for what each has in flight"
    untouched = one.state()
    one.merge(Pacer(0.01, 10_000).state())
    assert one.state() == pytest.approx(untouched)


def test_what_a_prompt_has_cost_of_late_follows_the_prices() -> None:
    pacer = Pacer(1.0)
    assert pacer.usd_per_prompt == 0.0
    for usd in (0.1, 0.5):
        for _ in range(300):
            pacer.charge(usd)
        assert pacer.usd_per_prompt == pytest.approx(usd, rel=0.05)
