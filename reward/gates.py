"""Gates: cheap checks that stop an answer which no reward should ever see.

A gate is a function of a prompt and a completion that returns why the answer
is unusable, or None. `AnswerGates` holds answers against a list of them, off
the event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from arbitrage.errors import ConfigError
from arbitrage.language import UNDETERMINED, parent
from arbitrage.types import Candidate, Completion, Prompt, Verdict
from reward.language import languages
from reward.refusals import declining

if TYPE_CHECKING:
    from arbitrage.ports import LanguageDetector

Gate = Callable[[Prompt, Completion], str | None]

_MIN_LETTERS = 20
# a letter of Han, kana or Hangul says as much as two or three of an alphabet
_MIN_IDEOGRAPHS = 8
_FIRST_IDEOGRAPH = "\u2e80"
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
_SHINGLE = 8
_MIN_SHINGLES = 24
_MIN_DISTINCT_SHARE = 0.6
# a text too short to count shingles in: three times the same, which is not a number
_ONE_UNIT = re.compile(r"(?=.*[^\W\d])(.{3,}?)\1{2,}")
_COPIED_SHARE = 0.8
_REMEMBERED_ANSWERS = 4096
_CONSTANT_AFTER_PROMPTS = 3


class AnswerGates:
    """Holds answers against gates, in order, and keeps every verdict.

    Memory is bounded: the `constant_text` gate remembers the last few
    thousand answers of the process.
    """

    def __init__(self, gates: Mapping[str, Gate]) -> None:
        self._gates = gates
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gates")

    @property
    def names(self) -> tuple[str, ...]:
        """The gates' names, in order."""
        return tuple(self._gates)

    async def inspect(
        self, prompt: Prompt, candidates: Sequence[Candidate]
    ) -> list[tuple[Verdict, ...]]:
        """The verdicts against each candidate, in order; empty for one that passes or failed."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._inspect, prompt, candidates)

    async def close(self) -> None:
        """Waits for the inspection under way."""
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    def _inspect(
        self, prompt: Prompt, candidates: Sequence[Candidate]
    ) -> list[tuple[Verdict, ...]]:
        return [self._verdicts(prompt, c.completion) if c.completion else () for c in candidates]

    def _verdicts(self, prompt: Prompt, completion: Completion) -> tuple[Verdict, ...]:
        reasons = ((name, gate(prompt, completion)) for name, gate in self._gates.items())
        return tuple(Verdict(name, reason) for name, reason in reasons if reason)


def open_gates(names: Sequence[str] | None, detector: LanguageDetector) -> AnswerGates:
    """The gates of a configuration; all of them for None.

    Raises:
        ConfigError: a name is not a gate's.
    """
    known: dict[str, Gate] = {
        "empty": empty,
        "truncated": truncated,
        "wrong_language": WrongLanguage(detector),
        "refusal": refusal,
        "repetition": repetition,
        "copied_prompt": copied_prompt,
        "constant_text": ConstantText(),
    }
    chosen = list(known) if names is None else names
    for name in chosen:
        if name not in known:
            raise ConfigError(f"reward.gates: unknown gate {name!r}; known are {', '.join(known)}")
    return AnswerGates({name: known[name] for name in chosen})


def empty(_prompt: Prompt, completion: Completion) -> str | None:
    """Nothing but white space and punctuation; an emoji is an answer."""
    if letters(completion.text) or any(unicodedata.category(c) == "So" for c in completion.text):
        return None
    return "holds no letter and no digit"


def truncated(_prompt: Prompt, completion: Completion) -> str | None:
    """Cut off at the teacher's `max_tokens`."""
    return "cut off at max_tokens" if completion.finish_reason == "length" else None


def refusal(_prompt: Prompt, completion: Completion) -> str | None:
    """Opens by declining to answer, in any of 14 languages."""
    phrase = declining(completion.text)
    return f"declines: {phrase!r}" if phrase else None


def repetition(_prompt: Prompt, completion: Completion) -> str | None:
    """Says the same again and again: too few of its 8-character shingles are distinct."""
    text = letters(completion.text)
    count = len(text) - _SHINGLE + 1
    if count < _MIN_SHINGLES:
        unit = _ONE_UNIT.fullmatch(text)
        return f"is {unit.group(1)!r} again and again" if unit else None
    distinct = len({text[i : i + _SHINGLE] for i in range(count)}) / count
    return f"only {distinct:.0%} of it is new" if distinct < _MIN_DISTINCT_SHARE else None


def copied_prompt(prompt: Prompt, completion: Completion) -> str | None:
    """Is little more than the prompt's own words."""
    asked, answered = letters(prompt.text), letters(completion.text)
    if answered and answered in asked and len(answered) >= _COPIED_SHARE * len(asked):
        return "repeats the prompt"
    if asked in answered and len(asked) >= _COPIED_SHARE * len(answered):
        return "adds next to nothing to the prompt"
    return None


class WrongLanguage:
    """Answers in another language than the prompt's.

    Short and unclear texts pass, and so does every answer to a prompt in a language
    that the detector would take for another one.
    """

    def __init__(self, detector: LanguageDetector) -> None:
        self._detector = detector
        self._known = {_macrolanguage(tag) for tag in languages()}

    def __call__(self, prompt: Prompt, completion: Completion) -> str | None:
        """Names both languages."""
        asked = _macrolanguage(prompt.language)
        if asked == UNDETERMINED or asked not in self._known:
            return None
        if not long_enough_to_judge(completion.text):
            return None
        found = self._detector.detect(completion.text)
        answered = _macrolanguage(found)
        if answered in {UNDETERMINED, asked}:
            return None
        if any({asked, answered} <= close for close in _CLOSE):
            return None
        return f"is in {found!r}, not in {prompt.language!r}"


class ConstantText:
    """The same text for different prompts: the answer that once topped a public leaderboard."""

    def __init__(self) -> None:
        self._prompts: OrderedDict[bytes, set[int]] = OrderedDict()

    def __call__(self, prompt: Prompt, completion: Completion) -> str | None:
        """Remembers the answer, and how many prompts had it."""
        text = letters(completion.text)
        if not long_enough_to_judge(text):
            return None  # "yes" is an answer to many questions
        key = hashlib.blake2b(text.encode(), digest_size=16).digest()
        prompts = self._prompts.setdefault(key, set())
        self._prompts.move_to_end(key)
        if len(self._prompts) > _REMEMBERED_ANSWERS:
            self._prompts.popitem(last=False)
        if len(prompts) < _CONSTANT_AFTER_PROMPTS:
            prompts.add(hash(prompt.messages))
        if len(prompts) < _CONSTANT_AFTER_PROMPTS:
            return None
        return f"was the answer to {_CONSTANT_AFTER_PROMPTS} different prompts"


def _macrolanguage(tag: str) -> str:
    return parent(tag) or tag


def long_enough_to_judge(text: str) -> bool:
    """Whether a text is more than a word or a name.

    >>> long_enough_to_judge("Lima"), long_enough_to_judge("ペルーの首都はリマです")
    (False, True)
    """
    found = letters(text)
    ideographs = sum(c >= _FIRST_IDEOGRAPH for c in found)
    return len(found) >= _MIN_LETTERS or ideographs >= _MIN_IDEOGRAPHS


def letters(text: str) -> str:
    """The text's letters, marks and digits, case-folded: what is left when style is taken away.

    >>> letters("¿Qué? - Dos!"), letters("  ...  ")
    ('quédos', '')
    """
    return "".join(c for c in text.casefold() if unicodedata.category(c)[0] in "LMN")
