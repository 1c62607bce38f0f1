"""Calibration: what makes the scores of a reward model comparable."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arbitrage import config, ports
    from arbitrage.events import Event
    from arbitrage.types import Candidate, Prompt


def open_calibration(
    settings: config.AnyReward, hear: Callable[[Event], None] = lambda _: None
) -> ports.Calibration:
    """The calibration that a reward's configuration asks for."""
    return Uncalibrated()


class Uncalibrated:
    """Takes the scores for rewards as they are."""

    def calibrate(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates, unchanged."""
        return list(candidates)

    def learn(self, prompt: Prompt, candidates: Sequence[Candidate]) -> None:
        """Has nothing to learn."""
