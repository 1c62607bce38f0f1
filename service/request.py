"""What is worked for: the request, or the job, that log lines and traces tell of."""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass

ID_HEADER = "x-request-id"
"""What a client may name its request with, and is told its name by."""
TRACE_HEADER = "traceparent"
"""What a client may name the span with that a request is part of (W3C Trace Context)."""
_SANE = re.compile(r"[!-~]{1,128}")


@dataclass(slots=True)
class Request:
    """What is worked for.

    Attributes:
        request_id: the client's name of it, or else our own; empty for a job.
        method: what is asked.
        job: the job's name; empty for a client's request.
        parent: the span that it is part of, as the client has sent it; empty without one.
        many: whether it brings many prompts, each with a trace of its own.
        trace_id: of its one prompt's trace, in hexadecimal digits; empty without one.
    """

    request_id: str = ""
    method: str = ""
    job: str = ""
    parent: str = ""
    many: bool = False
    trace_id: str = ""

    @classmethod
    def of(
        cls, method: str, sent_id: object = None, parent: object = None, *, many: bool = False
    ) -> Request:
        """A client's request, under the name it has sent if that is sane."""
        sane = isinstance(sent_id, str) and _SANE.fullmatch(sent_id)
        return cls(
            sent_id if sane and isinstance(sent_id, str) else secrets.token_hex(8),
            method,
            parent=parent if isinstance(parent, str) else "",
            many=many,
        )


current: ContextVar[Request] = ContextVar("request")
"""Set in each RPC of our own services, each job, and in the tasks that they start."""


def internal() -> str:
    """What a client is told of an error that nobody has foreseen."""
    about = current.get(None)
    of = f" for request {about.request_id}" if about and about.request_id else ""
    return f"internal error; see the server's log{of}"
