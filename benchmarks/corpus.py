"""The questions of examples/reward/answers: the same ones in 14 languages, each answered well."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "reward"
HELD_OUT_QUESTIONS = 12


@dataclass(frozen=True, slots=True)
class Question:
    """One question in one language: a full answer, and a brief, honest but plain one."""

    id: str
    language: str
    prompt: str
    answer: str
    brief: str

    @property
    def held_out(self) -> bool:
        """Whether no reward may learn from it, in any language."""
        return self.id in held_out()


@cache
def questions() -> Mapping[str, Sequence[Question]]:
    """All questions by language; those of one id, and those of one place, ask the same."""
    return {
        path.stem: [Question(language=path.stem, **row) for row in rows(path)]
        for path in sorted((FOLDER / "answers").glob("*.jsonl"))
    }


@cache
def held_out() -> frozenset[str]:
    """The ids of the held-out questions: those with the smallest hashes."""
    ids = {question.id for asked in questions().values() for question in asked}
    return frozenset(
        sorted(ids, key=lambda name: hashlib.sha256(name.encode()).digest())[:HELD_OUT_QUESTIONS]
    )


def rows(path: Path) -> list[Any]:
    """The lines of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
