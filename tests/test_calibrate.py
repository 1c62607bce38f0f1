"""Rewards that compare: over languages, lengths and waves, whatever scores they are made of."""

from __future__ import annotations

import logging
import math
from statistics import fmean

import calibration as measured
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbitrage import config
from arbitrage.events import Event, Shifted
from arbitrage.types import Candidate, Completion, Failure, Prompt, Score
from reward import open_calibration
from reward.calibrate import Calibrated, Uncalibrated
from reward.calibrate.consensus import Consensus
from reward.calibrate.drift import DriftAlarm
from reward.calibrate.length import LengthCurves
from reward.calibrate.scale import Scales, Spread

GERMAN, ENGLISH = Prompt.of("Wo?", language="de"), Prompt.of("Where?", language="en")
BOTH = config.Calibration()
PER_LANGUAGE = config.Calibration(by_length=False)
BY_LENGTH = config.Calibration(per_language=False)
SCORES = st.floats(-1e6, 1e6)
ANY_SCORE = st.floats(allow_nan=True, allow_infinity=True)
LENGTHS = st.integers(0, 300_000)


def scored(*scores: float, lengths: tuple[int, ...] | None = None) -> list[Candidate]:
    """One candidate a score; all of one length, where none are given."""
    lengths = lengths or (100,) * len(scores)
    return [
        Candidate(str(i), Completion("x" * length), score=Score(score, {"part": 0.5}))
        for i, (score, length) in enumerate(zip(scores, lengths, strict=True))
    ]


def rewards(candidates: list[Candidate]) -> list[float | None]:
    return [candidate.reward for candidate in candidates]


def teach(
    calibration: Calibrated,
    prompt: Prompt,
    *,
    location: float = 0.0,
    scale: float = 1.0,
    prompts: int = 500,
    seed: int = 0,
) -> list[float]:
    """Learns from prompts of three normal scores; the rewards they had in the second half."""
    rng = np.random.default_rng(seed)
    given_rewards = []
    for n in range(prompts):
        candidates = scored(*(location + scale * rng.standard_normal(3)).tolist())
        calibrated = calibration.calibrate(prompt, candidates)
        calibration.learn(prompt, calibrated)
        if n >= prompts // 2:
            given_rewards += [c.score.reward for c in calibrated if c.score]
    return given_rewards


def test_a_configuration_says_what_is_calibrated() -> None:
    off = config.Calibration(per_language=False, by_length=False)
    ensemble = config.EnsembleReward(members=(config.RulesReward(), config.EmbeddedReward()))
    assert isinstance(open_calibration(config.EmbeddedReward(calibration=off)), Uncalibrated)
    assert isinstance(open_calibration(config.ScriptedReward()), Uncalibrated)
    assert isinstance(open_calibration(config.EmbeddedReward()), Calibrated)
    assert isinstance(open_calibration(ensemble), Consensus)


@pytest.mark.parametrize("calibration", [Uncalibrated(), Calibrated(BOTH)])
def test_a_candidate_without_a_score_stays_as_it_is(
    calibration: Calibrated | Uncalibrated,
) -> None:
    failed = Candidate("a", failure=Failure("timeout", "no answer"))
    unjudged = Candidate("b", Completion("Hier."))
    assert calibration.calibrate(GERMAN, [failed, unjudged]) == [failed, unjudged]
    calibration.learn(GERMAN, [failed, unjudged])
    assert calibration.calibrate(GERMAN, []) == []


@pytest.mark.parametrize("calibration", [Uncalibrated(), Calibrated(BOTH)])
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf, 1e300])
def test_a_score_that_is_not_finite_cannot_win(
    calibration: Calibrated | Uncalibrated, broken: float
) -> None:
    first, second = calibration.calibrate(GERMAN, scored(broken, 1.0))
    assert first.score is None
    assert second.score


def test_raw_scores_are_kept_and_the_scalar_beside_them() -> None:
    calibration = Calibrated(BOTH)
    teach(calibration, GERMAN, location=7.0, scale=2.0)
    (candidate,) = calibration.calibrate(GERMAN, scored(9.0))
    assert candidate.score
    assert candidate.score.raw == {"part": 0.5, "uncalibrated": 9.0}
    assert candidate.score.reward == pytest.approx(1.0, abs=0.15)


