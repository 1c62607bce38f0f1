"""The `/chat/completions` protocol: what is asked, and what an answer says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from arbitrage.types import Completion
from teachers.reasoning import Splitter, split
from teachers.refusal import said_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from arbitrage import config
    from arbitrage.types import Message

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


_UNKNOWN = Billed()


class NoAnswer(Exception):
    """JSON without an answer in it: why, and what was billed all the same."""

    def __init__(self, reason: str, billed: Billed = _UNKNOWN) -> None:
        super().__init__(reason)
        self.billed = billed


class HeardThoughts(NoAnswer):
    """A stream whose beginning, passed on as the answer, turned out to be thoughts."""


class ErrorObject(Exception):
    """An error that came in the place of an answer, with HTTP 200.

    Attributes:
        body: the object with the error in it.
        status: the HTTP status that it names, if it does.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        super().__init__(said_in(body))
        error = body["error"]
        code = error.get("code") if isinstance(error, dict) else None
        self.body = body
        self.status = code if type(code) is int and 400 <= code < 600 else None  # noqa: PLR2004


def request_fields(settings: config.OpenAITeacher) -> dict[str, Any]:
    """What every request to a teacher holds; what is not set is the provider's choice."""
    sampling = settings.sampling
    fields: dict[str, Any] = {"model": settings.model}
    for name in ("temperature", "top_p", "max_tokens", "frequency_penalty", "seed"):
        if (value := getattr(sampling, name)) is not None:
            fields[name] = value
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    if sampling.n > 1:
        fields["n"] = sampling.n
    if sampling.json_schema is not None:
        fields["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": sampling.json_schema, "strict": True},
        }
    return fields


def request_body(fields: Mapping[str, Any], messages: Iterable[Message]) -> bytes:
    """A request as JSON."""
    turns = [{"role": message.role, "content": message.content} for message in messages]
    request = {**fields, "messages": turns}
    try:
        return orjson.dumps(request)
    except TypeError:
        # half a surrogate pair has no UTF-8, but JSON can spell it
        return json.dumps(request).encode()


def parse(content: bytes) -> Any:
    """Reads JSON.

    Raises:
        ValueError: it is none.
        RecursionError: it is nested too deep.
    """
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        # takes what the protocol does not forbid: NaN, half a surrogate pair
        return json.loads(content)


def read(body: Any, most: int) -> Answers:
    """Reads a whole answer.

    Args:
        body: the answer's JSON.
        most: choices asked for; any beyond are dropped.

    Raises:
        NoAnswer: no choice holds a text.
        ErrorObject: it is an error with a status.
    """
    match body:
        case {"choices": [_, *_] as found}:
            choices = [_Choice.of(choice) for choice in found[:most]]
            return _answers(choices, Billed.of(body.get("usage")))
        case {"choices": []}:
            raise NoAnswer("choices is empty", Billed.of(body.get("usage")))
        case {"error": error} if error:
            refused = ErrorObject(body)
            if refused.status:
                raise refused
            raise NoAnswer(f"an error instead of choices: {refused}")
        case _:
            raise NoAnswer("choices are missing")


class Stream:
    """Puts an answer together from the chunks of a stream.

    Args:
        on_delta: hears the first answer's text, piece by piece.
        most: choices asked for; any beyond are dropped.
        opened: the model's chat template is known to open a block of thoughts.
    """

    def __init__(self, on_delta: Callable[[str], None], most: int, *, opened: bool) -> None:
        self._on_delta = on_delta
        self._most = most
        self._splitter = Splitter(opened=opened)
        self._heard: list[str] = []
        self._choices: dict[int, _Choice] = {}
        self._billed = _UNKNOWN

    @property
    def whole(self) -> bool:
        """Whether there is a choice, and every choice has come to its end."""
        return bool(self._choices) and all(c.finish_reason for c in self._choices.values())

    def take(self, chunk: Any) -> None:
        """Takes the next chunk.

        Raises:
            NoAnswer: it is none.
            ErrorObject: it is an error.
        """
        match chunk:
            case {"error": error} if error:
                raise ErrorObject(chunk)
            case {**fields}:
                choices = fields.get("choices")
                for choice in choices if isinstance(choices, list) else ():
                    self._take(choice)
                if usage := fields.get("usage"):
                    self._billed = Billed.of(usage)
            case _:
                raise NoAnswer("the stream holds something that is no chunk")

    def finish(self) -> Answers:
        """Ends the answer; what was held back of it is heard.

        Raises:
            NoAnswer: no choice holds a text.
        """
        choices = [choice for _, choice in sorted(self._choices.items())]
        if not choices:
            raise NoAnswer("choices is empty", self._billed)
        answers = _answers(choices, self._billed)
        text, heard = answers.completions[0].text, "".join(self._heard)
        if not text.startswith(heard):
            raise HeardThoughts(
                "thoughts came without an opening tag; from now on their end is waited for",
                self._billed,
            )
        self._hear(text[len(heard) :])
        return answers

    def _take(self, choice: Any) -> None:
        index = choice.get("index", 0) if isinstance(choice, dict) else None
        if type(index) is not int:
            raise NoAnswer("the stream holds something that is no choice")
        if not 0 <= index < self._most:
            return
        so_far = self._choices.setdefault(index, _Choice())
        piece = so_far.add(choice.get("delta"), choice.get("finish_reason"))
        if index == 0:
            self._hear(self._splitter.feed(piece))

    def _hear(self, piece: str) -> None:
        if piece:
            self._heard.append(piece)
            self._on_delta(piece)


class _Choice:
    """One answer as it comes: its text and its thoughts, whole or in pieces."""

    __slots__ = ("finish_reason", "reasoning", "text")

    def __init__(self) -> None:
        self.text: list[str] | None = None
        self.reasoning: list[str] = []
        self.finish_reason: str | None = None

    @classmethod
    def of(cls, choice: Any) -> _Choice:
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
        if reasoning and not text and self.finish_reason == "length":
            raise NoAnswer("max_tokens were spent on thoughts; raise max_tokens")
        if self.text is None:
            raise NoAnswer(f"the answer holds no text (finish_reason {self.finish_reason!r})")
        if not _is_unicode(text) or (reasoning and not _is_unicode(reasoning)):
            raise NoAnswer("the answer holds half a surrogate pair")
        return text, reasoning


def _answers(choices: Sequence[_Choice], billed: Billed) -> Answers:
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
