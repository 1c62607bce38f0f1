"""Gates: cheap checks that stop an answer which no reward should ever see.

A gate is a function of a prompt and a completion that returns why the answer
is unusable, or None. `AnswerGates` holds answers against a list of them, off
the event loop.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from arbitrage.errors import ConfigError, RewardError
from arbitrage.types import Candidate, Completion, Prompt, Verdict
from reward.gates.copies import ConstantText, copied_prompt
from reward.gates.leaked_template import leaked_template, unbalanced_reasoning
from reward.gates.letters import letters
from reward.gates.praise import without_praise
from reward.gates.refusals import declining
from reward.gates.repetition import repetition
from reward.gates.requested_language import requested
from reward.gates.wrong_language import WrongLanguage

if TYPE_CHECKING:
    from arbitrage.ports import LanguageDetector

Gate = Callable[[Prompt, Completion], str | None]


class AnswerGates:
    """Holds answers against gates, in order, and keeps every verdict.

    Memory is bounded: the `constant_text` gate remembers the last few
    thousand answers of the process.
    """

    def __init__(self, gates: Mapping[str, Gate]) -> None:
        self._gates = gates
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gates")

    @property
    def names(self) -> tuple[str, ...]:
        """The gates' names, in order."""
        return tuple(self._gates)

    async def inspect(
        self, prompt: Prompt, candidates: Sequence[Candidate]
    ) -> list[tuple[Verdict, ...]]:
        """The verdicts against each candidate, in order; empty for one that passes or failed.

        Raises:
            RewardError: the gates are closed.
        """
        if self._closed:
            raise RewardError("the gates are closed; open the engine again")
        if not self._gates:
            return [()] * len(candidates)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._inspect, prompt, candidates)

    async def close(self) -> None:
        """Waits for the inspection under way."""
        self._closed = True
        await asyncio.to_thread(self._thread.shutdown)

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
        "leaked_template": leaked_template,
        "unbalanced_reasoning": unbalanced_reasoning,
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


def empty(prompt: Prompt, completion: Completion) -> str | None:
    """Nothing but white space, punctuation, or praise of the question; an emoji is an answer."""
    text = completion.text
    if not letters(text):
        shown = any(unicodedata.category(character) == "So" for character in text)
        return None if shown else "holds no letter and no digit"
    if letters(without_praise(text)) or requested(prompt).translates:
        return None
    return "only praises the question"


def truncated(_prompt: Prompt, completion: Completion) -> str | None:
    """Cut off at the teacher's `max_tokens`."""
    return "cut off at max_tokens" if completion.finish_reason == "length" else None


def refusal(_prompt: Prompt, completion: Completion) -> str | None:
    """Opens by declining to answer, in any of 14 languages."""
    phrase = declining(completion.text)
    return f"declines: {phrase!r}" if phrase else None
