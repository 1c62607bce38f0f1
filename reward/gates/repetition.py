"""The `repetition` gate: compression finds loops of any length, n-grams short ones.

Both count letters outside code, the digits left out where they only number what is
said again. The thresholds are measured (`docs/reward.md`): a letter of Han or kana is
a word, so windows of such text are shorter and its halves may share a little more.
"""

from __future__ import annotations

import array
import re
import zlib
from typing import TYPE_CHECKING

from reward.gates.letters import ideographs, letters, outside_code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbitrage.types import Completion, Prompt

_SHINGLE = 8
_MIN_SHINGLES = 24
_MIN_DISTINCT_SHARE = 0.5
_MIN_NEWS = 0.3
_MIN_NEWS_IN_IDEOGRAPHS = 0.35
# an answer that runs into a loop: somewhere, a window's second half adds nothing to its first
_WINDOW = 200
_WINDOW_OF_IDEOGRAPHS = 80
_MIN_NEWS_IN_WINDOW = 0.05
_MIN_DISTINCT_SHARE_IN_WINDOW = 0.3
# nearly all shingles distinct: there is nothing to compress, which takes longer than counting
_MAY_REPEAT_ITSELF = 0.95
_MAY_BE_LOOP = 0.7
# numbers of a table are what it says; those of a loop only count its rounds
_MOST_COUNTING_DIGITS = 0.1
_DIGITS = re.compile(r"\d+")
_ADDRESS = re.compile(r"https?://\S+")
# a text too short to count shingles in: three times the same, which is not a number
_ONE_UNIT = re.compile(r"(?=.*[^\W\d])(.{3,}?)\1{2,}")
_MOST_BYTE_LETTERS = 256
_SHOWN = 24
# what zlib writes for nothing at all
_EMPTY = len(zlib.compress(b""))


def repetition(_prompt: Prompt, completion: Completion) -> str | None:
    """Says the same again and again: a word, a sentence, or a whole paragraph a bit changed."""
    text = _said(completion.text)
    if len(text) < _SHINGLE + _MIN_SHINGLES - 1:
        unit = _ONE_UNIT.fullmatch(text)
        return f"is {unit.group(1)!r} again and again" if unit else None
    distinct = _distinct_share(text)
    if distinct < _MIN_DISTINCT_SHARE:
        return f"only {distinct:.0%} of it is new"
    in_ideographs = 2 * ideographs(text) > len(text)
    news = novelty(text) if distinct < _MAY_REPEAT_ITSELF else 1.0
    if news < (_MIN_NEWS_IN_IDEOGRAPHS if in_ideographs else _MIN_NEWS):
        return f"its second half is only {news:.0%} new"
    for start, window in _windows(text, _WINDOW_OF_IDEOGRAPHS if in_ideographs else _WINDOW):
        if _is_loop(window):
            return f"runs into a loop: {window[:_SHOWN]!r}, at letter {start}"
    return None


def novelty(text: str) -> float:
    """The share of a text's second half that its first half does not tell, by zlib.

    In characters, not in UTF-8: a byte that every letter of a script begins with would
    make all of its texts look alike. (Conditional compression, arXiv cs/0312044.)

    >>> novelty("to be or not to be " * 20) < 0.2 < novelty("to be or not to be, that is it")
    True
    """
    unit, whole = _encoded(text)
    middle = len(text) // 2 * unit
    added = _compressed(whole) - _compressed(whole[:middle])
    return max(0, added) / max(1, _compressed(whole[middle:]))


def _said(text: str) -> str:
    kept = letters(_ADDRESS.sub(" ", outside_code(text)))
    without_digits = _DIGITS.sub("", kept)
    only_count = len(kept) - len(without_digits) <= _MOST_COUNTING_DIGITS * len(kept)
    return without_digits if only_count else kept


def _distinct_share(text: str) -> float:
    count = len(text) - _SHINGLE + 1
    return len({text[i : i + _SHINGLE] for i in range(count)}) / count


def _is_loop(window: str) -> bool:
    distinct = _distinct_share(window)
    if distinct < _MIN_DISTINCT_SHARE_IN_WINDOW:
        return True
    return distinct < _MAY_BE_LOOP and novelty(window) < _MIN_NEWS_IN_WINDOW


def _windows(text: str, size: int) -> Iterator[tuple[int, str]]:
    last = len(text) - size
    for start in [*range(0, last, size // 2), last] if last >= 0 else ():
        yield start, text[start : start + size]


def _encoded(text: str) -> tuple[int, bytes]:
    """The text in an alphabet of its own, one or more bytes a character; and how many."""
    codes: dict[str, int] = {}
    numbers = [codes.setdefault(character, len(codes)) for character in text]
    if len(codes) <= _MOST_BYTE_LETTERS:
        return 1, bytes(numbers)
    kind = array.array("H" if len(codes) <= _MOST_BYTE_LETTERS**2 else "L", numbers)
    return kind.itemsize, kind.tobytes()


def _compressed(text: bytes) -> int:
    return len(zlib.compress(text)) - _EMPTY
