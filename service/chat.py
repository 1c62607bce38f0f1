"""OpenAI's chat completions as values: what a request asks, and how an answer is told."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from arbitrage.errors import BudgetSpent, InvalidPrompt, NotFound, NoWinner
from arbitrage.status import CODES, error_of, status_of
from arbitrage.types import Message, Prompt
from arbitrage.wire import few, short, unicode
from service.options import options_from

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arbitrage.errors import ArbitrageError
    from arbitrage.types import Candidate, Role, Sample
    from arbitrage.v1 import arbitrage_pb2 as pb

MODEL = "arbitrage"
"""The name of the pool as one model."""
_LANGUAGE_HEADER = "x-arbitrage-language"
_ROLES: Mapping[object, Role] = {
    "system": "system",
    "developer": "system",  # the newer name for the same
    "user": "user",
    "assistant": "assistant",
}
OPTIONS = "arbitrage"
"""The parameter that OpenAI's API does not have."""
_READ = {"model", "messages", "stream", "stream_options", "metadata", OPTIONS}
_HINTS = frozenset({
    "frequency_penalty", "max_completion_tokens", "max_tokens", "min_p", "parallel_tool_calls",
    "prediction", "presence_penalty", "prompt_cache_key", "prompt_cache_retention",
    "reasoning_effort", "repetition_penalty", "safety_identifier", "seed", "service_tier", "store",
    "temperature", "top_k", "top_p", "user", "verbosity",
})  # fmt: skip
"""Wishes that a teacher's own settings stand for: nothing that can be relied on is lost."""
_PLAIN: Mapping[str, tuple[object, ...]] = {
    "audio": (),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "response_format": ({"type": "text"},),
    "stop": ([], ""),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "web_search_options": (),
}
"""What would change what an answer is, with the values that ask for nothing."""
_LONGEST = 1000  # characters of a parameter's name that are told
_REASONS = frozenset({"stop", "length", "content_filter"})
_HTTP = {
    "INVALID_ARGUMENT": (400, "invalid_request_error", None),
    "UNAUTHENTICATED": (401, "authentication_error", "invalid_api_key"),
    "PERMISSION_DENIED": (403, "permission_error", "insufficient_permissions"),
    "NOT_FOUND": (404, "invalid_request_error", "model_not_found"),
    "RESOURCE_EXHAUSTED": (429, "rate_limit_error", "rate_limit_exceeded"),
    "UNAVAILABLE": (503, "server_error", "unavailable"),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks.

    Attributes:
        stream: piece by piece.
        with_usage: count tokens at a stream's end, too.
        ignored: parameters that came and have no effect, sorted.
        options: how the prompt is to be routed, at the path `OPTIONS`.
    """

    prompt: Prompt
    stream: bool
    with_usage: bool
    ignored: tuple[str, ...]
    options: pb.RoutingOptions

    @classmethod
    def of(cls, body: object, headers: Mapping[str, str]) -> Self:
        """Reads a request.

        Raises:
            InvalidPrompt: something in it is wrong, or cannot be granted; names the parameter.
            NotFound: it asks for another model.
        """
        if not isinstance(body, dict):
            raise InvalidPrompt("body", "must be a JSON object")
        few(body, "body")
        given = {key: value for key, value in body.items() if value is not None}
        model = given.get("model")
        if not isinstance(model, str):
            raise InvalidPrompt("model", f"is required; there is one, {MODEL!r}")
        if model != MODEL:
            raise NotFound(f"model: there is no {model!r}; use {MODEL!r}")
        ignored = _ignored(given)
        chosen = options_from(given.get(OPTIONS, {}), OPTIONS)
        metadata = _metadata(given.get("metadata", {}))
        language = headers.get(_LANGUAGE_HEADER) or metadata.pop("language", None)
        short(metadata.get("domain", ""), "metadata.domain")
        stream = given.get("stream", False)
        if not isinstance(stream, bool):
            raise InvalidPrompt("stream", "must be true or false")
        options = given.get("stream_options", {})
        with_usage = isinstance(options, dict) and bool(options.get("include_usage"))
        try:
            prompt = Prompt.of(
                _messages(given.get("messages")),
                language=language,
                domain=metadata.pop("domain", None),
                metadata=metadata,
            )
        except InvalidPrompt as error:
            field = "metadata.language" if error.field == "language" else error.field
            raise InvalidPrompt(field, error.reason) from None
        return cls(prompt, stream, with_usage, ignored, chosen)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as HTTP has it."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str]

    @classmethod
    def of(cls, error: ArbitrageError) -> Self:
        """What a client of OpenAI's understands of an error."""
        told = status_of(error)
        status, kind, code = _HTTP.get(CODES[told.code].name, (500, "server_error", None))
        if isinstance(error, NoWinner) and not error.transient:
            # asking again would pay again
            status, kind, code = 422, "invalid_request_error", "no_winner"
        if isinstance(error, BudgetSpent):
            status, kind, code = 429, "insufficient_quota", "insufficient_quota"
        headers = {}
        if (seconds := error_of(told).retry_after_seconds) is not None:
            headers["retry-after"] = f"{max(seconds, 1.0):.0f}"
        else:
            headers["x-should-retry"] = "false"
        # what is wrong may be a name that no JSON may hold, or a very long one
        param = unicode(error.field[:_LONGEST]) if isinstance(error, InvalidPrompt) else None
        return cls(status, failure(told.message, kind, code, param), headers)


def failure(
    message: str, kind: str, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def completion(sample: Sample, winner: Candidate) -> dict[str, Any]:
    """A whole answer, with `arbitrage` beside what OpenAI has."""
    message = {"role": "assistant", "content": _text(winner), "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(winner)}
    body = {
        "id": f"chatcmpl-{sample.sample_id}",
        "object": "chat.completion",
        "created": int(sample.created_at.timestamp()),
        "model": MODEL,
        "choices": [choice],
        "arbitrage": _told(sample, winner),
    }
    return body | ({"usage": used} if (used := usage(sample, winner)) else {})


class Chunks:
    """The chunks of one streamed answer, as server-sent events.

    Args:
        name: the answer's id.
        created: seconds since 1970.
    """

    def __init__(self, name: str, created: int) -> None:
        self._head = {"id": f"chatcmpl-{name}", "object": "chat.completion.chunk"}
        self._head |= {"created": created, "model": MODEL}  # type: ignore[dict-item] # JSON

    def text(self, text: str, *, first: bool = False) -> bytes:
        """More of the answer."""
        role = {"role": "assistant"} if first else {}
        return self._choice({**role, "content": unicode(text)})

    def last(self, sample: Sample, winner: Candidate) -> bytes:
        """Why it ended, and who wrote it."""
        return self._choice({}, _reason(winner), {"arbitrage": _told(sample, winner)})

    def usage(self, sample: Sample, winner: Candidate) -> bytes:
        """What it took."""
        return event({**self._head, "choices": [], "usage": usage(sample, winner)})

    def _choice(
        self,
        delta: Mapping[str, str],
        reason: str | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return event({**self._head, "choices": [choice], **(more or {})})


END = b"data: [DONE]\n\n"


def event(body: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n".encode()


def usage(sample: Sample, winner: Candidate) -> dict[str, int] | None:
    """The tokens of the call that the winner came from; None where nobody counted."""
    answers = [c.completion for c in sample.candidates if c.teacher == winner.teacher]
    read = [a.prompt_tokens for a in answers if a and a.prompt_tokens is not None]
    written = [a.completion_tokens for a in answers if a and a.completion_tokens is not None]
    if not written:
        return None
    return {
        "prompt_tokens": sum(read),
        "completion_tokens": sum(written),
        "total_tokens": sum(read) + sum(written),
    }


def _ignored(given: Mapping[str, object]) -> tuple[str, ...]:
    """The parameters without effect, once it is known that the others can be granted."""
    for key, value in given.items():
        if key in _PLAIN and value not in _PLAIN[key]:
            raise InvalidPrompt(key, "is not offered: teachers differ in it; leave it out")
        if key not in _READ and key not in _HINTS and key not in _PLAIN:
            raise InvalidPrompt(key, "is not known here, and might matter; leave it out")
    return tuple(sorted(key for key in given if key in _HINTS))


def _metadata(metadata: object) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise InvalidPrompt("metadata", "must be an object whose values are texts")
    few(metadata, "metadata")
    return dict(metadata)


def _messages(messages: object) -> Sequence[Message]:
    if not isinstance(messages, list):
        raise InvalidPrompt("messages", "is required, as a list")
    few(messages, "messages")
    return [_message(f"messages[{index}]", one) for index, one in enumerate(messages)]


def _message(at: str, message: object) -> Message:
    if not isinstance(message, dict):
        raise InvalidPrompt(at, 'must be {"role": "...", "content": "..."}')
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise InvalidPrompt(f"{at}.role", f"unknown {role!r}; use {', '.join(map(str, _ROLES))}")
    for key in ("tool_calls", "function_call", "audio"):
        if message.get(key):
            raise InvalidPrompt(f"{at}.{key}", "is not offered; send text alone")
    content = message.get("content")
    if isinstance(content, list):
        few(content, f"{at}.content")
        content = "".join(_part(f"{at}.content[{i}]", part) for i, part in enumerate(content))
    return Message(_ROLES[role], content)  # type: ignore[arg-type] # Prompt.of checks


def _part(at: str, part: object) -> str:
    match part:
        case {"type": "text", "text": str(text)}:
            return text
    raise InvalidPrompt(at, 'must be {"type": "text", "text": "..."}; teachers read text alone')


def _text(winner: Candidate) -> str:
    return unicode(winner.completion.text) if winner.completion else ""


def _reason(winner: Candidate) -> str:
    reason = winner.completion.finish_reason if winner.completion else "stop"
    return reason if reason in _REASONS else "stop"


def _told(sample: Sample, winner: Candidate) -> dict[str, Any]:
    """What feedback and curiosity need."""
    return {
        "sample_id": sample.sample_id,
        "language": sample.prompt.language,
        "teacher": winner.teacher,
        "reward": winner.reward,
        "asked": list(sample.decision.arms),
        "cost_usd": sum(one.cost_usd for one in sample.candidates),
    }
