"""Reading numbers as people write them, in the digits, separators and words of many scripts.

What a separator means depends on the language and on the shape. All values are exact.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from reward.rules.number_pattern import pattern
from reward.rules.number_words import HAN_UNITS, han_number, multiplier
from reward.rules.plain_text import CURRENCY, NBSP, plain
from reward.rules.separators import readings

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_WRITTEN = 1000
_MAX_NUMERALS = 40
_MAX_BEFORE = 10
_CURRENCY_WORDS = (
    "rs inr us usd eur gbp jpy cny rmb sh ksh kes tsh tzs ush ugx rub thb bdt tk chf kr sek nok"
    " dkk pln r zar n ngn c ca cad a au aud nt ntd hk hkd s sgd php brl mxn krw try"
)
_CURRENCY_LETTERS = frozenset(_CURRENCY_WORDS.split())
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SWAHILI = {"elfu ": 10**3, "laki ": 10**5, "milioni ": 10**6, "bilioni ": 10**9}

_MINUS_WORD = re.compile(
    r"(?<![^\W\d])(?<!\d\s)(?:(?i:minus|moins|menos|минус|negative)\s|(?:マイナス|负|負|ลบ)\s?)$"
)


@dataclass(frozen=True, slots=True)
class Number:
    """A number that stands in a text.

    Attributes:
        start, end: where, in the text made `plain`.
        digits: itself with sign and separators, when nothing else belongs to it; or empty.
        readings: what it may mean, the likeliest first; none for a date, a time or a
            list, and for what has more digits than anybody counts.
        percent: whether a percent sign belongs to it, which the readings leave out.
        certain: whether it is there to count: not the 2 of "CO2", nor the 一 of 一起.
    """

    start: int
    end: int
    digits: str
    readings: tuple[Fraction, ...]
    percent: bool
    certain: bool


def find(text: str, language: str = "en") -> Iterator[Number]:
    """The numbers of a plain text, in order.

    >>> [str(n.readings[0]) for n in find("16 - 3,5 = 12,5; 1.234 €; 1 ½; 三十六", "de")]
    ['16', '7/2', '25/2', '1234', '3/2', '36']
    """
    language = language.partition("-")[0]
    return (read(found, language) for found in pattern(language).finditer(text))


def parse(text: str, language: str = "en") -> Number | None:
    """The number that a text is, with a currency or a percent sign at most.

    >>> parse(" $1,234.50 ").readings
    (Fraction(2469, 2),)
    >>> parse("3 apples"), parse("2024-05-01")
    (None, None)
    """
    if len(text) > _MAX_WRITTEN:
        return None
    written = plain(text).strip(f"{CURRENCY}. \t\n{NBSP}")
    numbers = list(find(written, language))
    if len(numbers) != 1 or not numbers[0].readings:
        return None
    (number,) = numbers
    around = written[: number.start] + written[number.end :]
    return None if around.strip(f"{CURRENCY} {NBSP}") else number


def agree(expected: Number, answer: Number) -> bool:
    """Whether an answer is the expected number.

    Exactly so, or, where at least two decimals are expected, once rounded to as many.
    "25 %" is 25 as well as 0.25 where only one of the two has a percent sign.
    """
    if expected.digits and expected.digits == answer.digits and expected.percent == answer.percent:
        return True
    wanted = expected.readings[0]
    decimals = len(expected.digits.rpartition(".")[2]) if "." in expected.digits else 0
    tolerance = Fraction(1, 2 * 10**decimals) if decimals > 1 else 0
    return any(
        abs(value - wanted) <= tolerance
        for reading in answer.readings
        for value in _comparable(reading, expected, answer)
    )


def read(found: re.Match[str], language: str) -> Number:
    """What a match of `pattern` means."""
    values: tuple[Fraction, ...] = ()
    percent, certain, digits = bool(found["percent"]), True, ""
    if found["han"]:
        numerals = found["han"].removeprefix("百分之")
        percent |= numerals != found["han"]
        values = _han(numerals)
        certain = percent or _counts(numerals)
    elif found["vulgar"]:
        values = (_vulgar(found["vulgar"]),)
    elif found["digits"]:
        factor = _factor(found, language)
        values = tuple(
            scaled if factor == 1 else scaled * factor
            for value in readings(found["digits"], language)
            if (scaled := _scaled(value, found)) is not None
        )
        if found["kilo"] == "K":  # kelvin, too
            values += tuple(value / 1000 for value in values)
        certain = _stands_alone(found)
        bare = (found["minus"] or "") + found["digits"] + (found["percent"] or "")
        digits = found["digits"] if found[0] == bare and factor == 1 else ""
    before = found.string[max(0, found.start() - _MAX_BEFORE) : found.start()]
    if found["minus"] or _MINUS_WORD.search(before):
        values, digits = tuple(-value for value in values), digits and f"-{digits}"
    return Number(
        start=found.start(),
        end=found.end(),
        digits=digits,
        readings=values,
        percent=percent,
        certain=certain and bool(values),
    )


def _comparable(reading: Fraction, expected: Number, answer: Number) -> tuple[Fraction, ...]:
    """What to hold against the expected number: percent signs may be missing on one side."""
    if expected.percent == answer.percent:
        return (reading,)
    if expected.percent:
        return (reading, reading * 100)
    # 0.25 is 25 %, and never 0.25 %
    return (reading / 100,) if abs(expected.readings[0]) < 1 else (reading, reading / 100)


def _scaled(value: Fraction, found: re.Match[str]) -> Fraction | None:
    """The value with the fraction and the power of ten behind it."""
    if found["under"]:
        under = int(found["under"])
        if not under:
            return None
        value = value + Fraction(int(found["over"]), under) if found["over"] else value / under
    elif found["more"]:
        value += _vulgar(found["more"])
    if found["own"]:
        written = max(abs(value.numerator), value.denominator)
        return value ** _exponent(found["own"]) if written < _MAX_WRITTEN else None
    power = found["power"] or found["exponent"]
    return value * Fraction(10) ** _exponent(power) if power else value


def _exponent(written: str) -> int:
    return int(written.translate(_SUPERSCRIPTS).strip("^{}"))


def _factor(found: re.Match[str], language: str) -> int:
    if found["word"]:
        return multiplier(found["word"], language)
    if found["kilo"]:
        return 1000
    if language == "sw":
        before = found.string[max(0, found.start() - _MAX_BEFORE) : found.start()].lower()
        return next((value for word, value in _SWAHILI.items() if before.endswith(word)), 1)
    return 1


def _han(numerals: str) -> tuple[Fraction, ...]:
    value = han_number(numerals) if len(numerals) <= _MAX_NUMERALS else None
    return () if value is None else (value,)


def _counts(numerals: str) -> bool:
    """Whether Han numerals are a number, and not a part of a word such as 一起 or 万一."""
    if any(c.isascii() for c in numerals):
        return True
    return (
        len(numerals) > 1
        and numerals[0] not in "百千万萬億亿兆"
        and any(c in HAN_UNITS for c in numerals)
    )


def _vulgar(character: str) -> Fraction:
    return Fraction(unicodedata.numeric(character)).limit_denominator(10)


def _stands_alone(found: re.Match[str]) -> bool:
    """Whether no letter or circumflex makes it a part of a name: CO2, x2, 10^{2}."""
    before = found.string[max(0, found.start() - _MAX_BEFORE) : found.start()]
    if before.endswith(("^", "^{", "_{")):
        return False
    letters = re.search(r"[^\W\d_]*$", before)
    word = letters[0] if letters else ""
    cased = bool(word) and word[-1].lower() != word[-1].upper()
    return not cased or word.lower() in _CURRENCY_LETTERS
