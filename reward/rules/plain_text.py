"""Texts in ASCII digits and signs, without what nobody sees and without LaTeX's markup."""

from __future__ import annotations

import re
import unicodedata

NBSP = "\u00a0"
CURRENCY = "$€£¥₹৳฿₽₩₺₴₦₫¢"
_ALIKE = {
    ".": "．",
    ",": "，",
    ":": "：",
    "%": "％٪",
    "/": "／⁄∕",
    "-": "－−﹣‑–",
    "=": "＝",
    "+": "＋",
    "(": "（",
    ")": "）",
    "{": "｛",
    "}": "｝",
    "*": "＊",
    "$": "＄",
    "¥": "￥",
    "'": "’ʼ＇‘٬",
    " ": "\u3000",
    NBSP: "\u2006\u2007\u2008\u2009\u202f\u205f",
}
_CHARACTERS = str.maketrans({odd: plain for plain, odds in _ALIKE.items() for odd in odds})
_INVISIBLE = re.compile("[\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe0e\ufe0f\ufeff]")
_FOREIGN_DIGIT = re.compile(r"(?![0-9])\d")
_KEYCAP = re.compile(r"\d\u20e3")
_LATEX = (
    (re.compile(r"\\[dt]?frac\{([^{}\\]{1,40})\}\{([^{}\\]{1,40})\}"), r" \1/\2"),
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\{([^{}]{0,200})\}"), r" \1"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,;:! ]"), NBSP),
    (re.compile(r"\\(?:times|cdot)(?![a-z])"), "×"),
    (re.compile(r"\\(?=[%$#])"), ""),
)


def plain(text: str) -> str:
    r"""The text with ASCII digits and signs, without invisible characters and LaTeX's markup.

    The Arabic decimal separator stays: it means one thing only.

    >>> plain("১,২৩৪ − ٣٫٥ ＝ 1\u202f234"), plain(r"1{,}234 \text{km} 5\%")
    ('1,234 - 3٫5 = 1\xa0234', '1,234  km 5%')
    """
    if not text.isascii():
        text = _INVISIBLE.sub("", text).translate(_CHARACTERS)
        text = _KEYCAP.sub(" ", text)
        text = _FOREIGN_DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), text)
    if "\\" in text or "{" in text:
        for pattern, replacement in _LATEX:
            text = pattern.sub(replacement, text)
    return text
