"""HTTP/1.1 for the mock teacher: requests read from bytes, responses as bytes.

As little as a benchmark's client needs, and quick: a head that was seen before
is not parsed again. It takes `Content-Length` and chunked bodies, pipelined
requests, keep-alive and `Expect: 100-continue`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus

MAX_BODY = 16_000_000
"""Bytes; a longer body is refused."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
JSON = "application/json"
EVENTS = "text/event-stream"

_MAX_HEAD = 32_768
_MAX_CHUNK_LINE = 256
_REQUEST_LINE_WORDS = 3


class Refused(Exception):
    """A request that gets an error instead of an answer.

    Attributes:
        ends: whether the connection has to end, since nobody knows where the next
            request would begin.
    """

    def __init__(self, status: int, message: str, *, ends: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.ends = ends


@dataclass(frozen=True, slots=True)
class Head:
    """What matters of a request's line and headers.

    Attributes:
        length: of the body, in bytes; None for a chunked one.
        modern: HTTP/1.1, and not 1.0.
        last: whether the connection is to end after this request.
        language: of the header `X-Language`.
    """

    method: str
    path: str
    length: int | None
    modern: bool
    last: bool
    expects: bool
    language: str | None


class RequestReader:
    """Reads one request after another from what a connection brings."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._head: Head | None = None
        self._chunks: list[bytes] | None = None

    def feed(self, data: bytes) -> None:
        """Takes what has come."""
        self._bytes += data

    @property
    def waiting(self) -> int:
        """Bytes that no request has used yet."""
        return len(self._bytes)

    def expects_continue(self) -> bool:
        """Whether the client waits to be told to send its body."""
        return bool(self._head and self._head.expects and not self._bytes and not self._chunks)

    def next(self) -> tuple[Head, bytes] | None:
        """The next request's head and body, if both are here.

        Raises:
            Refused: what has come is no request, or one that is too large.
        """
        if self._head is None:
            end = self._bytes.find(b"\r\n\r\n")
            if (end if end >= 0 else len(self._bytes)) > _MAX_HEAD:
                raise Refused(431, f"the head is longer than {_MAX_HEAD} bytes", ends=True)
            if end < 0:
                return None
            self._head = _head(bytes(self._bytes[:end]))
            del self._bytes[: end + 4]
        body = self._chunked() if self._head.length is None else self._take(self._head.length)
        if body is None:
            return None
        head, self._head = self._head, None
        return head, body

    def _take(self, length: int) -> bytes | None:
        if len(self._bytes) < length:
            return None
        taken = bytes(self._bytes[:length])
        del self._bytes[:length]
        return taken

    def _chunked(self) -> bytes | None:
        """The whole body; chunks that are complete are put aside until the last has come."""
        chunks = self._chunks = self._chunks or []
        room = MAX_BODY - sum(map(len, chunks))
        while (end := self._bytes.find(b"\r\n", 0, _MAX_CHUNK_LINE)) >= 0:
            size = _hexadecimal(self._bytes[:end])
            if size > room:
                raise _too_large()
            if size == 0:
                return self._last_chunk(end)
            if len(self._bytes) < end + 2 + size + 2:
                return None
            if self._bytes[end + 2 + size : end + 4 + size] != b"\r\n":
                raise Refused(400, "a chunk is longer than it says", ends=True)
            chunks.append(bytes(self._bytes[end + 2 : end + 2 + size]))
            del self._bytes[: end + 4 + size]
            room -= size
        if len(self._bytes) >= _MAX_CHUNK_LINE:
            raise Refused(400, "a chunk does not say its size", ends=True)
        return None

    def _last_chunk(self, end: int) -> bytes | None:
        """The chunks joined, once the trailers, which mean nothing here, have come."""
        if self._bytes[end + 2 : end + 4] == b"\r\n":
            end += 4
        elif (trailers := self._bytes.find(b"\r\n\r\n", end)) >= 0:
            end = trailers + 4
        elif len(self._bytes) > _MAX_HEAD:
            raise Refused(431, "the trailers are too long", ends=True)
        else:
            return None
        del self._bytes[:end]
        body, self._chunks = b"".join(self._chunks or ()), None
        return body


@lru_cache(maxsize=512)
def _head(head: bytes) -> Head:
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != _REQUEST_LINE_WORDS or words[2] not in {"HTTP/1.1", "HTTP/1.0"}:
        raise Refused(400, "the first line is not of HTTP/1.1", ends=True)
    method, target, version = words
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    modern = version == "HTTP/1.1"
    return Head(
        method,
        path=target.partition("?")[0],
        length=_length(headers),
        modern=modern,
        last=not modern or "close" in headers.get("connection", "").lower(),
        expects=modern and headers.get("expect", "").lower() == "100-continue",
        language=headers.get("x-language") or None,
    )


def _length(headers: dict[str, str]) -> int | None:
    if coding := headers.get("transfer-encoding"):
        if coding.lower() != "chunked":
            raise Refused(501, "transfer-encoding: only chunked is known", ends=True)
        return None
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise Refused(400, "content-length: must be a whole number", ends=True)
    # so many digits, and int would complain itself
    if len(length) > len(str(MAX_BODY)) or int(length) > MAX_BODY:
        raise _too_large()
    return int(length)


def _hexadecimal(line: bytearray) -> int:
    digits = line.partition(b";")[0].strip()
    try:
        if digits.isalnum():
            return int(digits, 16)
    except ValueError:
        pass
    raise Refused(400, "a chunk does not say its size", ends=True)


def _too_large() -> Refused:
    return Refused(413, f"the body is longer than {MAX_BODY} bytes", ends=True)


def response(
    status: int, body: bytes, kind: str = JSON, *, headers: str = "", length: int | None = None
) -> bytes:
    """A whole response.

    Args:
        kind: the content type.
        headers: further lines, each with its line end.
        length: the length to promise, where it is not the body's own.
    """
    size = len(body) if length is None else length
    lines = f"Content-Type: {kind}\r\nContent-Length: {size}\r\n{headers}"
    return f"HTTP/1.1 {status} {_phrase(status)}\r\n{lines}\r\n".encode() + body


def error(status: int, message: str, *, headers: str = "") -> bytes:
    """A whole response with an error as OpenAI's API has it."""
    kind = _KINDS.get(status, "invalid_request_error")
    body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
    return response(status, json.dumps(body, ensure_ascii=False).encode(), headers=headers)


_KINDS = {
    401: "authentication_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


@lru_cache(maxsize=64)
def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase
