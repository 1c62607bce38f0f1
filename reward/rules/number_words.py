"""Numbers written with words: Han numerals, multipliers such as "million", the small numbers."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

_HAN_DIGITS = {
    digit: value
    for value, digits in enumerate(
        ("〇零", "一壹", "二两兩贰貳", "三叁參", "四肆", "五伍", "六陆陸", "七柒", "八捌", "九玖")
    )
    for digit in digits
}
_TENS = {
    unit: value
    for value, units in ((10, "十拾십"), (100, "百佰백"), (1000, "千仟천"))
    for unit in units
}
_MYRIADS = {
    unit: value
    for value, units in ((10**4, "万萬만"), (10**8, "億亿억"), (10**12, "兆조"))
    for unit in units
}
HAN_UNITS = "".join((*_TENS, *_MYRIADS))
# hangul are letters of ordinary words, and count only behind digits
HAN_NUMERALS = "".join(c for c in (*_HAN_DIGITS, *_TENS, *_MYRIADS) if c < "\uac00")
_ATOM = re.compile(r"(\d+(?:[.,]\d+)*+)|(\S)")

_MULTIPLIERS: dict[int, str] = {
    10**3: "thousands? tausend mille mil mila tysięcy tysiące tisíc ribu nghìn ngàn elfu duizend"
    " tusen тысяч[аи]? тыс тисяч[аі]? হাজার వేలు వేల वेल हज़ार हजार ألف آلاف พัน(?!ธ)",
    10**4: "หมื่น",
    10**5: "lakhs? laki লাখ লক্ষ(?!্) లక్షలు లక్షల లక్ష(?!్) लाख แสน",
    10**6: "millions? millionen mio millón millones milhão milhões milione milioni miljoen juta"
    " triệu milyon миллион(?:а|ов)? млн мільйон(?:а|ів)? মিলিয়ন మిలియన్లు మిలియన్ मिलियन"
    " مليون ملايين ล้าน",
    10**7: "crores? কোটি కోట్లు కోట్ల కోటి करोड़ करोड",
    10**9: "billions? milliarden? mrd milliards? bilioni miliardo miliardi miljard"
    " миллиард(?:а|ов)? млрд мільярд(?:а|ів)? tỷ milyar বিলিয়ন బిలియన్ مليار"
    " mil\\smillones พันล้าน",
    10**12: "trillions? billionen billones bilhões trilioni",
}
_BY_WORD = [
    (re.compile(word, re.IGNORECASE), value)
    for value, words in _MULTIPLIERS.items()
    for word in words.split()
]
MULTIPLIER = "|".join(
    sorted((word for words in _MULTIPLIERS.values() for word in words.split()), key=len)[::-1]
)
"""A pattern of all words that multiply the number before them."""

_SMALL = (
    "zero null zéro cero ноль",
    "one eins un uno una один одна",
    "two zwei deux dos два две",
    "three drei trois tres три",
    "four vier quatre cuatro четыре",
    "five fünf cinq cinco пять",
    "six sechs seis шесть",
    "seven sieben sept siete семь",
    "eight acht huit ocho восемь",
    "nine neun neuf nueve девять",
    "ten zehn dix diez десять",
    "eleven elf onze once одиннадцать",
    "twelve zwölf douze doce двенадцать",
)
_SMALL_NUMBERS = {word: value for value, words in enumerate(_SMALL) for word in words.split()}


@lru_cache(maxsize=1024)
def multiplier(word: str, language: str) -> int:
    """What a word that `MULTIPLIER` has matched multiplies by.

    >>> multiplier("Lakh", "en"), multiplier("billion", "en"), multiplier("Billion", "de")
    (100000, 1000000000, 1000000000000)
    """
    if word.casefold() == "billion" and language in {"de", "fr", "es", "nl"}:
        return 10**12
    return next(value for pattern, value in _BY_WORD if pattern.fullmatch(word))


def small_number(word: str) -> int | None:
    """A number up to twelve by its English, German, French, Spanish or Russian name."""
    return _SMALL_NUMBERS.get(word.casefold())


def han_number(text: str) -> Fraction | None:
    """Reads Han numerals, digits among them; None where they are no number.

    >>> [str(han_number(t)) for t in ("三十六", "两千零五", "1万2千", "3億5000万", "二〇二四")]
    ['36', '2005', '12000', '350000000', '2024']
    """
    if all(c in _HAN_DIGITS for c in text):
        return Fraction(int("".join(str(_HAN_DIGITS[c]) for c in text)))
    total = section = Fraction(0)
    last: Fraction | None = None
    for digits, sign in _ATOM.findall(text):
        if sign in _TENS:
            section += (1 if last is None else last) * _TENS[sign]
            last = None
        elif sign in _MYRIADS:
            section += last or 0
            total += (section or 1) * _MYRIADS[sign]
            section, last = Fraction(0), None
        elif last:
            return None
        else:
            last = Fraction(digits.replace(",", "")) if digits else Fraction(_HAN_DIGITS[sign])
    return total + section + (last or 0)
