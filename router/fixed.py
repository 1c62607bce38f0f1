"""`fixed`: a person's list of experts for each language."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from arbitrage.errors import ConfigError
from arbitrage.language import normalise, parent
from router.lottery import Listed
from router.policy import OneWave

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arbitrage import config
    from router.lottery import Lottery

DEFAULT = "default"


class Fixed(OneWave):
    """Asks the first `fan_out` experts of the language that are available.

    A language without a list, or with nobody of its list available, is
    answered by the experts of its parent language, then by the default ones,
    then by whoever is available.

    >>> experts = {"no": ("viking",), "default": ("polyglot", "viking")}
    >>> rng = np.random.default_rng(0)
    >>> fixed = Fixed(experts=experts, fan_out=1, audit_rate=0.0, rng=rng)
    >>> arms = ("polyglot", "viking", "other")
    >>> [arms[fixed.lottery(tag, arms).draw(rng)[0]] for tag in ("no", "nb", "de")]
    ['viking', 'viking', 'polyglot']

    Raises:
        ConfigError: there are no default experts, or one language has two lists.
    """

    kind = "fixed"

    def __init__(
        self,
        *,
        experts: Mapping[str, Sequence[str]],
        fan_out: int,
        audit_rate: float,
        rng: np.random.Generator,
    ) -> None:
        super().__init__(fan_out=fan_out, audit_rate=audit_rate, rng=rng)
        if DEFAULT not in experts:
            raise ConfigError("policy.experts.default: is required for kind 'fixed'")
        self._experts: dict[str, Sequence[str]] = {}
        for tag, arms in experts.items():
            language = tag if tag == DEFAULT else normalise(tag)
            if language in self._experts:
                raise ConfigError(f"policy.experts.{tag}: {language!r} has a list already")
            self._experts[language] = tuple(dict.fromkeys(arms))

    @classmethod
    def of(cls, settings: config.Policy) -> Self:
        """Makes the policy from its configuration."""
        return cls(
            experts=settings.experts,
            fan_out=settings.fan_out,
            audit_rate=settings.audit_rate,
            rng=np.random.default_rng(settings.seed),
        )

    def lottery(self, language: str, arms: Sequence[str]) -> Lottery:
        """The head of the list for sure, and nobody else."""
        number = {arm: i for i, arm in enumerate(arms)}
        for key in (language, parent(language), DEFAULT):
            listed = [number[arm] for arm in self._experts.get(key or "", ()) if arm in number]
            if listed:
                return Listed(len(arms), tuple(listed[: self._fan_out]))
        return Listed(len(arms), tuple(range(len(arms)))[: self._fan_out])
