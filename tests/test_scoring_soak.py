"""Seconds of impatient callers and sick devices; `benchmarks/scoring_soak.py` has a minute."""

from __future__ import annotations

from scoring_soak import soak
from scoring_targets import FakeTarget

SECONDS = 5.0


async def test_everyone_has_an_end_and_nothing_is_left() -> None:
    target = FakeTarget(seed=0)
    result = await soak(target, SECONDS)
    assert not result.complaints(), result.lines()
    assert set(result.calls) == {"answered", "refused", "gave up", "came too late"}
    assert all(device.batches for device in target.devices)
