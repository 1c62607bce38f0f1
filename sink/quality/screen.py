"""Which prompts are worth an answer: none that was asked before, or that a test asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbitrage.prompts import Rejected
from sink.quality.contamination import Contamination
from sink.quality.duplicates import Duplicates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbitrage import config
    from arbitrage.types import Prompt


def screened(
    rows: Iterator[Prompt | Rejected], settings: config.Job
) -> Iterator[Prompt | Rejected]:
    """Rejects prompts that say what an earlier one has said, or what an evaluation set asks.

    Raises:
        ConfigError: while reading: an evaluation set cannot be read.
    """
    leaks = Contamination.read(settings.decontaminate) if settings.decontaminate else None
    seen = Duplicates(settings.dedupe) if settings.dedupe else None
    for number, row in enumerate(rows, 1):
        if isinstance(row, Rejected):
            yield row
            continue
        text = "\n".join(m.content for m in row.messages if m.role == "user")
        under = "\n".join(m.content for m in row.messages if m.role == "system")
        why = None
        if leaks is not None and (leak := leaks.overlap(text)):
            why = f"overlaps with {leak.file}, line {leak.line}: {leak.ngram!r}"
        elif seen is not None:
            first = seen.seen(row.language, text, row.prompt_id, under=under)
            why = f"says the same as prompt {first}" if first else None
        yield Rejected.of(f"prompt {row.prompt_id}", number, why, text) if why else row
