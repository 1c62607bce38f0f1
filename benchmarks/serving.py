"""`Complete` over gRPC: how many a second for 64 clients, and what a call costs on top.

The server, the mock teachers and the clients are processes of their own. The floor is the least
that fans the same prompts out, see `end_to_end.py`. Half of the peak comes when it comes, at random
moments, whether or not what came before is answered. The overhead of a call is that over teachers
that answer at once.

    python benchmarks/serving.py                # under two minutes
    python benchmarks/serving.py --seconds 3
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
import time
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import end_to_end
import grpc
from turns import mock_teacher, where

from arbitrage.v1 import arbitrage_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence

    _Call = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
    _Load = Callable[[Callable[[], Coroutine[None, None, None]], float], Awaitable[None]]

_CLIENTS = 64
_CONNECTIONS = 8
_METHOD = "/arbitrage.v1.ArbitrageService/Complete"
_TEACHER_SECONDS = 0.05
_TEACHER_MS = 1000 * _TEACHER_SECONDS
_COMMAND = (sys.executable, "-c", "import sys, cli; sys.exit(cli.main())", "serve")
_SERVICE = '[service]\nlisten = "127.0.0.1:0"\nmetrics = ""\njobs = "{0}/jobs"\n'
_REST = (
    '[reward]\nkind = "scripted"\ngates = []\n[policy]\nkind = "thompson"\nfan_out = 4\n'
    '[job]\nmax_in_flight = 1024\n[sink]\npath = "{0}/out"\n'
)


def main() -> None:
    """Prints a line a figure; with `--client`, is the clients."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of a turn; default: 10")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--client", metavar="ADDRESS", help=argparse.SUPPRESS)
    parser.add_argument("--clients", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, default=0.0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        load = (
            partial(_closed, options.clients) if options.clients else partial(_open, options.rate)
        )
        asyncio.run(_call(options.client, load, options.seconds))
        return
    print(f"service | {where()}")
    with mock_teacher(_TEACHER_SECONDS, 800) as base_url:
        teachers = "".join(
            f'[[teachers]]\nname = "{name}"\nkind = "openai"\nmodel = "{name}"\n'
            f'base_url = "{base_url}"\nmax_concurrency = 1024\n'
            for name in end_to_end.TEACHERS
        )
        for number in range(1, options.rounds + 1):
            least, _ = end_to_end.floor(base_url, prompts=5_000, in_flight=_CLIENTS)
            with _server(teachers) as address:
                rate, p50, p99 = _clients(address, options.seconds, clients=_CLIENTS)
                _, p50_half, p99_half = _clients(address, options.seconds, rate=rate / 2)
            print(
                f"service | round {number} | aiohttp alone {least:.0f} prompts/s | {_CLIENTS} "
                f"clients {rate:.0f} prompts/s, {rate / least:.2f} of it, p50 {p50:.1f} ms, "
                f"p99 {p99:.1f} ms | at {rate / 2:.0f} prompts/s over the teachers' latency p50 "
                f"{p50_half - _TEACHER_MS:.1f} ms, p99 {p99_half - _TEACHER_MS:.1f} ms"
            )
    scripted = "".join(
        f'[[teachers]]\nname = "{name}"\nkind = "scripted"\n' for name in end_to_end.TEACHERS
    )
    with _server(scripted) as address:
        for clients in (1, 8):
            rate, p50, p99 = _clients(address, options.seconds, clients=clients)
            print(
                f"service | teachers that answer at once | {clients} at once | {rate:.0f} "
                f"prompts/s, p50 {p50:.2f} ms, p99 {p99:.2f} ms"
            )


@contextmanager
def _server(teachers: str) -> Iterator[str]:
    """Runs the service; yields its address."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        path.write_text(_SERVICE.format(folder) + teachers + _REST.format(folder), "utf-8")
        with subprocess.Popen(
            (*_COMMAND, "-c", str(path)),
            stdout=subprocess.PIPE,
            text=True,
            env=end_to_end.environment(),
        ) as process:
            line = process.stdout.readline() if process.stdout else ""
            try:
                yield line.split()[2].rstrip(",")
            finally:
                process.terminate()


def _clients(
    address: str, seconds: float, *, clients: int = 0, rate: float = 0.0
) -> Sequence[float]:
    """Calls for some seconds, either so many at once or so many a second."""
    command = (sys.executable, __file__, "--client", address, "--seconds", str(seconds))
    told = subprocess.run(
        (*command, "--clients", str(clients), "--rate", str(rate)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=end_to_end.environment(),
    ).stdout
    return [float(figure) for figure in told.split()]


async def _call(address: str, load: _Load, seconds: float) -> None:
    """Prints calls a second, and the median and 99th percentile of their milliseconds."""
    latencies: list[float] = []
    asked = 0
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(_channel(address)) for _ in range(_CONNECTIONS)]
        # bytes out and bytes back: the clients share the processor with the server
        calls: list[_Call] = [channel.unary_unary(_METHOD) for channel in channels]

        async def one() -> None:
            nonlocal asked
            asked += 1
            language = end_to_end.LANGUAGES[asked % len(end_to_end.LANGUAGES)]
            prompt = pb.Prompt(text=f"Question {asked} of {time.time_ns()}?", language=language)
            begun = time.perf_counter()
            await calls[asked % _CONNECTIONS](pb.CompleteRequest(prompt=prompt).SerializeToString())
            latencies.append(time.perf_counter() - begun)

        await one()
        latencies.clear()
        begun = time.perf_counter()
        await load(one, begun + seconds)
        took = time.perf_counter() - begun
    latencies.sort()
    p50, p99 = (1000 * latencies[int(share * len(latencies))] for share in (0.5, 0.99))
    print(len(latencies) / took, p50, p99)


def _channel(address: str) -> grpc.aio.Channel:
    """A connection of its own."""
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.insecure_channel(address, options)


async def _closed(clients: int, one: Callable[[], Coroutine[None, None, None]], end: float) -> None:
    """Each client calls again once it has been answered."""

    async def go_on() -> None:
        while time.perf_counter() < end:
            await one()

    await asyncio.gather(*(go_on() for _ in range(clients)))


async def _open(rate: float, one: Callable[[], Coroutine[None, None, None]], end: float) -> None:
    """Calls come at random moments, so many a second (a Poisson process)."""
    chance = random.Random(0)  # noqa: S311 - of arrivals, not of secrets
    at = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        while (at := at + chance.expovariate(rate)) < end:
            await asyncio.sleep(max(at - time.perf_counter(), 0.0))
            group.create_task(one())


if __name__ == "__main__":
    main()
