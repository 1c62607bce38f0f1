"""Errors as gRPC statuses, each with the `google.rpc` detail that its code promises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2 as details_pb
from google.rpc import status_pb2

from arbitrage import errors

if TYPE_CHECKING:
    from google.protobuf.message import Message

CODES = {code.value[0]: code for code in grpc.StatusCode}
_PLAIN = {
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.ConfigError: grpc.StatusCode.FAILED_PRECONDITION,  # such as of a job's file
    errors.NotBuilt: grpc.StatusCode.UNIMPLEMENTED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
}
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
                field=error.field, description=_short(error.reason)
            )
            detail = details_pb.BadRequest(field_violations=[violation])
        case errors.NoWinner() if error.transient:
            code, detail = grpc.StatusCode.UNAVAILABLE, _retry_info()
        case errors.NoWinner():
            code = grpc.StatusCode.FAILED_PRECONDITION
            detail = details_pb.ErrorInfo(reason="NO_WINNER", domain="arbitrage.v1")
        case errors.Overloaded():
            code, detail = grpc.StatusCode.RESOURCE_EXHAUSTED, _retry_info()
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
        ):
            code, detail = grpc.StatusCode.UNAVAILABLE, _retry_info()
    return status_pb2.Status(
        code=code.value[0], message=_short(str(error)), details=[_packed(detail)] if detail else []
    )


def _short(text: str) -> str:
    """The text, cut where it quotes so much that the status would not arrive."""
    encoded = text.encode("utf-8", "replace")
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
