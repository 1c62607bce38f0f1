"""Several rewards together: what each says is kept, and no fooled one decides alone."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import reward
from arbitrage import config
from arbitrage.errors import ConfigError, RewardError
from arbitrage.types import Candidate, Completion, Prompt, Score
from reward.calibrate.consensus import lower_bound, mean_rank, member_names
from reward.ensemble import EnsembleReward, open_reward
from tests.test_engine import Script
from tests.virtual_time import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from arbitrage.ports import RewardModel

PROMPT = Prompt.of("Wie viel ist 6 mal 7?", language="de")
SCRIPTED = config.ScriptedReward()
EQUAL = np.ones(3) / 3
OPINION = st.floats(-5.0, 5.0)


@dataclass
class Member:
    """A reward model that says what a test says, by the answer's text.

    Attributes:
        meeting: everybody has to be asked before anybody answers.
    """

    scores: Mapping[str, float] = field(default_factory=dict)
    queue_depth: int = 0
    broken: RewardError | None = None
    meeting: asyncio.Barrier | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    cancelled: bool = False
    closed: Callable[[], None] = lambda: None

    async def score(
        self, prompt: Prompt, candidates: Sequence[Candidate]
    ) -> Sequence[Score | None]:
        del prompt
        try:
            if self.meeting:
                await self.meeting.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.broken:
            raise self.broken
        texts = [c.completion.text if c.completion else "" for c in candidates]
        return [Score(self.scores[t], self.parts) if t in self.scores else None for t in texts]

    async def close(self) -> None:
        self.closed()


async def ensemble(*members: Member, weights: tuple[float, ...] = ()) -> EnsembleReward:
    """Opened as ever, but for what its members are."""
    waiting = list(members)

    async def next_member(settings: config.AnyReward, run: reward.Run) -> RewardModel:
        del settings, run
        return waiting.pop(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reward, "open_reward", next_member)
        return await open_reward(settings_of(len(members), weights=weights), reward.Run())


def settings_of(members: int, **more: object) -> config.EnsembleReward:
    return replace(config.EnsembleReward(members=(SCRIPTED,) * members), **more)  # type: ignore[arg-type]


def answers(*texts: str) -> list[Candidate]:
    return [Candidate(text, Completion(text)) for text in texts]


async def judged(
    members: Sequence[Mapping[str, float]], *texts: str, **more: object
) -> dict[str, float | None]:
    """Scored by the members, and calibrated: the rewards by answer."""
    model = await ensemble(*map(Member, members))
    candidates = answers(*texts)
    scores = await model.score(PROMPT, candidates)
    scored = [replace(c, score=score) for c, score in zip(candidates, scores, strict=True)]
    calibration = reward.open_calibration(settings_of(len(members), **more))
    rewarded = calibration.calibrate(PROMPT, scored)
    calibration.learn(PROMPT, rewarded)
    return {c.teacher: c.reward for c in rewarded}


def test_members_are_named_by_kind_and_repeats_by_number() -> None:
    members = (config.RulesReward(), config.EmbeddedReward(), SCRIPTED, config.EmbeddedReward())
    settings = config.EnsembleReward(members=members)
    assert member_names(settings) == ["rules", "embedded", "scripted", "embedded-2"]


async def test_everything_that_members_say_is_kept() -> None:
    first = Member({"A": 1.0, "B": 3.0}, parts={"fluency": 0.5, "broken": math.nan})
    second = Member({"A": 5.0})
    model = await ensemble(first, second, weights=(1.0, 3.0))
    a, b, c = await model.score(PROMPT, answers("A", "B", "C"))
    assert a == Score(4.0, {"scripted": 1.0, "scripted.fluency": 0.5, "scripted-2": 5.0})
    assert b == Score(3.0, {"scripted": 3.0, "scripted.fluency": 0.5})
    assert c is None


async def test_an_opinion_that_is_not_finite_is_none() -> None:
    model = await ensemble(Member({"A": math.nan, "B": math.inf}), Member({"A": 1.0}))
    assert await model.score(PROMPT, answers("A", "B")) == [Score(1.0, {"scripted-2": 1.0}), None]


async def test_members_are_asked_side_by_side() -> None:
    meeting = asyncio.Barrier(3)
    model = await ensemble(*(Member({"A": 1.0}, meeting=meeting) for _ in range(3)))
    async with asyncio.timeout(10):
        (score,) = await model.score(PROMPT, answers("A"))
    assert score


async def test_what_waits_for_any_member_waits() -> None:
    model = await ensemble(Member(queue_depth=2), Member(queue_depth=5))
    assert model.queue_depth == 7


async def test_cancelling_stops_all_members() -> None:
    members = [Member({"A": 1.0}, meeting=asyncio.Barrier(9)) for _ in range(3)]
    model = await ensemble(*members)
    call = asyncio.create_task(model.score(PROMPT, answers("A")))
    for _ in range(3):
        await asyncio.sleep(0)  # until the members wait
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert all(member.cancelled for member in members)


@in_virtual_time
async def test_the_others_decide_when_one_fails_and_the_log_says_so_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = await ensemble(Member({"A": 1.0}), Member(broken=RewardError("the judge is away")))
    with caplog.at_level(logging.WARNING):
        for _ in range(12):
            (score,) = await model.score(PROMPT, answers("A"))
            assert score
            assert score.raw == {"scripted": 1.0}
            await asyncio.sleep(10.0)
    assert len(caplog.records) == 2
    assert "scripted-2" in caplog.text
    assert "the judge is away" in caplog.text


async def test_when_all_fail_the_reasons_are_told_on_one_line() -> None:
    first, second = RewardError("out of memory"), RewardError("no answer")
    model = await ensemble(Member(broken=first), Member(broken=second))
    with pytest.raises(RewardError, match="scripted: out of memory; scripted-2: no answer") as got:
        await model.score(PROMPT, answers("A"))
    assert "\n" not in str(got.value)
    assert got.value.__cause__ is first


async def test_members_are_closed_once_the_last_one_first() -> None:
    closed: list[int] = []
    members = [Member(closed=lambda n=n: closed.append(n)) for n in range(3)]  # type: ignore[misc]
    model = await ensemble(*members)
    await model.close()
    await model.close()
    assert closed == [2, 1, 0]
    with pytest.raises(RewardError, match="closed"):
        await model.score(PROMPT, answers("A"))


async def test_members_that_were_open_are_closed_when_one_cannot_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[int] = []
    members = [Member(closed=lambda n=n: closed.append(n)) for n in range(2)]  # type: ignore[misc]

    async def two_and_no_more(settings: config.AnyReward, run: reward.Run) -> RewardModel:
        del settings, run
        if not members:
            raise ConfigError("reward.model: no such file")
        return members.pop(0)

    monkeypatch.setattr(reward, "open_reward", two_and_no_more)
    with pytest.raises(ConfigError, match="no such file"):
        await open_reward(settings_of(3), reward.Run())
    assert closed == [1, 0]


async def test_a_configuration_opens_it() -> None:
    teacher = config.ScriptedTeacher(name="a", kind="scripted", quality={"de": 0.5})
    model = await reward.open_reward(settings_of(2), reward.Run(teachers=[teacher]))
    (score,) = await model.score(PROMPT, [Candidate("a", Completion("42"))])
    assert score
    assert set(score.raw) == {"scripted", "scripted.scripted", "scripted-2", "scripted-2.scripted"}
    await model.close()


async def test_the_mean_of_the_ranks_decides() -> None:
    members = [{"A": 1.0, "B": 2.0, "C": 3.0}, {"A": 0.0, "B": 9.0, "C": 9.0}]
    found = await judged(members, "A", "B", "C", combine="rank")
    assert found == {"A": 0.0, "B": pytest.approx(0.625), "C": pytest.approx(0.875)}


async def test_members_count_by_their_weights() -> None:
    members = [{"A": 1.0, "B": 0.0}, {"A": 0.0, "B": 1.0}]
    for combine in ("rank", "lower_bound"):
        found = await judged(members, "A", "B", combine=combine, weights=(3.0, 1.0), k=0.1)
        assert found["A"] is not None
        assert found["B"] is not None
        assert found["A"] > found["B"]


@pytest.mark.parametrize("combine", ["rank", "lower_bound"])
async def test_a_candidate_of_which_nobody_has_an_opinion_has_no_reward(combine: str) -> None:
    found = await judged([{"A": 1.0}, {"B": 1.0}], "A", "B", "C", combine=combine)
    assert found["A"] is not None
    assert found["B"] is not None
    assert found["C"] is None
    assert await judged([{}, {}], "A", combine=combine) == {"A": None}


async def test_a_member_without_any_opinion_changes_nothing() -> None:
    with_it = await judged([{"A": 1.0, "B": 4.0}, {}], "A", "B", combine="lower_bound")
    assert with_it == {"A": 1.0, "B": 4.0}


@given(
    arrays(float, (3, 4), elements=OPINION),
    st.integers(0, 2),
    st.sampled_from([mean_rank, lambda o, w: lower_bound(o, w, 1.0)]),
)
def test_being_judged_by_fewer_is_as_being_judged_as_usual(
    opinions: np.ndarray, silent: int, combine: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> None:
    unjudged, usual = opinions.copy(), opinions.copy()
    # all others alike, so that the usual opinion is a rank in the middle, too
    unjudged[silent, 1:] = usual[silent, 1:] = opinions[silent, 1]
    unjudged[silent, 0], usual[silent, 0] = np.nan, opinions[silent, 1]
    assert combine(unjudged, EQUAL) == pytest.approx(combine(usual, EQUAL))


@given(arrays(float, (3, 5), elements=OPINION), st.permutations(range(5)), st.booleans())
def test_the_order_of_candidates_does_not_matter(
    opinions: np.ndarray, order: list[int], silent: bool
) -> None:
    if silent:
        opinions[0, 0] = opinions[2, 3] = np.nan
    weights = np.array([0.5, 0.3, 0.2])
    for combine in (mean_rank, lambda o, w: lower_bound(o, w, 1.0)):
        forwards = combine(opinions, weights)
        assert combine(opinions[:, order], weights) == pytest.approx(forwards[order])


@given(arrays(float, (3, 5), elements=OPINION), st.permutations(range(3)))
def test_the_order_of_members_does_not_matter(opinions: np.ndarray, order: list[int]) -> None:
    weights = np.array([0.5, 0.3, 0.2])
    for combine in (mean_rank, lambda o, w: lower_bound(o, w, 1.0)):
        assert combine(opinions[order], weights[order]) == pytest.approx(combine(opinions, weights))


@given(
    arrays(float, (3, 6), elements=OPINION),
    st.floats(6.0, 1e9),
    st.integers(0, 2),
)
def test_by_rank_one_fooled_member_cannot_make_the_worst_answer_win(
    opinions: np.ndarray, absurd: float, fooled: int
) -> None:
    opinions[:, 0] = -6.0  # as the others see it: below all
    opinions[fooled, 0] = absurd
    rewards = mean_rank(opinions, EQUAL)
    assert rewards[0] < rewards[1:].max()


@given(
    arrays(float, (3, 6), elements=OPINION),
    st.floats(6.0, 1e9),
    st.integers(0, 2),
)
def test_by_lower_bound_one_fooled_member_gains_an_answer_nothing(
    opinions: np.ndarray, absurd: float, fooled: int
) -> None:
    without = np.delete(opinions, fooled, axis=0)
    opinions[fooled, 0] = absurd
    reward_of_fooled = lower_bound(opinions, EQUAL, k=1.0)[0]
    # less than what the other two hold of it together
    assert reward_of_fooled <= without[:, 0].mean() + 1e-9 * absurd


def test_by_lower_bound_a_constant_answer_does_not_win_where_two_of_three_see_through_it() -> None:
    rng = np.random.default_rng(0)
    for _ in range(1000):
        quality = rng.standard_normal(5)
        opinions = quality + 0.5 * rng.standard_normal((3, 5))
        opinions[:, 0] = -2.0 + 0.5 * rng.standard_normal(3)
        opinions[rng.integers(3), 0] = 10.0 ** rng.uniform(1, 6)
        assert lower_bound(opinions, EQUAL, k=1.0).argmax() != 0


@given(
    st.lists(st.booleans(), min_size=2, max_size=8),
    st.integers(1, 4),
    st.integers(0, 2**32),
)
def test_with_weight_ten_a_right_answer_beats_a_wrong_one_by_rank(
    right: list[bool], models: int, seed: int
) -> None:
    assume(any(right) and not all(right))
    rng = np.random.default_rng(seed)
    opinions = np.vstack([right, rng.standard_normal((models, len(right)))])
    # the models hold every wrong answer to be better than every right one
    opinions[1:, right] -= 100.0
    weights = np.array([10.0] + [1.0] * models)
    rewards = mean_rank(opinions, weights / weights.sum())
    assert rewards[right].min() > rewards[~np.array(right)].max()


async def test_each_member_is_calibrated_by_what_it_has_scored_itself() -> None:
    calibrated = config.ScriptedReward(calibration=config.Calibration(by_length=False))
    settings = config.EnsembleReward(members=(calibrated, calibrated), k=0.0)
    calibration = reward.open_calibration(settings)
    rng = np.random.default_rng(1)
    for _ in range(2000):
        noise = rng.standard_normal((2, 3))
        candidates = [
            Candidate("a", Completion("A"), score=Score(0.0, {"scripted": x, "scripted-2": y}))
            for x, y in zip(*(noise * [[1000.0], [0.01]]), strict=True)
        ]
        # the second has no opinion of one
        candidates[0] = replace(candidates[0], score=Score(0.0, {"scripted": noise[0, 0] * 1000}))
        calibration.learn(PROMPT, calibration.calibrate(PROMPT, candidates))
    # a deviation of the one counts as much as a deviation of the other
    pair = [
        Candidate("a", Completion("A"), score=Score(0.0, {"scripted": 1000.0, "scripted-2": 0.0})),
        Candidate("b", Completion("B"), score=Score(0.0, {"scripted": 0.0, "scripted-2": 0.01})),
    ]
    a, b = calibration.calibrate(PROMPT, pair)
    assert a.reward == pytest.approx(b.reward, abs=0.1)
    assert a.score
    assert a.score.raw == {"scripted": 1000.0, "scripted-2": 0.0, "uncalibrated": 0.0}


@pytest.mark.parametrize("combine", ["rank", "lower_bound"])
async def test_all_waves_of_a_prompt_are_compared_anew(combine: str) -> None:
    members = [Member({"A": 2.0, "B": 1.0, "C": 3.0}), Member({"A": 2.0, "B": 1.0, "C": 0.0})]
    script = Script({"a": "A", "b": "B", "c": "C"}, waves=["ab", "c"])
    settings = settings_of(2, combine=combine)
    engine = replace(
        script.engine(),
        reward=await ensemble(*members),
        calibration=reward.open_calibration(settings),
    )
    sample = await engine.arbitrate(PROMPT)
    # as if all had come at once, whatever the first wave's candidates had before
    at_once = await judged([m.scores for m in members], "A", "B", "C", combine=combine)
    found = {c.completion.text: c.reward for c in sample.candidates if c.completion}
    assert found == pytest.approx(at_once)
    assert sample.winner
    assert sample.winner.teacher == "a"
    if combine == "rank":
        assert found == {"A": 0.75, "B": 0.25, "C": 0.5}
