"""What gates read of a text: its letters, and what of it is no code."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

FIRST_IDEOGRAPH = "\u2e80"
"""From here on a letter (Han, kana, Hangul) says as much as two or three of an alphabet."""

_MIN_LETTERS = 20
_MIN_IDEOGRAPHS = 8
_CODE = re.compile(r"```.*?```|``[^`\n]+``|`[^`\n]+`", re.DOTALL)
# several gates in turn look at the same answer and at the same prompt
_TEXTS_OF_ONE_PROMPT = 16


@lru_cache(maxsize=_TEXTS_OF_ONE_PROMPT)
def letters(text: str) -> str:
    """The text's letters, marks and digits, case-folded: what is left when style is taken away.

    >>> letters("¿Qué? - Dos!"), letters("  ...  ")
    ('quédos', '')
    """
    return text.casefold().translate(_KEPT)


@lru_cache(maxsize=_TEXTS_OF_ONE_PROMPT)
def outside_code(text: str) -> str:
    """The text without its code: closed fences, and closed spans of one line.

    >>> outside_code("Use `print`: ```print(1)``` prints 1, and ```print(2) is left open.")
    'Use  :   prints 1, and ```print(2) is left open.'
    """
    return _CODE.sub(" ", text)


def long_enough_to_judge(text: str) -> bool:
    """Whether a text is more than a word or a name.

    >>> long_enough_to_judge("Lima"), long_enough_to_judge("ペルーの首都はリマです")
    (False, True)
    """
    found = letters(text)
    return len(found) >= _MIN_LETTERS or ideographs(found) >= _MIN_IDEOGRAPHS


def ideographs(text: str) -> int:
    """How many of its characters are Han, kana or Hangul.

    >>> ideographs("リマ is Lima")
    2
    """
    return sum(character >= FIRST_IDEOGRAPH for character in text)


class _Kept(dict[int, str | None]):
    """What `str.translate` makes of a character, worked out when it is first met."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        kept = character if unicodedata.category(character)[0] in "LMN" else None
        self[code] = kept
        return kept


_KEPT = _Kept()
