"""Errors as gRPC statuses, each with the `google.rpc` detail that its code promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2 as details_pb
from google.rpc import status_pb2

from arbitrage import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

CODES = {code.value[0]: code for code in grpc.StatusCode}
_PLAIN = {
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.ConfigError: grpc.StatusCode.FAILED_PRECONDITION,  # such as of a job's file
    errors.DeadlinePassed: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.NotBuilt: grpc.StatusCode.UNIMPLEMENTED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
}
_KINDS: Mapping[grpc.StatusCode, type[errors.ArbitrageError]] = {
    **{code: kind for kind, code in _PLAIN.items()},
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Overloaded,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
}
_DETAILS, _PUSHBACK = "grpc-status-details-bin", "grpc-retry-pushback-ms"
_LONGEST_PUSHBACK_SECONDS = 30.0  # who has to wait longer is told so
_RETRY_AFTER_SECONDS = 1
# a status travels as metadata, of which gRPC takes 8 KiB, with this text up to three times in it
_MAX_BYTES = 1_000


def status_of(error: errors.ArbitrageError) -> status_pb2.Status:
    """The status that tells a client of an error."""
    code, detail = _PLAIN.get(type(error), grpc.StatusCode.INTERNAL), None
    match error:
        case errors.InvalidPrompt():
            code = grpc.StatusCode.INVALID_ARGUMENT
            violation = details_pb.BadRequest.FieldViolation(
                field=_short(error.field), description=_short(error.reason)
            )
            detail = details_pb.BadRequest(field_violations=[violation])
        case errors.NoWinner() if error.transient:
            code, detail = grpc.StatusCode.UNAVAILABLE, _retry_info()
        case errors.NoWinner():
            code = grpc.StatusCode.FAILED_PRECONDITION
            detail = details_pb.ErrorInfo(reason="NO_WINNER", domain="arbitrage.v1")
        case errors.Unauthenticated():
            code = grpc.StatusCode.UNAUTHENTICATED
            detail = details_pb.ErrorInfo(reason="UNAUTHENTICATED", domain="arbitrage.v1")
        case errors.PermissionDenied():
            code = grpc.StatusCode.PERMISSION_DENIED
            detail = details_pb.ErrorInfo(
                reason="SCOPE_MISSING", domain="arbitrage.v1", metadata={"scope": error.scope}
            )
        case errors.Overloaded(retry_after_seconds=seconds):
            code, detail = grpc.StatusCode.RESOURCE_EXHAUSTED, _retry_info(seconds or 0.0)
        case errors.BudgetSpent():
            code = grpc.StatusCode.FAILED_PRECONDITION
            detail = details_pb.ErrorInfo(reason="BUDGET_SPENT", domain="arbitrage.v1")
        case errors.NoTeacherAvailable(retry_after_seconds=float(seconds)):
            code, detail = grpc.StatusCode.UNAVAILABLE, _retry_info(seconds)
        case (
            errors.NoTeacherAvailable()
            | errors.RewardError()
            | errors.SinkError()
            | errors.Stopping()
            | errors.Unavailable()
        ):
            code, detail = grpc.StatusCode.UNAVAILABLE, _retry_info()
    return status_pb2.Status(
        code=code.value[0], message=_short(str(error)), details=[_packed(detail)] if detail else []
    )


def trailers_of(
    status: status_pb2.Status, seconds_left: float | None = None
) -> tuple[tuple[str, str | bytes], ...]:
    """What a status sends beside its code and message: its details, and when to try again.

    Clients that retry by a service config keep to the second by themselves, in every language
    (gRFC A6); -1 keeps them from it.

    Args:
        status: of an error.
        seconds_left: until the client's deadline; it had better hear of the error than wait in
            vain. None where it has none.
    """
    trailers: list[tuple[str, str | bytes]] = [(_DETAILS, status.SerializeToString())]
    if retry := _detail(status, details_pb.RetryInfo):
        seconds = retry.retry_delay.ToTimedelta().total_seconds()
        most = _LONGEST_PUSHBACK_SECONDS if seconds_left is None else seconds_left
        wait = int(1000 * seconds) if seconds < min(most, _LONGEST_PUSHBACK_SECONDS) else -1
        trailers.append((_PUSHBACK, str(wait)))
    return tuple(trailers)


def error_of(status: status_pb2.Status) -> errors.ArbitrageError:
    """The error that a status tells of: what a client raises where a service has refused."""
    bad, retry, info = (
        _detail(status, kind)
        for kind in (details_pb.BadRequest, details_pb.RetryInfo, details_pb.ErrorInfo)
    )
    reason = info.reason if info else ""
    error: errors.ArbitrageError
    match CODES.get(status.code, grpc.StatusCode.UNKNOWN):
        case grpc.StatusCode.INVALID_ARGUMENT if bad and bad.field_violations:
            first = bad.field_violations[0]
            error = errors.InvalidPrompt(first.field, first.description)
        case grpc.StatusCode.INVALID_ARGUMENT:
            error = errors.InvalidPrompt("request", status.message)
        case grpc.StatusCode.FAILED_PRECONDITION if reason == "NO_WINNER":
            error = errors.NoWinner(status.message, None)
        case grpc.StatusCode.PERMISSION_DENIED:
            scope = info.metadata["scope"] if info and "scope" in info.metadata else ""
            error = errors.PermissionDenied(status.message, scope=scope)
        case grpc.StatusCode.FAILED_PRECONDITION if reason == "BUDGET_SPENT":
            error = errors.BudgetSpent(status.message)
        case code if code in _KINDS:
            error = _KINDS[code](status.message)
        case code:
            error = errors.ArbitrageError(f"{code.name}: {status.message}")
    if retry:
        error.retry_after_seconds = retry.retry_delay.ToTimedelta().total_seconds()
    return error


def _detail(status: status_pb2.Status, kind: Any) -> Any:
    """The first detail of a kind; None without one."""
    for packed in status.details:
        message = kind()
        if packed.Unpack(message):
            return message
    return None


def _short(text: str) -> str:
    """The text, cut where it quotes so much that the status would not arrive."""
    encoded = text[: _MAX_BYTES + 1].encode("utf-8", "replace")
    if len(encoded) <= _MAX_BYTES:
        return encoded.decode()
    return f"{encoded[:_MAX_BYTES].decode('utf-8', 'ignore')}…"


def _retry_info(seconds: float = 0.0) -> details_pb.RetryInfo:
    delay = Duration()
    delay.FromMilliseconds(int(1000 * max(seconds, _RETRY_AFTER_SECONDS)))
    return details_pb.RetryInfo(retry_delay=delay)


def _packed(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed
