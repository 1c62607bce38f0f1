"""The `wrong_language` gate: an answer is in the prompt's language and script, or as it asks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from arbitrage.language import UNDETERMINED, parent
from reward.gates.letters import letters, long_enough_to_judge
from reward.gates.requested_language import passages, requested
from reward.gates.scripts import (
    LATIN,
    is_prose_in_latin,
    scripts_of,
    share,
    weights,
    without_latin,
)
from reward.language import languages

if TYPE_CHECKING:
    from arbitrage.ports import LanguageDetector
    from arbitrage.types import Completion, Prompt

# one text is often good in each of these: no detector tells them apart reliably
_CLOSE = (
    {"bs", "hr", "sr"},
    {"id", "ms"},
    {"da", "no"},
    {"zh", "yue", "wuu"},
    {"ar", "arz", "ary"},
    {"ku", "sdh"},
    {"lv", "ltg"},
    {"uz", "uzs"},
    {"st", "nso"},
)
_MOST_CHARACTERS = 4_000
_FENCE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_NOT_PROSE = re.compile(
    r"`[^`\n]*`|https?://\S+|<[^<>\n]{1,80}>|\"[^\"\n]{0,40}\"(?=\s*[:,\]}])"
    r"|\$\$?[^$\n]{1,200}\$\$?|\\[(\[][^\n]{1,200}?\\[)\]]|\\[A-Za-z]+"
)
_CODE_LINE = re.compile(
    r"^[ \t]*(?:(?:def|class|import|from|return|for|while|if|elif|else|try|const|let|var|function"
    r"|public|private|static|void|int|struct|use|fn|package|print|SELECT|INSERT|UPDATE|#include)\b"
    r"[^\n]*[:;{}()\]=][ \t]*(?:(?:#|//)[^\n]*)?|[^\n]*[;{}][ \t]*|[\w.\[\]]+[ \t]*(?:[-+*/]?=|\()"
    r"[^\n]*|(?:>>>|\$|#|//)[ \t][^\n]*)$",
    re.MULTILINE,
)
# a text in another script, with terms in Latin letters
_NATIVE_SHARE = 0.35
# another script's text, with a name in this one
_FOREIGN_SHARE = 0.2
_MIN_LETTERS_IN_A_SCRIPT = 40
# what is quoted from a language that the prompt speaks of: words, not sentences
_MOST_WORDS_OF_A_TERM = 4
_MIN_PASSAGE_SHARE = 0.5


class WrongLanguage:
    """Answers in another language than the prompt's, or in another script.

    Short and unclear texts pass, and so does what the prompt asks for (a translation, say)
    and every answer to a prompt in a language that the detector would take for another
    one. A language that is written in two scripts may be answered in either.
    """

    def __init__(self, detector: LanguageDetector) -> None:
        self._detector = detector
        self._known = {_macrolanguage(tag) for tag in languages()}

    def __call__(self, prompt: Prompt, completion: Completion) -> str | None:
        """Names both languages, or the script."""
        asked = _macrolanguage(prompt.language)
        if asked == UNDETERMINED or asked not in self._known:
            return None
        text = prose(completion.text)
        if not long_enough_to_judge(text):
            return None
        found = self._detect(text, asked)
        fits = _fits(found, asked)
        script = _foreign_script(prompt, text)
        if (fits and not script) or self._is_requested(prompt, found, text):
            return None
        if fits:
            return f"is written in {script} letters, which {prompt.language!r} is not"
        return f"is in {found!r}, not in {prompt.language!r}"

    def _detect(self, text: str, asked: str) -> str:
        """The language of a text, told by its own letters where it is full of Latin terms."""
        native = scripts_of(asked)
        if native and LATIN not in native and share(text, native) >= _NATIVE_SHARE:
            text = without_latin(text)
        return self._detector.detect(text)

    def _is_requested(self, prompt: Prompt, found: str, text: str) -> bool:
        request = requested(prompt)
        answered = _macrolanguage(found)
        if request.any_language:
            return True
        if answered == UNDETERMINED:  # in the script of a language that may be answered in
            written = next(iter(weights(text)), "")
            return any(written in scripts_of(tag) for tag in request.languages)
        if request.allows(answered) or any(_fits(answered, tag) for tag in request.languages):
            return True
        if answered in request.named and _holds_terms_alone(text):
            return True
        return self._has_passage_in(prompt, answered, edits=request.edits)

    def _has_passage_in(self, prompt: Prompt, language: str, *, edits: bool) -> bool:
        """Whether the prompt is itself in two languages, and the answer in the other one.

        What stands before or behind a long text says what to do with it. A passage in the
        middle counts where the prompt asks for it to be corrected, or written on.
        """
        found = passages(prompt)
        counted = found if edits else [found[0], found[-1]] if len(found) > 1 else []
        long_ones = [piece for piece in counted if long_enough_to_judge(prose(piece))]
        return any(_macrolanguage(self._detector.detect(piece)) == language for piece in long_ones)


def prose(text: str) -> str:
    r"""The beginning of a text without code, formulas and addresses.

    >>> " ".join(prose("Use this: `print(x)`; x = 2 or $x^2$.\n```python\nx = 1\n```").split())
    'Use this: ; x = 2 or .'
    """
    text = _FENCE.sub(" ", text[: 4 * _MOST_CHARACTERS])[:_MOST_CHARACTERS]
    return _CODE_LINE.sub(" ", _NOT_PROSE.sub(" ", text))


def _macrolanguage(tag: str) -> str:
    return parent(tag) or tag


def _fits(found: str, asked: str) -> bool:
    """Whether a text in one language may be an answer in the other."""
    answered = _macrolanguage(found)
    return answered in {UNDETERMINED, asked} or any({asked, answered} <= c for c in _CLOSE)


def _foreign_script(prompt: Prompt, text: str) -> str | None:
    """The script of a text that is not in that of the prompt's language, though the prompt is.

    Names and brands are written in Latin letters in every language, so that such text has
    to look like sentences.
    """
    native = scripts_of(prompt.language)
    if not native or share(text, native) >= _FOREIGN_SHARE:
        return None
    script, weight = next(iter(weights(text).items()), ("", 0.0))
    if weight < _MIN_LETTERS_IN_A_SCRIPT or (script == LATIN and not is_prose_in_latin(text)):
        return None
    return script if share(prompt.text, native) >= _MIN_PASSAGE_SHARE else None


def _holds_terms_alone(text: str) -> bool:
    lines = [line.split() for line in text.splitlines() if letters(line)]
    return all(len(line) <= _MOST_WORDS_OF_A_TERM for line in lines)
