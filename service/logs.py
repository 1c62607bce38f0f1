"""What a service logs: by default neither what clients send nor what teachers answer."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


def discreet(verbosity: int) -> None:
    """Has the root logger's handlers leave out of tracebacks what an unforeseen error says.

    Such an error may quote anything. Where it was raised is told all the same.

    Args:
        verbosity: 0 logs warnings, 1 what is usual, too; from 2 on all is logged, whatever it
            quotes.
    """
    level = _LEVELS[min(verbosity, len(_LEVELS) - 1)]
    root = logging.getLogger()
    root.setLevel(level)
    if level > logging.DEBUG:
        for handler in root.handlers:
            handler.setFormatter(_Discreet("%(levelname)s %(name)s: %(message)s"))


class _Discreet(logging.Formatter):
    def formatException(  # noqa: N802 - the library's name
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None],
    ) -> str:
        """The frames of an error and of what led to it, with their kinds alone."""
        told = traceback.TracebackException.from_exception(ei[1]) if ei[1] else None
        return "\n".join(_frames(told)) if told else ""


def _frames(told: traceback.TracebackException) -> list[str]:
    before = told.__cause__ or (None if told.__suppress_context__ else told.__context__)
    lines = _frames(before) if before else []
    lines += [line.rstrip("\n") for line in told.stack.format()]
    for inner in told.exceptions or ():
        lines += _frames(inner)
    kind = told.exc_type.__qualname__ if told.exc_type else "error"
    return [*lines, f"{kind} (arbitrage serve -vv tells what it says)"]
