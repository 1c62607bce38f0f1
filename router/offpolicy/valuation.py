"""What a log tells of a target policy: values with intervals, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from router.offpolicy.bootstrap import bootstrap, figure
from router.offpolicy.direct import DirectMethod
from router.offpolicy.estimators import (
    doubly_robust,
    effective_sample_size,
    inverse_propensity,
    known_terms,
    on_policy,
    self_normalised,
    terms,
    weights,
)
from router.offpolicy.support import (
    FEWEST,
    MOST_UNSUPPORTED,
    no_choice,
    too_few,
    too_heavy,
    too_light,
    unsupported,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from router.arrays import FloatArray
    from router.offpolicy.bootstrap import Figure
    from router.offpolicy.trial import Trial

DIRECT, IPS, SNIPS, DOUBLY_ROBUST = "direct_method", "ips", "snips", "doubly_robust"
PLAYED = "played"
TARGET, SINGLE, ORACLE = "target", "best_single", "best_of_all"

_WEIGHT, _OWN = "weight", "own"

Drawn = dict[str, "FloatArray"]
"""By name, a figure of the log itself and of those drawn from it, `(1 + logs,)`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an estimator says of the target, or why it says nothing.

    Attributes:
        figure: the target's value; None where it is refused.
        gain: the value minus that of the log's own policy.
        off: the value minus the truth on audited prompts, where that is known.
        refusal: why there is no figure.
    """

    figure: Figure | None = None
    gain: Figure | None = None
    off: Figure | None = None
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Valuation:
    """All that a log tells of a target.

    Attributes:
        prompts: of the log that the target may answer.
        audits: of these, those on which everybody in the pool was asked at once.
        answers: by estimator.
        own: value of the log's own policy: of one of the arms it asked first, or, for a
            target that asks several, of its winners; None if nothing has a reward.
        weight: mean weight of a prompt, which is 1 if all is well.
        effective: effective sample size of the weights, in prompts.
        unsupported: share of the target's choices that are of arms the log never asked
            first in the language.
        single: the best single arm on the audited prompts.
        audited: values on the audited prompts: of the target, the best single arm (in
            hindsight) and the best of all; empty where there are too few.
        ahead: the target's value there minus each of the others'.
        calls: arms that a target that asks several asks on average, over all its waves,
            and those that the log has asked.
    """

    prompts: int
    audits: int
    answers: Mapping[str, Answer]
    own: Figure | None
    weight: Figure | None = None
    effective: float | None = None
    unsupported: float | None = None
    single: str | None = None
    audited: Mapping[str, Figure] = field(default_factory=dict)
    ahead: Mapping[str, Figure] = field(default_factory=dict)
    calls: tuple[float, float] | None = None


def evaluate(trial: Trial, *, seed: int = 0) -> Valuation:
    """The value of a target that asks one arm a prompt, by every estimator.

    Args:
        trial: of at least one prompt.
        seed: of the bootstrap.
    """
    w = weights(trial).sum(axis=1)
    direct = DirectMethod(trial)
    single, yardsticks = _on_audits(trial, known_terms(trial.shares, trial.outcomes))
    columns = {
        IPS: inverse_propensity(trial),
        SNIPS: self_normalised(trial),
        DOUBLY_ROBUST: doubly_robust(trial, direct.predictions()),
        _WEIGHT: terms(w, np.ones_like(w)),
        _OWN: on_policy(trial),
        **yardsticks,
    }
    drawn = _drawn(trial, columns, direct, seed)
    weight = figure(drawn[_WEIGHT])
    effective = effective_sample_size(w)
    missing, where = unsupported(trial)
    without_support = (
        no_choice(trial)
        or too_few(len(w), "prompts")
        or (where if missing > MOST_UNSUPPORTED else None)
        or too_light(weight)
    )
    weighted = without_support or too_heavy(weight) or too_few(effective, "effective prompts")
    refusals = {DIRECT: without_support, IPS: weighted, SNIPS: weighted, DOUBLY_ROBUST: weighted}
    return Valuation(
        prompts=len(w),
        audits=int(trial.audited.sum()),
        answers={name: _answer(drawn, name, refusal) for name, refusal in refusals.items()},
        own=figure(drawn[_OWN]),
        weight=weight,
        effective=effective,
        unsupported=missing,
        single=single,
        audited=_audited(drawn),
        ahead=_ahead(drawn),
    )


def evaluate_played(trial: Trial, *, seed: int = 0) -> Valuation:
    """The value of a target that asks several arms: of its winners, on audited prompts.

    Args:
        trial: of at least one prompt, of a target that was played.
        seed: of the bootstrap.
    """
    audited = trial.audited
    audits = int(audited.sum())
    played = np.where(audited[:, None], trial.played[:, ::-1], 0.0)
    single, yardsticks = _on_audits(trial, played)
    columns = {PLAYED: played, _OWN: known_terms(np.ones(len(audited)), trial.won), **yardsticks}
    drawn = _drawn(trial, columns, None, seed)
    refusal = no_choice(trial) or too_few(audits, "prompts on which everybody was asked at once")
    return Valuation(
        prompts=len(audited),
        audits=audits,
        answers={PLAYED: _answer(drawn, PLAYED, refusal)},
        own=figure(drawn[_OWN]),
        single=single,
        calls=(float(trial.calls[audited, 0].mean()), float(trial.calls[:, 1].mean()))
        if audits
        else None,
        audited=_audited(drawn),
        ahead=_ahead(drawn),
    )


def _on_audits(trial: Trial, target: FloatArray) -> tuple[str | None, dict[str, FloatArray]]:
    """Name of the best single arm, and the terms of what is known on audited prompts."""
    audited = trial.audited
    if audited.sum() < FEWEST or no_choice(trial):
        return None, {}
    outcomes = np.where(trial.pool, trial.outcomes, np.nan)
    known = ~np.isnan(outcomes)
    best = np.where(known, outcomes, -np.inf).max(axis=1)
    columns = {
        TARGET: target,
        ORACLE: known_terms(np.ones(len(best)), np.where(known.any(axis=1), best, np.nan)),
    }
    always = np.flatnonzero((trial.pool[audited] & known[audited].any(axis=0)).all(axis=0))
    single = None
    if len(always):
        means = np.nanmean(outcomes[audited][:, always], axis=0)
        arm = int(always[means.argmax()])
        single = trial.arms[arm]
        columns[SINGLE] = known_terms(np.ones(len(best)), outcomes[:, arm])
    return single, {name: np.where(audited[:, None], c, 0.0) for name, c in columns.items()}


def _drawn(
    trial: Trial, columns: Mapping[str, FloatArray], direct: DirectMethod | None, seed: int
) -> Drawn:
    """The ratio of each pair of columns, and the direct method's, over logs drawn anew."""
    both = np.concatenate(list(columns.values()), axis=1)

    def totals(times: FloatArray) -> FloatArray:
        found = times @ both
        return found if direct is None else np.concatenate((direct.totals(times), found), axis=1)

    sums = bootstrap(totals, trial.prompt, seed=seed, size=direct.size if direct else 1)
    above, below = sums[:, ::2], sums[:, 1::2]
    ratios = np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0.0)
    names = [*([DIRECT] if direct else []), *columns]
    return dict(zip(names, ratios.T, strict=True))


def _answer(drawn: Drawn, name: str, refusal: str | None) -> Answer:
    value = drawn[name]
    found = figure(value)
    if refusal or found is None:
        return Answer(refusal=refusal or "no answer that it would have got has a reward")
    compared = TARGET in drawn and name != PLAYED
    off = figure(value - drawn[TARGET]) if compared else None
    return Answer(found, gain=figure(value - drawn[_OWN]), off=off)


def _audited(drawn: Drawn) -> Mapping[str, Figure]:
    return _figures({name: drawn[name] for name in (TARGET, SINGLE, ORACLE) if name in drawn})


def _ahead(drawn: Drawn) -> Mapping[str, Figure]:
    others = [name for name in (SINGLE, ORACLE) if name in drawn]
    return _figures({name: drawn[TARGET] - drawn[name] for name in others})


def _figures(drawn: Drawn) -> Mapping[str, Figure]:
    return {name: found for name, one in drawn.items() if (found := figure(one))}
