"""Policies: whom to ask, learned per language from few prompts.

A policy turns a language and the arms that may be asked into a lottery
(`router.lottery`), draws a wave from it and logs how likely each arm was to
be drawn. All learn the same belief (`router.experience.belief`) from the same sums
(`router.experience.statistics`). numpy alone, seeded, no I/O, no clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbitrage.errors import ConfigError
from router.best_of import BestOf
from router.fixed import Fixed
from router.knn import Knn
from router.linucb import LinUCB
from router.pandora import Pandora
from router.random import Random
from router.softmax import Softmax
from router.thompson import Thompson

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arbitrage import config, ports

__all__ = ["KINDS", "build"]

KINDS: Mapping[str, Callable[[config.Policy], ports.Policy]] = {
    "best_of": BestOf,
    "fixed": Fixed,
    "knn": Knn,
    "linucb": LinUCB,
    "pandora": Pandora,
    "random": Random,
    "softmax": Softmax,
    "thompson": Thompson,
}


def build(settings: config.Policy) -> ports.Policy:
    """Makes the policy that a configuration names, seeded by it.

    >>> from arbitrage import config
    >>> from arbitrage.types import Context
    >>> policy = build(config.Policy(kind="best_of"))
    >>> policy.select(Context("de"), ["a", "b", "c"], seen=[])
    Decision(policy='best_of', version=0, arms=('a', 'b', 'c'), propensities=(1.0, 1.0, 1.0), \
waves=(0, 0, 0))

    Raises:
        ConfigError: the kind is unknown, or lacks what it needs.
    """
    if settings.kind not in KINDS:
        raise ConfigError(f"policy.kind: unknown {settings.kind!r}; use {', '.join(KINDS)}")
    return KINDS[settings.kind](settings)
