"""100,000 hostile requests to a real server, which must neither fall nor spin nor blame itself.

In phases: messages with hostile fields, mutated bytes, headers and frames of HTTP/2, streams that
are dropped, held open or never read, noise on the port, and bad HTTP to the chat port and the
metrics port; first to a server that is open to all, then to one that wants tokens. After each
phase the server answers a normal call, has counted no INTERNAL and logged no traceback, rests,
and holds no more memory and files than before. At the end, requests just below the size limit,
one by one, and a coverage-guided fuzzer over the decoding (`fuzz_decoding.py`).

    python benchmarks/fuzz.py                       # some ten minutes
    python benchmarks/fuzz.py --requests 5000 --seed 7
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import fuzz_requests as hostile
import grpc
from turns import where

from arbitrage.v1 import arbitrage_pb2 as pb
from arbitrage.v1.arbitrage_pb2_grpc import ArbitrageServiceStub

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Coroutine,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )
    from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """
[service]
listen = "127.0.0.1:0"
metrics = "127.0.0.1:0"
openai = "127.0.0.1:0"
jobs = "{0}/jobs"
{1}
[[teachers]]
name = "ada"
kind = "scripted"
[[teachers]]
name = "bob"
kind = "scripted"
[reward]
kind = "scripted"
[sink]
path = "{0}/out"
"""
SHARES = {
    "fields": 0.24,
    "bytes": 0.24,
    "frames": 0.12,
    "streams": 0.08,
    "noise": 0.17,
    "chat port": 0.13,
    "metrics port": 0.02,
}
IN_FLIGHT = 16
CALL_SECONDS = 3.0
NORMAL_SECONDS = 2.0
REST_SECONDS = 30.0
IDLE_CPU = 0.1
LEAST_BURDEN_MB, LEAST_FILES = 250, 24
SLOW_CPU_SECONDS = 1.0
SECONDS_A_MB = 0.5
_PATIENCE_SECONDS = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass
class Server:
    """A server under fire.

    Attributes:
        token: of one who may do all; empty where nobody needs one.
        seen: the codes that clients have seen, over all phases.
        slowest: the calls that took longest in this phase: seconds, method and messages.
    """

    process: subprocess.Popen[str]
    address: str
    metrics: str
    chat: str
    log: Path
    token: str = ""
    seen: Counter[str] = field(default_factory=Counter)
    slowest: list[tuple[float, str, list[bytes]]] = field(default_factory=list)

    @property
    def cpu(self) -> float:
        """Seconds that it has computed."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    @property
    def resident_mb(self) -> int:
        """Of its memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        return int(found[1]) >> 10 if found else 0

    @property
    def files(self) -> int:
        """That it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """With which it lets in who calls."""
        return [("authorization", f"Bearer {self.token}")] if self.token else []

    def blamed(self) -> int:
        """How often it has said that it is to blame."""
        with _OPENER.open(self.metrics, timeout=_PATIENCE_SECONDS) as response:
            lines = response.read().decode().splitlines()
        bad = re.compile(r'arbitrage_requests_total\{code="(?:INTERNAL|UNKNOWN)".* (\S+)$')
        return sum(int(float(found[1])) for found in map(bad.match, lines) if found)

    def channel(self) -> grpc.aio.Channel:
        """A connection of its own."""
        options = [
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_metadata_size", 1 << 20),
            ("grpc.absolute_max_metadata_size", 1 << 20),
        ]
        return grpc.aio.insecure_channel(self.address, options)


