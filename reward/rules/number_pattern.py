"""The pattern of numbers in a plain text: digits, numerals, and what belongs to them."""

from __future__ import annotations

import re
from functools import cache

from arbitrage.language import UNDETERMINED
from reward.rules.number_words import HAN_NUMERALS, HAN_UNITS, MULTIPLIER
from reward.rules.plain_text import CURRENCY, NBSP
from reward.rules.separators import DECIMAL_COMMA

_VULGAR = "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞⅐⅑⅒"
_SIMPLE = r"\d+(?:[.,]\d+)*+"
_DATE = (
    r"(?<!\d)(?:\d{4}-\d{1,2}-\d{1,2}|\d{1,2}-\d{1,2}-\d{4}|\d{1,2}\.\d{1,2}\.\d{2,4}"
    r"|\d{1,2}/\d{1,2}/\d{2,4}|\d{4}/\d{1,2}/\d{1,2}|\d{1,4}年\d{1,2}月(?:\d{1,2}日)?"
    r"|\d{1,2}月\d{1,2}日|\d{1,2}(?::\d\d){1,2})(?![.,]?\d)"
)
_MINUS = rf"(?:(?<=[=({{:]\ )-\ |(?<=[=({{:])-\ |(?<![0-9A-Za-zÀ-ɏͰ-ӿ)\]%.'])-)(?:US)?[{CURRENCY}]?"
# digits before a unit, or numerals; hangul only behind digits; 千克 is a kilogram
_HAN = (
    rf"(?:百分之)?(?:{_SIMPLE}(?!千[克米瓦卡焦赫帕])[{HAN_UNITS}]|[{HAN_NUMERALS}])"
    rf"(?:{_SIMPLE}|\ (?=\d+[천백십])|[{HAN_NUMERALS}]|(?<=\d)[{HAN_UNITS}])*+"
)
_SCALE = (
    r"(?:\ ?[×x*·⋅]\ ?10(?P<power>\^\{?[-+]?\d{1,3}\}?|[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]{1,4})"
    r"|(?P<own>\^\{?\d{1,3}\}?|[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,3})|[eE](?P<exponent>[-+]?\d{1,3})(?!\w))?"
)


def pattern(language: str) -> re.Pattern[str]:
    """The pattern of a number in a plain text; every part of it is bounded or possessive."""
    return _compiled(f"{NBSP} " if language in DECIMAL_COMMA | {UNDETERMINED} else NBSP)


@cache
def _compiled(spaces: str) -> re.Pattern[str]:
    digits = (
        rf"\d{{1,3}}(?:[{spaces}]\d{{3}}){{1,12}}+(?!\d)(?:[.,٫]\d++)?"
        r"|\d++(?:[.,'٫]\d++)*+|(?<![\w.])\.\d++"
    )
    fraction = (
        rf"(?:(?:\ (?P<over>\d{{1,9}}))?/(?P<under>\d{{1,9}})(?![\d/])|\ ?(?P<more>[{_VULGAR}]))?"
    )
    word = rf"(?:[ {NBSP}]?(?P<word>(?i:{MULTIPLIER}))(?![A-Za-zÀ-ɏЀ-ӿ])|(?P<kilo>[kK])(?!\w))?"
    return re.compile(
        rf"(?=[-.\d{_VULGAR}{HAN_NUMERALS}])(?:(?P<date>{_DATE})|(?P<minus>{_MINUS})?"
        rf"(?:(?P<han>{_HAN})|(?P<digits>{digits}){fraction}{_SCALE}{word}|(?P<vulgar>[{_VULGAR}]))"
        rf"(?P<percent>[ {NBSP}]?(?:%|(?i:percent|per\ cent|prozent)))?)"
    )