@given(st.lists(SCORES, min_size=2, max_size=6), st.integers(1, 5))
def test_a_later_wave_puts_all_on_one_scale(scores: list[float], wave: int) -> None:
    calibration = Calibrated(BOTH)
    teach(calibration, GERMAN, location=-3.0, scale=5.0, prompts=20)
    candidates = scored(*scores)
    first = calibration.calibrate(GERMAN, candidates[:wave])
    assert calibration.calibrate(GERMAN, first) == first
    together = calibration.calibrate(GERMAN, [*first, *candidates[wave:]])
    assert together == calibration.calibrate(GERMAN, candidates)
    # what was learned in between does not count twice
    calibration.learn(GERMAN, first)
    again = calibration.calibrate(GERMAN, together)
    assert again == calibration.calibrate(GERMAN, candidates)


@given(
    st.lists(st.lists(ANY_SCORE, min_size=1, max_size=4), max_size=20),
    st.lists(SCORES, min_size=1, max_size=8),
)
def test_location_and_scale_change_no_ranking_within_a_prompt(
    before: list[list[float]], scores: list[float]
) -> None:
    calibration = Calibrated(PER_LANGUAGE)
    for earlier in before:
        calibration.learn(GERMAN, scored(*earlier))
    calibrated = [c.score.reward for c in calibration.calibrate(GERMAN, scored(*scores)) if c.score]
    order = np.argsort(scores, kind="stable")
    assert np.all(np.diff(np.array(calibrated)[order]) >= 0.0)


@given(
    st.lists(
        st.lists(st.tuples(ANY_SCORE, LENGTHS), min_size=1, max_size=4), min_size=1, max_size=30
    )
)
@settings(deadline=None)
def test_whatever_is_learned_rewards_are_finite(before: list[list[tuple[float, int]]]) -> None:
    calibration = Calibrated(BOTH)
    for earlier in before:
        values, lengths = zip(*earlier, strict=True)
        calibration.learn(GERMAN, scored(*values, lengths=lengths))
    for prompt in (GERMAN, ENGLISH):
        for candidate in calibration.calibrate(prompt, scored(-5.0, 3.0, lengths=(0, 300_000))):
            assert candidate.reward is not None
            assert math.isfinite(candidate.reward)


def test_languages_far_apart_become_comparable() -> None:
    calibration = Calibrated(BOTH)
    german = teach(calibration, GERMAN, location=100.0, scale=20.0, prompts=3000)
    english = teach(calibration, ENGLISH, location=-2.0, scale=0.5, prompts=3000)
    for found in (german, english):
        assert fmean(found) == pytest.approx(0.0, abs=1.0)
        assert np.std(found) == pytest.approx(1.0, abs=0.1)


def test_a_language_and_its_parent_are_two() -> None:
    calibration = Calibrated(BOTH)
    teach(calibration, Prompt.of("哪裡?", language="zh-Hant"), location=50.0)
    teach(calibration, Prompt.of("哪里?", language="zh"), location=-50.0)
    (hant,) = calibration.calibrate(Prompt.of("哪裡?", language="zh-Hant"), scored(0.0))
    (hans,) = calibration.calibrate(Prompt.of("哪里?", language="zh"), scored(0.0))
    assert hant.reward is not None
    assert hans.reward is not None
    assert hant.reward < -40.0
    assert hans.reward > 40.0


def test_without_per_language_rewards_keep_their_units() -> None:
    calibration = Calibrated(BY_LENGTH)
    teach(calibration, GERMAN, location=100.0, scale=20.0)
    (candidate,) = calibration.calibrate(GERMAN, scored(120.0))
    assert candidate.reward == pytest.approx(120.0, abs=1.0)


def test_few_scores_are_shrunk_to_all_and_all_to_the_identity() -> None:
    scales = Scales(strength=50.0)
    assert scales.of("de") == (0.0, 1.0)
    for _ in range(25):
        scales.learn("de", [9.0, 11.0])
    # 50 scores: half its own, half of what all say, who have half of theirs and half of 0
    location, scale = scales.of("de")
    assert location == pytest.approx(0.5 * 10.0 + 0.5 * 5.0, abs=0.1)
    # 25 differences within prompts: a third, and a third of what is left
    assert scale == pytest.approx(math.sqrt(2.0) ** (1 / 3 + 2 / 3 * 1 / 3), rel=0.01)
    assert scales.of("ja")[0] == pytest.approx(5.0, abs=0.1)


def test_only_differences_within_a_prompt_make_the_scale() -> None:
    spread = Spread()
    for difficulty in (-1000.0, 0.0, 1000.0):
        spread.learn([difficulty - 1.0, difficulty, difficulty + 1.0])
    assert spread.deviation_within == pytest.approx(1.0)
    assert spread.deviation == pytest.approx(
        np.std([-1001, -1000, -999, -1, 0, 1, 999, 1000, 1001])
    )


