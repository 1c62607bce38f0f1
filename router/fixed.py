"""`fixed`: a person's list of experts for each language."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbitrage.errors import ConfigError
from arbitrage.language import normalise, parent
from router.lottery import Listed
from router.policy import OneWave

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage import config
    from arbitrage.types import Context

DEFAULT = "default"


class Fixed(OneWave):
    """Asks the first `fan_out` experts of the language that are available.

    A language without a list, or with nobody of its list available, is
    answered by the experts of its parent language, then by the default ones,
    then by whoever is available.

    >>> from arbitrage import config
    >>> from arbitrage.types import Context
    >>> experts = {"no": ("viking",), "default": ("polyglot", "viking")}
    >>> fixed = Fixed(config.Policy(kind="fixed", experts=experts, fan_out=1))
    >>> arms = ("polyglot", "viking", "other")
    >>> [fixed.lottery(Context(tag), arms, 1).listed for tag in ("no", "nb", "de")]
    [(1,), (1,), (0,)]

    Raises:
        ConfigError: there are no default experts, or one language has two lists.
    """

    kind = "fixed"

    def __init__(self, settings: config.Policy) -> None:
        super().__init__(settings)
        if DEFAULT not in settings.experts:
            raise ConfigError("policy.experts.default: is required for kind 'fixed'")
        self._experts: dict[str, Sequence[str]] = {}
        for tag, arms in settings.experts.items():
            language = tag if tag == DEFAULT else normalise(tag)
            if language in self._experts:
                raise ConfigError(f"policy.experts.{tag}: {language!r} has a list already")
            self._experts[language] = tuple(dict.fromkeys(arms))

    def lottery(self, context: Context, arms: Sequence[str], fan_out: int) -> Listed:
        """The head of the list for sure, and nobody else."""
        language = context.language
        number = {arm: i for i, arm in enumerate(arms)}
        for key in (language, parent(language), DEFAULT):
            listed = [number[arm] for arm in self._experts.get(key or "", ()) if arm in number]
            if listed:
                return Listed(len(arms), tuple(listed[:fan_out]))
        return Listed(len(arms), tuple(range(len(arms)))[:fan_out])
