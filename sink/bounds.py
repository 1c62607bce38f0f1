"""What a Delta table's log says of a file, by which readers skip it."""

from __future__ import annotations

import math
from datetime import UTC
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from arbitrage.types import Sample


def of(samples: Sequence[Sample]) -> Mapping[str, Any]:
    """The bounds of a file with these samples, at least one."""
    times = [sample.created_at for sample in samples]
    rewards = [sample.winner.reward for sample in samples if sample.winner]
    numbers = [reward for reward in rewards if reward is not None and math.isfinite(reward)]
    known = len(numbers) == len(rewards) > 0
    return _said(
        len(samples),
        len(samples) - len(rewards),
        (min(times), max(times)),
        (min(numbers), max(numbers)) if known else None,
    )


def joint(files: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The bounds of a file with the rows of some, as deltalake's flat add actions tell them."""

    def told(name: str) -> list[Any]:
        return [file.get(name) for file in files]

    rewards = told("min.reward") + told("max.reward")
    return _said(
        sum(told("num_records")),
        sum(told("null_count.reward")),
        (min(told("min.created_at")), max(told("max.created_at"))),
        None if None in rewards else (min(rewards), max(rewards)),
    )


def _said(
    count: int,
    unanswered: int,
    times: tuple[datetime, datetime],
    rewards: tuple[float, float] | None,
) -> Mapping[str, Any]:
    least: dict[str, Any] = {"created_at": _instant(times[0])}
    most: dict[str, Any] = {"created_at": _instant(times[1])}
    if rewards:
        least["reward"], most["reward"] = rewards
    nulls = {"created_at": 0, "reward": unanswered}
    return {"numRecords": count, "minValues": least, "maxValues": most, "nullCount": nulls}


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
