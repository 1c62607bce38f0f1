"""Teachers that change behind their names: who follows them, and where none does, at what cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import router
from arbitrage import config
from arbitrage.types import Candidate, Completion, Context, Score, Verdict
from router.experience.belief import Belief
from router.experience.drift import Drift
from router.snapshots.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

ARMS = ("good", "fair", "poor")
VALUES = (0.5, 0.0, -0.5)
LANGUAGES = ("de", "fr", "ja")
OF_LANGUAGE = {"de": 0.0, "fr": 3.0, "ja": -3.0}  # how easy each is


def teach(
    belief: Belief,
    prompts: int,
    values: Sequence[float] = VALUES,
    languages: Sequence[str] = LANGUAGES,
    *,
    arms: Sequence[str] = ARMS,
    seed: int = 0,
) -> None:
    rng = np.random.default_rng(seed)
    of_arm = dict(zip(ARMS, values, strict=True))
    for i in range(prompts):
        language = languages[i % len(languages)]
        rewards = rng.normal([of_arm[arm] + OF_LANGUAGE[language] for arm in arms], 0.5)
        belief.learn((language, ""), None, list(zip(arms, rewards.tolist(), strict=True)))


def gaps(belief: Belief, language: str) -> list[float]:
    """How much better than `fair` each arm is believed to be."""
    mean = belief.posterior((language, ""), None, ARMS).mean
    return [round(float(value - mean[1]), 1) for value in mean]


@pytest.fixture(params=[0, 1], ids="seed {}".format)
def seed(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


def test_where_nothing_changes_nothing_is_believed_to(seed: int) -> None:
    still, watchful = Belief(), Belief(drifts=True)
    for belief in (still, watchful):
        teach(belief, 900, seed=seed)
    for language in LANGUAGES:
        expected, actual = (b.posterior((language, ""), None, ARMS) for b in (still, watchful))
        assert actual.mean == pytest.approx(expected.mean, abs=0.1)
        assert (actual.sd < 2.0 * expected.sd).all()


def test_what_has_changed_in_one_language_is_believed_of_all(seed: int) -> None:
    still, watchful = Belief(), Belief(drifts=True)
    for belief in (still, watchful):
        teach(belief, 900, seed=seed)
        teach(belief, 300, (-0.5, 0.0, -0.5), ["de"], seed=seed)
    good, _, poor = gaps(watchful, "fr")
    assert good < 0.0
    assert gaps(still, "fr")[0] > 0.2
    assert poor == pytest.approx(-0.5, abs=0.2)


def test_a_language_of_its_own_mind_keeps_it_when_all_change() -> None:
    belief = Belief(drifts=True)
    for _ in range(200):
        teach(belief, 1, (0.5, 0.0, 1.5), ["ja"], seed=belief.prompts)  # the poor one is best
        teach(belief, 2, languages=["de", "fr"], seed=belief.prompts)
    teach(belief, 300, (-0.5, 0.0, -0.5), ["de", "fr"])
    good, _, poor = gaps(belief, "ja")
    assert good < 0.0
    assert poor > 1.0


def test_once_one_has_changed_who_was_not_asked_for_long_is_less_well_known() -> None:
    def doubt(turned: float) -> float:
        belief = Belief(drifts=True)
        teach(belief, 300)
        teach(belief, 1500, arms=ARMS[:2])
        teach(belief, 200, (turned, 0.0, -0.5), arms=ARMS[:2])
        return float(belief.posterior(("de", ""), None, ["poor"]).sd[0])

    assert doubt(-0.5) > 3.0 * doubt(0.5)


def test_an_easier_language_is_no_change_of_its_arms() -> None:
    belief = Belief(drifts=True)
    teach(belief, 600, languages=["de", "fr"])
    teach(belief, 60, languages=["ja"])
    for language in ("de", "fr"):
        assert gaps(belief, language)[0] == pytest.approx(0.5, abs=0.15)
    assert belief.posterior(("de", ""), None, ["fair"]).mean[0] == pytest.approx(0.0, abs=0.2)


def test_arms_that_join_later_are_followed_beside_what_prompts_are_like() -> None:
    belief, x = Belief(features=2, drifts=True), np.array([1.0, -1.0])
    for number in range(60):
        for arm in range(number // 10 + 1):
            belief.learn(("de", ""), x, [(f"arm-{arm}", float(arm))])
    mean = belief.posterior(("de", ""), x, [f"arm-{arm}" for arm in range(6)]).mean
    assert (np.diff(mean) > 0.0).all()


def test_replicas_that_have_seen_the_same_change_agree_when_merged() -> None:
    parts = Belief(drifts=True), Belief(drifts=True)
    for number, part in enumerate(parts):
        teach(part, 600, seed=number)
        teach(part, 150, (-0.5, 0.0, -0.5), seed=number)
    one, other = (Belief.of_state(part.state(), drifts=True) for part in parts)
    one.merge(parts[1])
    other.merge(parts[0])
    for language in LANGUAGES:
        merged, turned = (b.posterior((language, ""), None, ARMS) for b in (one, other))
        assert merged.mean == pytest.approx(turned.mean, abs=1e-6)
        assert merged.sd == pytest.approx(turned.sd, rel=1e-6)
        assert gaps(one, language)[0] == pytest.approx(-0.5, abs=0.25)


def test_replicas_that_nothing_has_happened_to_are_that_of_both_streams() -> None:
    parts, whole = (Belief(drifts=True), Belief(drifts=True)), Belief()
    for number, part in enumerate(parts):
        teach(part, 300, seed=number)
        teach(whole, 300, seed=number)
    parts[0].merge(parts[1])
    assert np.allclose(parts[0].statistics.sums, whole.statistics.sums, rtol=1e-12)
    for language in LANGUAGES:
        merged = parts[0].posterior((language, ""), None, ARMS).mean
        assert merged == pytest.approx(whole.posterior((language, ""), None, ARMS).mean, abs=0.05)


def test_an_arm_that_only_the_other_has_met_is_taken_over() -> None:
    one, other = Belief(drifts=True), Belief(drifts=True)
    teach(one, 300, arms=ARMS[:2])
    teach(other, 600, seed=1)
    teach(other, 200, (0.5, 0.0, 1.5), seed=1)
    one.merge(other)
    assert gaps(one, "de")[2] == pytest.approx(gaps(other, "de")[2], abs=0.3)
    assert gaps(other, "de")[2] > 1.0


def test_what_was_learned_without_it_is_taken_over_where_arms_may_drift() -> None:
    still = Belief()
    teach(still, 600)
    watchful = Belief.of_state(still.state(), drifts=True)
    assert gaps(watchful, "de") == gaps(still, "de")
    teach(watchful, 400, (-0.5, 0.0, -0.5))
    assert gaps(watchful, "ja")[0] == pytest.approx(-0.5, abs=0.25)
    # and back
    again = Belief.of_state(watchful.state())
    assert np.isfinite(again.posterior(("de", ""), None, ARMS).mean).all()


@pytest.mark.parametrize("kind", sorted(router.KINDS))
def test_a_policy_whose_arms_drift_goes_on_from_its_snapshot(kind: Any) -> None:
    settings = config.Policy(kind=kind, drift=True, experts={"default": ARMS})
    policy, again = router.build(settings), router.build(settings)
    rng = np.random.default_rng(3)

    def lesson(i: int) -> tuple[Context, list[Candidate]]:
        values = VALUES if i < 150 else VALUES[::-1]
        asked = rng.choice(len(ARMS), 2, replace=False)
        told = [
            Candidate(ARMS[arm], Completion("."), score=Score(float(rng.normal(values[arm])), {}))
            for arm in asked
        ]
        if i % 11 == 0:
            told[0] = Candidate(ARMS[asked[0]], Completion("."), gates=(Verdict("empty", "."),))
        return Context(LANGUAGES[i % 3], None, rng.normal(size=512).astype(np.float32)), told

    for i in range(200):
        policy.update(*lesson(i))
    Snapshot.decode(Snapshot.of(policy).encode()).restore(again)
    for i in range(200, 400):
        context, told = lesson(i)
        one, other = (p.select(context, ARMS, []) for p in (policy, again))
        assert one is not None
        assert other is not None
        assert one.arms == other.arms
        assert one.propensities == pytest.approx(other.propensities, abs=1e-12)
        policy.update(context, told)
        again.update(context, told)


def test_paces_that_foretell_answers_better_are_believed_more() -> None:
    drift, arm = Drift(), np.array([0])
    rng = np.random.default_rng(2)
    value, weights = 0.0, []
    for prompt in range(1, 3001):
        value += rng.normal(0.0, 0.01) if prompt > 1000 else 0.0
        away = np.full((1, len(drift.weights)), value + rng.normal(0.0, 0.3))
        drift.learn(arm, away, np.array([0.09]), prompt)
        weights.append(drift.weights)
    calm, moving = weights[999], weights[-1]
    assert calm[0] > 0.8
    assert moving[-1] > 0.8
