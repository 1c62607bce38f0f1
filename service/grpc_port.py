"""The port that gRPC's clients call."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from service import sturdy
from service.guard import Guard
from service.ports import cannot_listen, place
from service.tls import credentials, is_loopback, require_private

if TYPE_CHECKING:
    import grpc

    from arbitrage import config
    from arbitrage.metrics import Metrics
    from service.tokens import Tokens

_LOG = logging.getLogger(__name__)
_PING_MS = 10_000
_HANDSHAKE_MS = 10_000  # who says nothing keeps a connection no longer


def bind(
    service: config.Service, metrics: Metrics, tokens: Tokens | None, door: sturdy.Door
) -> tuple[str, grpc.aio.Server]:
    """A gRPC server that has its port, and does not answer yet; and `host:port`.

    Args:
        service: where, and how it is closed to strangers.
        metrics: count the RPCs.
        tokens: whoever shows none of them is told nothing but health; None lets everybody in.
        door: is asked whom to let in while there is a crowd.

    Raises:
        ConfigError: nobody can listen there, or strangers would read along.
    """
    host, port = place("service.listen", service.listen)
    proof = credentials(service)
    if proof is None:
        require_private("service.listen", service.listen, service)
    if tokens is None and service.tls_clients is None and not is_loopback(host):
        _LOG.warning("service.listen: whoever reaches %s may call; set auth_tokens", service.listen)
    metadata_bytes = service.max_metadata_kb << 10
    options = [
        ("grpc.so_reuseport", 0),  # else a second server would silently share the port
        ("grpc.max_receive_message_length", service.max_message_mb << 20),
        # between these two, gRPC would refuse some at random
        ("grpc.max_metadata_size", metadata_bytes),
        ("grpc.absolute_max_metadata_size", metadata_bytes),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        # a client that waits for an answer may ask so often whether anybody is there
        ("grpc.http2.min_ping_interval_without_data_ms", _PING_MS),
    ]
    server = sturdy.server([Guard(metrics, tokens, service.max_prompts)], options, door)
    at = f"{host}:{port}"
    try:
        port = server.add_secure_port(at, proof) if proof else server.add_insecure_port(at)
    except RuntimeError as error:
        raise cannot_listen("service.listen", service.listen) from error
    return f"{host}:{port}", server
