"""Whether a log can tell anything of a target at all, and why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from router.offpolicy.bootstrap import Figure
    from router.offpolicy.trial import Trial

FEWEST = 30
"""Prompts, by number or by weight, below which nothing is said."""
MOST_UNSUPPORTED = 0.01
"""Share of the target's choices that may be of arms the log never asked first in the language."""
MOST_UNWEIGHTED = 0.05
"""By how much the mean weight may differ from 1, beside chance."""

_SURE = 4.0  # standard errors
_NAMED = 3  # arms, and languages of each, that are named


def too_few(number: float, of_what: str) -> str | None:
    """Why so few prompts say nothing; None where they are enough, as below."""
    return f"only {int(number)} {of_what}; it takes {FEWEST}" if number < FEWEST else None


def no_choice(trial: Trial) -> str | None:
    """Why a target that may ask but one arm, whatever the language, is not worth a figure."""
    if (trial.pool.sum(axis=1) > 1).any():
        return None
    names = ", ".join(trial.arms[i] for i in np.flatnonzero(trial.pool.any(axis=0)))
    return f"there is nobody to choose but {names}: name the teachers that were not asked with -c"


def unsupported(trial: Trial) -> tuple[float, str]:
    """The target's share of arms never asked first in the language, and which they are.

    What an arm is worth in a language that it was never asked in, nobody knows.
    """
    shape = (len(trial.languages), len(trial.arms))
    asked, mass = np.zeros(shape, dtype=np.bool_), np.zeros(shape)
    np.logical_or.at(asked, trial.language, trial.propensities > 0.0)
    np.add.at(mass, trial.language, trial.shares)
    missing = np.where(asked, 0.0, mass) / len(trial.language)
    arms = [int(a) for a in np.argsort(-missing.sum(axis=0))[:_NAMED] if missing[:, a].any()]
    named = []
    for arm in arms:
        order = np.argsort(-missing[:, arm])
        languages = [trial.languages[i] for i in order if missing[i, arm] > 0.0]
        more = f" and {len(languages) - _NAMED} more" if len(languages) > _NAMED else ""
        named.append(f"{trial.arms[arm]} in {', '.join(languages[:_NAMED])}{more}")
    share = float(missing.sum())
    return share, f"{share:.1%} of its choices were never asked first: {'; '.join(named)}"


def too_light(weight: Figure | None) -> str | None:
    """Why a mean weight of a prompt below 1 says that support is missing.

    It is how the log betrays what its propensities of those not asked would have told:
    the weights of what was asked add up to the share of the target's choices that the
    log's policy could have made.
    """
    if weight is None or weight.value + _SURE * weight.standard_error >= 1.0 - MOST_UNWEIGHTED:
        return None
    return (
        f"the weights average {weight.value:.2f}, not 1: the log's policy could not have made "
        f"{1.0 - weight.value:.0%} of its choices"
    )


def too_heavy(weight: Figure | None) -> str | None:
    """Why a mean weight of a prompt above 1 says that the propensities are wrong."""
    if weight is None or weight.value - _SURE * weight.standard_error <= 1.0 + MOST_UNWEIGHTED:
        return None
    return (
        f"the weights average {weight.value:.2f}, not 1: the log's propensities are not those "
        "that it was drawn with"
    )
