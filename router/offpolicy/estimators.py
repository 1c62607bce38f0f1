"""Off-policy evaluation: what a policy that did not run is worth, by the log of one that did.

The value of a target policy that asks one arm is the expected outcome of the answers
that it would have got,

    V = sum_i sum_a pi_ia s_ia r_ia / sum_i sum_a pi_ia s_ia

over prompts i and arms a, where pi is the target's share, s tells whether the arm has an
outcome, and r is that outcome (`router.offpolicy.trial`). Each estimator is such a ratio, and
gives the two terms prompt by prompt. The log's first wave with its inclusion
probabilities p (Horvitz & Thompson 1952, JASA 47) yields weights w_ia = pi_ia / p_ia of
what was asked, which add up to 1 over a prompt in expectation, if the log could have made
every choice of the target. Later waves depend on rewards that were seen, and are not used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from router.arrays import FloatArray
    from router.offpolicy.direct import Prediction
    from router.offpolicy.trial import Trial


def weights(trial: Trial) -> FloatArray:
    """The ratio pi / p of whom the log asked first, 0 of the others, `(prompts, arms)`."""
    asked = trial.propensities > 0.0
    return np.where(asked, trial.shares / np.where(asked, trial.propensities, 1.0), 0.0)


def effective_sample_size(weight: FloatArray) -> float:
    """How many prompts of equal weight say as much: from 1 to their number (Kish 1965).

    >>> effective_sample_size(np.array([1.0, 1.0, 0.0])), effective_sample_size(np.zeros(2))
    (2.0, 0.0)
    """
    scale = float(weight.max(initial=0.0))
    if not scale > 0.0:
        return 0.0
    scaled = weight / scale
    return float(scaled.sum() ** 2 / (scaled**2).sum())


def inverse_propensity(trial: Trial) -> FloatArray:
    """IPS: w s r, by 1 less the weight of what has no outcome.

    Returns:
        The two terms of each prompt, `(prompts, 2)`.
    """
    w, outcomes, known = _asked(trial)
    return terms(w * outcomes, 1.0 - (w * ~known).sum(axis=1))


def self_normalised(trial: Trial) -> FloatArray:
    """SNIPS: w s r, by w s (Swaminathan & Joachims 2015), `(prompts, 2)`.

    What it says does not depend on where the rewards' zero lies, as IPS does.
    """
    w, outcomes, known = _asked(trial)
    return terms(w * outcomes, w * known)


def doubly_robust(trial: Trial, predicted: Prediction) -> FloatArray:
    """The prediction for every arm, put right by what was asked, `(prompts, 2)`.

    Right on average if the propensities are, or if the prediction is (Robins, Rotnitzky &
    Zhao 1994; Dudik, Langford & Li 2011).
    """
    w, outcomes, known = _asked(trial)
    answers, expected = predicted.answers, predicted.answers * predicted.outcome
    return terms(
        trial.shares * expected + w * (outcomes - expected),
        trial.shares * answers + w * (known - answers),
    )


def on_policy(trial: Trial) -> FloatArray:
    """The log's own policy, as if it had asked one of those that it asked first, `(prompts, 2)`."""
    asked = trial.propensities > 0.0
    share = asked / np.maximum(asked.sum(axis=1, keepdims=True), 1)
    return known_terms(share, trial.outcomes)


def known_terms(share: FloatArray, outcomes: FloatArray) -> FloatArray:
    """Shares times outcomes, NaN for none, by the shares of those that have one, `(prompts, 2)`."""
    known = ~np.isnan(outcomes)
    return terms(share * np.where(known, outcomes, 0.0), share * known)


def terms(above: FloatArray, below: FloatArray) -> FloatArray:
    """A numerator and a denominator for each prompt, summed over arms if given by arm."""
    return np.stack([part.reshape(len(part), -1).sum(axis=1) for part in (above, below)], axis=1)


def _asked(trial: Trial) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """Weights, outcomes with 0 for none, and whether there is one."""
    known = ~np.isnan(trial.outcomes)
    return weights(trial), np.where(known, trial.outcomes, 0.0), known
