"""The connection to a service: TLS, keep-alive, what is tried again, and what went wrong."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypedDict, Unpack

import grpc
from google.rpc import status_pb2

from arbitrage.errors import ArbitrageError, ConfigError, Unavailable
from arbitrage.status import error_of

ADDRESS = "127.0.0.1:50051"
"""Where a service listens by default."""
ATTEMPTS = 5
"""How often a call is made at most, by default and by gRPC's own limit."""
_DETAILS = "grpc-status-details-bin"
_SERVICES = ("arbitrage.v1.ArbitrageService", "arbitrage.v1.JobService")
_KEEPALIVE_SECONDS = 30.0
_KEEPALIVE_TIMEOUT_SECONDS = 10.0
_RECONNECT_MS = 5_000
_PARTS = ("ROOTS", "CERTIFICATE", "KEY")
_BROKEN = "Internal error from Core"  # grpc.aio, of a stream that the server ends during a write


@dataclass(frozen=True, slots=True)
class TLS:
    """How a client and a service prove to each other who they are, in PEM files.

    Attributes:
        roots: authorities that may have signed the service's certificate; None for
            those that gRPC brings.
        certificate, key: the client's own chain and its key, where the service wants one.
        name: the name to find in the service's certificate, where that is not the address's.
    """

    roots: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    name: str | None = None


class Options(TypedDict, total=False):
    """What a client may be told beside the address.

    Attributes:
        token: what `arbitrage token new` printed; it is sent with every call.
        tls: None for a connection in the clear.
        plaintext: send the token in the clear to another machine, too.
        timeout_seconds: deadline of a call, by default 600; None for no deadline. Streams of
            many prompts and of a job's progress have none unless they are given one.
        attempts: how often a call is made at most, from 1 to 5, by default 5. What is made
            again is what ended as UNAVAILABLE, after as long as the service says.
        keepalive_seconds: after so long without a sign of life during a call the service is
            asked for one, by default 30.
    """

    token: str | None
    tls: TLS | None
    plaintext: bool
    timeout_seconds: float | None
    attempts: int
    keepalive_seconds: float


def environment(**options: Unpack[Options]) -> Options:
    """Options, with what the environment tells commands beside: secrets are no arguments.

    `ARBITRAGE_TOKEN` is the token; `ARBITRAGE_TLS_ROOTS` a PEM file of authorities, with
    which the connection is private, or empty for those that gRPC brings; where the service
    wants to see the client's certificate, `ARBITRAGE_TLS_CERTIFICATE` and `ARBITRAGE_TLS_KEY`
    are PEM files of it and of its key.
    """
    if token := os.environ.get("ARBITRAGE_TOKEN"):
        options["token"] = token
    roots, certificate, key = (os.environ.get(f"ARBITRAGE_TLS_{part}") for part in _PARTS)
    if roots is not None or certificate or key:
        options["tls"] = TLS(_file(roots), _file(certificate), _file(key))
    return options


def _file(name: str | None) -> Path | None:
    return Path(name) if name else None


def service_config(attempts: int) -> str:
    """What gRPC does by itself: repeat what ended as UNAVAILABLE, after the server's delay or ours.

    Every call may be repeated: ids make those safe that change something. A stream of many
    prompts is none of gRPC's business: the client knows which of them were answered.
    """
    policy = {
        "maxAttempts": attempts,
        "initialBackoff": "0.5s",
        "maxBackoff": "5s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    arbitrate = {"service": _SERVICES[0], "method": "Arbitrate"}
    names = [{"service": service} for service in _SERVICES]
    return json.dumps(
        {"methodConfig": [{"name": [arbitrate]}, {"name": names, "retryPolicy": policy}]}
    )


def connect(address: str, options: Options) -> grpc.aio.Channel:
    """A channel, in the running loop; it connects with the first call.

    Raises:
        ConfigError: an option is wrong, or the token would go out in the clear.
    """
    tls, attempts = options.get("tls"), options.get("attempts", ATTEMPTS)
    if not 1 <= attempts <= ATTEMPTS:
        raise ConfigError(f"attempts: {attempts}: must be from 1 to {ATTEMPTS}")
    private = tls is not None or options.get("plaintext", False) or _is_loopback(address)
    if options.get("token") and not private:
        raise ConfigError(f"{address}: the token would go there in the clear; give tls = TLS(...)")
    alive = options.get("keepalive_seconds", _KEEPALIVE_SECONDS)
    arguments: list[tuple[str, Any]] = [
        ("grpc.enable_http_proxy", 0),  # loopback and private addresses are no proxy's business
        ("grpc.max_receive_message_length", -1),  # a policy's state may be large
        ("grpc.keepalive_time_ms", int(1000 * alive)),
        # both: by itself the first leaves a ping a minute for its answer
        ("grpc.keepalive_timeout_ms", int(1000 * min(alive, _KEEPALIVE_TIMEOUT_SECONDS))),
        ("grpc.http2.ping_timeout_ms", int(1000 * min(alive, _KEEPALIVE_TIMEOUT_SECONDS))),
        ("grpc.http2.max_pings_without_data", 0),  # an answer may take longer than two pings
        ("grpc.max_reconnect_backoff_ms", _RECONNECT_MS),
        ("grpc.enable_retries", int(attempts > 1)),
    ]
    if attempts > 1:
        arguments.append(("grpc.service_config", service_config(attempts)))
    if tls is None:
        return grpc.aio.insecure_channel(address, arguments)
    if tls.name:
        arguments.append(("grpc.ssl_target_name_override", tls.name))
    return grpc.aio.secure_channel(address, _credentials(tls), arguments)


def told(address: str, error: grpc.aio.AioRpcError) -> ArbitrageError:
    """The error that a failed call tells of."""
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS and isinstance(value, bytes):
            return error_of(status_pb2.Status.FromString(value))
    details = (error.details() or "no reason given").splitlines()[0]
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        if "refused" in details:
            details = "nobody answers; start: arbitrage serve -c CONFIG"
        return Unavailable(f"{address}: {details}")
    if error.code() is grpc.StatusCode.INTERNAL and details.startswith(_BROKEN):
        return Unavailable(f"{address}: the stream broke while a prompt was sent")
    number = error.code().value[0]
    return error_of(status_pb2.Status(code=number, message=f"{address}: {details}"))


def _credentials(tls: TLS) -> grpc.ChannelCredentials:
    if (tls.certificate is None) != (tls.key is None):
        raise ConfigError("tls: give certificate and key together")
    try:
        parts = [
            file.read_bytes() if file else None for file in (tls.roots, tls.key, tls.certificate)
        ]
    except OSError as error:
        raise ConfigError(f"tls: {error.filename}: cannot be read: {error.strerror}") from None
    return grpc.ssl_channel_credentials(*parts)


def _is_loopback(address: str) -> bool:
    """Whether an address is this machine's own, by its looks: no name is looked up."""
    host = address.rpartition(":")[0].strip("[]")
    if address.startswith("unix:") or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
