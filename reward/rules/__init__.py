"""Verifiable rewards: an answer is held against what the prompt's metadata says of a right one."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from arbitrage.errors import RewardError
from arbitrage.types import Score
from reward.rules import numbers
from reward.rules.checking import CheckingProcess, Crashed, RuleWrong, TookTooLong
from reward.rules.final_answer import final_number
from reward.rules.text_answers import choice, chosen, same_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage import config
    from arbitrage.types import Candidate, Prompt
    from reward import Run

_LOG = logging.getLogger(__name__)
_LONG = 5000  # characters that are read in well under a millisecond


async def open_reward(
    settings: config.RulesReward,
    run: Run,  # noqa: ARG001 - every reward is opened with one
) -> RulesReward:
    """The rules of a configuration; nothing is started before a prompt needs it."""
    return RulesReward(settings)


class RulesReward:
    """Scores an answer by the share of the prompt's checks that it passes.

    Each check is worth 0 or 1; `raw` holds them by name. A prompt whose metadata has
    nothing to check, and one whose rule is wrong, leave no opinion.

    - `answer`: the expected number or text, or the letter of a choice. A number is
      compared exactly with the one that the answer ends up with (`final_number`).
    - `pattern`: a regular expression of Python's `re` that is found in the answer.
    - `json_schema`: the answer, or its last fenced block, is JSON of that schema.
    - `code`: the answer's code compiles in that language; it is not run.

    The last three run in a process of their own, within a deadline and bounded memory.

    Args:
        settings: the keys of the metadata.
        seconds: what one check may take.
    """

    def __init__(self, settings: config.RulesReward, *, seconds: float = 2.0) -> None:
        self._keys = {
            "answer": settings.answer,
            "pattern": settings.pattern,
            "json_schema": settings.json_schema,
            "code": settings.code,
        }
        self._checking = CheckingProcess(seconds=seconds)
        self._closed = False
        self._waiting = 0

    @property
    def queue_depth(self) -> int:
        """Candidates that are being checked, or wait for it."""
        return self._waiting

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score | None]:
        """One score a candidate, in order; None where nothing can be checked.

        Raises:
            RewardError: the rules are closed.
        """
        if self._closed:
            raise RewardError("rules: closed; nothing can be scored any more")
        rules = {
            check: prompt.metadata[key]
            for check, key in self._keys.items()
            if prompt.metadata.get(key, "").strip()
        }
        self._waiting += len(candidates)
        try:
            return [await self._score(prompt, rules, candidate) for candidate in candidates]
        finally:
            self._waiting -= len(candidates)

    async def close(self) -> None:
        """Ends the checks under way, and the process that runs them."""
        self._closed = True
        await self._checking.close()

    async def _score(
        self, prompt: Prompt, rules: dict[str, str], candidate: Candidate
    ) -> Score | None:
        if not candidate.completion:
            return None
        raw: dict[str, float] = {}
        for check, rule in list(rules.items()):
            try:
                passed = await self._passes(check, rule, candidate.completion.text, prompt.language)
                raw[check] = float(passed)
            except TookTooLong as reason:
                self._warn(prompt, check, f"{reason} on an answer of {candidate.teacher!r}")
            except RuleWrong as reason:
                self._warn(prompt, check, str(reason))
                del rules[check]  # and so for the other candidates
        return Score(reward=sum(raw.values()) / len(raw), raw=raw) if raw else None

    def _warn(self, prompt: Prompt, check: str, reason: str) -> None:
        key = self._keys[check]
        _LOG.warning("prompt %r: metadata.%s: %s; left unchecked", prompt.prompt_id, key, reason)

    async def _passes(self, check: str, rule: str, text: str, language: str) -> bool:
        if check != "answer":
            try:
                return await self._checking.passes(check, rule, text)
            except Crashed:
                return False
        if len(text) < _LONG:
            return is_answer(rule, text, language)
        return await asyncio.to_thread(is_answer, rule, text, language)


def is_answer(expected: str, text: str, language: str) -> bool:
    """Whether a text gives the expected answer: a number, the letter of a choice, or a text.

    An expected number is read as in English: "1,234.5".

    >>> is_answer("1234.5", "Das sind zusammen 1.234,50 Euro.", "de")
    True
    >>> is_answer("B", "Die Antwort ist (B), weil ...", "de"), is_answer("Rom", "Rom!", "de")
    (True, True)
    """
    number = numbers.parse(expected)
    if number:
        found = final_number(text, language)
        return found is not None and numbers.agree(number, found)
    letter = choice(expected)
    if letter:
        return chosen(text) == letter
    return same_text(expected, text, language)
