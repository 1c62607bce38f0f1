"""The command line in processes of its own: servers to talk to, and commands that end.

It knows the product from outside alone, as a user does.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import duckdb

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ROOT = Path(__file__).parents[1]
_COMMAND = (sys.executable, "-m", "cli")
_PATIENCE_SECONDS = 60

CONFIG = """
[service]
listen = "127.0.0.1:0"
metrics = "127.0.0.1:0"

[[teachers]]
name = "ada"
kind = "scripted"
quality = { default = 1.0 }

[[teachers]]
name = "bob"
kind = "scripted"
quality = { default = -1.0 }

[reward]
kind = "scripted"

[policy]
kind = "best_of"

[sink]
path = "OUT"
"""


def write_config(folder: Path, old: str = "", new: str = "") -> Path:
    """A configuration whose sink is `folder/out`, with one of its texts replaced."""
    assert old in CONFIG
    path = folder / "config.toml"
    path.write_text(CONFIG.replace(old, new, 1).replace("OUT", str(folder / "out")), "utf-8")
    return path


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line on stderr."""
        assert self.err.endswith("\n"), self
        assert self.err.count("\n") == 1, self.err
        return self.err.strip()


def arbitrage(
    *arguments: str | Path | bytes, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> Ended:
    """Runs a command to its end."""
    done = subprocess.run(
        [*_COMMAND, *arguments],
        cwd=_ROOT,
        env={**os.environ, **(env or {})},
        input=stdin,
        capture_output=True,
        timeout=_PATIENCE_SECONDS,
        check=False,
    )
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


@dataclass(frozen=True, slots=True)
class Served:
    """A server in a process of its own, from the moment it answers."""

    process: subprocess.Popen[str]
    address: str
    metrics: str

    def stop(self, number: int) -> Ended:
        """Sends a signal and waits for the end."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=_PATIENCE_SECONDS)
        return Ended(self.process.returncode, out, err)


@contextmanager
def served(path: Path, *arguments: str) -> Iterator[Served]:
    """`arbitrage serve`; what is still running at the end is killed."""
    with subprocess.Popen(
        [*_COMMAND, "serve", "-c", path, *arguments],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        watchdog = threading.Timer(_PATIENCE_SECONDS, process.kill)
        watchdog.start()
        try:
            assert process.stdout
            ready = process.stdout.readline()
            watchdog.cancel()
            serving, comma, metrics = ready.strip().partition(", metrics at ")
            assert comma, process.communicate()
            yield Served(process, serving.removeprefix("serving on "), metrics)
        finally:
            watchdog.cancel()
            process.kill()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def published(out: Path, folder: str = "data") -> list[str]:
    """Sample ids in a run's Parquet files, sorted, so that one that is stored twice shows."""
    files = [str(file) for file in (out / folder).glob("*/*.parquet")]
    if not files:
        return []
    query = "SELECT sample_id FROM read_parquet($files) ORDER BY 1"
    return [cast("str", row[0]) for row in duckdb.execute(query, {"files": files}).fetchall()]
