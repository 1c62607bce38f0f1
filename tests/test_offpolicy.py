"""Off-policy estimators on logs whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.offpolicy.bootstrap import bootstrap, figure
from router.offpolicy.direct import DirectMethod, Prediction
from router.offpolicy.estimators import (
    doubly_robust,
    effective_sample_size,
    inverse_propensity,
    self_normalised,
    weights,
)
from router.offpolicy.trial import Trial
from router.offpolicy.valuation import (
    DIRECT,
    DOUBLY_ROBUST,
    IPS,
    ORACLE,
    SINGLE,
    SNIPS,
    TARGET,
    evaluate,
)

if TYPE_CHECKING:
    from router.arrays import FloatArray, IntArray

ARMS = ("a", "b", "c", "d")
MEANS = np.array([[1.0, 2.0, 0.5, 1.5], [3.0, 1.0, 2.5, 2.0]])  # by language and arm
SEEDS = st.integers(0, 2**32 - 1)


def normalised(table: FloatArray) -> FloatArray:
    shares: FloatArray = table / table.sum(axis=1, keepdims=True)
    return shares


def trial_of(
    outcomes: FloatArray, propensities: FloatArray, shares: FloatArray, language: IntArray
) -> Trial:
    """What was asked has a propensity above 0."""
    prompts = len(outcomes)
    asked = propensities > 0.0
    known = np.where(asked, outcomes, np.nan)
    return Trial(
        arms=ARMS[: outcomes.shape[1]],
        languages=("de", "ja"),
        language=language,
        context=language,
        prompt=np.arange(prompts),
        pool=np.ones(outcomes.shape, dtype=np.bool_),
        shares=shares,
        propensities=propensities,
        outcomes=known,
        won=np.where(asked.any(axis=1), np.fmax.reduce(known, axis=1), np.nan),
        calls=np.stack((np.full(prompts, np.nan), asked.sum(axis=1)), axis=1),
        played=np.full((prompts, 2), np.nan),
        stopped=0,
        failed=0,
    )


class World:
    """Prompts with all their outcomes, a target's shares, and a policy to log them by.

    Outcomes depend on the language, the arm, how hard the prompt is, and chance; the
    log's policy asks every arm with a probability of its own, and easy prompts less.
    """

    def __init__(self, seed: int, prompts: int = 300, *, hard: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        self.language = rng.integers(0, 2, prompts)
        hardness = rng.normal(size=(prompts, 1))
        noise = rng.normal(0.0, 0.5, (prompts, len(ARMS)))
        self.expected = MEANS[self.language] + hard * hardness * np.array([1.0, -0.5, 0.3, 0.0])
        self.outcomes = self.expected + noise
        self.shares = normalised(rng.random((prompts, len(ARMS))) ** 2)
        self.propensities = np.clip(0.35 - 0.15 * hardness + 0.1 * np.arange(4), 0.1, 0.9)

    @property
    def truth(self) -> float:
        return float((self.shares * self.outcomes).sum() / len(self.outcomes))

    def log(self, seed: int) -> Trial:
        rng = np.random.default_rng((1, seed))
        asked = rng.random(self.outcomes.shape) < self.propensities
        propensities = np.where(asked, self.propensities, 0.0)
        return trial_of(self.outcomes, propensities, self.shares, self.language)


def value(terms: FloatArray) -> float:
    above, below = terms.sum(axis=0)
    return float(above / below)


def within(errors: list[float], standard_errors: float = 4.0) -> bool:
    """Whether their mean is 0 but for chance."""
    spread = float(np.std(errors, ddof=1))
    return bool(abs(np.mean(errors)) <= standard_errors * spread / len(errors) ** 0.5)


@pytest.fixture(scope="module")
def trials() -> list[tuple[Trial, float]]:
    """Many logs of one world."""
    world = World(0)
    return [(world.log(seed), world.truth) for seed in range(300)]


# Estimators


def test_weighting_is_unbiased(trials: list[tuple[Trial, float]]) -> None:
    for estimator in (inverse_propensity, self_normalised):
        errors = [value(estimator(trial)) - truth for trial, truth in trials]
        assert within(errors)
        assert np.std(errors) < 0.3


def test_doubly_robust_is_unbiased_and_varies_less(trials: list[tuple[Trial, float]]) -> None:
    robust = [value(doubly_robust(t, DirectMethod(t).predictions())) - v for t, v in trials]
    weighted = [value(inverse_propensity(trial)) - truth for trial, truth in trials]
    assert within(robust)
    assert np.std(robust) < 0.7 * np.std(weighted)


def test_the_direct_method_alone_is_fooled_by_whom_is_asked_what() -> None:
    errors: dict[float, list[float]] = {0.0: [], 3.0: []}
    for hard, found in errors.items():
        for seed in range(60):
            world = World(seed, 600, hard=hard)
            above, below = DirectMethod(world.log(seed)).totals(np.ones((1, 600)))[0]
            found.append(above / below - world.truth)
    assert abs(np.mean(errors[0.0])) < 0.03
    assert not within(errors[3.0])


@pytest.mark.parametrize(
    ("right_model", "right_propensities", "right"),
    [(True, True, True), (True, False, True), (False, True, True), (False, False, False)],
)
def test_doubly_robust_needs_the_model_or_the_propensities(
    right_model: bool, right_propensities: bool, right: bool
) -> None:
    errors = []
    for seed in range(300):
        world = World(seed)
        expected = world.expected if right_model else world.expected[:, ::-1] + 1.0
        trial = world.log(seed)
        if not right_propensities:
            trial = replace(trial, propensities=np.minimum(trial.propensities * 1.6, 1.0))
        found = value(doubly_robust(trial, Prediction(np.ones_like(expected), expected)))
        errors.append(found - float((world.shares * world.expected).sum(axis=1).mean()))
    assert within(errors) == right


@pytest.mark.parametrize("estimator", [inverse_propensity, self_normalised, doubly_robust])
def test_what_has_no_outcome_is_left_out_and_the_rest_counts_for_it(estimator: Any) -> None:
    world = World(5)
    answers = np.random.default_rng(6).random(world.outcomes.shape) < np.array([0.5, 0.9, 1.0, 1.0])
    shares = world.shares * answers
    truth = float((shares * world.outcomes).sum() / shares.sum())
    errors = []
    for seed in range(300):
        trial = world.log(seed)
        trial = replace(trial, outcomes=np.where(answers, trial.outcomes, np.nan))
        model = (DirectMethod(trial).predictions(),) if estimator is doubly_robust else ()
        errors.append(value(estimator(trial, *model)) - truth)
    assert within(errors)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(seed=SEEDS, shift=st.floats(-100.0, 100.0), factor=st.floats(0.01, 100.0))
def test_where_zero_lies_and_how_long_a_unit_is(seed: int, shift: float, factor: float) -> None:
    world = World(seed, 60)
    trial = world.log(seed)
    moved = replace(trial, outcomes=factor * (trial.outcomes + shift))

    def values(trial: Trial) -> dict[str, float]:
        direct = DirectMethod(trial)
        above, below = direct.totals(np.ones((1, len(trial.prompt))))[0]
        return {
            DIRECT: above / below,
            IPS: value(inverse_propensity(trial)),
            SNIPS: value(self_normalised(trial)),
            DOUBLY_ROBUST: value(doubly_robust(trial, direct.predictions())),
        }

    before, after = values(trial), values(moved)
    for name in (DIRECT, SNIPS, DOUBLY_ROBUST):
        assert after[name] == pytest.approx(factor * (before[name] + shift), rel=1e-6, abs=1e-6)
    mean_weight = float(weights(trial).sum(axis=1).mean())
    expected = factor * (before[IPS] + mean_weight * shift)
    assert after[IPS] == pytest.approx(expected, rel=1e-6, abs=1e-6), "IPS alone depends on it"


def test_a_policy_that_asks_itself_gets_what_it_got() -> None:
    rng = np.random.default_rng(0)
    outcomes = rng.normal(size=(50, 4))
    chosen = np.eye(4)[rng.integers(0, 4, 50)]
    trial = trial_of(outcomes, chosen, chosen, np.zeros(50, dtype=np.intp))
    mean = float((chosen * outcomes).sum() / 50)
    assert value(inverse_propensity(trial)) == pytest.approx(mean)
    assert value(self_normalised(trial)) == pytest.approx(mean)
    assert value(doubly_robust(trial, DirectMethod(trial).predictions())) == pytest.approx(mean)


@settings(deadline=None, derandomize=True)
@given(
    weight=st.lists(st.floats(0.0, 1e300, allow_subnormal=False), min_size=1, max_size=40).filter(
        any
    )
)
def test_effective_prompts_are_between_one_and_all(weight: list[float]) -> None:
    effective = effective_sample_size(np.array(weight))
    assert 1.0 - 1e-9 <= effective <= len(weight) + 1e-9


def test_equal_weights_are_all_effective() -> None:
    assert effective_sample_size(np.full(7, 0.3)) == pytest.approx(7.0)


# The direct method


def test_no_prompt_has_a_say_in_its_own_prediction() -> None:
    trial = World(1).log(0)
    before = DirectMethod(trial).predictions().outcome
    outcomes = trial.outcomes.copy()
    outcomes[7] += 1000.0
    after = DirectMethod(replace(trial, outcomes=outcomes)).predictions().outcome
    assert np.array_equal(after[7], before[7])
    assert not np.allclose(after[8], before[8])


def test_its_totals_are_those_of_its_predictions() -> None:
    trial = World(2).log(0)
    direct = DirectMethod(trial)
    predicted = direct.predictions()
    answers = trial.shares * predicted.answers
    expected = [(answers * predicted.outcome).sum(), answers.sum()]
    assert direct.totals(np.ones((1, 300)))[0] == pytest.approx(expected)


def test_a_log_repeated_is_learned_anew() -> None:
    """The totals of a log in which a prompt counts twice are those of the longer log."""
    trial = World(2, 40).log(0)
    times = np.random.default_rng(0).integers(0, 4, 40)
    rows = np.repeat(np.arange(40), times)
    longer = replace(
        trial,
        **{
            name: getattr(trial, name)[rows]
            for name in (
                "language", "context", "prompt", "pool", "shares", "propensities", "outcomes",
            )
        },
    )  # fmt: skip
    repeated = DirectMethod(trial).totals(times[None].astype(float))
    assert repeated[0] == pytest.approx(DirectMethod(longer).totals(np.ones((1, len(rows))))[0])


def test_with_much_to_go_by_a_cell_believes_its_own_and_with_little_the_others() -> None:
    rng = np.random.default_rng(0)
    prompts = 2000
    language = (np.arange(prompts) >= prompts - 4).astype(np.intp)  # four prompts of the second
    outcomes = MEANS[0] + rng.normal(0.0, 0.3, (prompts, 4))
    outcomes[language == 1, 0] += 0.5
    everybody = np.ones((prompts, 4))
    predicted = (
        DirectMethod(trial_of(outcomes, everybody, everybody / 4, language)).predictions().outcome
    )
    assert predicted[0] == pytest.approx(MEANS[0], abs=0.05)
    assert MEANS[0, 0] - 0.1 < predicted[-1, 0] < MEANS[0, 0] + 0.5
    assert predicted[-1, 1:] == pytest.approx(MEANS[0, 1:], abs=0.3)


# The bootstrap


def test_the_standard_error_of_a_mean() -> None:
    rewards = np.random.default_rng(0).normal(size=400)
    drawn = bootstrap(lambda times: times @ rewards[:, None] / 400, np.arange(400), seed=1)
    found = figure(drawn[:, 0])
    assert found is not None
    assert found.value == pytest.approx(rewards.mean())
    assert found.standard_error == pytest.approx(rewards.std() / 20.0, rel=0.1)
    assert found.low < found.value < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * found.standard_error, rel=0.1)


def test_a_prompt_that_was_asked_twice_is_one() -> None:
    rewards = np.random.default_rng(0).normal(size=100)

    def error(rewards: FloatArray, prompt: IntArray) -> float:
        def mean(times: FloatArray) -> FloatArray:
            means: FloatArray = (times @ rewards / times.sum(axis=1))[:, None]
            return means

        found = figure(bootstrap(mean, prompt, seed=1)[:, 0])
        assert found is not None
        return found.standard_error

    once = error(rewards, np.arange(100))
    twice = error(np.repeat(rewards, 2), np.repeat(np.arange(100), 2))
    assert twice == pytest.approx(once)
    assert error(np.repeat(rewards, 2), np.arange(200)) < 0.8 * once


def test_the_same_seed_draws_the_same_logs_in_batches_of_any_size() -> None:
    def total(times: FloatArray) -> FloatArray:
        return times[:, :3]

    prompt = np.arange(50)
    whole = bootstrap(total, prompt, seed=4, logs=30)
    parts = bootstrap(total, prompt, seed=4, logs=30, size=1_000_000)
    assert np.array_equal(whole, parts)
    assert not np.array_equal(whole, bootstrap(total, prompt, seed=5, logs=30))


def test_what_is_no_number_has_no_interval() -> None:
    assert figure(np.array([np.nan, 1.0, 2.0])) is None
    assert figure(np.array([1.0, np.nan, np.nan])) is None


# What is said, and what is refused


def test_all_estimators_answer_and_their_intervals_hold_the_truth() -> None:
    held = dict.fromkeys((IPS, SNIPS, DOUBLY_ROBUST), 0)
    for seed in range(40):
        world = World(seed, 200)
        answers = evaluate(world.log(seed), seed=seed).answers
        assert list(answers) == [DIRECT, IPS, SNIPS, DOUBLY_ROBUST]
        for name in held:
            found = answers[name].figure
            assert found is not None
            held[name] += found.low <= world.truth <= found.high
    # beside the log's, the intervals allow for other prompts
    assert all(count >= 36 for count in held.values())


def test_on_audits_the_truth_is_told_and_how_far_each_is_off() -> None:
    world = World(4, 500)
    trial = world.log(0)
    audited = np.random.default_rng(1).random(500) < 0.3
    everybody = np.where(audited[:, None], 1.0, trial.propensities)
    trial = trial_of(world.outcomes, everybody, world.shares, world.language)
    told = evaluate(trial)
    known = trial.audited
    assert told.audits == known.sum()
    assert told.audits >= audited.sum()
    truth = (world.shares * world.outcomes)[known].sum(axis=1)
    assert told.audited[TARGET].value == pytest.approx(truth.mean())
    error = truth.std() / len(truth) ** 0.5
    assert told.audited[TARGET].standard_error == pytest.approx(error, rel=0.15)
    best = world.outcomes[known].max(axis=1).mean()
    assert told.audited[ORACLE].value == pytest.approx(best)
    means = world.outcomes[known].mean(axis=0)
    assert told.single == ARMS[int(means.argmax())]
    assert told.audited[SINGLE].value == pytest.approx(means.max())
    assert told.ahead[ORACLE].value == pytest.approx(truth.mean() - best)
    assert told.ahead[ORACLE].high < 0.0
    for answer in told.answers.values():
        assert answer.figure is not None
        assert answer.off is not None
        assert answer.gain is not None
        assert told.own is not None
        assert answer.off.value == pytest.approx(answer.figure.value - truth.mean())
        assert answer.gain.value == pytest.approx(answer.figure.value - told.own.value)


def refusals(trial: Trial) -> dict[str, str | None]:
    return {name: answer.refusal for name, answer in evaluate(trial).answers.items()}


def test_an_arm_that_a_language_never_saw_is_refused() -> None:
    world = World(7)
    trial = world.log(0)
    japanese = trial.language == 1
    never = trial.propensities.copy()
    never[japanese, 3] = 0.0
    told = refusals(trial_of(world.outcomes, never, world.shares, world.language))
    share = world.shares[japanese, 3].sum() / 300
    reason = f"{share:.1%} of its choices were never asked first: d in ja"
    assert told == dict.fromkeys(told, reason)
    shares = world.shares.copy()
    shares[japanese, 3] = 0.0
    told = refusals(trial_of(world.outcomes, never, normalised(shares), world.language))
    assert told == dict.fromkeys(told)


def test_a_log_that_leaves_no_chance_is_refused_though_every_arm_was_asked() -> None:
    world = World(8)
    easy = (world.propensities[:, 0] > 0.35)[:, None]
    fixed = np.where(easy, [1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0])
    told = refusals(trial_of(world.outcomes, fixed, np.full((300, 4), 0.25), world.language))
    reason = "the weights average 0.50, not 1: the log's policy could not have made 50% of its "
    assert told == dict.fromkeys(told, reason + "choices")


def test_propensities_that_are_too_small_leave_the_direct_method_alone() -> None:
    trial = World(9).log(0)
    told = refusals(replace(trial, propensities=trial.propensities / 3.0))
    assert told.pop(DIRECT) is None
    for refusal in told.values():
        assert refusal is not None
        assert refusal.endswith("the log's propensities are not those that it was drawn with")


def test_a_target_that_the_log_hardly_ever_followed_is_refused_by_weight() -> None:
    rng = np.random.default_rng(0)
    prompts = 2000
    p = np.array([0.997, 0.003])
    asked = np.eye(2)[(rng.random(prompts) < p[1]).astype(int)]
    shares = np.tile([0.2, 0.8], (prompts, 1))
    outcomes = rng.normal(size=(prompts, 2))
    language = np.zeros(prompts, dtype=np.intp)
    trial = trial_of(outcomes, asked * p, shares, language)
    told = evaluate(trial)
    assert told.effective is not None
    assert told.effective < 30.0
    reason = f"only {int(told.effective)} effective prompts; it takes 30"
    assert told.answers[DIRECT].refusal is None
    assert {told.answers[name].refusal for name in (IPS, SNIPS, DOUBLY_ROBUST)} == {reason}


def test_few_prompts_say_nothing() -> None:
    told = refusals(World(0, 29).log(0))
    assert told == dict.fromkeys(told, "only 29 prompts; it takes 30")


def test_without_a_choice_there_is_nothing_to_evaluate() -> None:
    one = np.ones((50, 1))
    told = evaluate(trial_of(one, one, one, np.zeros(50, dtype=np.intp)))
    for answer in told.answers.values():
        assert answer.refusal is not None
        assert answer.refusal.startswith("there is nobody to choose but a")
    assert told.audited == {}


def test_where_nothing_has_a_reward_nothing_is_said() -> None:
    trial = World(0, 100).log(0)
    told = evaluate(replace(trial, outcomes=np.full((100, 4), np.nan)))
    assert told.own is None
    assert {answer.refusal for answer in told.answers.values()} == {
        "no answer that it would have got has a reward"
    }
