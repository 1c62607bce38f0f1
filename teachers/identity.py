"""What of a teacher's configuration makes it the teacher that it is."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arbitrage import config

_POOL_ALONE = frozenset(
    {
        "max_concurrency",
        "requests_per_minute",
        "tokens_per_minute",
        "when_limited",
        "timeout_seconds",
        "max_attempts",
        "hedge_percentile",
        "price_per_million",
        "languages",
        "license",
        "trainable",
        "cache",
    }
)
"""Settings that the pool holds a teacher to; a change of them leaves the adapter as it is."""
_ACCESS = frozenset({"api_key_env"})


def adapter_part(settings: config.AnyTeacher) -> str:
    """What an adapter is opened with, as one comparable text."""
    names = (field.name for field in fields(settings) if field.name not in _POOL_ALONE)
    return repr({name: getattr(settings, name) for name in names})


def asked(settings: config.AnyTeacher) -> Mapping[str, Any]:
    """What shapes a teacher's answers: its name, model and sampling, and where it is.

    Settings that are as they are by default are left out, so that one which a later version
    adds changes nothing.

    >>> from arbitrage.config import Sampling, ScriptedTeacher
    >>> teacher = ScriptedTeacher(name="ada", kind="scripted", sampling=Sampling(seed=7))
    >>> asked(teacher) == {"name": "ada", "kind": "scripted", "sampling": {"seed": 7}}
    True
    """
    told = _told(settings)
    return {name: value for name, value in told.items() if name not in _POOL_ALONE | _ACCESS}


def _told(value: Any) -> Any:
    if not is_dataclass(value):
        return value
    return {
        field.name: _told(getattr(value, field.name))
        for field in fields(value)
        if getattr(value, field.name) != field.default
    }
