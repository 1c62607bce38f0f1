"""Gates on answers made of what was there before: the prompt's words, or another answer's."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from functools import reduce
from typing import TYPE_CHECKING

from reward.gates.letters import letters, long_enough_to_judge, outside_code
from reward.gates.praise import without_praise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbitrage.types import Completion, Prompt

_COPIED_SHARE = 0.8
# shorter prompts ("2 + 2 =") are part of many an answer
_MIN_QUOTED = 8
_CONSTANT_AFTER_PROMPTS = 3
_REMEMBERED_ANSWERS = 4096
# of a longer answer the rest counts as one sentence
_MOST_SENTENCES = 64
_MOST_QUOTED = 16
_DIGITS = re.compile(r"\d+")
_SENTENCE_ENDS = re.compile(r"[.!?…。！？।؟;\n]+")


def copied_prompt(prompt: Prompt, completion: Completion) -> str | None:
    """Is little more than the prompt's own words, praise of the question aside."""
    answered = letters(without_praise(completion.text))
    for asked in _asked(prompt):
        if answered and answered in asked and len(answered) >= _COPIED_SHARE * len(asked):
            return "repeats the prompt"
        added = len(_without(answered, asked))
        if added < len(answered) and added <= (1 - _COPIED_SHARE) * len(answered):
            return "adds next to nothing to the prompt"
    return None


class ConstantText:
    """The same text for different prompts: the answer that once topped a public leaderboard.

    What an answer quotes of its prompt is left out, and so is the order of its sentences.
    Memory is bounded: the last few thousand answers are remembered.
    """

    def __init__(self) -> None:
        self._prompts: OrderedDict[bytes, set[int]] = OrderedDict()

    def __call__(self, prompt: Prompt, completion: Completion) -> str | None:
        """Remembers the answer, and how many prompts had it."""
        text = "".join(sorted(_own_sentences(prompt, completion.text)))
        if not long_enough_to_judge(_DIGITS.sub("", text)):
            return None  # "yes" is an answer to many questions, and so are figures
        key = hashlib.blake2b(text.encode(errors="replace"), digest_size=16).digest()
        prompts = self._prompts.setdefault(key, set())
        self._prompts.move_to_end(key)
        if len(self._prompts) > _REMEMBERED_ANSWERS:
            self._prompts.popitem(last=False)
        if len(prompts) < _CONSTANT_AFTER_PROMPTS:
            prompts.add(hash(prompt.messages))
        if len(prompts) < _CONSTANT_AFTER_PROMPTS:
            return None
        return f"was the answer to {_CONSTANT_AFTER_PROMPTS} different prompts"


def _asked(prompt: Prompt) -> Iterator[str]:
    """What may have been copied: the question, and the system's words."""
    yield letters(prompt.text)
    for message in prompt.messages[:-1]:
        if message.role == "system":
            yield letters(message.content)


def _without(answered: str, asked: str) -> str:
    return answered.replace(asked, "") if asked else answered


def _own_sentences(prompt: Prompt, answer: str) -> Iterator[str]:
    """The letters of an answer's sentences, less what they quote of the prompt.

    Code is left out: it may well be right for a prompt and its translation.
    """
    asked = letters(prompt.text)
    quoted = [q for q in _sentences(prompt.text)[:_MOST_QUOTED] if len(q) >= _MIN_QUOTED]
    for sentence in _sentences(outside_code(answer)):
        own = reduce(_without, quoted, sentence)
        if own not in asked:
            yield own


def _sentences(text: str) -> list[str]:
    return [letters(piece) for piece in _SENTENCE_ENDS.split(text, _MOST_SENTENCES)]
