"""What shapes the samples of a run, in so few words that the run can remember it."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arbitrage import config


def digests(settings: config.Config) -> dict[str, str]:
    """A digest of every setting that shapes a sample, by its key."""
    shaping: dict[str, Any] = {"reward": settings.reward, "policy": settings.policy}
    shaping |= {f"teachers.{teacher.name}": teacher for teacher in settings.teachers}
    return {
        f"{section}.{field.name}": _digest(getattr(values, field.name))
        for section, values in shaping.items()
        for field in fields(values)
    }


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The keys of the settings that are not as they were, sorted."""
    return sorted(key for key in {*before, *now} if before.get(key) != now.get(key))


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:12]
