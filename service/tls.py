"""Who may listen how: TLS, whose files are read again when they change, or the clear."""

from __future__ import annotations

import socket
import ssl
from ipaddress import ip_address
from typing import TYPE_CHECKING

import grpc

from arbitrage.errors import ConfigError
from service.ports import place
from service.watched import Watched

if TYPE_CHECKING:
    from pathlib import Path

    from arbitrage import config


def credentials(service: config.Service) -> grpc.ServerCredentials | None:
    """What a server shows, and wants to be shown; None for plaintext.

    Files that change are what the next connection meets. Where they are wrong, the next connection
    meets what was there before.

    Raises:
        ConfigError: one of the files is missing or wrong, or the configuration names too few.
    """
    certificate, key, clients = service.tls_certificate, service.tls_key, service.tls_clients
    if certificate is None or key is None:
        missing = "tls_certificate" if certificate is None else "tls_key"
        for name in ("tls_certificate", "tls_key", "tls_clients"):
            if getattr(service, name) is not None:
                raise ConfigError(f"service.{missing}: is required with {name}")
        return None
    files = [certificate, key, *([clients] if clients else [])]
    watched = Watched(files, lambda: _configuration(certificate, key, clients))
    used = watched.latest()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        """Before each handshake, in a thread of gRPC's: what is new; None for nothing."""
        nonlocal used
        before, used = used, watched.latest()
        return None if used is before else used

    return grpc.dynamic_ssl_server_credentials(
        used,
        changed,  # type: ignore[arg-type] # the stubs know of no None, the documentation does
        require_client_authentication=clients is not None,
    )


def require_private(key: str, listen: str, service: config.Service) -> None:
    """Refuses to answer other machines in the clear, unless the operator wants just that.

    Args:
        key: the key of the address.
        listen: the address, `host:port`.
        service: where `plaintext` may allow it.

    Raises:
        ConfigError: it is no address, or may not be listened on without TLS.
    """
    host, _ = place(key, listen)
    if service.plaintext or is_loopback(host):
        return
    advice = (
        "use 127.0.0.1, or close the port with an empty address, or set plaintext = true"
        if key == "service.metrics"
        else "set tls_certificate and tls_key, or, behind a proxy that speaks TLS, plaintext = true"
    )
    raise ConfigError(f"{key}: {listen} may be reached from elsewhere, without TLS; {advice}")


def _configuration(
    certificate: Path, key: Path, clients: Path | None
) -> grpc.ServerCertificateConfiguration:
    """What gRPC is to use, once OpenSSL has found no fault in it.

    Raises:
        ConfigError: a file is missing or wrong, or the key is not the certificate's.
    """
    pair = _pem("key", key), _pem("certificate", certificate)
    authority = _pem("clients", clients) if clients else None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # without a password of ours it would ask the terminal for one
        context.load_cert_chain(certificate, key, password=str)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"service.tls_certificate: {certificate} and {key} are no PEM certificate and its own "
            f"key, without a password{_reason(error)}"
        ) from None
    try:
        if clients:
            context.load_verify_locations(clients)
    except OSError as error:
        raise ConfigError(
            f"service.tls_clients: {clients}: holds no PEM certificate{_reason(error)}"
        ) from None
    return grpc.ssl_server_certificate_configuration([pair], authority)


def _pem(name: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"service.tls_{name}: {file}: cannot be read: {error.strerror}") from None


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return f" ({reason})" if reason else ""


def is_loopback(host: str) -> bool:
    """Whether all that a name stands for is this machine alone; no where it stands for nothing."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host.strip("[]"), None)}
    except (OSError, UnicodeError):
        return False
    return all(ip_address(address.partition("%")[0]).is_loopback for address in found)