@contextmanager
def serving(folder: Path, *, tokens: bool = False) -> Iterator[Server]:
    """Runs `arbitrage serve` on scripted teachers.

    Args:
        folder: of all that it writes.
        tokens: whether it asks for them.
    """
    (folder / "jobs").mkdir(parents=True)
    (folder / "jobs" / "ok.jsonl").write_text('{"prompt": "Was ist das?", "language": "de"}\n')
    config, log, known = folder / "config.toml", folder / "log.txt", folder / "tokens.toml"
    command, token = (sys.executable, "-m", "cli"), ""
    if tokens:
        new = (*command, "token", "new", "all", "--scope", "admin", "-f", str(known))
        told = subprocess.run(new, cwd=ROOT, capture_output=True, text=True, check=True)
        token = told.stdout.split()[-1]
    config.write_text(CONFIG.format(folder, f'auth_tokens = "{known}"' if tokens else ""))
    with (
        log.open("w") as errors,
        subprocess.Popen(
            (*command, "serve", "-c", str(config)),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            line = process.stdout.readline() if process.stdout else ""
            found = re.match(r"serving on (\S+), metrics at (\S+), OpenAI's API at (\S+)", line)
            if not found:
                raise SystemExit(f"the server did not start: {line}{log.read_text()}")
            address, metrics, chat = found.groups()
            yield Server(process, address, metrics, chat, log, token)
            process.terminate()
            process.wait(_PATIENCE_SECONDS)
        finally:
            process.kill()


async def at_once(work: Iterable[Awaitable[object]], most: int = IN_FLIGHT) -> None:
    """Awaits all of them, so many at a time."""
    room = asyncio.Semaphore(most)

    async def one(task: Awaitable[object]) -> None:
        try:
            await task
        finally:
            room.release()

    async with asyncio.TaskGroup() as group:
        for task in work:
            await room.acquire()
            group.create_task(one(task))


async def send(
    server: Server,
    channel: grpc.aio.Channel,
    method: str,
    sent: Sequence[bytes],
    metadata: Sequence[tuple[str, str | bytes]] = (),
) -> str:
    """Sends bytes as the messages of a call, reads all answers, and gives the code."""
    started = time.perf_counter()
    code = "OK"
    opened: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
    try:
        call = opened(iter(sent), timeout=CALL_SECONDS, metadata=[*server.metadata, *metadata])
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        # what a client makes of a refusal that comes while it is still sending
        cut = error.details() == "Internal error from Core"
        code = "cut off" if cut else error.code().name
    server.seen[code] += 1
    server.slowest.append((time.perf_counter() - started, method, list(sent)))
    server.slowest.sort(key=lambda slow: -slow[0])
    del server.slowest[3:]
    return code


async def fields(server: Server, count: int, rng: random.Random) -> int:
    """Messages of every method, drawn by hypothesis."""
    async with server.channel() as channel:
        for method, sent in _messages(rng, count):
            await at_once(send(server, channel, method, [message]) for message in sent)
    return count


async def mutated(server: Server, count: int, rng: random.Random) -> int:
    """The same as bytes, and what can be made of these."""
    async with server.channel() as channel:
        for method, sent in _messages(rng, count // 4):
            await at_once(
                send(server, channel, method, [hostile.mutant(rng, one)], hostile.metadata(rng))
                for one in sent
                for _ in range(4)
            )
    return count


def _messages(rng: random.Random, count: int) -> Iterator[tuple[str, list[bytes]]]:
    """Serialised requests of each method in turn, some hundred at a time."""
    while count > 0:
        for method, kind in hostile.METHODS.items():
            most = min(count, 300 if kind.fields else 3)
            drawn = hostile.drawn(hostile.messages(kind), most, rng.randrange(2**32))
            yield method, [message.SerializeToString() for message in drawn][:most]
            count -= len(drawn)
            if count <= 0:
                return


async def frames(server: Server, count: int, rng: random.Random) -> int:
    """Calls written by hand: fifty on a connection, nearly all with something wrong."""
    plain = pb.CompleteRequest(prompt=pb.Prompt(text="Was ist das?")).SerializeToString()

    def calls() -> bytes:
        written = (
            hostile.call(rng, stream, rng.choice((plain, plain, hostile.mutant(rng, plain))))
            for stream in range(1, 101, 2)
        )
        return hostile.PREFACE + hostile.frame(hostile.SETTINGS) + b"".join(written)

    await at_once(
        _spill(server.address, calls(), listen=bool(rng.randrange(2))) for _ in range(count // 50)
    )
    return count


async def streams(server: Server, count: int, rng: random.Random) -> int:
    """Streams that are reset at once, closed by half, never read, or full of one id."""
    request = pb.ArbitrateRequest(request_id="a", prompt=pb.Prompt(text="Was?", language="de"))
    plain = request.SerializeToString()
    arbitrate = "/arbitrage.v1.ArbitrageService/Arbitrate"

    async def slowly() -> AsyncIterator[bytes]:
        yield plain
        await asyncio.sleep(rng.random())

    async def one(channel: grpc.aio.Channel, way: int) -> None:
        method = rng.choice((arbitrate, *hostile.METHODS, *hostile.ELSEWHERE))
        if way == 0:
            await send(server, channel, arbitrate, [plain] * 100)
            return
        opened: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
            method if way != 1 else arbitrate
        )
        messages = slowly() if way == 1 else iter([plain])
        call = opened(messages, timeout=CALL_SECONDS, metadata=server.metadata)
        with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            await asyncio.sleep(rng.choice((0, 0, 0.001, 0.05)))
            if way == 2:  # noqa: PLR2004 - one of the ways
                await call.read()
        call.cancel()

    sent = 0
    ways: list[int] = []
    while sent < count:
        ways.append(rng.choice((0, 1, 2, 2, 3, 3, 3, 3, 3, 3)))
        sent += 100 if ways[-1] == 0 else 1
    async with server.channel() as channel:
        await at_once(one(channel, way) for way in ways)
    return sent


async def noise(server: Server, count: int, rng: random.Random) -> int:
    """No calls at all, on the port of calls; and clients that say next to nothing."""
    host, port = server.address.split(":")
    slow = [await asyncio.open_connection(host, port) for _ in range(50)]
    for number, (_, writer) in enumerate(slow):
        writer.write(hostile.PREFACE[: number % len(hostile.PREFACE)])
    sent = len(slow)
    spills: list[bytes] = []
    while sent < count:
        bytes_, requests = hostile.noise(rng)
        spills.append(bytes_)
        sent += requests
    await at_once(_spill(server.address, one, listen=bool(rng.randrange(2))) for one in spills)
    for _, writer in slow:
        writer.close()
    return sent


async def chat_port(server: Server, count: int, rng: random.Random) -> int:
    """Bad bodies, headers and methods to the port of OpenAI's API."""
    address, sent = server.chat.removeprefix("http://").removesuffix("/v1"), 0
    paths = ("/v1/chat/completions",) * 12 + ("/v1/models", "/v1/models/%ff", "/%00", "/", "x")
    while sent < count:
        drawn = hostile.drawn(hostile.bodies(), min(500, count - sent), rng.randrange(2**32))
        sent += len(drawn)
        whole = [hostile.http(rng, body, paths) for body in drawn]
        if server.token:
            known = f"authorization: Bearer {server.token}".encode()
            whole = [re.sub(rb"authorization: [^\r]*", known, one, count=1) for one in whole]
        await at_once(_ask(server, address, one) for one in whole)
    return sent


async def metrics_port(server: Server, count: int, rng: random.Random) -> int:
    """The same to the port of metrics and console."""
    address = server.metrics.removeprefix("http://").removesuffix("/metrics")
    paths = ("/metrics", "/", "/state", "/../etc/passwd", "/%00")
    await at_once(
        _ask(server, address, hostile.http(rng, rng.randbytes(rng.randrange(99)), paths))
        for _ in range(count)
    )
    return count


async def _ask(server: Server, address: str, sent: bytes) -> None:
    """Sends a request of HTTP/1.1, and counts its status; none is awaited for long."""
    answer = await _spill(address, sent, listen=True)
    found = re.match(rb"HTTP/1\.[01] (\d+)", answer)
    status = found[1].decode() if found else "none"
    server.seen[f"HTTP {status}"] += 1
    if status == "500":
        server.seen["INTERNAL"] += 1
        print("500:", sent[:300])


async def _spill(address: str, sent: bytes, *, listen: bool) -> bytes:
    """Writes bytes to a port, and gives what comes within a moment."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, port)
    answer = b""
    try:
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(0.5):
                writer.write(sent)
                await writer.drain()
                if listen:
                    answer = await reader.read(1 << 16)
    finally:
        writer.close()
    return answer


PHASES: Mapping[str, Callable[[Server, int, random.Random], Coroutine[Any, Any, int]]] = {
    "fields": fields,
    "bytes": mutated,
    "frames": frames,
    "streams": streams,
    "noise": noise,
    "chat port": chat_port,
    "metrics port": metrics_port,
}


async def large(server: Server) -> bool:
    """Requests just below the limit on their size, one by one; says whether none costs much.

    A prompt is read from end to end, some times over, and may cost what its length is worth; all
    else is refused before it costs anything.
    """
    well, size = True, 15 << 20
    method = "/arbitrage.v1.ArbitrageService/Complete"
    async with server.channel() as channel:
        for name, path, message in hostile.large(size):
            cpu, resident = server.cpu, server.resident_mb
            code = await send(server, channel, path, [message])
            await asyncio.sleep(0.3)
            cpu, limit = server.cpu - cpu, SLOW_CPU_SECONDS
            if path == method and name.startswith("text"):
                limit = SECONDS_A_MB * size / (1 << 20)
            well &= cpu < limit
            print(
                f"{'ok  ' if cpu < limit else 'FAIL'} 15 MB of {name} | {code} | {cpu:.2f} s CPU "
                f"| {server.resident_mb - resident:+} MB",
                flush=True,
            )
        before = server.resident_mb
        for _ in range(100):
            await send(server, channel, method, [message])
        grown = server.resident_mb - before
    server.slowest.clear()
    print(f"{'ok  ' if grown < LEAST_BURDEN_MB else 'FAIL'} the last 100 times | {grown:+} MB")
    return well and grown < LEAST_BURDEN_MB


async def normal(server: Server) -> float:
    """Seconds that a normal call takes, on a connection of its own; infinite where it fails."""
    text = f"Was ist das, und warum so spät wie {time.time_ns()}?"
    request = pb.CompleteRequest(prompt=pb.Prompt(text=text, language="de"))
    started = time.perf_counter()
    async with server.channel() as channel:
        stub = ArbitrageServiceStub(channel)
        try:
            await stub.Complete(request, timeout=10.0, metadata=server.metadata)
        except grpc.aio.AioRpcError as error:
            print(f"a normal call fails: {error.code().name}: {error.details()}")
            return float("inf")
    return time.perf_counter() - started


def rested(server: Server) -> float:
    """Seconds until it computes next to nothing for a second; infinite where it goes on."""
    started = time.perf_counter()
    while time.perf_counter() - started < REST_SECONDS:
        cpu = server.cpu
        time.sleep(1.0)
        if server.cpu - cpu < IDLE_CPU:
            return time.perf_counter() - started - 1.0
    return float("inf")


async def worst(server: Server) -> float:
    """CPU seconds of the calls that took longest, each again and alone: the most of them."""
    most, again = 0.0, list(server.slowest)
    async with server.channel() as channel:
        for _, method, sent in again:
            cpu = server.cpu
            await send(server, channel, method, sent)
            most = max(most, server.cpu - cpu)
    server.slowest.clear()
    return most


def hold(name: str, server: Server, sent: int, seconds: float, before: tuple[int, int]) -> bool:
    """Looks at a server after a phase; prints a line, and says whether all is well."""
    if server.process.poll() is not None:
        print(f"FAIL {name} | the server has ended with {server.process.returncode}")
        return False
    answered = asyncio.run(normal(server))
    rest, slowest, blamed = rested(server), asyncio.run(worst(server)), server.blamed()
    log = server.log.read_text(errors="replace")
    tracebacks = log.count('  File "')
    resident, files = server.resident_mb, server.files
    well = (
        answered < NORMAL_SECONDS
        and rest < REST_SECONDS
        and slowest < SLOW_CPU_SECONDS
        and not blamed
        and not tracebacks
        and not server.seen["INTERNAL"] + server.seen["UNKNOWN"]
        and resident - before[0] < LEAST_BURDEN_MB
        and files - before[1] < LEAST_FILES
    )
    print(
        f"{'ok  ' if well else 'FAIL'} {name} | {sent} requests, {sent / seconds:.0f}/s | normal "
        f"call {1000 * answered:.0f} ms | INTERNAL or UNKNOWN {blamed} | lines of tracebacks "
        f"{tracebacks} | idle after {rest:.0f} s | slowest alone {slowest:.2f} s CPU | "
        f"{resident} MB ({resident - before[0]:+}), {files} files ({files - before[1]:+})",
        flush=True,
    )
    if tracebacks:
        print(log[-600:])
    return well


def main() -> None:
    """Prints a line a phase; fails where a claim does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=100_000, help="default: 100000")
    parser.add_argument("--runs", type=int, default=500_000, help="default: 500000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="a phase")
    options = parser.parse_args()
    print(f"fuzz | {where()} | seed {options.seed}")
    rng = random.Random(options.seed)  # noqa: S311 - the same requests again, no secrets
    well, total = True, 0
    for tokens, share in ((False, 0.75), (True, 0.27)):
        with TemporaryDirectory() as folder, serving(Path(folder) / "s", tokens=tokens) as server:
            asyncio.run(normal(server))
            before = server.resident_mb, server.files
            who = "token" if tokens else "open"
            for name, phase in PHASES.items():
                if options.only not in {None, name}:
                    continue
                started = time.perf_counter()
                sent = asyncio.run(phase(server, int(options.requests * SHARES[name] * share), rng))
                took = time.perf_counter() - started
                total += sent
                well &= hold(f"{who} | {name}", server, sent, took, before)
            if not tokens and options.only in {None, "large"}:
                well &= asyncio.run(large(server))
            told = ", ".join(f"{code} {count}" for code, count in server.seen.most_common())
            print(f"     {who} | clients have seen: {told}")
    print(f"fuzz | {total} requests")
    if options.runs and options.only is None and find_spec("atheris") is None:
        print("     decoding | skipped: needs atheris; pip install -e '.[bench]'")
    elif options.runs and options.only is None:
        script = str(Path(__file__).with_name("fuzz_decoding.py"))
        command = (sys.executable, script, f"--runs={options.runs}", f"--seed={options.seed}")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        print(done.stdout.splitlines()[0] if not done.returncode else f"FAIL {done.stderr}")
        well &= not done.returncode
    if not well:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
