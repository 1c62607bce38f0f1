"""What a service logs: by default neither what clients send nor what teachers answer."""

from __future__ import annotations

import json
import logging
import re
import traceback
from typing import TYPE_CHECKING, Any

from structlog.processors import JSONRenderer, TimeStamper
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_logger_name

from service.identity import caller
from service.request import current

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Literal

    from structlog.typing import EventDict, Processor

_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
_EXTRA = ("code", "seconds")  # beside the message, where a line has them
_PLAIN = re.compile(r'[^\s"=\\\x00-\x1f\x7f-\x9f]+')


def discreet(verbosity: int, form: Literal["text", "json"] = "text") -> None:
    """Has the root logger's handlers tell, with each line, for which request it was logged.

    They leave out of tracebacks what an unforeseen error says, which may quote anything. Where
    it was raised is told all the same.

    Args:
        verbosity: 0 logs warnings, 1 what is usual, too; from 2 on all is logged, whatever it
            quotes.
        form: of a line: for people, or an object of JSON.
    """
    level = _LEVELS[min(verbosity, len(_LEVELS) - 1)]
    root = logging.getLogger()
    root.setLevel(level)
    formatter = _formatter(form, frank=level == logging.DEBUG)
    for handler in root.handlers:
        handler.setFormatter(formatter)


def _formatter(form: str, *, frank: bool) -> logging.Formatter:
    json_ = form == "json"
    processors: list[Processor] = [
        *([TimeStamper(fmt="iso", utc=True)] if json_ else []),
        _level,
        add_logger_name,
        ExtraAdder(_EXTRA),
        _circumstances,
        _frank if frank else _discreet,
        ProcessorFormatter.remove_processors_meta,
        JSONRenderer(ensure_ascii=False) if json_ else _line,
    ]
    return ProcessorFormatter(processors=processors)


def _level(_: object, name: str, event: EventDict) -> EventDict:
    event["level"] = name
    return event


def _circumstances(_: object, __: str, event: EventDict) -> EventDict:
    """For whom the line was logged: the request or the job, who calls, and the trace."""
    if about := current.get(None):
        told = {"request_id": about.request_id, "method": about.method, "job": about.job}
        event.update({key: value for key, value in told.items() if value})
        if (known := caller.get(None)) and about.request_id:
            event["caller"] = f"{known.kind} {known.name}"
        if about.trace_id:
            event["trace_id"] = about.trace_id
    return event


def _frank(_: object, __: str, event: EventDict) -> EventDict:
    if found := event.pop("exc_info", None):
        event["exception"] = "".join(traceback.format_exception(*found)).rstrip("\n")
    return event


def _discreet(_: object, __: str, event: EventDict) -> EventDict:
    """The frames of an error and of what led to it, with their kinds alone."""
    found: tuple[type[BaseException], BaseException, TracebackType | None] | None
    found = event.pop("exc_info", None)
    if found and found[1]:
        told = traceback.TracebackException.from_exception(found[1])
        event["exception"] = "\n".join(_frames(told))
    if event["logger"] == "asyncio":  # which goes on with what an error, or a future, says
        event["event"] = event["event"].partition("\n")[0]
    return event


def _frames(told: traceback.TracebackException) -> list[str]:
    before = told.__cause__ or (None if told.__suppress_context__ else told.__context__)
    lines = _frames(before) if before else []
    lines += [line.rstrip("\n") for line in told.stack.format()]
    for inner in told.exceptions or ():
        lines += _frames(inner)
    kind = told.exc_type.__qualname__ if told.exc_type else "error"
    return [*lines, f"{kind} (arbitrage serve -vv tells what it says)"]


def _line(_: object, __: str, event: EventDict) -> str:
    """A line for people; the level, who logged it and what, the rest, and below it an error."""
    exception, stack = event.pop("exception", None), event.pop("stack_info", None)
    line = f"{event.pop('level').upper()} {event.pop('logger')}: {event.pop('event')}"
    return "\n".join(filter(None, (line + _pairs(event), exception, stack)))


def _pairs(rest: Mapping[str, Any]) -> str:
    """Names and values, each on its own whatever it is made of.

    >>> _pairs({"code": "OK", "caller": "token etl"})
    ' code=OK caller="token etl"'
    """
    told = ((key, str(value)) for key, value in rest.items())
    return "".join(
        f" {key}={value if _PLAIN.fullmatch(value) else json.dumps(value)}" for key, value in told
    )
