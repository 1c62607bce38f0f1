"""A sample in a terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from arbitrage.types import Candidate, Sample

_SHOWN = 600  # characters of an answer


def side_by_side(sample: Sample) -> Table:
    """A prompt, and what everyone answered, the winner first."""
    asked = " ".join(sample.prompt.text.split())
    table = Table(
        title=f"[{sample.prompt.language}] {_shortened(asked)}", title_justify="left", expand=True
    )
    table.add_column("teacher", no_wrap=True)
    table.add_column("reward", justify="right", no_wrap=True)
    table.add_column("answer", overflow="fold", ratio=1)
    worth = {id(one): one.reward for one in sample.candidates}
    ranked = sorted(
        sample.candidates,
        key=lambda one: (one is not sample.winner, -(worth[id(one)] or -math.inf)),
    )
    for one in ranked:
        mark = "* " if one is sample.winner else "  "
        reward = f"{one.reward:+.2f}" if one.reward is not None else ""
        table.add_row(mark + one.teacher, reward, _said(one))
    return table


def _said(candidate: Candidate) -> str:
    if candidate.failure:
        return f"failed: {candidate.failure.message}"
    text = _shortened(candidate.completion.text if candidate.completion else "")
    if candidate.gates:
        return f"stopped by {', '.join(gate.gate for gate in candidate.gates)}: {text}"
    return text


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."
