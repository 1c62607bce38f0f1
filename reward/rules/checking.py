"""A process for checks that may take forever or crash, with a deadline for each."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from arbitrage.errors import RewardError

if TYPE_CHECKING:
    from asyncio.subprocess import Process

_SCRIPT = Path(__file__).with_name("checks.py")
_START_SECONDS = 30.0
_CLOSED = "rules: closed; nothing can be scored any more"
_NOT_STARTED = "rules: the process that checks answers does not start"


class RuleWrong(Exception):
    """No text can be held against the rule."""


class TookTooLong(Exception):
    """The check of this text was given up."""


class Crashed(Exception):
    """The process died of this text."""


class CheckingProcess:
    """Runs `checks.py` beside this process, and starts it anew when a check has ended it.

    Args:
        seconds: what one check may take.
    """

    def __init__(self, *, seconds: float = 2.0) -> None:
        self._seconds = seconds
        self._process: Process | None = None
        self._turn = asyncio.Lock()
        self._closed = False

    async def passes(self, check: str, rule: str, text: str) -> bool:
        """Whether a text passes a check.

        Cancelling the call ends the check.

        Raises:
            RuleWrong: no text can be held against the rule.
            TookTooLong: the check was given up.
            Crashed: the text has brought the process down.
            RewardError: the process cannot be started, or was closed.
        """
        request = json.dumps({"check": check, "rule": rule, "text": text})
        async with self._turn:
            try:
                process = self._process or await self._start()
                async with asyncio.timeout(self._seconds):
                    reply = await self._exchange(process, request)
            except TimeoutError:
                await self._end()
                raise TookTooLong(f"took over {self._seconds:g} s") from None
            except BaseException:
                # an answer to this request must not be taken for that to the next one
                await self._end()
                raise
        if "error" in reply:
            raise RuleWrong(reply["error"])
        return bool(reply["passed"])

    async def close(self) -> None:
        """Ends the process, and whatever check is under way."""
        self._closed = True
        await self._end()

    async def _exchange(self, process: Process, request: str) -> dict[str, str]:
        stdin, stdout = _pipes(process)
        with contextlib.suppress(ConnectionError):
            stdin.write(request.encode("ascii") + b"\n")
            await stdin.drain()
        line = await stdout.readline()
        if line.endswith(b"\n"):
            reply: dict[str, str] = json.loads(line)
            return reply
        raise RewardError(_CLOSED) if self._closed else Crashed

    async def _start(self) -> Process:
        self._require_open()
        try:
            # -I: the working directory and this package's own names stay out of its imports
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                str(_SCRIPT),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError as error:
            raise RewardError(f"{_NOT_STARTED}: {error.strerror}") from None
        self._require_open()
        try:
            async with asyncio.timeout(_START_SECONDS):
                ready = await _pipes(process)[1].readline()
        except TimeoutError:
            raise RewardError(f"{_NOT_STARTED} within {_START_SECONDS:g} s") from None
        if not ready:
            raise RewardError(_CLOSED if self._closed else f"{_NOT_STARTED}: it ends at once")
        return process

    def _require_open(self) -> None:
        if self._closed:
            raise RewardError(_CLOSED)

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        if process.stdin:
            process.stdin.close()
        await asyncio.shield(process.wait())


def _pipes(process: Process) -> tuple[asyncio.StreamWriter, asyncio.StreamReader]:
    assert process.stdin is not None  # noqa: S101 - both were asked for
    assert process.stdout is not None  # noqa: S101
    return process.stdin, process.stdout
