"""Preference pairs: two answers to a prompt, of which the first is better."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from arbitrage.errors import ConfigError, InvalidPrompt
from arbitrage.language import normalise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_TEXTS = ("language", "prompt", "chosen", "rejected")


@dataclass(frozen=True, slots=True)
class Pair:
    """A line of a file of pairs.

    Attributes:
        language: normalised BCP-47 tag.
        margin: by how much the chosen answer is better; a training may weigh pairs by it.
        prompt_id: pairs of one id are never parted by a split, such as those of a question
            asked in several languages; by default, the prompt itself.
    """

    language: str
    prompt: str
    chosen: str
    rejected: str
    margin: float = 1.0
    prompt_id: str = ""

    @property
    def group(self) -> str:
        """What pairs that a split keeps together have in common."""
        return self.prompt_id or self.prompt


def read_pairs(paths: Sequence[Path]) -> list[Pair]:
    """The pairs of JSONL files, gzipped where their name ends in `.gz`; blank lines are left out.

    Each line is an object with `language`, `prompt`, `chosen` and `rejected`, and may have a
    `margin` above 0 and a `prompt_id`; other keys are ignored.

    Raises:
        ConfigError: a file cannot be read, a line is wrong, or there is no pair at all.
    """
    pairs = [pair for path in paths for pair in _pairs_of(path)]
    if not pairs:
        raise ConfigError(
            f"{', '.join(map(str, paths))}: no pairs; give at least two prompts' pairs"
        )
    return pairs


def split(pairs: Sequence[Pair], holdout: float) -> tuple[list[Pair], list[Pair]]:
    """Parts the pairs into those to train on and those held out, by their prompts.

    A prompt is held out by a hash of its id alone: it stays so when other pairs come or go.

    Args:
        holdout: the share of prompts to hold out, in expectation.
    """
    held = {pair.group for pair in pairs if _place(pair.group) < holdout}
    return (
        [pair for pair in pairs if pair.group not in held],
        [pair for pair in pairs if pair.group in held],
    )


def _place(group: str) -> float:
    """A place in [0, 1) that depends on the text alone."""
    digest = hashlib.sha256(group.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _pairs_of(path: Path) -> Iterator[Pair]:
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _pair(line, f"{path}:{number}")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{path}: cannot be read: {reason}") from error


def _pair(line: str, where: str) -> Pair:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{where}: is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ConfigError(f'{where}: must be an object such as {{"language": "de", ...}}')
    for key in _TEXTS:
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise ConfigError(f"{where}: {key!r} must be text, and not empty")
    if row["chosen"] == row["rejected"]:
        raise ConfigError(f"{where}: 'chosen' and 'rejected' are the same; leave the pair out")
    try:
        language = normalise(row["language"])
    except InvalidPrompt as error:
        raise ConfigError(f"{where}: 'language': {error.reason}") from error
    return Pair(
        language=language,
        prompt=row["prompt"],
        chosen=row["chosen"],
        rejected=row["rejected"],
        margin=_margin(row.get("margin", 1.0), where),
        prompt_id=str(row.get("prompt_id") or ""),
    )


def _margin(value: Any, where: str) -> float:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not 0 < number < math.inf:
        raise ConfigError(f"{where}: 'margin' must be a number above 0")
    return float(number)
