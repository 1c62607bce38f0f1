"""What an HTTP status that is no answer means, and how long to wait for a better one."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from arbitrage.errors import (
    TeacherError,
    TeacherMisconfigured,
    TeacherRateLimited,
    TeacherRejected,
    TeacherUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from teachers.endpoint import Endpoint

_BILLING = "check the account's credit and billing"
_HINTS: Mapping[int, str] = {
    HTTPStatus.UNAUTHORIZED: "check api_key_env",
    HTTPStatus.PAYMENT_REQUIRED: _BILLING,
    HTTPStatus.FORBIDDEN: "check api_key_env",
    HTTPStatus.NOT_FOUND: "check model and base_url",
}
_PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY)
_SITE_OVERLOADED = 529  # no standard status; several providers send it
_OVERLOADED = (HTTPStatus.SERVICE_UNAVAILABLE, _SITE_OVERLOADED)
_OUT_OF_CREDIT = ("insufficient_quota", "billing_not_active")
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(d|h|ms|m|s|us|ns)")


def refusal(
    endpoint: Endpoint, status: int, headers: Mapping[str, str], body: object
) -> TeacherError:
    """The error for a status that is no answer.

    Args:
        endpoint: whose status it is; takes secrets out of what it said.
        status: of HTTP, or the one in an error object.
        headers: of the answer, looked up in lower case.
        body: JSON that is already read, or the text as it came.
    """
    said = endpoint.public(said_in(body)) or "no reason given"
    message = f"{endpoint.place}: HTTP {status}: {said}"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        if _is_out_of_credit(body):
            # no wait helps: somebody has to pay
            return TeacherMisconfigured(f"{message}; {_BILLING}")
        wait = _retry_after(headers)
        wait = _until_reset(headers) if wait is None else wait
        return TeacherRateLimited(message, retry_after_seconds=wait)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _PASSING:
        return TeacherUnavailable(
            message,
            overloaded=status in _OVERLOADED,
            retry_after_seconds=_retry_after(headers),
        )
    if status in _HINTS:
        return TeacherMisconfigured(f"{message}; {_HINTS[status]}")
    return TeacherRejected(message)


def said_in(body: Any) -> str:
    """The provider's own words in the body of a refusal, or in an error object."""
    while isinstance(body, dict):
        body = next((body[k] for k in ("error", "message", "detail") if body.get(k)), "")
    try:
        return body if isinstance(body, str) else json.dumps(body)
    except RecursionError:
        return ""


def _is_out_of_credit(body: object) -> bool:
    error = body.get("error") if isinstance(body, dict) else None
    return isinstance(error, dict) and any(
        error.get(key) in _OUT_OF_CREDIT for key in ("code", "type")
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return max(milliseconds / 1000, 0.0)
    return _seconds_until(headers.get("retry-after"))


def _seconds_until(retry_after: str | None) -> float | None:
    """Seconds from now, of a Retry-After that holds seconds or an HTTP date."""
    if retry_after is None:
        return None
    seconds = _number(retry_after)
    if seconds is None:
        try:
            date = parsedate_to_datetime(retry_after)
        except ValueError:
            return None
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = (date - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0)


def _until_reset(headers: Mapping[str, str]) -> float | None:
    """The wait for the limit that is used up; for the later one where neither says so."""
    resets = {
        limit: duration(reset)
        for limit in ("requests", "tokens")
        if (reset := headers.get(f"x-ratelimit-reset-{limit}"))
    }
    waits = {limit: wait for limit, wait in resets.items() if wait is not None}
    used_up = [
        wait
        for limit, wait in waits.items()
        if _number(headers.get(f"x-ratelimit-remaining-{limit}")) == 0
    ]
    return max(used_up or waits.values(), default=None)


def duration(text: str) -> float | None:
    """Seconds in a text such as OpenAI's resets; None where it is none.

    >>> [duration(text) for text in ("1s", "6m0s", "20ms", "1h2m3.5s", "12", "soon")]
    [1.0, 360.0, 0.02, 3723.5, 12.0, None]
    """
    text = text.strip()
    if text and not _DURATION.sub("", text):
        return sum(float(count) * _UNITS[unit] for count, unit in _DURATION.findall(text))
    seconds = _number(text)
    return None if seconds is None else max(seconds, 0.0)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
