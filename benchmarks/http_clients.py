"""Compare HTTP clients for the one thing that hosted teachers do: post JSON, and read JSON.

Every client sends the same chat request to the mock teacher, keeps its connections alive and
parses the answer. The streams of asyncio, with the least that HTTP needs, are the floor. A line
a client: calls a second, CPU milliseconds a call, and the rate compared with aiohttp's. Then
whether a cancelled call closes its connection, which is how a server learns that nobody waits any
more, and what reading an answer and writing a request costs with `json` and with `orjson`.

    pip install httpx httpx2 niquests pyreqwest   # into an environment that may be thrown away
    python benchmarks/http_clients.py             # half a minute; skips what is not installed
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module, metadata
from timeit import repeat
from typing import Any
from urllib.parse import urlsplit

from turns import Side, describe, mock_teacher, take_turns, where

Call = Callable[[], Awaitable[object]]
Opened = tuple[Call, Call]

PROMPT = "Why does ice float on water, and what would be if it did not? " * 5
REQUEST = {
    "model": "m",
    "temperature": 0.7,
    "max_tokens": 512,
    "messages": [{"role": "user", "content": PROMPT}],
}
SENTENCES = {
    "en": "Ice floats since it is lighter than water. ",
    "zh": "冰漂浮在水面上，因为它更轻。",
}
LENGTH = 800
PATIENCE_SECONDS = 2.0


async def open_aiohttp(url: str, in_flight: int) -> Opened:
    """Its own ways: a JSON argument, and the answer's `json()`."""
    aiohttp = import_module("aiohttp")
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight))

    async def call() -> object:
        async with session.post(url, json=REQUEST) as response:
            return await response.json()

    return call, session.close


async def open_aiohttp_orjson(url: str, in_flight: int) -> Opened:
    """As the adapter uses it: no cookies, no timers, a parsed address, bytes in and out."""
    aiohttp, orjson, yarl = map(import_module, ("aiohttp", "orjson", "yarl"))
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=in_flight),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Content-Type": "application/json"},
        timeout=aiohttp.ClientTimeout(total=None),
    )
    address = yarl.URL(url)

    async def call() -> object:
        content = orjson.dumps(REQUEST)
        async with session.post(address, data=content, allow_redirects=False) as response:
            return orjson.loads(await response.read())

    return call, session.close


async def open_httpx(url: str, in_flight: int, name: str = "httpx") -> Opened:
    """Of httpx and its successor."""
    httpx = import_module(name)
    limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    client = httpx.AsyncClient(limits=limits, timeout=60)

    async def call() -> object:
        return (await client.post(url, json=REQUEST)).json()

    return call, client.aclose


async def open_httpx2(url: str, in_flight: int) -> Opened:
    """The same interface in another package."""
    return await open_httpx(url, in_flight, "httpx2")


async def open_niquests(url: str, in_flight: int) -> Opened:
    """Requests' interface on urllib3.future."""
    session = import_module("niquests").AsyncSession(pool_maxsize=in_flight)

    async def call() -> object:
        return (await session.post(url, json=REQUEST)).json()

    return call, session.close


async def open_pyreqwest(url: str, in_flight: int) -> Opened:
    """Rust's reqwest, with its own thread."""
    client = import_module("pyreqwest.client").ClientBuilder().max_connections(in_flight).build()

    async def call() -> object:
        return await (await client.post(url).body_json(REQUEST).build().send()).json()

    return call, client.close


