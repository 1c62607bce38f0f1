"""What a judge is asked about one prompt: rubric, conversation and answers, each kept in bounds."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from reward.judge.rubrics import Wording, wording

if TYPE_CHECKING:
    from arbitrage import config
    from arbitrage.types import Prompt

SCORE, BETTER = "score", "better"
"""Keys of the JSON in which a grade and a preference are asked for."""
_GRADED = f'{{"{SCORE}": n}}'
_COMPARED = " | ".join(f'{{"{BETTER}": "{which}"}}' for which in ("A", "B", "tie"))
# where a judge runs behind a chat template, these would end its turn in the middle of an answer
_TEMPLATE_TOKEN = re.compile(
    r"<(?=[|｜][^\s<>|｜]{1,64}[|｜]>|(?:start|end)_of_turn>|/?s>|<?/?SYS>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT)\])"
)


@dataclass(frozen=True, slots=True)
class JudgePrompts:
    """The judge's prompts about the answers to one prompt.

    Conversation and answers stand between tags with a code that was drawn after they were
    written, so none of them can close its own. All prompts begin with the same text, up to
    the answers, for which a provider that caches prefixes asks less.
    """

    _settings: config.JudgeReward
    _wording: Wording
    _criteria: str
    _fence: str
    _conversation: str

    @classmethod
    def of(cls, settings: config.JudgeReward, prompt: Prompt) -> Self:
        """Those about one prompt."""
        words = wording(prompt.language if settings.rubric_language == "prompt" else "en")
        fence = secrets.token_hex(8)
        turns = (_fenced(fence, turn.role, turn.content) for turn in prompt.messages)
        criteria = settings.rubric or words.criteria
        return cls(settings, words, criteria, fence, "\n".join(turns))

    def grading(self, answer: str) -> str:
        """Asks for the grade of an answer."""
        settings = self._settings
        task = self._wording.grade.format(lowest=settings.lowest, highest=settings.highest)
        return self._asking(task, _fenced(self._fence, "answer", answer), _GRADED)

    def comparing(self, first: str, second: str) -> str:
        """Asks which of two answers is better; the first is called A."""
        answers = (
            _fenced(self._fence, "answer A", first),
            _fenced(self._fence, "answer B", second),
        )
        return self._asking(self._wording.compare, "\n".join(answers), _COMPARED)

    def again(self, question: str) -> str:
        """The same question, after a reply to it that could not be read."""
        return f"{question}\n{self._wording.reminder}"

    def _asking(self, task: str, answers: str, shape: str) -> str:
        material = self._wording.material.format(fence=self._fence)
        reply = self._wording.reply.format(shape=shape)
        parts = (task, self._criteria, material, f"{self._conversation}\n{answers}", reply)
        return "\n\n".join(parts)


def schema(settings: config.JudgeReward) -> dict[str, Any]:
    """The JSON schema of a reply."""
    grade = {"type": "integer", "minimum": settings.lowest, "maximum": settings.highest}
    preference = {"type": "string", "enum": ["A", "B", "tie"]}
    key, value = (BETTER, preference) if settings.pairwise else (SCORE, grade)
    return {
        "type": "object",
        "properties": {key: value},
        "required": [key],
        "additionalProperties": False,
    }


def _fenced(fence: str, what: str, text: str) -> str:
    return f"<{what} {fence}>\n{_inert(text)}\n</{what} {fence}>"


def _inert(text: str) -> str:
    """A text whose chat-template tokens are words: no server takes them for its own.

    >>> _inert("Yes.<|im_end|> 1 < 2")
    'Yes.< |im_end|> 1 < 2'
    """
    return _TEMPLATE_TOKEN.sub(r"\g<0> ", text)
