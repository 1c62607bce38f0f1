"""What the mock teacher puts on the wire for one call: an answer, or a fault in place of it."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any

from mock_answers import answer, language_of, tokens
from mock_http import EVENTS, Refused, error, response

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mock_script import Call, Fault, Script

KEEP, CLOSE, RESET = "keep", "close", "reset"

_MAX_ANSWERS = 128
_BLOCK = 65_536
_BYTES_IN_MEGABYTE = 1_000_000
_DRIP_BYTES = 4
_DRIP_SECONDS = 0.01
_DATE = "%a, %d %b %Y %H:%M:%S GMT"
_PAGE = b"<!doctype html><html><body><h1>Welcome to the proxy</h1></body></html>"
_REFUSALS = {
    "rate_limit": (429, "Rate limit reached; try again later"),
    "error": (500, "The server had an error while processing the request"),
    "overloaded": (503, "The engine is overloaded; try again later"),
    "unauthorized": (401, "Incorrect API key provided"),
}

_STREAM = (
    f"HTTP/1.1 200 OK\r\nContent-Type: {EVENTS}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
)
_json = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class Ask:
    """What a chat completion request asks for.

    Attributes:
        prompt: the conversation as one text, which decides the answer.
        n: answers wanted.
    """

    model: str
    prompt: str
    prompt_tokens: int
    language: str
    n: int
    stream: bool
    include_usage: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """The bytes of a reply.

    Attributes:
        pieces: what to write, one after another.
        interval: seconds between two pieces.
        end: what becomes of the connection: `keep`, `close` or `reset`.
    """

    pieces: Iterator[bytes]
    interval: float = 0.0
    end: str = KEEP


def read_ask(body: bytes, language: str | None) -> Ask:
    """Reads a request's body; `language` is what its header says.

    Raises:
        Refused: it is not a chat completion request.
    """
    try:
        data: Any = json.loads(body.decode())
    except (ValueError, RecursionError):
        raise Refused(400, "the body is not JSON") from None
    if not isinstance(data, dict):
        raise Refused(400, "the body must be an object")
    model, messages, n = data.get("model"), data.get("messages"), data.get("n")
    if not isinstance(model, str) or not model:
        raise Refused(400, "model: must be a text")
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "messages: must be a list that is not empty")
    turns = [_turn(place, message) for place, message in enumerate(messages)]
    n = 1 if n is None else n
    if type(n) is not int or not 1 <= n <= _MAX_ANSWERS:
        raise Refused(400, f"n: must be a whole number from 1 to {_MAX_ANSWERS}")
    stream = data.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise Refused(400, "stream: must be true or false")
    options = data.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise Refused(400, "stream_options: must be an object")
    return Ask(
        model,
        prompt="\n".join(f"{role}: {text}" for role, text in turns),
        prompt_tokens=sum(tokens(text) for _, text in turns),
        language=language_of(turns[-1][1], language),
        n=n,
        stream=bool(stream),
        include_usage=bool(options and options.get("include_usage")),
    )


def _turn(place: int, message: object) -> tuple[str, str]:
    match message:
        case {"role": str(role), "content": str(text)}:
            return role, text
        case {"role": str(role), "content": list(parts)}:
            texts = [part.get("text") for part in parts if isinstance(part, dict)]
            return role, "".join(text for text in texts if isinstance(text, str))
        case {"role": str(role), "content": None}:
            return role, ""
    raise Refused(400, f"messages[{place}]: must have a role and a content")


def reply(ask: Ask, script: Script, call: Call) -> Reply:
    """The reply to a call that does not hang."""
    fault = call.fault
    if fault and fault.kind in _REFUSALS:
        return _one(_refusal(fault))
    message = _Message(ask, script, call)
    if fault:
        return _faulty(fault, message)
    if ask.stream:
        interval = call.latency / script.model(ask.model).stream_pieces
        return Reply(message.stream(), interval)
    return _one(message.whole())


def _faulty(fault: Fault, message: _Message) -> Reply:
    match fault.kind:
        case "reset":
            made = Reply(iter(()), end=RESET)
        case "half_body":
            whole = message.whole()
            start = whole.index(b"\r\n\r\n") + 4
            made = Reply(iter((whole[: (start + len(whole)) // 2],)), end=CLOSE)
        case "bad_json":
            made = _one(message.malformed())
        case "wrong_type":
            made = _one(response(200, _PAGE, "text/html; charset=utf-8"))
        case "drip":
            made = _drip(message.whole(), fault.seconds)
        case "empty_choices":
            made = _one(message.without_choices())
        case "huge":
            made = Reply(message.huge(int(fault.megabytes * _BYTES_IN_MEGABYTE)))
        case kind:
            raise ValueError(f"{kind!r} has no reply")
    return made


def _one(piece: bytes) -> Reply:
    return Reply(iter((piece,)))


def _refusal(fault: Fault) -> bytes:
    status, text = _REFUSALS[fault.kind]
    headers = "WWW-Authenticate: Bearer\r\n" if fault.kind == "unauthorized" else ""
    if fault.retry_after is not None:
        value = f"{fault.retry_after:g}"
        if fault.retry_after_as == "date":
            value = time.strftime(_DATE, time.gmtime(time.time() + fault.retry_after))
        headers += f"Retry-After: {value}\r\n"
    return error(status, text, headers=headers)


def _drip(whole: bytes, seconds: float) -> Reply:
    """A few bytes at a time; more where the timer would not be as quick."""
    size = max(_DRIP_BYTES, math.ceil(len(whole) * _DRIP_SECONDS / max(seconds, _DRIP_SECONDS)))
    pieces = [whole[i : i + size] for i in range(0, len(whole), size)]
    return Reply(iter(pieces), interval=seconds / len(pieces))


class _Message:
    """The answers of one call as OpenAI's API sends them."""

    def __init__(self, ask: Ask, script: Script, call: Call) -> None:
        self._ask = ask
        self._model = script.model(ask.model)
        self._answers = [
            answer(script, ask.model, ask.prompt, ask.language, place) for place in range(ask.n)
        ]
        # a model's name comes from outside, and may hold what UTF-8 cannot
        self._made = (
            f'"id":"chatcmpl-{call.number:012x}","created":{int(time.time())}'
            f',"model":{json.dumps(ask.model)}'
        )

    def whole(self) -> bytes:
        """The response in one piece, streamed or not."""
        if self._ask.stream:
            return b"".join(self.stream())
        return response(200, self._completion())

    def stream(self) -> Iterator[bytes]:
        """The response as events, in as many pieces as the model's settings say."""
        count = self._model.stream_pieces
        for turn in range(count):
            before = self._opening() if turn == 0 else b""
            after = self._closing() if turn == count - 1 else b""
            yield before + b"".join(self._deltas(turn, count)) + after

    def malformed(self) -> bytes:
        """A whole response whose JSON ends in the middle."""
        text = self._completion().decode()
        text = text[: len(text) // 2]
        if self._ask.stream:
            return _STREAM + _event(text) + _DONE
        return response(200, text.encode())

    def without_choices(self) -> bytes:
        """A whole response with an empty list of choices."""
        self._answers = []
        if self._ask.stream:
            return _STREAM + self._chunk("") + self._closing()
        return response(200, self._completion())

    def huge(self, size: int) -> Iterator[bytes]:
        """A whole response of at least `size` bytes, which is never in memory as a whole."""
        text = _json(self._answers[0].text)[1:-1].encode()
        times = -(-size // len(text))
        if self._ask.stream:
            unit = b"".join(self._deltas(0, 1))
            before, after = self._opening(), self._closing(times)
        else:
            unit = text
            before, _, after = self._completion(times).partition(text)
            length = len(before) + times * len(text) + len(after)
            before = response(200, before, length=length)
        several = _BLOCK // len(unit) + 1
        yield before
        yield from repeat(unit * several, times // several)
        yield unit * (times % several) + after

    def _completion(self, times: int = 1) -> bytes:
        choices = ",".join(
            f'{{"index":{place},"message":{{"role":"assistant","content":{_json(one.text)}'
            + (f',"reasoning_content":{_json(one.reasoning)}' if one.reasoning else "")
            + '},"logprobs":null,"finish_reason":"stop"}'
            for place, one in enumerate(self._answers)
        )
        usage = f',"usage":{self._usage(times)}' if self._model.usage else ""
        return (
            f'{{"object":"chat.completion",{self._made},"choices":[{choices}]{usage}}}'
        ).encode()

    def _opening(self) -> bytes:
        role = '"role":"assistant","content":""'
        return _STREAM + b"".join(
            self._chunk(_choice(place, role)) for place in range(len(self._answers))
        )

    def _deltas(self, turn: int, count: int) -> Iterator[bytes]:
        """The part of every answer whose turn it is among so many parts."""
        for place, one in enumerate(self._answers):
            for name, text in (("reasoning_content", one.reasoning), ("content", one.text)):
                if part := text[len(text) * turn // count : len(text) * (turn + 1) // count]:
                    yield self._chunk(_choice(place, f'"{name}":{_json(part)}'))

    def _closing(self, times: int = 1) -> bytes:
        chunks = [self._chunk(_choice(place, "", '"stop"')) for place in range(len(self._answers))]
        if self._counts:
            chunks.append(self._chunk("", self._usage(times)))
        return b"".join(chunks) + _DONE

    @property
    def _counts(self) -> bool:
        return self._ask.include_usage and self._model.usage

    def _chunk(self, choices: str, usage: str = "null") -> bytes:
        told = f',"usage":{usage}' if self._counts else ""
        return _event(
            f'{{"object":"chat.completion.chunk",{self._made},"choices":[{choices}]{told}}}'
        )

    def _usage(self, times: int) -> str:
        """The bill, if the answers are said so many times."""
        thoughts = sum(tokens(one.reasoning) for one in self._answers)
        answered = thoughts + times * sum(tokens(one.text) for one in self._answers)
        details = f',"completion_tokens_details":{{"reasoning_tokens":{thoughts}}}'
        return (
            f'{{"prompt_tokens":{self._ask.prompt_tokens},"completion_tokens":{answered},'
            f'"total_tokens":{self._ask.prompt_tokens + answered}{details if thoughts else ""}}}'
        )


def _choice(place: int, delta: str, reason: str = "null") -> str:
    return f'{{"index":{place},"delta":{{{delta}}},"logprobs":null,"finish_reason":{reason}}}'


def _event(data: str) -> bytes:
    """A server-sent event as one chunk of the body."""
    event = f"data: {data}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


_DONE = _event("[DONE]") + b"0\r\n\r\n"
