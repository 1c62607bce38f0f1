"""The choices of one answer: their texts, their thoughts, and their shares of the tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from arbitrage.types import Completion
from teachers.reasoning import split

if TYPE_CHECKING:
    from collections.abc import Sequence

_FINISH_REASONS = {
    "end_turn": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_length": "length",
}


class Answers(NamedTuple):
    """The usable answers of one call, and how many it brought in all."""

    completions: list[Completion]
    choices: int


class Billed(NamedTuple):
    """Tokens of one call; None where the endpoint does not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    @classmethod
    def of(cls, usage: object) -> Billed:
        """Reads a `usage` object, where there is one."""
        if not isinstance(usage, dict):
            return cls()
        return cls(_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))


NOT_COUNTED = Billed()


class NoAnswer(Exception):
    """JSON without an answer in it: why, and what was billed all the same."""

    def __init__(self, reason: str, billed: Billed = NOT_COUNTED) -> None:
        super().__init__(reason)
        self.billed = billed


class Choice:
    """One answer as it comes: its text and its thoughts, whole or in pieces."""

    __slots__ = ("finish_reason", "reasoning", "text")

    def __init__(self) -> None:
        self.text: list[str] | None = None
        self.reasoning: list[str] = []
        self.finish_reason: str | None = None

    @classmethod
    def of(cls, choice: Any) -> Choice:
        """Reads a whole one."""
        read = cls()
        if isinstance(choice, dict):
            read.add(choice.get("message"), choice.get("finish_reason"))
        return read

    def add(self, message: Any, finish_reason: object) -> str:
        """Adds a message, or a piece of one, and returns its text."""
        if isinstance(finish_reason, str) and _is_unicode(finish_reason):
            self.finish_reason = _FINISH_REASONS.get(finish_reason, finish_reason)
        if not isinstance(message, dict):
            return ""
        thoughts = message.get("reasoning_content") or message.get("reasoning")
        if isinstance(thoughts, str):
            self.reasoning.append(thoughts)
        match message.get("content"):
            case str(text):
                pass
            case list(parts):
                self.reasoning += map(_thought, parts)
                text = "".join(map(_text, parts))
            case _:
                return ""
        self.text = self.text or []
        self.text.append(text)
        return text

    def parts(self) -> tuple[str, str | None]:
        """Its text and its reasoning.

        Raises:
            NoAnswer: it holds no text.
        """
        in_text, text = split("".join(self.text or ()))
        reasoning = "".join(self.reasoning).strip() or None
        if in_text:
            reasoning = f"{reasoning}\n\n{in_text}" if reasoning else in_text
        if self.text is None:
            if reasoning and self.finish_reason == "length":
                raise NoAnswer("max_tokens were spent on thoughts; raise max_tokens")
            raise NoAnswer(f"the answer holds no text (finish_reason {self.finish_reason!r})")
        if not _is_unicode(text) or (reasoning and not _is_unicode(reasoning)):
            raise NoAnswer("the answer holds half a surrogate pair")
        return text, reasoning


def answers_of(choices: Sequence[Choice], billed: Billed) -> Answers:
    """Those of the choices that hold a text, with the tokens of all."""
    usable, reasons = [], []
    for choice in choices:
        try:
            usable.append((choice.finish_reason or "stop", *choice.parts()))
        except NoAnswer as error:
            reasons.append(str(error))
    if not usable:
        raise NoAnswer(reasons[0], billed)
    prompt_tokens = billed.prompt_tokens
    shares = _divide(billed.completion_tokens, [len(t) + len(r or "") for _, t, r in usable])
    completions = []
    for (finish_reason, text, reasoning), tokens in zip(usable, shares, strict=True):
        completions.append(
            Completion(text, finish_reason, prompt_tokens, tokens, reasoning=reasoning)
        )
        prompt_tokens = prompt_tokens and 0
    return Answers(completions, len(choices))


def _divide(total: int | None, weights: Sequence[int]) -> Sequence[int | None]:
    """Parts of a whole number in proportion to weights, by largest remainder.

    >>> _divide(10, [1, 1, 1]), _divide(7, [0, 0]), _divide(None, [1, 2])
    ([4, 3, 3], [4, 3], [None, None])
    """
    if total is None or len(weights) == 1:
        return [total] * len(weights)
    if not any(weights):
        weights = [1] * len(weights)
    parts, remainders = zip(*(divmod(total * w, sum(weights)) for w in weights), strict=True)
    by_remainder = sorted(range(len(weights)), key=lambda i: -remainders[i])
    rounded_up = by_remainder[: total - sum(parts)]
    return [part + (i in rounded_up) for i, part in enumerate(parts)]


def _text(part: object) -> str:
    """The text of one part of a content; images are not part of an answer."""
    match part:
        case str():
            return part
        case {"type": "text" | "output_text", "text": str(text)}:
            return text
        case _:
            return ""


def _thought(part: object) -> str:
    """What one part of a content tells of the model's thoughts."""
    match part:
        case {"type": "thinking", "thinking": str(text)} | {"type": "reasoning", "text": str(text)}:
            return text
        case {"type": "thinking", "thinking": list(parts)}:
            return "".join(map(_text, parts))
        case _:
            return ""


def _count(tokens: object) -> int | None:
    return tokens if type(tokens) is int and tokens >= 0 else None


def _is_unicode(text: str) -> bool:
    # JSON may spell half a surrogate pair, which no file or wire can store
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
