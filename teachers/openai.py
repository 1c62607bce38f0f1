"""Any OpenAI-compatible `/chat/completions` endpoint, over HTTP."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import aiohttp

from arbitrage.errors import (
    TeacherAnswerInvalid,
    TeacherError,
    TeacherRateLimited,
    TeacherRejected,
    TeacherUnavailable,
)
from arbitrage.types import Completion
from teachers.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
_HINTS: Mapping[int, str] = {
    HTTPStatus.UNAUTHORIZED: "check api_key_env",
    HTTPStatus.FORBIDDEN: "check api_key_env",
    HTTPStatus.NOT_FOUND: "check model and base_url",
}


async def open_teachers(configs: Sequence[config.OpenAITeacher]) -> list[OpenAITeacher]:
    """One teacher for each configuration, in order; nothing is connected yet.

    Raises:
        ConfigError: an address is wrong, or a key's environment variable is not set.
    """
    return [OpenAITeacher(settings) for settings in configs]


class OpenAITeacher:
    """A model behind an OpenAI-compatible endpoint.

    It keeps up to `max_concurrency` connections alive. It knows no timeout of
    its own: the pool gives each call its deadline.
    """

    def __init__(self, settings: config.OpenAITeacher) -> None:
        self.name = settings.name
        self._endpoint = Endpoint.of(settings)
        self._url = self._endpoint.at("chat/completions")
        self._request = {"model": settings.model, **_sampling_fields(settings.sampling)}
        self._connections = settings.max_concurrency
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"OpenAITeacher(name={self.name!r}, place={self._endpoint.place!r})"

    async def complete(self, messages: Sequence[Message]) -> Completion:
        """Sends the conversation; cancelling closes the connection.

        Raises:
            TeacherRateLimited: HTTP 429, with its Retry-After.
            TeacherUnavailable: HTTP 5xx, or the connection was refused or broke.
            TeacherRejected: any other status that is no answer.
            TeacherAnswerInvalid: the answer is not JSON, or holds no text.
        """
        if self._closed:
            raise TeacherUnavailable(f"{self._endpoint.place}: the teacher is closed")
        turns = [{"role": m.role, "content": m.content} for m in messages]
        body = {**self._request, "messages": turns}
        try:
            # a redirect would take prompt and key to a host that nobody configured
            async with self._connected().post(
                self._url, json=body, allow_redirects=False
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            reason = self._endpoint.public(str(error) or type(error).__name__)
            # aiohttp's errors hold the request's headers, and so the key
            raise TeacherUnavailable(f"{self._endpoint.place}: {reason}") from None
        if HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
            return self._read(content)
        raise self._refusal(response.status, response.headers, content)

    async def close(self) -> None:
        """Closes the connections; calls under way fail as unavailable."""
        self._closed = True
        if self._session:
            await self._session.close()

    def _connected(self) -> aiohttp.ClientSession:
        # made here and not in the constructor, since it belongs to the running loop
        if self._session is None:
            key = self._endpoint.key
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Authorization": f"Bearer {key}"} if key else None,
                proxy=self._endpoint.proxy,
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._session

    def _read(self, content: bytes) -> Completion:
        try:
            return _completion(json.loads(content))
        except (ValueError, RecursionError) as error:
            # the JSON parser's message quotes nothing of the answer
            reason = f"the answer is not JSON: {error}"
        except _NoText as error:
            reason = str(error)
        raise TeacherAnswerInvalid(f"{self._endpoint.place}: {self._endpoint.public(reason)}")

    def _refusal(self, status: int, headers: Mapping[str, str], content: bytes) -> TeacherError:
        said = self._endpoint.public(_message_in(content)) or "no reason given"
        message = f"{self._endpoint.place}: HTTP {status}: {said}"
        retry_after_seconds = _seconds_until(headers.get("Retry-After"))
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return TeacherRateLimited(message, retry_after_seconds=retry_after_seconds)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return TeacherUnavailable(message, retry_after_seconds=retry_after_seconds)
        hint = f"; {_HINTS[status]}" if status in _HINTS else ""
        return TeacherRejected(message + hint)


class _NoText(Exception):
    """An answer in JSON that holds no text, and why."""


def _completion(body: Any) -> Completion:
    match body:
        case {"choices": [{"message": {"content": str() | list() as content}} as choice, *_]}:
            text = content if isinstance(content, str) else "".join(map(_part, content))
        case {"choices": [{"message": {"content": None}} as choice, *_]}:
            raise _NoText(f"the content is null (finish_reason {choice.get('finish_reason')!r})")
        case {"choices": [_, *_]}:
            raise _NoText("the first choice holds no message with a content")
        case {"choices": []}:
            raise _NoText("choices is empty")
        case {"error": error}:
            raise _NoText(f"an error instead of choices: {_said(error)}")
        case _:
            raise _NoText("choices are missing")
    if not _is_unicode(text):
        raise _NoText("the content holds half a surrogate pair")
    reason = choice.get("finish_reason")
    reason = reason if isinstance(reason, str) and _is_unicode(reason) else "stop"
    usage = body.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Completion(
        text=text,
        finish_reason=_FINISH_REASONS.get(reason, reason),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
    )


def _part(part: object) -> str:
    """The text of one part of a content; thoughts and images are not part of the answer."""
    match part:
        case str():
            return part
        case {"type": "text" | "output_text", "text": str(text)}:
            return text
        case _:
            return ""


def _count(tokens: object) -> int | None:
    return tokens if type(tokens) is int and tokens >= 0 else None


def _is_unicode(text: str) -> bool:
    # JSON may spell a lone surrogate, which no file or wire can store
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _message_in(content: bytes) -> str:
    """The provider's own words in the body of a refusal."""
    try:
        return _said(json.loads(content))
    except (ValueError, RecursionError):
        return content.decode("utf-8", "replace")


def _said(body: Any) -> str:
    while isinstance(body, dict):
        body = next((body[k] for k in ("error", "message", "detail") if body.get(k)), "")
    return body if isinstance(body, str) else json.dumps(body)


def _seconds_until(retry_after: str | None) -> float | None:
    """Seconds from now, of a Retry-After that holds seconds or an HTTP date."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            date = parsedate_to_datetime(retry_after)
        except ValueError:
            return None
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = (date - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _sampling_fields(sampling: config.Sampling) -> dict[str, Any]:
    """The settings that are set; what is left out is the provider's choice."""
    fields: dict[str, Any] = {
        name: value
        for name in ("temperature", "top_p", "max_tokens", "frequency_penalty", "seed")
        if (value := getattr(sampling, name)) is not None
    }
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    return fields
