"""What of a teacher's configuration makes it the teacher that it is."""

from __future__ import annotations

import json
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def asked(settings: config.AnyTeacher) -> str:
    """What shapes a teacher's answers, as one text: its name, model and sampling, and where it is.

    Settings that are as they are by default are left out, so that one which a later version
    adds changes nothing.

    >>> from arbitrage.config import Sampling, ScriptedTeacher
    >>> teacher = ScriptedTeacher(name="ada", kind="scripted", sampling=Sampling(seed=7))
    >>> asked(teacher)
    '{"kind": "scripted", "name": "ada", "sampling": {"seed": 7}}'
    """
    told = _told(settings)
    shaping = {name: value for name, value in told.items() if name not in _POOL_ALONE | _ACCESS}
    return json.dumps(shaping, sort_keys=True, default=str)


def _told(value: Any) -> Any:
    if not is_dataclass(value):
        return value
    return {
        field.name: _told(getattr(value, field.name))
        for field in fields(value)
        if getattr(value, field.name) != _default(field)
    }


def _default(field: Field[Any]) -> object:
    return field.default if field.default_factory is MISSING else field.default_factory()
