"""A real Prometheus that scrapes what a test runs, and is asked through its HTTP API."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 0.1
# the environment's proxy has no way to loopback
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def installed() -> bool:
    """Whether the server and its checker are here."""
    return all(shutil.which(name) for name in ("prometheus", "promtool"))


def promtool(*arguments: str | Path) -> str:
    """What the checker prints; it must be content."""
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One that runs."""

    process: subprocess.Popen[bytes]
    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of its API."""
        query = urllib.parse.urlencode(parameters)
        try:
            with _OPENER.open(f"{self.url}/api/v1/{path}?{query}", None, _PATIENCE_SECONDS) as told:
                return json.load(told)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def values(self, expression: str) -> list[tuple[Mapping[str, str], float]]:
        """Labels and values of an expression, now."""
        result = self.ask("query", query=expression)["result"]
        return [(one["metric"], float(one["value"][1])) for one in result]

    def firing(self) -> dict[tuple[str, str], Mapping[str, str]]:
        """The annotations of the alerts that fire, by their name and teacher or instance."""
        alerts = [a for a in self.ask("alerts")["alerts"] if a["state"] == "firing"]
        return {
            (labels["alertname"], labels.get("teacher", labels.get("instance", ""))): a[
                "annotations"
            ]
            for a in alerts
            for labels in (a["labels"],)
        }

    def until(self, true: Callable[[], object], what: object) -> None:
        """Waits until something is so."""
        until = time.monotonic() + _PATIENCE_SECONDS
        while not true():
            assert self.process.poll() is None, "Prometheus has ended"
            assert time.monotonic() < until, f"never so: {what}"
            time.sleep(_PAUSE_SECONDS)


@contextmanager
def prometheus(config: Path, storage: Path) -> Iterator[Prometheus]:
    """Starts one on a configuration, with an empty storage, and kills it at the end."""
    listen = f"127.0.0.1:{free_port()}"
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={storage}",
        f"--web.listen-address={listen}",
        "--log.level=warn",
    ]
    with subprocess.Popen(command) as process:
        try:
            started = Prometheus(process, f"http://{listen}")
            started.until(lambda: _ready(started.url), "Prometheus is ready")
            yield started
        finally:
            process.kill()


def _ready(url: str) -> bool:
    try:
        with _OPENER.open(f"{url}/-/ready", None, _PATIENCE_SECONDS) as response:
            return bool(response.status == 200)
    except OSError:
        return False
