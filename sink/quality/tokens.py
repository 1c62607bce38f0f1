"""What a text is made of, in any script: words, or letters where no spaces part the words."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Scripts that write their words without spaces, as Unicode names their characters.
_WITHOUT_SPACES = (
    *("CJK ", "HIRAGANA ", "KATAKANA", "IDEOGRAPHIC ", "BOPOMOFO ", "YI "),
    *("THAI ", "LAO ", "KHMER ", "MYANMAR ", "TAI ", "NEW TAI ", "JAVANESE ", "BALINESE "),
)
_WORD = frozenset("LMN")  # letters, marks, numbers: Indic vowels are marks
_OPERATORS = frozenset("+-*/\\%&#@=<>^|~$")


class _Table(dict[int, str]):
    """What `str.translate` makes of a character, worked out when it is first met."""

    def __init__(self, *, operators: bool) -> None:
        super().__init__()
        self._operators = operators

    def __missing__(self, code: int) -> str:
        self[code] = part = self._part(chr(code))
        return part

    def _part(self, character: str) -> str:
        category = unicodedata.category(character)
        # joiners and variation selectors stand within a word and change nothing of it
        if category == "Cf" or unicodedata.name(character, "").startswith("VARIATION "):
            return ""
        if category[0] in _WORD:
            return f" {character} " if _stands_alone(character) else character
        if self._operators and (category[0] == "S" or character in _OPERATORS):
            return f" {character} "
        return " "


@lru_cache(maxsize=1 << 16)
def _stands_alone(token: str) -> bool:
    return len(token) == 1 and unicodedata.name(token, "").startswith(_WITHOUT_SPACES)


_WORDS = _Table(operators=False)
_ALL = _Table(operators=True)


def tokens(text: str, *, operators: bool = False) -> list[str]:
    """The words of a text, after NFKC and case folding; punctuation and spaces are left out.

    Where no spaces part the words, every letter is a token, and so is a vowel sign: to find
    the words would take a dictionary for each language, and two texts that share a letter
    run share their words, too.

    Args:
        text: in any script, or several.
        operators: keep symbols and signs of arithmetic as tokens: without them, `2+2` and
            `2-2` are the same.

    >>> tokens("What's NEW, in Zürich?"), tokens("Python的列表"), tokens("हिन्दी में")
    (['what', 's', 'new', 'in', 'zürich'], ['python', '的', '列', '表'], ['हिन्दी', 'में'])
    >>> tokens("2+2 = ４!", operators=True)
    ['2', '+', '2', '=', '4']
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return folded.translate(_ALL if operators else _WORDS).split()


def in_letters(parts: Sequence[str]) -> bool:
    """Whether most of these tokens are letters of a script without spaces.

    >>> in_letters(tokens("Python的列表推导式")), in_letters(tokens("The word 的 is common"))
    (True, False)
    """
    return 2 * sum(map(_stands_alone, parts)) > len(parts)
