"""The number that an answer ends up with, after all those on the way to it."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from reward.rules import numbers
from reward.rules.answer_marks import marked
from reward.rules.number_pattern import pattern
from reward.rules.number_words import small_number
from reward.rules.numbers import Number
from reward.rules.plain_text import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reward.rules.answer_marks import Marked

_TAIL = 4000
_MAX_LEAD = 25
_MAX_SAID_LEAD = 80
_MAX_GAP = 25
_MAX_CHAIN = 12
_MAX_SPELLED = 50
_MAX_WORDS = 3
_OPERATOR = re.compile(r"[-+/×x÷·=≈]|(?<!\*)\*(?!\*)")
_EQUALS = re.compile("[=≈]")
_CLAUSE = re.compile(r"[,;!?()\n。，；！？、।]|\.(?:\s|$)")
_SENTENCE = re.compile(r"(?<!\b\w)(?<!\b\w\w)[.!?](?=\s|$)|[。！？।\n]")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff]")
_REASON = re.compile(
    r"\(|\b(?:because|since|weil|denn|da|car|puisque|porque|ya que|pues|perché|так как|потому)\b"
    r"|因为|因為|から|ので|เพราะ|เนื่องจาก|কারণ|ఎందుకంటే|क्योंकि|لأن|kwa sababu|왜냐하면",
    re.IGNORECASE,
)
_BOLD = re.compile(r"(\*\*|__)(?=\S)([^*_\n]{1,120})\1(?!\s?[:：])")
_STEP = re.compile(
    r"\s*(?:step|schritt|paso|passo|étape|шаг|крок|ステップ|手順|步骤|步驟|第|ধাপ|దశ|ขั้นตอน|hatua|단계"
    r"|चरण|الخطوة|خطوة|krok|adım|langkah|bước)",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]+")
_DIGIT = re.compile(r"\d")
_NOTHING = Number(0, 0, "", (), percent=False, certain=False)


def final_number(text: str, language: str) -> Number | None:
    """The number that an answer gives in the end.

    Marked parts decide, the most telling first; then an amount in bold in the last line
    that has a number; then the last number. Of an equation it is the side that is one number.

    Args:
        text: the answer.
        language: normalised tag of the prompt; it decides what separators mean.

    Returns:
        None where there is no number, or where a box holds several.

    >>> final_number("Sie hat 9 Eier. **Antwort:** 1.018 €, denn 9 + 1009 = 1018.", "de").digits
    '1.018'
    """
    language = language.partition("-")[0]
    backwards = _DIGIT.search(text[::-1])
    last_digit = len(text) - backwards.start() if backwards else 0
    for part in marked(text):
        found = _in_marked(part, language, followed=part.end < last_digit)
        if found:
            return found if found.readings else None
    # where the last few thousand characters have no digit, those around the last one count
    end = len(text) if last_digit > len(text) - _TAIL else last_digit or len(text)
    start = max(0, end - _TAIL)
    tail = plain(text[start : end + _MAX_GAP])
    return _in_bold(tail, language) or _last(tail, language, cut=start > 0) or _spelled(text)


def _in_marked(part: Marked, language: str, *, followed: bool) -> Number | None:
    segment = plain(part.text)
    found = [number for number in numbers.find(segment, language) if number.readings]
    found = [number for number in found if number.certain] or found
    if not found:
        return _spelled(segment)
    lead = segment[: found[0].start]
    chain = _chain(segment, found, 0)
    if part.by == "box" and len(chain) < len(found):
        return _NOTHING
    said = part.by == "said" and len(lead) <= _MAX_SAID_LEAD and not _SENTENCE.search(lead)
    if part.by == "box" or said or _bare(lead):
        return _result(segment, chain) or chain[0]
    if followed:
        return None  # a heading, and the way to the answer behind it
    reason = _REASON.search(segment, found[0].end)
    before = [number for number in found if not reason or number.end <= reason.start()]
    return _result(segment, _chain(segment, before, len(before) - 1)) or before[-1]


def _in_bold(text: str, language: str) -> Number | None:
    """The last amount in bold, where the last line with a number has one."""
    lines = [line for line in text.splitlines() if _DIGIT.search(line)]
    for bold in reversed(_BOLD.findall(lines[-1]) if lines else []):
        content = bold[1]
        found = [number for number in numbers.find(content, language) if number.certain]
        if found and _bare(content[: found[0].start]) and not _STEP.match(content):
            chain = _chain(content, found, 0)
            if len(chain) == len(found):
                return _result(content, chain) or chain[-1]
    return None


def _last(text: str, language: str, *, cut: bool) -> Number | None:
    """The last number that counts; the last one at all, where none does."""
    found = list(pattern(language).finditer(text))
    if cut and found and found[0].start() == 0:
        del found[0]  # it may have begun before
    spare: Number | None = None
    for index in range(len(found) - 1, -1, -1):
        number = numbers.read(found[index], language)
        if number.certain:
            near = [numbers.read(f, language) for f in found[max(0, index - _MAX_CHAIN) : index]]
            return _result(text, _chain(text, [*near, number], len(near))) or number
        spare = spare or (number if number.readings else None)
    return spare


def _chain(text: str, found: Sequence[Number], index: int) -> Sequence[Number]:
    """The numbers of the equation that a number is in: operators stand between them."""
    first = last = index
    while first and _joined(text, found[first - 1], found[first]):
        first -= 1
    while last + 1 < len(found) and _joined(text, found[last], found[last + 1]):
        last += 1
    return found[first : last + 1]


def _joined(text: str, left: Number, right: Number) -> bool:
    between = text[left.end : right.start]
    if len(between) > _MAX_GAP or _CLAUSE.search(between):
        return False
    return bool(_OPERATOR.search(between)) or text[right.start] in "-="


def _result(text: str, chain: Sequence[Number]) -> Number | None:
    """The last side of an equation that is one number."""
    sides = [[chain[0]]]
    for left, right in pairwise(chain):
        if _EQUALS.search(text, left.end, right.start):
            sides.append([right])
        else:
            sides[-1].append(right)
    return next((side[0] for side in reversed(sides) if len(side) == 1), None)


def _bare(lead: str) -> bool:
    """Whether a currency or one other word at most stands before a number."""
    words = [piece for piece in lead.split() if any(c.isalpha() for c in piece)]
    return len(words) <= 1 and len(lead) <= _MAX_LEAD and not _UNSPACED.search(lead)


def _spelled(text: str) -> Number | None:
    """The number that a few words begin with: "zwölf Eier"."""
    words = _WORD.findall(text[:_MAX_SPELLED])
    if not 0 < len(words) <= _MAX_WORDS or len(text) > _MAX_SPELLED:
        return None
    value = small_number(words[0])
    return None if value is None else numbers.parse(str(value))
