"""What `chaos.py` upsets: a service on a small disk, and the judge that it asks."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import end_to_end
from aiohttp import web
from chaos_findings import Held

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

TEACHERS = ("ada", "bob", "eve", "ivy")
DISK_MB = 1024
_COMMAND = (sys.executable, "-c", "import sys, cli; sys.exit(cli.main())", "serve")
_CONFIG = """
[service]
listen = "127.0.0.1:0"
metrics = "127.0.0.1:0"
openai = "127.0.0.1:0"
jobs = "{disk}/jobs"
[reward]
kind = "judge"
gates = []
[reward.teacher]
name = "judge"
kind = "openai"
model = "judge"
base_url = "{judge}"
timeout_seconds = 1.5
max_attempts = 2
max_concurrency = 64
[policy]
kind = "thompson"
fan_out = 2
[sink]
path = "{disk}/out"
[job]
max_in_flight = 48
deadline_seconds = 5.0
"""
_TEACHER = """
[[teachers]]
name = "{name}"
kind = "openai"
model = "{name}"
base_url = "{url}"
timeout_seconds = 2.0
max_concurrency = {most}
"""


@dataclass
class Judge:
    """A provider whose model grades answers, as long as it is well."""

    mood: str = "well"

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Answers; yields the base address."""
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._grade)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        finally:
            await runner.cleanup()

    async def _grade(self, request: web.Request) -> web.Response:
        text = str((await request.json())["messages"][0]["content"])
        said = f'{{"score": {1 + len(text) % 10}}}'
        match self.mood:
            case "failing":
                return web.json_response({"error": {"message": "broken"}}, status=500)
            case "hanging":
                await asyncio.sleep(60)
            case "resetting" if request.transport:
                request.transport.abort()
            case "babbling":
                said = "Both are fine answers, I think."
        choice = {"index": 0, "finish_reason": "stop", "message": {"content": said}}
        return web.json_response({"choices": [choice]})


@dataclass
class Server:
    """The service in a process of its own.

    Attributes:
        config: the file that it reads.
        complaints: where it writes what goes wrong.
    """

    process: subprocess.Popen[str]
    config: Path
    complaints: Path
    address: str
    metrics: str
    openai: str

    @property
    def ports(self) -> list[int]:
        """Where clients come in."""
        places = (f"http://{self.address}", self.openai)
        return [port for place in places if (port := urlsplit(place).port)]

    def held(self) -> Held:
        """What it holds now."""
        return Held.by(self.process.pid, self.ports, self.metrics)


def configs(disk: Path, judge: str, url: str) -> Callable[[int], str]:
    """The configuration, and nine others: five good, four bad."""

    def teachers(*names: str, most: int = 32) -> str:
        return "".join(_TEACHER.format(name=name, url=url, most=most) for name in names)

    usual = _CONFIG.format(disk=disk, judge=judge)
    texts = [
        usual + teachers(*TEACHERS),
        usual + teachers(*TEACHERS[1:]),
        usual + teachers(*TEACHERS[:1]),
        usual + teachers(*TEACHERS, "zoe"),
        usual + teachers(*TEACHERS, most=8),
        usual + teachers("zoe", *reversed(TEACHERS)),
        usual + teachers("ada", "ada"),
        usual.replace("fan_out = 2", "fan_out = 3") + teachers(*TEACHERS),
        usual + teachers(*TEACHERS) + "colour = 'red'\n",
        usual + teachers(*TEACHERS)[:-9],
    ]
    return texts.__getitem__


@contextmanager
def small_disk(folder: Path) -> Iterator[tuple[Path, bool]]:
    """A disk to be filled; yields where it is, and whether it is one: not all may mount it."""
    disk = folder / "disk"
    disk.mkdir()
    command = ("mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "none", str(disk))
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        yield disk, False
        return
    try:
        yield disk, True
    finally:
        subprocess.run(("umount", "-l", str(disk)), check=True)  # noqa: S607 - wherever it is


@contextmanager
def serving(folder: Path, text: str) -> Iterator[Server]:
    """Runs the service."""
    config, complaints = folder / "config.toml", folder / "complaints"
    config.write_text(text, "utf-8")
    with (
        complaints.open("wb") as log,
        subprocess.Popen(
            (*_COMMAND, "-c", str(config)),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=end_to_end.environment(),
        ) as process,
    ):
        try:
            line = process.stdout.readline() if process.stdout else ""
            if len(places := re.findall(r"(?:on|at) ([^\s,]+)", line)) != 3:  # noqa: PLR2004
                raise SystemExit(complaints.read_text("utf-8"))
            yield Server(process, config, complaints, *places)
        finally:
            process.kill()
