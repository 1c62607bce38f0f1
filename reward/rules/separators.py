"""What the points, commas, spaces and apostrophes in a number mean."""

from __future__ import annotations

import re
from fractions import Fraction

from arbitrage.language import UNDETERMINED
from reward.rules.plain_text import NBSP

_MAX_DIGITS = 400  # more than a float has; arithmetic on hostile input stays cheap
_DECIMAL_COMMA = (
    "af az be bg bs ca cs da de el es et eu fi fr gl hr hu hy id is it ka kk ky lt lv mk mn nb"
    " nl nn no pl pt ro ru sk sl sq sr sv tg tk tr uk uz vi"
)
DECIMAL_COMMA = frozenset(_DECIMAL_COMMA.split())
"""Languages that write 1.234,5 or 1 234,5."""
_GROUPED = re.compile(r"[1-9]\d{0,2}([.,'])\d{3}(?:\1\d{3})*|[1-9]\d?(?:,\d\d)+,\d{3}")
_SPACES = str.maketrans({" ": "'", NBSP: "'"})


def readings(digits: str, language: str) -> tuple[Fraction, ...]:
    """The values of digits with separators among them, the likeliest first; none if unreadable.

    One separator before three digits is ambiguous. A language says which it is; only
    a comma where the decimal comma is at home counts both ways, since many write English
    numbers there.

    >>> readings("1.234,5", "en"), readings("1,00,000", "bn")
    ((Fraction(2469, 2),), (Fraction(100000, 1),))
    >>> readings("1.500", "en"), readings("1.500", "de")
    ((Fraction(3, 2),), (Fraction(1500, 1),))
    >>> readings("1,500", "en"), readings("1,500", "de")
    ((Fraction(1500, 1),), (Fraction(3, 2), Fraction(1500, 1)))
    """
    if len(digits) > _MAX_DIGITS:
        return ()
    digits = digits.translate(_SPACES)
    grouped, decimal = _grouped(digits), _decimal(digits)
    if grouped is None or decimal is None:
        return tuple(value for value in (grouped, decimal) if value is not None)
    comma = "," in digits
    if language == UNDETERMINED:
        return (grouped, decimal) if comma else (decimal, grouped)
    if language in DECIMAL_COMMA:
        return (decimal, grouped) if comma else (grouped,)
    return (grouped,) if comma else (decimal,)


def _grouped(digits: str) -> Fraction | None:
    """The value where every separator is there for the eye."""
    if digits.isdigit() or _GROUPED.fullmatch(digits):
        return Fraction(int(re.sub(r"\D", "", digits)))
    return None


def _decimal(digits: str) -> Fraction | None:
    """The value where the last separator is the decimal one, and the only one of its kind."""
    whole, decimals = re.fullmatch(r"(?:(.*)\D)?(\d*)", digits, re.DOTALL).groups()  # type: ignore[union-attr]
    if whole is None:
        return None
    mark = digits[len(whole)]
    value = _grouped(whole) if whole else Fraction(0)
    if mark == "'" or mark in whole or value is None:
        return None
    return value + Fraction(int(decimals), 10 ** len(decimals))
