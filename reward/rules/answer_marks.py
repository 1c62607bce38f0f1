r"""Where a text says what its answer is: \boxed{}, <answer>, ####, "the answer is".

The words of some forty languages are tried whatever the prompt's: models lapse into English.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_SEGMENT = 400
_MAX_TRIED = 64  # occurrences of one word: a text of nothing else stays cheap
_MAX_GAP = 48
_FIRST_HAN = "\u2e80"

By = Literal["box", "said", "headed"]

_CASED = (
    "answer antwort réponse respuesta risposta resposta antwoord endergebnis cevap yanıt"
    " jawaban svar vastaus odpověď odpoveď odgovor válasz răspuns odpowiedź jibu отговор ответ"
    " відповідь адказ απάντηση"
)
_CASED_NOUNS = frozenset(_CASED.split())
_OTHER = (
    "答え 回答 解答 正解 こたえ 答案 答 정답 답 คำตอบ ตอบ উত্তর సమాధానం జవాబు उत्तर जवाब الجواب"
    " الإجابة الاجابة جواب پاسخ תשובה"
)
_PHRASES = ["đáp án", "đáp số", "câu trả lời", "final result", "resultado final", "résultat final"]
_NOUNS = (*_CASED.split(), *_OTHER.split(), *_PHRASES)
# languages that leave "is" out: the number may be the next word
_DROP_COPULA = (
    "ответ відповідь คำตอบ ตอบ উত্তর సమాధానం జవాబు उत्तर जवाब الجواب الإجابة الاجابة جواب پاسخ"
    " תשובה jibu"
)
_BEFORE_DIGITS = frozenset(_DROP_COPULA.split())
_COPULA = (
    r"(?<!\w)(?:is|ist|lautet|beträgt|equals|es|son|est|sont|è|é|ni|är|er|este|jest|adalah|ialah|là"
    r"|равен|равно|составляет|будет|это|дорівнює|становить|είναι|হল|হলো|হবে|হচ্ছে|হয়|అవుతుంది|है"
    r"|هو|هي|היא|הוא)(?!\w)|\s[-–—]\s|→|->|は|是|为|為|คือ|เป็น|เท่ากับ|은|는"
)
_LINK = re.compile(rf"[^\n.!?。！？:：=\d,;]{{0,{_MAX_GAP}}}?(?P<link>[:：=]|{_COPULA})\s?[:：]?")
_DIGIT_NEXT = re.compile(r"[\s*_$€£¥₹৳฿₽(\\]{0,6}\d")
_NEGATED = re.compile(
    r"\s*(?:not|nicht|kein|pas|no|non|não|не|nie|inte|ikke|নয়)(?!\w)|\s*(?:不是|ではな|ไม่)"
)
_BLANK = re.compile(rf"\s{{1,{_MAX_SEGMENT}}}")
_AS_A_VERB = re.compile(r"(?:\bto|\bcan|\bcould|\bwill|\bmust)\s$")
_BOX = re.compile(r"\\(?:boxed|fbox)\s?\{")
_TAGGED = re.compile(rf"<answer>([^<]{{1,{_MAX_SEGMENT}}})</answer>")
_HASHES = re.compile(r"^[ \t]*####[ \t]*(?=\S)(?!\S*[.):][ \t]+[^\W\d])", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Marked:
    """A part of a text that is marked as the answer.

    Attributes:
        text: from the mark to the end of its line, or what is in the box.
        by: `box` is the answer and nothing else; `said` begins with it ("the answer is");
            `headed` may begin with it, or with the way to it ("Answer:").
        end: where the part ends, in the whole text.
    """

    text: str
    by: By
    end: int


def marked(text: str) -> Iterator[Marked]:
    r"""The parts that are marked as the answer, the most telling first.

    >>> [m.text for m in marked("The answer is 7. No: the answer is 8.\n#### 9")]
    ['9', '8.', '7. No: the answer is 8.']
    """
    yield from _boxes(text)
    for found in list(_TAGGED.finditer(text))[: -_MAX_TRIED - 1 : -1]:
        yield Marked(found[1].strip(), "box", found.end())
    hashes = [found.end() for found in _HASHES.finditer(text)] if "####" in text else []
    for start in reversed(hashes[-_MAX_TRIED:]):
        line = _line(text, start)
        if len(line.split()) <= 4:  # noqa: PLR2004 - an amount, and not a heading
            yield Marked(line, "box", start + len(line))
    yield from _named(text)


def _boxes(text: str) -> Iterator[Marked]:
    opened = [found.end() for found in _BOX.finditer(text)]
    for start in reversed(opened[-_MAX_TRIED:]):
        depth = 1
        for end in range(start, min(len(text), start + _MAX_SEGMENT)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if not depth:
                yield Marked(text[start:end], "box", end)
                break


def _named(text: str) -> Iterator[Marked]:
    """What follows a word for "answer", the last first."""
    lowered = lower(text)
    found = {
        start + len(noun): noun
        for noun in _NOUNS
        if noun in lowered
        for start in _occurrences(lowered, noun)
    }
    for end in sorted(found, reverse=True)[:_MAX_TRIED]:
        noun = found[end]
        before = lowered[max(0, end - len(noun) - 10) : end - len(noun)]
        inside_a_word = noun in _CASED_NOUNS and before[-1:].isalpha() and before[-1] < _FIRST_HAN
        if not inside_a_word and not _AS_A_VERB.search(before):
            yield from _after(text, lowered, end, noun)


def _occurrences(text: str, word: str) -> Iterator[int]:
    """Where a word begins, from the end."""
    start = len(text)
    for _ in range(_MAX_TRIED):
        start = text.rfind(word, 0, start)
        if start < 0:
            return
        yield start


def _after(text: str, lowered: str, end: int, noun: str) -> Iterator[Marked]:
    """The rest of the line behind "is" or a colon; the next line, where nothing is left of it."""
    link = _LINK.match(lowered, end)
    if link and not _NEGATED.match(lowered, link.end()):
        start = link.end()
        by: By = "headed" if link["link"] in ":：=" else "said"
    elif noun in _BEFORE_DIGITS and _DIGIT_NEXT.match(text, end):
        start, by = end, "said"
    else:
        return
    line = _line(text, start)
    if not any(c.isalnum() for c in line):
        blank = _BLANK.match(text, start + len(line))
        start = blank.end() if blank else start
        line, by = _line(text, start), "headed"
    yield Marked(line, by, start + len(line))


def _line(text: str, start: int) -> str:
    return text[start : start + _MAX_SEGMENT].partition("\n")[0]


def lower(text: str) -> str:
    """The text in lower case, every character where it was."""
    lowered = text.lower()
    if len(lowered) != len(text):
        lowered = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    return lowered
