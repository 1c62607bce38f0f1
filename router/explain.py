"""What a policy has learned, as people ask for it: how good, at what cost, and how sure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from arbitrage import ports
from router.inclusion import top_k

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage.types import Estimate
    from router.experience import Experience


class Explicable(ports.Policy, Protocol):
    """A policy of this package: it tells what it has learned from, and what it pays."""

    experience: Experience

    @property
    def price(self) -> float:
        """The reward that a US dollar has to bring, in spreads of a language's rewards."""

    @property
    def spend_per_prompt(self) -> float:
        """What a prompt has cost of late, in US dollars."""


def languages(policy: Explicable) -> list[str]:
    """Those that the policy has learned in, in alphabetical order."""
    return sorted(policy.experience.belief.statistics.languages)


def explain(policy: Explicable, language: str, arms: Sequence[str]) -> list[Estimate]:
    """What the policy believes of these arms in one language, in their order.

    How likely an arm is the best takes the arms' errors for independent Gaussians.

    Returns:
        The policy's estimates with cost and certainty; none for a language not met.
    """
    estimates = policy.estimates(arms, [language])
    if not estimates:
        return []
    best = top_k(
        np.array([estimate.reward for estimate in estimates]),
        np.array([estimate.standard_error for estimate in estimates]),
        1,
        np.arange(len(estimates)),
    )
    costs = policy.experience.costs.usd(language, arms)
    return [
        replace(estimate, cost_usd=float(usd), best=float(share))
        for estimate, usd, share in zip(estimates, costs, best / best.sum(), strict=True)
    ]
