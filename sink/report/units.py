"""Figures in words: what a number of the report reads like."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import langcodes
from langcodes.tag_parser import LanguageTagError

from arbitrage.language import UNDETERMINED

if TYPE_CHECKING:
    from datetime import datetime

NONE = "–"
_MINUTE = 60.0
_ROUND = 100.0  # from here on, figures need no decimals


def share(part: float, whole: float = 1.0) -> str:
    """A percentage; with a decimal where it would be 0 or 100 and is not.

    >>> share(1, 3), share(1, 300), share(0), share(9999, 10000), share(1, 0)
    ('33%', '0.3%', '0%', '99.9%', '–')
    """
    if not whole:
        return NONE
    percent = 100.0 * part / whole
    if percent in {0.0, 100.0} or round(percent) not in {0, 100}:
        return f"{percent:.0f}%"
    return f"{min(max(percent, 0.1), 99.9):.1f}%"


def usd(value: float | None) -> str:
    """US dollars, to two digits at least.

    >>> usd(0), usd(0.00423), usd(1.5), usd(12345.6), usd(None)
    ('$0', '$0.0042', '$1.50', '$12,346', '–')
    """
    if value is None:
        return NONE
    if value >= _ROUND:
        return f"${value:,.0f}"
    if value >= 1.0:
        return f"${value:.2f}"
    return f"${value:.{1 - math.floor(math.log10(value))}f}" if value > 0.0 else "$0"


def reward(value: float | None, *, sign: bool = False) -> str:
    """A reward, with a minus that is as wide as the plus.

    >>> reward(0.5), reward(-1.25, sign=True), reward(0.5, sign=True), reward(-0.001), reward(250)
    ('0.50', '−1.25', '+0.50', '0.00', '250')
    """
    if value is None or not math.isfinite(value):
        return NONE
    digits = 0 if abs(value) >= _ROUND else 2
    text = f"{round(value, digits) + 0.0:{'+' if sign else ''}.{digits}f}"
    return text.replace("-", "−")


def seconds(value: float | None) -> str:
    """A time that one waits.

    >>> seconds(0.0123), seconds(0.84), seconds(12.3), seconds(150)
    ('12 ms', '0.84 s', '12 s', '2.5 min')
    """
    if value is None:
        return NONE
    if value < 0.1:  # noqa: PLR2004
        return f"{value * 1000:.0f} ms"
    if value < 10.0:  # noqa: PLR2004
        return f"{value:.2g} s"
    return f"{value:.0f} s" if value < _MINUTE else f"{value / _MINUTE:.1f} min"


def ratio(part: float, whole: float) -> str:
    """So many a piece, such as calls a prompt.

    >>> ratio(5, 2), ratio(1, 0)
    ('2.50', '–')
    """
    return f"{part / whole:.2f}" if whole else NONE


def plural(number: int, noun: str) -> str:
    """A number and what is counted.

    >>> plural(1, "sample"), plural(1200, "sample")
    ('1 sample', '1,200 samples')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def period(first: datetime, last: datetime) -> str:
    """From when to when, in UTC.

    >>> from datetime import datetime
    >>> period(datetime(2026, 1, 2, 3, 4), datetime(2026, 1, 2, 5, 6))
    '2 January 2026, 03:04–05:06 UTC'
    >>> period(datetime(2026, 1, 2, 3, 4), datetime(2026, 1, 12, 5, 6))
    '2 January 2026 – 12 January 2026'
    """

    def day(moment: datetime) -> str:
        return f"{moment.day} {moment:%B %Y}"

    if first.date() == last.date():
        until = "" if f"{first:%H:%M}" == f"{last:%H:%M}" else f"–{last:%H:%M}"
        return f"{day(first)}, {first:%H:%M}{until} UTC"
    return f"{day(first)} – {day(last)}"


@lru_cache(maxsize=4096)
def language(tag: str) -> str:
    """A language's name in English.

    >>> [language(tag) for tag in ("de", "zh-Hant", "und", "no such tag")]
    ['German', 'Chinese (Traditional)', 'undetermined', 'no such tag']
    """
    if tag == UNDETERMINED:
        return "undetermined"
    try:
        return str(langcodes.Language.get(tag).display_name())
    except (LanguageTagError, ValueError, LookupError):
        return tag
