"""How many tokens a text is likely to be, where nobody can count them: by its scripts.

Measured as characters a token over MGSM's prompts (bn de en es fr ja ru sw te th zh), prompts
and answers of multilingual MT-Bench and Shaberi (de en fr ja ru zh), and sentences of this
project's own in 14 languages; the tokenizers are those of Gemma 3, Qwen 3, Llama 3 and GPT-4o
(`o200k_base`), whose mean is what is expected, and GPT-4's (`cl100k_base`), which with them
makes the most. Models with a small, English vocabulary need up to twice as many.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arbitrage.types import Prompt

AROUND_A_MESSAGE = 4
"""Tokens that a chat template writes around a message."""

_ENGLISH = (4.0, 3.1)  # prose; code, where the second is measured, needs more
_LATIN = (3.6, 2.5)  # of any other language, and figures and spaces between other scripts
_UNMEASURED = (1.2, 0.4)
_SCRIPTS: tuple[tuple[int, tuple[float, float]], ...] = (
    (0x0080, (2.0, 1.0)),  # accented Latin letters: not measured by themselves
    (0x0370, _UNMEASURED),  # Greek
    (0x0400, (2.8, 1.5)),  # Cyrillic: Russian 3.2, Ukrainian 2.4
    (0x0530, _UNMEASURED),  # Armenian, Hebrew
    (0x0600, (2.6, 1.2)),  # Arabic
    (0x0700, _UNMEASURED),
    (0x0900, (1.7, 0.85)),  # Devanagari
    (0x0980, (1.2, 0.7)),  # Bengali
    (0x0A00, _UNMEASURED),  # Gurmukhi, Gujarati, Tamil
    (0x0C00, (0.9, 0.5)),  # Telugu
    (0x0C80, (0.9, 0.5)),  # Kannada, Malayalam: taken for alike
    (0x0E00, (2.0, 1.0)),  # Thai
    (0x0E80, _UNMEASURED),
    (0x1E00, (2.0, 1.0)),  # Latin of Vietnamese
    (0x1F00, _UNMEASURED),
    (0x2000, (1.5, 0.7)),  # punctuation
    (0x2070, _UNMEASURED),
    (0x3000, (1.4, 0.9)),  # Japanese
    (0x3100, _UNMEASURED),
    (0x3400, (1.2, 0.75)),  # Chinese characters
    (0xA000, _UNMEASURED),
    (0xAC00, (1.4, 0.8)),  # Korean
    (0xD7B0, _UNMEASURED),
    (0xFF00, (1.2, 0.75)),  # wide forms
    (0x10000, (0.5, 0.3)),  # emoji and rare scripts
)
_STARTS = [start for start, _ in _SCRIPTS]
_ASCII = re.compile(r"[\x00-\x7f]+")
_LOOKED_AT = 64  # characters that tell the scripts of a text


@dataclass(frozen=True, slots=True)
class Tokens:
    """A number of tokens: as expected, and at most."""

    expected: float
    most: float

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.expected + other.expected, self.most + other.most)


def of_text(text: str, language: str) -> Tokens:
    """Tokens of a text.

    >>> of_text("Where is Lima?", "en")
    Tokens(expected=3.5, most=4.516129032258064)
    >>> of_text("リマはどこですか", "ja").expected.__round__()
    6

    Args:
        text: of any length.
        language: its normalised tag, which tells English from other Latin scripts.
    """
    usual, fewest = _ENGLISH if language == "en" else _LATIN
    if text.isascii():
        return Tokens(len(text) / usual, len(text) / fewest)
    foreign = _ASCII.sub("", text)
    ascii_ = len(text) - len(foreign)
    expected, most = ascii_ / usual, ascii_ / fewest
    seen = foreign[:: -(-len(foreign) // _LOOKED_AT)]
    each = len(foreign) / len(seen)
    for script, count in Counter(bisect_right(_STARTS, ord(c)) - 1 for c in seen).items():
        usual, fewest = _SCRIPTS[script][1]
        expected += count * each / usual
        most += count * each / fewest
    return Tokens(expected, most)


def of_prompt(prompt: Prompt) -> Tokens:
    """Tokens of a conversation, with what stands around its messages."""
    total = Tokens(0.0, 0.0)
    for message in prompt.messages:
        around = Tokens(AROUND_A_MESSAGE, AROUND_A_MESSAGE)
        total += of_text(message.content, prompt.language) + around
    return total
