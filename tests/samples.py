"""Samples to store, and processes that store them and are killed."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from arbitrage.types import (
    Candidate,
    Completion,
    Decision,
    Failure,
    Prompt,
    Sample,
    Score,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]


def sample(
    number: int = 0, *, language: str = "de", text: str = "Antwort", won: bool = True
) -> Sample:
    """One answer that passed (with `won`), one that a gate stopped, one failure."""
    passed = Score(0.5 + number / 1000, {"embedded": 1.25, "length": -0.5})
    candidates = [
        Candidate(
            ("alpha", "beta")[number % 2],
            Completion(text, prompt_tokens=7, completion_tokens=3),
            gates=() if won else (Verdict("wrong_language", "is English"),),
            score=passed if won else None,
            latency_seconds=0.25,
            cost_usd=0.001,
        ),
        Candidate("gamma", Completion("", "length"), gates=(Verdict("empty", "has no text"),)),
        Candidate("delta", failure=Failure("timeout", "no answer in 60 s")),
    ]
    arms = tuple(candidate.teacher for candidate in candidates)
    return Sample.of(
        Prompt.of(f"Frage {number}", language=language, domain="chat", metadata={"source": "x"}),
        Decision("thompson", number, arms, (0.5, 0.25, 1.0), (0, 0, 1)),
        candidates,
        job="test",
        created_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    )


def start(script: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """A Python process that can import this repository."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ids(samples: Sequence[Sample]) -> list[str]:
    """Sorted, so that one that is stored twice shows."""
    return sorted(sample.sample_id for sample in samples)
