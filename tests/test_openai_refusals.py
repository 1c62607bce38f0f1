"""Each HTTP status that is no answer, from a real server: its error, and the time to wait."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from arbitrage.errors import (
    TeacherAnswerInvalid,
    TeacherError,
    TeacherMisconfigured,
    TeacherRateLimited,
    TeacherRejected,
    TeacherUnavailable,
)
from tests.chat_server import failure, sends


@pytest.mark.parametrize(
    ("status", "kind", "hint"),
    [
        (301, TeacherRejected, ""),
        (400, TeacherRejected, ""),
        (401, TeacherMisconfigured, "check api_key_env"),
        (402, TeacherMisconfigured, "billing"),
        (403, TeacherMisconfigured, "check api_key_env"),
        (404, TeacherMisconfigured, "check model and base_url"),
        (408, TeacherUnavailable, ""),
        (409, TeacherUnavailable, ""),
        (413, TeacherRejected, ""),
        (422, TeacherRejected, ""),
        (425, TeacherUnavailable, ""),
        (429, TeacherRateLimited, ""),
        (500, TeacherUnavailable, ""),
        (503, TeacherUnavailable, ""),
        (529, TeacherUnavailable, ""),
    ],
)
@pytest.mark.parametrize(
    "payload",
    [
        {"error": {"message": "because of this", "code": 1}},
        {"error": "because of this"},
        {"detail": "because of this"},
        {"object": "error", "message": "because\n of \x1b this"},
        "because of this",
    ],
)
async def test_a_status_becomes_its_error(
    status: int, kind: type[TeacherError], hint: str, payload: object
) -> None:
    error = await failure(sends(payload, status=status, headers={"Location": "/elsewhere"}))
    assert type(error) is kind
    assert f"HTTP {status}: because of this" in str(error)
    assert str(error).endswith(hint)
    assert error.retry_after_seconds is None


@pytest.mark.parametrize("payload", ["long " * 10_000, {"error": ["long"] * 100_000}])
async def test_a_long_reason_is_cut(payload: object) -> None:
    error = await failure(sends(payload, status=400))
    assert len(str(error)) < 250


@pytest.mark.parametrize("payload", ["[" * 50_000, "[" * 900 + "]" * 900])
async def test_a_reason_that_is_nested_deep_is_told_as_far_as_it_can_be(payload: str) -> None:
    error = await failure(sends(payload, status=400))
    assert isinstance(error, TeacherRejected)


@pytest.mark.parametrize(
    ("status", "overloaded"), [(500, False), (502, False), (503, True), (529, True), (408, False)]
)
async def test_a_provider_that_has_too_much_to_do_says_so(status: int, overloaded: bool) -> None:
    error = await failure(sends("wait", status=status, headers={"Retry-After": "3"}))
    assert isinstance(error, TeacherUnavailable)
    assert error.overloaded is overloaded
    assert error.retry_after_seconds == 3


@pytest.mark.parametrize(
    "error",
    [
        {"message": "You exceeded your quota", "code": "insufficient_quota"},
        {"message": "You exceeded your quota", "type": "insufficient_quota", "code": None},
    ],
)
async def test_an_account_without_credit_is_not_waited_for(error: dict[str, str]) -> None:
    raised = await failure(sends({"error": error}, status=429, headers={"Retry-After": "1"}))
    assert isinstance(raised, TeacherMisconfigured)
    assert "billing" in str(raised)
    assert raised.retry_after_seconds is None


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (429, TeacherRateLimited),
        (502, TeacherUnavailable),
        (400, TeacherRejected),
        (200, TeacherAnswerInvalid),
        ("server_error", TeacherAnswerInvalid),
        (None, TeacherAnswerInvalid),
    ],
)
async def test_an_error_in_the_place_of_an_answer_means_the_status_that_it_names(
    code: object, kind: type[TeacherError]
) -> None:
    error = await failure(sends({"error": {"message": "because of this", "code": code}}))
    assert type(error) is kind
    assert "because of this" in str(error)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("soon", None), ("nan", None), ("inf", None)],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_in_seconds(status: int, value: str, seconds: float | None) -> None:
    error = await failure(sends("wait", status=status, headers={"Retry-After": value}))
    assert error.retry_after_seconds == seconds


async def test_retry_after_as_a_date() -> None:
    async def retry_after(ahead: timedelta) -> float:
        date = format_datetime(datetime.now(UTC) + ahead, usegmt=True)
        error = await failure(sends("wait", status=429, headers={"Retry-After": date}))
        assert error.retry_after_seconds is not None
        return error.retry_after_seconds

    assert 3500 < await retry_after(timedelta(hours=1)) <= 3600
    assert await retry_after(timedelta(hours=-1)) == 0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "20"}, 0.02),
        ({"retry-after-ms": "1500", "Retry-After": "2"}, 1.5),
        ({"retry-after-ms": "soon", "Retry-After": "2"}, 2.0),
        ({"x-ratelimit-reset-requests": "1s"}, 1.0),
        ({"x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        ({"x-ratelimit-reset-requests": "20ms", "x-ratelimit-reset-tokens": "1s"}, 1.0),
        (
            {
                "x-ratelimit-reset-requests": "20ms",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-tokens": "1s",
                "x-ratelimit-remaining-tokens": "100",
            },
            0.02,
        ),
        ({"x-ratelimit-reset-requests": "1h0m0.5s"}, 3600.5),
        ({"x-ratelimit-reset-requests": "7"}, 7.0),
        ({"x-ratelimit-reset-requests": "soon"}, None),
        ({"x-ratelimit-reset-requests": "6m0s", "Retry-After": "2"}, 2.0),
    ],
)
async def test_what_a_rate_limit_says_of_its_end(
    headers: dict[str, str], seconds: float | None
) -> None:
    error = await failure(sends("wait", status=429, headers=headers))
    assert error.retry_after_seconds == seconds


async def test_a_rate_limit_that_is_not_reached_delays_nothing() -> None:
    headers = {"x-ratelimit-reset-requests": "6m0s"}
    assert (await failure(sends(status=503, headers=headers))).retry_after_seconds is None