@given(st.lists(st.lists(SCORES, min_size=1, max_size=5), min_size=1, max_size=30))
def test_running_sums_are_those_of_all_scores_at_once(prompts: list[list[float]]) -> None:
    spread = Spread()
    for prompt in prompts:
        spread.learn(prompt)
    flat = np.concatenate([np.array(prompt) for prompt in prompts])
    assert spread.mean == pytest.approx(flat.mean(), rel=1e-9, abs=1e-6)
    assert spread.deviation == pytest.approx(flat.std(), rel=1e-6, abs=1e-4)
    within = sum(float(np.var(prompt)) * len(prompt) for prompt in prompts)
    assert spread.within == pytest.approx(within, rel=1e-6, abs=1e-4)


def test_a_large_offset_costs_no_precision() -> None:
    spread = Spread()
    for _ in range(1000):
        spread.learn([1e9 - 1.0, 1e9 + 1.0])
    assert spread.deviation_within == pytest.approx(math.sqrt(2.0), rel=1e-6)


def test_scores_that_never_differ_have_no_scale_of_their_own() -> None:
    calibration = Calibrated(BOTH)
    for _ in range(500):
        calibration.learn(GERMAN, scored(7.1, 7.1, 7.1))
    low, high = calibration.calibrate(GERMAN, scored(7.1, 8.1))
    assert low.reward is not None
    assert high.reward is not None
    assert high.reward - low.reward == pytest.approx(1.0)


def test_one_broken_score_does_not_decide_what_scores_are_like() -> None:
    calibration = Calibrated(BOTH)
    teach(calibration, GERMAN)
    before = calibration.calibrate(GERMAN, scored(-1.0, 1.0))
    calibration.learn(GERMAN, scored(0.0, 65_504.0))
    after = calibration.calibrate(GERMAN, scored(-1.0, 1.0))
    assert rewards(after) == pytest.approx(rewards(before), abs=0.1)


def slope(curves: LengthCurves, language: str, shorter: int = 200, longer: int = 1600) -> float:
    """What an octave gains between two lengths."""
    curve = curves.of(language)
    return (curve.gain(longer) - curve.gain(shorter)) / math.log2(longer / shorter)


def lengths_and_scores(
    rng: np.random.Generator, *, gain: float, difficulty: float = 0.0
) -> tuple[list[int], list[float]]:
    """Three answers; `gain` an octave, and `difficulty` an octave of the prompt's own length."""
    usual = rng.uniform(6.0, 11.0)
    octaves = usual + rng.normal(0.0, 0.7, 3)
    scores = gain * octaves + difficulty * usual + rng.standard_normal(3)
    return [round(2**x) for x in octaves], scores.tolist()


def taught(*, gain: float, difficulty: float = 0.0, prompts: int = 3000) -> LengthCurves:
    rng = np.random.default_rng(1)
    curves = LengthCurves(strength=50.0)
    for _ in range(prompts):
        lengths, scores = lengths_and_scores(rng, gain=gain, difficulty=difficulty)
        curves.learn("de", 1.0, lengths, scores)
    return curves


@pytest.mark.parametrize("gain", [-0.8, 0.0, 0.5])
def test_the_gain_by_length_is_found(gain: float) -> None:
    assert slope(taught(gain=gain), "de") == pytest.approx(gain, abs=0.1)


def test_prompts_that_ask_for_long_answers_and_are_easier_do_not_fool_it() -> None:
    curves = taught(gain=0.5, difficulty=-5.0)
    assert slope(curves, "de") == pytest.approx(0.5, abs=0.1)


def test_a_curve_need_not_be_a_line() -> None:
    rng = np.random.default_rng(2)
    curves = LengthCurves(strength=50.0)
    for _ in range(5000):
        lengths = [round(2**x) for x in rng.uniform(5.0, 13.0, 3)]
        scores = [min(math.log2(n), 9.0) + 0.5 * rng.standard_normal() for n in lengths]
        curves.learn("de", 1.0, lengths, scores)
    assert slope(curves, "de", 64, 256) > 2.5 * slope(curves, "de", 1024, 4096)


def test_a_new_language_takes_the_curve_of_all_in_its_own_units() -> None:
    curves = LengthCurves(strength=50.0)
    rng = np.random.default_rng(3)
    for language, unit in (("de", 100.0), ("en", 0.01)) * 1500:
        lengths, scores = lengths_and_scores(rng, gain=0.5)
        curves.learn(language, unit, lengths, [unit * score for score in scores])
    assert slope(curves, "ja") == pytest.approx(slope(curves, "de"), rel=0.2)
    assert slope(curves, "ja") == pytest.approx(slope(curves, "en"), rel=0.2)


