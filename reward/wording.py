"""A question and its answers in the words that a frozen language model reads them in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reward.reader import Answers
from reward.rendering import well_formed
from reward.trees import Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

_QUESTION, _ANSWER = "Question: {prompt}\nAnswer:", "Answer:"
_MAX_PROMPT_TOKENS, _MAX_ANSWER_TOKENS = 1024, 1024


class Wording:
    """Turns text into token trees for one tokenizer.

    Args:
        max_tokens: of one tree pair; a prompt with more answers than fit becomes several.
        max_answer_tokens: how much of an answer is read.
    """

    def __init__(
        self, tokenizer: Any, max_tokens: int, max_answer_tokens: int = _MAX_ANSWER_TOKENS
    ) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._max_answer_tokens = max_answer_tokens

    def parts(self, question: str, answers: Sequence[str]) -> list[Answers]:
        """The answers to a question, in order, in parts that a pass takes."""
        given = self._tokens(_QUESTION.format(prompt=question))
        # the question's two ends stay, and the words around it
        over = max(0, len(given) - _MAX_PROMPT_TOKENS)
        half = _MAX_PROMPT_TOKENS // 2
        given = given[:half] + given[half + over :]
        alone = self._tokens(_ANSWER)
        branches = tuple(
            tuple(self._tokens(f" {answer.strip()}", start=False)[: self._max_answer_tokens])
            for answer in answers
        )
        room = (self._max_tokens + len(given) - len(alone)) // 2
        return [
            Answers(part, Tree(tuple(alone), part.branches))
            for part in Tree(tuple(given), branches).split(room)
        ]

    def _tokens(self, text: str, *, start: bool = True) -> list[int]:
        tokens: list[int] = self._tokenizer(well_formed(text), add_special_tokens=start).input_ids
        return tokens
