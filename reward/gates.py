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
from arbitrage.language import UNDETERMINED, same
from arbitrage.types import Candidate, Completion, Prompt, Verdict

if TYPE_CHECKING:
    from arbitrage.ports import LanguageDetector

Gate = Callable[[Prompt, Completion], str | None]

_MIN_LETTERS = 20
# a letter of Han, kana or Hangul says as much as two or three of an alphabet
_MIN_IDEOGRAPHS = 8
_FIRST_IDEOGRAPH = "\u2e80"
# one text is often good in each of these: no detector tells them apart reliably
_CLOSE = ({"bs", "hr", "sr", "sr-Latn"}, {"id", "ms"}, {"da", "nb", "no"}, {"zh", "yue", "wuu"})
_SHINGLE = 8
_MIN_SHINGLES = 24
_MIN_DISTINCT_SHARE = 0.6
_COPIED_SHARE = 0.8
_REMEMBERED_ANSWERS = 4096
_CONSTANT_AFTER_PROMPTS = 3

_REFUSALS = re.compile(
    r"""^\W*(?:
        (?:i['’]?m|i\s+am)\s+(?:sorry|unable|not\s+able) | i\s+(?:cannot|can['’]?t|can\s+not)\s
      | as\s+an?\s+(?:ai|artificial|language\s+model) | sorry,?\s+(?:but\s+)?i\s
      | (?:es\s+)?tut\s+mir\s+leid | ich\s+kann\s+(?:dir|ihnen|das|diese)\b.{0,40}\bnicht
      | lo\s+siento | no\s+puedo\s+(?:ayudar|responder|hacer)
      | (?:je\s+suis\s+)?désolée?,?\s | je\s+ne\s+peux\s+pas\s
      | (?:sinto\s+muito|desculpe|lamento),?\s | não\s+posso\s
      | mi\s+dispiace | non\s+posso\s
      | (?:к\s+сожалению|извините),?\s.{0,30}не\s+мо | я\s+не\s+могу\s
      | (?:на\s+жаль|вибачте),?\s.{0,30}не\s+мо | я\s+не\s+можу\s
      | 申し訳(?:ありません|ございません) | すみませんが
      | 对不起 | 抱歉 | 很抱歉 | 我(?:无法|不能) | 作为(?:一个|一名)?(?:人工智能|ai)
      | 죄송(?:합니다|하지만) | 저는\s+(?:ai|인공지능)
      | (?:عذر|آسف|أعتذر) | لا\s+(?:أستطيع|يمكنني)\s
      | (?:माफ़|माफ|क्षमा)\s | मैं\s.{0,30}नहीं\s+(?:कर|दे)\s+सकत
      | ขออภัย | ขอโทษ
    )""",
    re.IGNORECASE | re.VERBOSE,
)


class AnswerGates:
    """Holds answers against gates, in order, and keeps every verdict.

    Memory is bounded: the `constant_text` gate remembers the last few
    thousand answers of the process.
    """

    def __init__(self, gates: Mapping[str, Gate]) -> None:
        self._gates = gates
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gates")

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
    """Nothing but white space and punctuation."""
    return None if letters(completion.text) else "holds no letter and no digit"


def truncated(_prompt: Prompt, completion: Completion) -> str | None:
    """Cut off at the teacher's `max_tokens`."""
    return "cut off at max_tokens" if completion.finish_reason == "length" else None


def refusal(_prompt: Prompt, completion: Completion) -> str | None:
    """Opens with a phrase that declines to answer, in any of 14 languages."""
    opening = _REFUSALS.match(completion.text)
    return f"opens with {opening.group(0).strip()!r}" if opening else None


def repetition(_prompt: Prompt, completion: Completion) -> str | None:
    """Says the same again and again: too few of its 8-character shingles are distinct."""
    text = letters(completion.text)
    count = len(text) - _SHINGLE + 1
    if count < _MIN_SHINGLES:
        return None
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
    """Answers in another language than the prompt's. Short or unclear texts pass."""

    def __init__(self, detector: LanguageDetector) -> None:
        self._detector = detector

    def __call__(self, prompt: Prompt, completion: Completion) -> str | None:
        """Names both languages."""
        if prompt.language == UNDETERMINED:
            return None
        if not long_enough_to_judge(completion.text):
            return None
        found = self._detector.detect(completion.text)
        if found == UNDETERMINED or same(found, prompt.language):
            return None
        if any({found, prompt.language} <= close for close in _CLOSE):
            return None
        return f"is in {found!r}, not in {prompt.language!r}"


class ConstantText:
    """The same text for different prompts: the answer that once topped a public leaderboard."""

    def __init__(self) -> None:
        self._prompts: OrderedDict[bytes, set[str]] = OrderedDict()

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
            prompts.add(prompt.prompt_id)
        if len(prompts) < _CONSTANT_AFTER_PROMPTS:
            return None
        return f"was the answer to {_CONSTANT_AFTER_PROMPTS} different prompts"


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
