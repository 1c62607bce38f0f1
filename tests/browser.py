"""A headless Chromium to look at pages with, driven through its debugging protocol."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_PATIENCE_SECONDS = 60.0
_HEARD = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
_ASKED = ("Page.javascriptDialogOpening", "Network.requestWillBeSent")


def installed() -> str | None:
    """The program, if there is one."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


@dataclass
class Tab:
    """One page.

    Attributes:
        complaints: what its console has heard, and what went wrong in it.
        requests: addresses that it has asked for.
    """

    socket: aiohttp.ClientWebSocketResponse
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    _calls: int = 0

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression of the page's language; a promise is waited for."""
        answer = await self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, expression: str) -> None:
        """Waits until something is so."""
        until = time.monotonic() + _PATIENCE_SECONDS
        while not await self.evaluate(expression):
            assert time.monotonic() < until, f"never so: {expression}"
            await asyncio.sleep(0.02)

    async def press(self, keys: str) -> None:
        """Types them, as on a keyboard."""
        for key in keys:
            await self._call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key)
            await self._call("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def go(self, url: str, before: str = "") -> None:
        """Opens an address, and waits until the page says that it is ready.

        Args:
            url: the address.
            before: what runs in the page before its own script.
        """
        await self._call("Page.addScriptToEvaluateOnNewDocument", source=before)
        await self._call("Page.navigate", url=url)
        await self.until("document.documentElement?.dataset.ready === ''")

    async def look(self, *, width: int, dark: bool) -> None:
        """Becomes a window of that width, and light or dark."""
        await self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self._call("Emulation.setEmulatedMedia", features=[scheme])

    async def _call(self, method: str, **parameters: Any) -> Any:
        self._calls += 1
        await self.socket.send_json({"id": self._calls, "method": method, "params": parameters})
        while True:
            message = await self.socket.receive_json(timeout=_PATIENCE_SECONDS)
            self._hear(message)
            if message.get("id") == self._calls:
                assert "error" not in message, message
                return message["result"]

    def _hear(self, message: dict[str, Any]) -> None:
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
            case method if method in _HEARD or method in _ASKED:
                self.complaints.append(json.dumps(message["params"]))


@dataclass(frozen=True)
class Browser:
    """A Chromium that runs."""

    port: int

    @asynccontextmanager
    async def tab(self, *, width: int = 1280, dark: bool = False) -> AsyncIterator[Tab]:
        """An empty page."""
        root = f"http://127.0.0.1:{self.port}/json"
        async with aiohttp.ClientSession() as session:
            async with session.put(f"{root}/new?about:blank") as response:
                target = json.loads(await response.text())
            address = target["webSocketDebuggerUrl"]
            async with session.ws_connect(address, max_msg_size=0) as socket:
                tab = Tab(socket)
                for domain in ("Runtime", "Log", "Page", "Network"):
                    await tab._call(f"{domain}.enable")
                await tab.look(width=width, dark=dark)
                yield tab
            async with session.get(f"{root}/close/{target['id']}"):
                pass


@contextmanager
def chromium(program: str) -> Iterator[Browser]:
    """Starts one, with a profile of its own, and ends it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # no sandbox: in a container, root has none to give; what it opens is ours
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
        with subprocess.Popen(
            [
                program,
                *options,
                "--remote-debugging-port=0",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield Browser(_port(Path(profile) / "DevToolsActivePort", process))
            finally:
                process.terminate()


def _port(file: Path, process: subprocess.Popen[bytes]) -> int:
    until = time.monotonic() + _PATIENCE_SECONDS
    while not file.exists() or "\n" not in file.read_text():
        assert process.poll() is None, "Chromium has ended"
        assert time.monotonic() < until, "Chromium does not start"
        time.sleep(0.05)
    return int(file.read_text().splitlines()[0])