def test_nothing_known_is_no_effect_and_little_is_a_little() -> None:
    assert slope(LengthCurves(strength=50.0), "de") == 0.0
    few, many = taught(gain=1.0, prompts=10), taught(gain=1.0, prompts=3000)
    assert 0.0 < slope(few, "de") < 0.8 * slope(many, "de")


def test_a_text_longer_than_any_gains_no_more() -> None:
    curve = taught(gain=0.5).of("de")
    assert curve.gain(2**17) == curve.gain(10**7)
    assert math.isfinite(curve.gain(0))


def test_debiasing_leaves_the_location_where_it_is() -> None:
    rng = np.random.default_rng(4)
    calibration = Calibrated(BY_LENGTH)
    raw, debiased = [], []
    for _ in range(2000):
        lengths, scores = lengths_and_scores(rng, gain=2.0)
        candidates = scored(*scores, lengths=tuple(lengths))
        calibration.learn(GERMAN, candidates)
        raw += scores
        debiased += [c.score.reward for c in calibration.calibrate(GERMAN, candidates) if c.score]
    assert fmean(debiased[3000:]) == pytest.approx(fmean(raw[3000:]), abs=0.2)
    assert np.std(debiased) < 0.6 * np.std(raw)


def test_answers_of_one_length_keep_their_order() -> None:
    calibration = Calibrated(BOTH)
    rng = np.random.default_rng(5)
    for _ in range(300):
        lengths, scores = lengths_and_scores(rng, gain=3.0)
        calibration.learn(GERMAN, scored(*scores, lengths=tuple(lengths)))
    low, middle, high = calibration.calibrate(GERMAN, scored(-2.0, 0.0, 0.1))
    assert low.reward is not None
    assert middle.reward is not None
    assert high.reward is not None
    assert low.reward < middle.reward < high.reward


@pytest.mark.skipif(
    not (measured.DATA / "preferences.jsonl.gz").exists(),
    reason="needs ../shared/data/preferences.jsonl.gz, which is not part of the repository",
)
def test_a_bias_by_length_is_taken_out_of_scores_of_real_answers() -> None:
    judged = measured.pairs()
    biased, debiased, unharmed = (
        measured.accuracy(
            measured.calibrated(settings, measured.scored(judged, measured.log_length(points)))
        )
        for settings, points in ((measured.RAW, 4.0), (measured.BY_LENGTH, 4.0), (BY_LENGTH, 0.0))
    )
    assert biased < 0.76
    assert debiased > 0.86
    assert unharmed > 0.88


def alarms(values: np.ndarray) -> list[int]:
    alarm = DriftAlarm()
    return [i for i, value in enumerate(values.tolist()) if alarm.learn(value)]


def test_scores_that_stay_as_they_are_sound_no_alarm() -> None:
    rng = np.random.default_rng(6)
    false = sum(len(alarms(rng.standard_normal(10_000))) for _ in range(20))
    assert false <= 1  # less than one in 250,000 prompts


def test_a_shift_of_one_deviation_is_noticed_within_a_hundred_prompts() -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        values = rng.standard_normal(1600)
        values[1000:] += rng.choice([-1.0, 1.0])
        (noticed,) = alarms(values)
        assert 1000 <= noticed < 1100


def test_scores_that_stay_where_they_went_sound_it_once_and_going_back_sounds_it_again() -> None:
    values = np.random.default_rng(8).standard_normal(6000)
    values[2000:4000] += 1.0
    there, back = alarms(values)
    assert 2000 <= there < 2100
    assert 4000 <= back < 4100


def test_constant_scores_sound_no_alarm() -> None:
    assert alarms(np.full(5000, 0.1)) == []


def test_a_shift_is_told_with_its_language_and_logged_on_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[Event] = []
    calibration = Calibrated(BOTH, heard.append, name="judge")
    with caplog.at_level(logging.WARNING):
        teach(calibration, ENGLISH, prompts=400)
        teach(calibration, GERMAN, prompts=400)
        assert heard == []
        teach(calibration, GERMAN, location=-1.0, prompts=200, seed=1)
    (event,) = heard
    assert isinstance(event, Shifted)
    assert event.language == "de"
    assert event.shift < -0.3
    (record,) = caplog.records
    assert "judge" in record.message
    assert "'de'" in record.message
    assert "\n" not in record.message


def test_after_a_shift_the_old_scores_soon_no_longer_count() -> None:
    calibration = Calibrated(BOTH)
    teach(calibration, GERMAN, prompts=5000)
    late = teach(calibration, GERMAN, location=5.0, prompts=1000)
    assert fmean(late) == pytest.approx(0.0, abs=0.5)
