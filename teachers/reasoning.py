r"""What a model thought before it answered, told apart from the answer.

Where the server does not part them, models write their thoughts in a block at
the very beginning. Some chat templates write the opening tag themselves, so
that the answer holds the closing one alone.

    >>> split("<think>Two and two.</think>\n\nFour.")
    ('Two and two.', 'Four.')
    >>> split("Two and two.\n</think>\n\nFour.")
    ('Two and two.', 'Four.')
    >>> split("Put it between `<think>` and `</think>`.")
    (None, 'Put it between `<think>` and `</think>`.')
"""

from __future__ import annotations

import re
from itertools import islice

_NAMES = ("think", "thinking", "reasoning")
_OPENINGS = tuple(f"<{name}>" for name in _NAMES)
_TAG = re.compile(rf"<(?P<closes>/?)(?P<name>{'|'.join(_NAMES)})>", re.IGNORECASE)
_CLOSING_TAG = re.compile(rf"</({'|'.join(_NAMES)})>", re.IGNORECASE)
_LONGEST_TAG = max(len(f"</{name}>") for name in _NAMES)
# a text with more tags than that is about tags; each costs a look at what is before it
_MOST_TAGS = 64
# behind a closing tag: the line's end, or an answer; a sentence on tags goes on with a space
_ENDS_OR_ANSWERS = re.compile(r"[ \t]*(?:\r?\n|\Z)|[^\s.,;:!?)\]}'\"`’”»]")
_LEADING_BLANK_LINES = re.compile(r"\s*\n")


def split(text: str) -> tuple[str | None, str]:
    r"""Takes the thoughts at the beginning of a text off the answer.

    A block that is never closed is all thoughts. A text that only speaks of such
    tags is left alone: a closing tag without an opening one counts outside of code,
    as the first or last thing of its line, or with an answer right behind it.

    Returns:
        The thoughts, None where there are none; the answer without leading blank lines.

    >>> split("<think>\n\n</think>\n\nHi.")
    (None, 'Hi.')
    >>> split("<reasoning>I ran out of")
    ('I ran out of', '')
    """
    begin, end, answer = _block(text) or (0, 0, 0)
    return text[begin:end].strip() or None, _from_first_line(text[answer:])


class Splitter:
    r"""Splits a text that arrives in pieces: passes on what is of the answer.

    What it passes on begins the answer that `split` makes of the whole, with one
    exception: a block that the chat template opened looks like an answer until its end.

    Args:
        opened: the chat template is known to open one: nothing is passed on before its end.

    >>> splitter = Splitter()
    >>> [splitter.feed(piece) for piece in ("<thi", "nk>So", "</think>", "\n", "Fo", "ur.")]
    ['', '', '', '', 'Fo', 'ur.']
    """

    def __init__(self, *, opened: bool = False) -> None:
        self._opened = opened
        self._pieces: list[str] = []
        self._answering = False
        self._thinking = False
        self._recent = ""
        self._looks = _MOST_TAGS

    def feed(self, piece: str) -> str:
        """Takes the next piece, and returns what of the answer can be passed on."""
        if self._answering:
            return piece
        self._pieces.append(piece)
        self._recent += piece
        if not piece.strip():
            return ""
        answer = self._answer_so_far()
        self._answering = bool(answer.strip())
        return _from_first_line(answer)

    def _answer_so_far(self) -> str:
        if not self._thinking:
            start = self._recent.lstrip().lower()
            if any(opening.startswith(start) for opening in _OPENINGS):
                return ""
            self._thinking = self._opened or start.startswith(_OPENINGS)
            if not self._thinking:
                return self._recent
        # looked for at the end alone: a block of many thousand pieces is not read for each
        block = None
        if self._looks and _CLOSING_TAG.search(self._recent):
            self._looks -= 1
            text = "".join(self._pieces)
            block = _block(text)
        self._recent = self._recent.rstrip()[-2 * _LONGEST_TAG :]
        return text[block[2] :] if block else ""


def _block(text: str) -> tuple[int, int, int] | None:
    """Where the thoughts begin and end, and where the answer begins."""
    if "<" not in text:
        return None
    tags = _TAG.finditer(text)
    first = next(tags, None)
    if first and not first["closes"] and not text[: first.start()].strip():
        for tag in tags:
            if tag["closes"] and tag["name"].lower() == first["name"].lower():
                return first.end(), tag.start(), tag.end()
        return first.end(), len(text), len(text)
    for tag in islice(_TAG.finditer(text), _MOST_TAGS):
        if not tag["closes"]:
            return None
        if _closes_unopened(text, tag):
            return 0, tag.start(), tag.end()
    return None


def _closes_unopened(text: str, tag: re.Match[str]) -> bool:
    before = text[: tag.start()]
    line = before[before.rfind("\n") + 1 :]
    if before.count("```") % 2 or line.count("`") % 2:
        return False
    return not line.strip() or bool(_ENDS_OR_ANSWERS.match(text, tag.end()))


def _from_first_line(answer: str) -> str:
    if answer.isspace():
        return ""
    blank = _LEADING_BLANK_LINES.match(answer)
    return answer[blank.end() :] if blank else answer
