"""Whose answers these are, and on what terms: read from the cards of the runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from arbitrage.types import TeacherInfo

_CELLS = re.compile(r"(?<!\\)\|")
_HEADING = ("teacher", "model", "licence", "outputs may train others")
_TRAINABLE: Mapping[str, bool | None] = {"yes": True, "no": False}
_NOT_STATED = "not stated"


@dataclass(frozen=True, slots=True)
class Source:
    """What is known of a teacher.

    Attributes:
        trainable: whether its outputs may train others; None where nobody has said.
    """

    model: str | None = None
    license: str | None = None
    trainable: bool | None = None

    def and_(self, other: Source) -> Source:
        """What holds for a teacher of which two runs tell: the stricter."""
        says_no = self.trainable is False or other.trainable is False
        both = self.trainable is True and other.trainable is True
        return Source(
            _joined(self.model, other.model),
            _joined(self.license, other.license),
            False if says_no else True if both else None,
        )


def sources(roots: Sequence[Path], told: Sequence[TeacherInfo] = ()) -> dict[str, Source]:
    """What the cards of these runs say of their teachers, and what the caller says of them.

    Args:
        roots: output folders of runs; one without a card tells nothing.
        told: stands above what the cards say, where it says something.
    """
    known: dict[str, Source] = {}
    for root in roots:
        for name, source in _card(root / "README.md"):
            known[name] = known[name].and_(source) if name in known else source
    for teacher in told:
        before = known.get(teacher.name, Source())
        known[teacher.name] = Source(
            teacher.model,
            teacher.license or before.license,
            before.trainable if teacher.trainable is None else teacher.trainable,
        )
    return known


def _card(path: Path) -> Iterator[tuple[str, Source]]:
    """The rows of a card's table of teachers."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    table = False
    for line in lines:
        cells = [cell.strip().replace("\\|", "|") for cell in _CELLS.split(line)[1:-1]]
        if tuple(cells[:4]) == _HEADING:
            table = True
        elif not cells:
            table = False
        elif table and cells[0] != "---":
            name, model, license_, trainable = cells[:4]
            yield (
                name,
                Source(
                    model, None if license_ == _NOT_STATED else license_, _TRAINABLE.get(trainable)
                ),
            )


def _joined(one: str | None, other: str | None) -> str | None:
    return " / ".join(dict.fromkeys(text for text in (one, other) if text)) or None
