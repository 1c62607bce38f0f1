"""The `/chat/completions` protocol: what is asked, and what an answer says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson

from teachers.choices import NOT_COUNTED, Answers, Billed, Choice, NoAnswer, answers_of
from teachers.reasoning import Splitter
from teachers.refusal import said_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from arbitrage import config
    from arbitrage.types import Message

__all__ = [
    "Answers",
    "ErrorObject",
    "HeardThoughts",
    "NoAnswer",
    "Stream",
    "parse",
    "read",
    "request_body",
    "request_fields",
]


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


def request_fields(settings: config.OpenAITeacher | config.LiteLLMTeacher) -> dict[str, Any]:
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
            choices = [Choice.of(choice) for choice in found[:most]]
            return answers_of(choices, Billed.of(body.get("usage")))
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
        self._choices: dict[int, Choice] = {}
        self._billed = NOT_COUNTED

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
        answers = answers_of(choices, self._billed)
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
        so_far = self._choices.setdefault(index, Choice())
        piece = so_far.add(choice.get("delta"), choice.get("finish_reason"))
        if index == 0:
            self._hear(self._splitter.feed(piece))

    def _hear(self, piece: str) -> None:
        if piece:
            self._heard.append(piece)
            self._on_delta(piece)
