"""`Complete` over gRPC: how many a second for 64 clients, and what a call costs on top.

The server, the mock teachers and the clients are processes of their own. The floor is the least
that fans the same prompts out, see `end_to_end.py`. The overhead is that of teachers that
answer at once.

    python benchmarks/serving.py                # under two minutes
    python benchmarks/serving.py --seconds 3
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import end_to_end
import grpc
from turns import mock_teacher, where

from arbitrage.v1 import arbitrage_pb2 as pb
from arbitrage.v1.arbitrage_pb2_grpc import ArbitrageServiceStub

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CLIENTS = 64
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
    parser.add_argument("--client", nargs=2, metavar=("ADDRESS", "CLIENTS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        address, clients = options.client
        asyncio.run(_call(address, int(clients), options.seconds))
        return
    print(f"service | {where()}")
    with mock_teacher(0.05, 800) as base_url:
        teachers = "".join(
            f'[[teachers]]\nname = "{name}"\nkind = "openai"\nmodel = "{name}"\n'
            f'base_url = "{base_url}"\nmax_concurrency = 1024\n'
            for name in end_to_end.TEACHERS
        )
        for number in range(1, options.rounds + 1):
            least, _ = end_to_end.floor(base_url, prompts=5_000, in_flight=_CLIENTS)
            with _server(teachers) as address:
                rate, p50, p99 = _clients(address, _CLIENTS, options.seconds)
            print(
                f"service | round {number} | aiohttp alone {least:.0f} prompts/s | {_CLIENTS} "
                f"clients {rate:.0f} prompts/s, {rate / least:.2f} of it, p50 {p50:.1f} ms, "
                f"p99 {p99:.1f} ms"
            )
    scripted = "".join(
        f'[[teachers]]\nname = "{name}"\nkind = "scripted"\n' for name in end_to_end.TEACHERS
    )
    with _server(scripted) as address:
        for clients in (1, 8):
            rate, p50, p99 = _clients(address, clients, options.seconds)
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


def _clients(address: str, clients: int, seconds: float) -> Sequence[float]:
    command = (sys.executable, __file__, "--client", address, str(clients))
    told = subprocess.run(
        (*command, "--seconds", str(seconds)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=end_to_end.environment(),
    ).stdout
    return [float(figure) for figure in told.split()]


async def _call(address: str, clients: int, seconds: float) -> None:
    """Prints calls a second, and the median and 99th percentile of their milliseconds."""
    latencies: list[float] = []
    asked = 0
    async with grpc.aio.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        stub = ArbitrageServiceStub(channel)

        async def one() -> None:
            nonlocal asked
            asked += 1
            language = end_to_end.LANGUAGES[asked % len(end_to_end.LANGUAGES)]
            prompt = pb.Prompt(text=f"Question {asked} of {time.time_ns()}?", language=language)
            await stub.Complete(pb.CompleteRequest(prompt=prompt))

        async def go_on(end: float) -> None:
            while (begun := time.perf_counter()) < end:
                await one()
                latencies.append(time.perf_counter() - begun)

        await one()
        begun = time.perf_counter()
        await asyncio.gather(*(go_on(begun + seconds) for _ in range(clients)))
        took = time.perf_counter() - begun
    latencies.sort()
    p50, p99 = (1000 * latencies[int(share * len(latencies))] for share in (0.5, 0.99))
    print(len(latencies) / took, p50, p99)


if __name__ == "__main__":
    main()
