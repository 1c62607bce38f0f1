"""What the libraries under the ports log as errors of ours, and is a stranger's doing."""

from __future__ import annotations

import logging

from aiohttp.http_exceptions import HttpProcessingError

_GRPC = (
    "Invalid encoding on",  # metadata that is no UTF-8
    "ExecuteBatchError raised in core",  # the client's stream broke before it was told the status
)


def hush() -> None:
    """Leaves out of the log what anybody could fill it with: a traceback for each bad request.

    Who sends such a thing is told so; what goes wrong here is logged as before.
    """
    logging.getLogger("grpc._cython.cygrpc").addFilter(_not_of_grpc)
    logging.getLogger("aiohttp.server").addFilter(_not_of_http)


def _not_of_grpc(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_GRPC)


def _not_of_http(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))
