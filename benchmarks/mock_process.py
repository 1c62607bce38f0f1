"""The mock teacher in a process of its own, to be called, counted and upset."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

COMMAND = (sys.executable, str(Path(__file__).with_name("mock_teacher.py")))
_PATIENCE_SECONDS = 60
# the environment's proxy has no way to loopback
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class MockServer:
    """A mock teacher that answers.

    Attributes:
        base_url: what a teacher's configuration has, with `/v1` at its end.
    """

    process: subprocess.Popen[str]
    base_url: str

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, for a raw socket."""
        parts = urlsplit(self.base_url)
        return parts.hostname or "", parts.port or 0

    def stats(self) -> Any:
        """The counters: `models` by name, `total` and `connections`."""
        return self._ask("/stats")

    def reset(self) -> None:
        """Clears the counters; calls are numbered from 0 again."""
        self._ask("/stats/reset", {})

    def script(self, script: Mapping[str, Any]) -> None:
        """Replaces the script; calls are numbered from 0 again.

        Raises:
            ValueError: what is wrong in it.
        """
        self._ask("/script", script)

    def stop(self, number: int) -> int:
        """Sends a signal, and gives the exit code."""
        self.process.send_signal(number)
        return self.process.wait(_PATIENCE_SECONDS)

    def _ask(self, path: str, data: Mapping[str, Any] | None = None) -> Any:
        url = self.base_url.removesuffix("/v1") + path
        body = None if data is None else json.dumps(data).encode()
        try:
            with _OPENER.open(url, body, _PATIENCE_SECONDS) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                message = json.load(error)["error"]["message"]
            raise ValueError(message) from None


@contextmanager
def mock_teacher(
    script: Mapping[str, Any] | None = None, **options: float | str | Path
) -> Iterator[MockServer]:
    """Starts a mock teacher, and kills it at the end.

    Args:
        script: as a script's file would hold it.
        options: of its command line, such as `latency=0.0` or `answer_characters=100`.
    """
    flags = [
        part
        for name, value in options.items()
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]
    with subprocess.Popen([*COMMAND, *flags], stdout=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(_PATIENCE_SECONDS, process.kill)
        watchdog.start()
        try:
            line = process.stdout.readline() if process.stdout else ""
            watchdog.cancel()
            _, said, base_url = line.rstrip("\n").partition("listening on ")
            if not said:
                raise RuntimeError(f"the mock teacher did not start: {line!r}")
            server = MockServer(process, base_url)
            if script is not None:
                server.script(script)
            yield server
        finally:
            watchdog.cancel()
            process.kill()