async def open_streams(url: str, _: int) -> Opened:
    """No client at all: the request is one string, and only the answer's length is read."""
    parts = urlsplit(url)
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json"

    async def call() -> object:
        if not idle:
            idle.append(await asyncio.open_connection(parts.hostname, parts.port))
        reader, writer = idle.pop()
        content = json.dumps(REQUEST).encode()
        writer.write(f"{head}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)
        headers = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(headers.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        idle.append((reader, writer))
        return answer

    async def close() -> None:
        for _, writer in idle:
            writer.close()

    return call, close


CLIENTS: dict[str, tuple[str | None, Callable[[str, int], Awaitable[Opened]]]] = {
    "aiohttp": ("aiohttp", open_aiohttp),
    "aiohttp, lean, with orjson": ("orjson", open_aiohttp_orjson),
    "pyreqwest": ("pyreqwest", open_pyreqwest),
    "niquests": ("niquests", open_niquests),
    "httpx2": ("httpx2", open_httpx2),
    "httpx": ("httpx", open_httpx),
    "asyncio streams": (None, open_streams),
}


async def compare_clients(in_flight: int, seconds: float, rounds: int) -> None:
    """Prints two lines for each client that is installed."""
    with mock_teacher(0.0, LENGTH) as base_url:
        sides = []
        for name, (distribution, opens) in CLIENTS.items():
            try:
                version = f" {metadata.version(distribution)}" if distribution else ""
            except metadata.PackageNotFoundError:
                print(f"http | {name} | skipped: {distribution} is not installed")
                continue
            call, close = await opens(f"{base_url}/chat/completions", in_flight)
            shown = name if name != distribution else name + version
            sides.append(Side(shown, _checked(call), close))
            if distribution:
                does = "closes" if await hangs_up(opens) else "does not close"
                print(f"http | {shown} | cancelling a call {does} its connection")
        await take_turns(sides, in_flight=in_flight, seconds=seconds, rounds=rounds)
        for side in sides:
            print(f"http | {in_flight} in flight | {describe(side, sides[0])}")
            await side.close()


async def hangs_up(opens: Callable[[str, int], Awaitable[Opened]]) -> bool:
    """Whether a call that is cancelled closes its connection within two seconds."""
    asked: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
    hung_up = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while content := await reader.read(1 << 16):
            if content.rstrip().endswith(b"}"):
                asked.set_result(writer)
        hung_up.set()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        call, close = await opens(f"http://127.0.0.1:{port}/v1/chat/completions", 1)
        task = asyncio.ensure_future(call())
        writer = await asked
        task.cancel()
        await asyncio.wait([task])
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await hung_up.wait()
        except TimeoutError:
            writer.transport.abort()
            return False
        finally:
            await close()
        return True


def _checked(call: Call) -> Call:
    async def checked() -> None:
        answer: Any = await call()
        if not answer["choices"][0]["message"]["content"]:
            raise ValueError("the mock teacher answered nothing")

    return checked


def compare_json() -> None:
    """Prints what one answer and one request of 800 characters cost, in English and Chinese."""
    try:
        orjson = import_module("orjson")
    except ImportError:
        print("json | skipped: orjson is not installed")
        return
    for language, sentence in SENTENCES.items():
        text = (sentence * LENGTH)[:LENGTH]
        message = {"role": "assistant", "content": text}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        answer = json.dumps({"choices": choices, "usage": {"prompt_tokens": 20}}).encode()
        request = REQUEST | {"messages": [{"role": "user", "content": text}]}
        for name, library in (("json", json), ("orjson", orjson)):
            read = _microseconds(partial(library.loads, answer))
            write = _microseconds(partial(library.dumps, request))
            size = len(library.dumps(request))
            figures = f"read {read:.1f} us | write {write:.1f} us | {size} bytes written"
            print(f"json | {language}, {LENGTH} characters | {name} | {figures}")


def _microseconds(call: Callable[[], object], calls: int = 10_000) -> float:
    return min(repeat(call, number=calls, repeat=5)) / calls * 1e6


def main() -> None:
    """Parses the arguments and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--in-flight", type=int, default=64, help="default: 64")
    parser.add_argument("--seconds", type=float, default=1.0, help="of one turn; default: 1")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each; default: 5")
    arguments = parser.parse_args()
    print(f"http | {where()}")
    asyncio.run(compare_clients(arguments.in_flight, arguments.seconds, arguments.rounds))
    compare_json()


if __name__ == "__main__":
    main()
