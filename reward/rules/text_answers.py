"""Expected answers that are texts or letters of a choice, and answers that give them."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from reward.rules.answer_marks import marked
from reward.rules.plain_text import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_WHOLE = 2000
_ARTICLES = {
    "de": "der die das den dem ein eine einen",
    "en": "the a an",
    "es": "el la los las un una",
    "fr": "le la les un une",
    "it": "il lo la i gli le un una",
    "nl": "de het een",
    "pt": "o a os as um uma",
}
_ENDS = " \t\n\u00a0\"'“”„«»「」『』()[]{}<>*_`~.,:;!?¡¿。、，！？：؟،।$\\"
_QUOTES = str.maketrans("’‘ʼ“”„«»–—−", '\'\'\'"""""---')
_SENTENCE = re.compile(r"[.!?;](?=\s|$)|[。！？；।\n]")
_CLAUSE = re.compile(r"[,，、(（]|\s[-–—]\s")
_OPTION = re.compile(r"[(（\[]?[A-J][)）\].:：](?=\s|\S{2})\s*")
_MARKUP = re.compile(r"\*\*|__|`")
_BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*")

_LETTER = re.compile(r"[\s\"'(（\[*]*([^\W\d_])[\s\"')）\].:*]*")
_OPTIONS = (
    "option|choice|opción|opção|opzione|вариант|選択肢|选项|選項|ตัวเลือก|ข้อ|বিকল্প|ఎంపిక|विकल्प"
    "|الخيار|chaguo"
)
_LEADING = re.compile(
    rf"[\s*_\"'`「(（\[]*(?:(?:{_OPTIONS})[\s*(]*)?([^\W\d_])(?![\w'’])(\W?)", re.IGNORECASE
)
_OPTION_NAMED = re.compile(
    rf"(?i:{_OPTIONS})[\s*:：(（]{{0,4}}(?:(?:is|ist|es|est|é|è|ni)\s|是|は)?[\s*(（]{{0,4}}([A-J])(?!\w)"
)
_POLITE = re.compile(r"(?:です|である|だ|입니다|이다)[\s。.]*$")


def same_text(expected: str, answer: str, language: str) -> bool:
    r"""Whether an answer is an expected text, but for case, punctuation and articles.

    What is marked as the answer counts, or its first sentence or clause; the whole
    answer does; and, where nothing is marked, its last line or what is bold in it.

    >>> same_text("Lake Tanganyika", "It is deep.\n**Answer:** the Lake Tanganyika.", "en")
    True
    """
    wanted = _normalised(expected, language)
    return any(_normalised(said, language) == wanted for said in _said(answer))


def choice(text: str) -> str | None:
    """The letter that a text is, where it is the letter of a choice: "B", "(b)", "ข."."""
    found = _LETTER.fullmatch(plain(text).strip())
    if not found:
        return None
    letter = found[1].upper()
    return None if letter.isascii() and letter > "J" else letter


def chosen(answer: str) -> str | None:
    r"""The letter of the choice that an answer makes.

    >>> [chosen(t) for t in ("**Answer:** (B) Paris", "答案：B", "C. Rome", "A dog", "A. x\nB. y")]
    ['B', 'B', 'C', None, None]
    """
    for part in marked(answer):
        letter = _leading(plain(part.text), alone=False)
        if letter:
            return letter
    lines = [line for line in answer[-_MAX_WHOLE:].splitlines() if line.strip()]
    letters = {letter for line in lines if (letter := _leading(line, alone=True))}
    letters = letters or set(_OPTION_NAMED.findall(answer[-_MAX_WHOLE:]))
    return letters.pop() if len(letters) == 1 else None


def _leading(text: str, *, alone: bool) -> str | None:
    """The letter that a text begins with.

    Args:
        text: what is marked as the answer, or a line.
        alone: whether a word may not simply follow: "A dog" begins with no choice.
    """
    found = _LEADING.match(text)
    if not found or (
        found[1].isascii() and not found[1].isupper() and text.strip(_ENDS) != found[1]
    ):
        return None
    if alone and not found[2].strip() and found.end() < len(text.rstrip()):
        return None
    letter = found[1].upper()
    return None if letter.isascii() and letter > "J" else letter


def _said(answer: str) -> Iterator[str]:
    if len(answer) <= _MAX_WHOLE:
        yield answer
    part = next(marked(answer), None)
    if part:
        yield from _openings(part.text)
        return
    lines = answer[-_MAX_WHOLE:].strip().splitlines()
    if lines:
        yield from _openings(lines[-1])
        yield from _BOLD.findall(lines[-1])[-1:]


def _openings(text: str) -> Iterator[str]:
    """A text, its first sentence, and its first clause; without the letter of a choice."""
    text = _MARKUP.sub("", plain(text)).strip()
    for whole in (text, _OPTION.sub("", text, count=1), _POLITE.sub("", text)):
        sentence = _SENTENCE.split(whole, maxsplit=1)[0]
        yield from (whole, sentence, _CLAUSE.split(sentence, maxsplit=1)[0])


def _normalised(text: str, language: str) -> str:
    folded = unicodedata.normalize("NFKC", text).translate(_QUOTES).casefold()
    words = folded.strip(_ENDS).split()
    articles = _ARTICLES.get(language.partition("-")[0], "").split()
    if len(words) > 1 and words[0] in articles:
        del words[0]
    return " ".join(words)
