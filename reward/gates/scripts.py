"""The scripts of languages, and how much of a text is written in which."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import langcodes

from reward.gates.letters import FIRST_IDEOGRAPH

if TYPE_CHECKING:
    from collections.abc import Mapping

LATIN = "Latn"
_RANGES: Mapping[str, str] = {
    LATIN: "A-Za-zªºÀ-ÖØ-öø-ɏḀ-ỿＡ-Ｚａ-ｚ",
    "Cyrl": "Ѐ-ԯ",
    "Grek": "Ͱ-Ͽἀ-῿",
    "Arab": "؀-ۿݐ-ݿࢠ-ࣿﭐ-﷿ﹰ-ﻼ",
    "Hebr": "֐-׿",
    "Deva": "ऀ-ॿ",
    "Beng": "ঀ-৿",
    "Guru": "਀-੿",
    "Gujr": "઀-૿",
    "Orya": "଀-୿",
    "Taml": "஀-௿",
    "Telu": "ఀ-౿",
    "Knda": "ಀ-೿",
    "Mlym": "ഀ-ൿ",
    "Sinh": "඀-෿",
    "Thai": "฀-๿",
    "Laoo": "຀-໿",
    "Tibt": "ༀ-࿿",
    "Mymr": "က-႟",
    "Geor": "Ⴀ-ჿ",
    "Armn": "԰-֏",
    "Ethi": "ሀ-፿",
    "Khmr": "ក-៿",
    "Hang": "ᄀ-ᇿ㄰-㆏가-힯",
    "Kana": "ぁ-ヿㇰ-ㇿｦ-ﾟ",
    "Hani": "々㐀-䶿一-鿿豈-﫿",
}
_LATIN = re.compile(f"[{_RANGES[LATIN]}]+")
_LETTER = re.compile("|".join(f"(?P<{script}>[{letters}])" for script, letters in _RANGES.items()))
_TOGETHER = {
    "Jpan": ("Kana", "Hani"),
    "Kore": ("Hang", "Hani"),
    "Hans": ("Hani",),
    "Hant": ("Hani",),
}
# written in either by many: no answer is wrong for its script
_IN_TWO_SCRIPTS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("sr", "bs", "mn", "uz", "az", "kk", "ky", "tk", "tt"), (LATIN, "Cyrl")),
    **dict.fromkeys(("ku", "ckb", "ug"), (LATIN, "Arab", "Cyrl")),
    "pa": ("Guru", "Arab"),
    "sd": ("Arab", "Deva"),
    "ks": ("Arab", "Deva"),
    "ms": (LATIN, "Arab"),
    "ha": (LATIN, "Arab"),
}
# a letter of Han, kana or Hangul is worth as many of an alphabet
_IDEOGRAPH = 2.5
_WORDS = re.compile(r"[^\W\d_]{2,}")


@cache
def scripts_of(language: str) -> tuple[str, ...]:
    """The scripts that a language is written in; none where this module does not know them.

    >>> scripts_of("ja"), scripts_of("sr"), scripts_of("hi"), scripts_of("dv")
    (('Kana', 'Hani'), ('Latn', 'Cyrl'), ('Deva',), ())
    """
    tag = language.split("-", maxsplit=1)[0]
    if tag in _IN_TWO_SCRIPTS:
        return _IN_TWO_SCRIPTS[tag]
    script = str(langcodes.Language.get(language).maximize().script)
    scripts = _TOGETHER.get(script, (script,))
    return scripts if all(script in _RANGES for script in scripts) else ()


def weights(text: str) -> dict[str, float]:
    """How much of a text is in each script, in letters of an alphabet; the most first.

    >>> weights("リマ is Lima")
    {'Latn': 6.0, 'Kana': 5.0}
    """
    found: defaultdict[str, float] = defaultdict(float)
    for character, count in Counter(text).items():
        if script := _script_of(character):
            found[script] += count * (_IDEOGRAPH if character >= FIRST_IDEOGRAPH else 1)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


@lru_cache(maxsize=65_536)
def _script_of(character: str) -> str | None:
    letter = _LETTER.match(character)
    return letter.lastgroup if letter else None


def share(text: str, scripts: tuple[str, ...]) -> float:
    """The share of a text's letters that is in one of these scripts; 0 without letters."""
    found = weights(text)
    total = sum(found.values())
    return sum(found.get(script, 0.0) for script in scripts) / total if total else 0.0


def without_latin(text: str) -> str:
    """The text without its Latin letters: the terms and names in a text of another script."""
    return _LATIN.sub(" ", text)


def is_prose_in_latin(text: str) -> bool:
    """Whether most of its words are written small, as those of sentences are and names are not."""
    words = [word.group() for word in _WORDS.finditer(text)]
    return 2 * sum(word.islower() for word in words) > len(words) > 0
