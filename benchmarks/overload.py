"""Five times what a service can do, for a minute: what it still answers, and what it costs.

The server may use all cores; mock teachers at 50 ms and the clients share one half of them. First
the peak is found, by more and more clients that wait for their answers. Then requests come at
random times (Poisson) five times as fast, from clients that know no patience: what is refused is
not asked again, and the load stays. At last it falls to half of the peak, and it is seen how long
the service needs to be its old self.

    python benchmarks/overload.py                 # some two minutes
    python benchmarks/overload.py --seconds 10
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import end_to_end
import grpc
from google.rpc import status_pb2
from turns import mock_teacher, where

from arbitrage.v1 import arbitrage_pb2 as pb
from service import tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

IDENTITIES, CHANNELS_EACH = 4, 2
CONCURRENCY = (16, 32, 64, 128)  # of the search for the peak
TIMES = 5.0
NO_LESS = 0.9  # of the peak
SETTLED_SECONDS = 10.0  # until what a process needs under load is there
MORE_MEMORY = 1.05
RECOVERY_SECONDS = 2.0
WINDOW_SECONDS = 0.25
WARM_UP_SECONDS, STEP_SECONDS, AFTER_SECONDS = 2.0, 5.0, 8.0
_METHOD = "/arbitrage.v1.ArbitrageService/Complete"
_DETAILS = "grpc-status-details-bin"
_REFUSED = "RESOURCE_EXHAUSTED"
_RETRY_INFO = "google.rpc.RetryInfo"
_OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
]
_COMMAND = (sys.executable, "-c", "import sys, cli; sys.exit(cli.main())", "serve")
_SERVICE = (
    '[service]\nlisten = "127.0.0.1:0"\nmetrics = ""\njobs = "{0}/jobs"\n'
    'auth_tokens = "{0}/tokens"\n'
)
_TEACHER = (
    '[[teachers]]\nname = "{0}"\nkind = "openai"\nmodel = "{0}"\nbase_url = "{1}"\n'
    "max_concurrency = 1024\n"
)
_REST = (
    '[reward]\nkind = "scripted"\ngates = []\n[policy]\nkind = "thompson"\nfan_out = 4\n'
    '[job]\nmax_in_flight = {1}\n[sink]\npath = "{0}/out"\n'
)


@dataclass
class Seen:
    """What clients saw of some seconds of load.

    Attributes:
        codes: how requests ended; a refusal that does not say when to try again is a `fault`.
        done: when each accepted call was answered, in seconds from the beginning, and how long
            it took.
        refused: when each refusal came.
        cpu_seconds: of the clients' process.
        late_seconds: by which requests were sent after their time, at the 99th percentile.
    """

    seconds: float = 0.0
    codes: Counter[str] = field(default_factory=Counter)
    done: list[tuple[float, float]] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    late_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return sum(at <= self.seconds for at, _ in self.done) / self.seconds

    def took(self, share: float) -> float:
        """Seconds that a share of the accepted calls stayed within."""
        return percentile([took for _, took in self.done], share)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share of them lies; NaN of none."""
    return sorted(values)[int(share * (len(values) - 1))] if values else math.nan


class Clients:
    """Asks as cheaply as Python can: bytes out, and bytes back that nobody reads."""

    def __init__(self, calls: Sequence[Callable[[bytes], Any]]) -> None:
        self._calls = calls
        self._seen = Seen()
        self._begun = 0.0
        self._asked = 0
        # the number of a question, in a text of one length, is all that changes
        text = f"Question {'#' * 20}, and why is it so?"
        prompt = pb.Prompt(text=text, language="de")
        whole = pb.CompleteRequest(prompt=prompt).SerializeToString()
        self._head, _, self._tail = whole.partition(b"#" * 20)

    async def closed(self, clients: int, seconds: float) -> Seen:
        """So many clients that ask again when they have their answer."""

        async def go_on() -> None:
            while time.perf_counter() < end:
                await self._ask()

        self._begin()
        end = self._begun + seconds
        await asyncio.gather(*(go_on() for _ in range(clients)))
        return self._end()

    async def open(self, rate: float, seconds: float, seed: int) -> Seen:
        """So many requests a second, whatever becomes of them."""
        rng = random.Random(seed)  # noqa: S311 - moments, no secrets
        late: list[float] = []
        asking: set[asyncio.Task[None]] = set()
        self._begin()
        due, end = self._begun, self._begun + seconds
        while due < end:
            if (wait := due - time.perf_counter()) > 0.0:
                await asyncio.sleep(wait)
            late.append(max(time.perf_counter() - due, 0.0))
            task = asyncio.create_task(self._ask())
            asking.add(task)
            task.add_done_callback(asking.discard)
            due += rng.expovariate(rate)
        seen = self._end()
        seen.late_seconds = percentile(late, 0.99)
        # what is still under way is of these seconds, but not answered within them
        if asking:
            await asyncio.wait(asking)
        return seen

    def _begin(self) -> None:
        self._seen, self._begun = Seen(cpu_seconds=-time.process_time()), time.perf_counter()

    def _end(self) -> Seen:
        seen, self._seen = self._seen, Seen()
        seen.seconds = time.perf_counter() - self._begun
        seen.cpu_seconds += time.process_time()
        return seen

    async def _ask(self) -> None:
        seen, self._asked = self._seen, self._asked + 1
        request = self._head + b"%020d" % time.time_ns() + self._tail
        sent = time.perf_counter()
        try:
            await self._calls[self._asked % len(self._calls)](request)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                seen.refused.append(time.perf_counter() - self._begun)
                code = code if _says_when(error) else "fault: refused without RetryInfo"
            seen.codes[code] += 1
        else:
            now = time.perf_counter()
            seen.codes["OK"] += 1
            seen.done.append((now - self._begun, now - sent))


def _says_when(error: grpc.aio.AioRpcError) -> bool:
    trailers: dict[str, Any] = dict(error.trailing_metadata() or ())
    if not (details := trailers.get(_DETAILS)):
        return False
    status = status_pb2.Status.FromString(details)
    return any(detail.type_url.endswith(_RETRY_INFO) for detail in status.details)


async def client(address: str, secrets: Sequence[str]) -> None:
    """Does what lines of standard input say, and answers each with a line of JSON."""
    async with AsyncExitStack() as stack:
        calls = []
        for secret in secrets:
            metadata = (("authorization", f"Bearer {secret}"),)
            for _ in range(CHANNELS_EACH):
                channel = grpc.aio.insecure_channel(address, _OPTIONS)
                await stack.enter_async_context(channel)
                ask: Any = channel.unary_unary(_METHOD)
                calls.append(_with(ask, metadata))
        clients = Clients(calls)
        while line := await asyncio.to_thread(sys.stdin.readline):
            kind, *figures = json.loads(line)
            seen = await getattr(clients, kind)(*figures)
            print(json.dumps(vars(seen)), flush=True)


def _with(ask: Any, metadata: Sequence[tuple[str, str]]) -> Callable[[bytes], Any]:
    return lambda request: ask(request, metadata=metadata)


@dataclass
class Generator:
    """The clients, in their own process."""

    process: subprocess.Popen[str]

    def load(self, kind: str, *figures: float) -> Seen:
        """Has them ask; see `Clients`."""
        assert self.process.stdin  # noqa: S101 - as asked for
        assert self.process.stdout  # noqa: S101 - as above
        print(json.dumps([kind, *figures]), file=self.process.stdin, flush=True)
        told = json.loads(self.process.stdout.readline())
        return Seen(**{**told, "codes": Counter(told["codes"])})


class Memory:
    """What a process holds, looked at every second while the context lasts."""

    def __init__(self, process: int) -> None:
        self._status = Path(f"/proc/{process}/status")
        self._seen: list[float] = []
        self._ended = threading.Event()
        self._looking = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._looking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._looking.join()

    def between(self, seconds: float) -> tuple[float, float]:
        """Megabytes at a time, and at the end: the least of three looks, as of what stays."""
        at = int(seconds)
        return min(self._seen[at : at + 3]), min(self._seen[-3:])

    def _look(self) -> None:
        while not self._ended.wait(1.0):
            lines = self._status.read_text("utf-8").splitlines()
            (held,) = (line.split()[1] for line in lines if line.startswith("VmRSS:"))
            self._seen.append(int(held) / 1024)


@contextmanager
def serving(base_url: str, most: int, cores: set[int]) -> Iterator[tuple[int, str, list[str]]]:
    """Runs the service on some cores; yields its process, its address, and tokens."""
    with TemporaryDirectory() as folder:
        path, known = Path(folder) / "config.toml", Path(folder) / "tokens"
        secrets = [tokens.new(known, f"client-{n}", ["complete"]) for n in range(IDENTITIES)]
        teachers = "".join(_TEACHER.format(name, base_url) for name in end_to_end.TEACHERS)
        text = _SERVICE.format(folder) + teachers + _REST.format(folder, most)
        path.write_text(text, "utf-8")
        with subprocess.Popen(
            (*_COMMAND, "-c", str(path)),
            stdout=subprocess.PIPE,
            text=True,
            env=end_to_end.environment(),
        ) as process:
            os.sched_setaffinity(process.pid, cores)
            line = process.stdout.readline() if process.stdout else ""
            try:
                yield process.pid, line.split()[2].rstrip(","), secrets
            finally:
                process.terminate()


@contextmanager
def generator(address: str, secrets: Sequence[str]) -> Iterator[Generator]:
    """Runs the clients."""
    with subprocess.Popen(
        (sys.executable, __file__, "--client", address, *secrets),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=end_to_end.environment(),
    ) as process:
        try:
            yield Generator(process)
        finally:
            process.kill()


def measure(clients: Generator, process: int, seconds: float, most: int) -> bool:
    """Prints what each step came to; returns whether every claim holds."""
    clients.load("closed", CONCURRENCY[0], WARM_UP_SECONDS)
    peak = Seen(seconds=1.0)
    for at_once in (one for one in CONCURRENCY if one <= most):
        seen = clients.load("closed", at_once, STEP_SECONDS)
        print(f"overload | {at_once} at once | {told(seen)}", flush=True)
        peak = max(peak, seen, key=lambda one: one.rate)
    usual = clients.load("open", peak.rate / 2, STEP_SECONDS, 1)
    print(f"overload | half of the peak | {told(usual)}", flush=True)
    with Memory(process) as memory:
        over = clients.load("open", TIMES * peak.rate, seconds, 2)
    print(f"overload | {TIMES:g} times the peak | {told(over)}", flush=True)
    after = clients.load("open", peak.rate / 2, AFTER_SECONDS, 3)
    print(f"overload | half of the peak again | {told(after)}", flush=True)
    settled, last = memory.between(min(SETTLED_SECONDS, seconds / 2))
    bound = 2 * most / over.rate if over.rate else 0.0
    back = recovery(after, usual)
    others = {code for code in over.codes + after.codes if code not in {"OK", _REFUSED}}
    share = over.rate / peak.rate
    claims = {
        f"goodput {over.rate:.0f}/s, {share:.2f} of the peak of {peak.rate:.0f}/s": share
        >= NO_LESS,
        f"accepted calls: p99 {over.took(0.99):.2f} s; {most} at once, at that rate, take "
        f"{bound / 2:.2f} s, and may take twice as long": over.took(0.99) <= bound,
        f"all others refused, and told when to ask again; {told_of(others)}": not others,
        f"memory {settled:.0f} MB after {SETTLED_SECONDS:.0f} s, {last:.0f} MB at the end": last
        <= settled * MORE_MEMORY,
        f"as before {back:.2f} s after the load fell": back <= RECOVERY_SECONDS,
    }
    for claim, holds in claims.items():
        print("ok  " if holds else "FAIL", claim, flush=True)
    return all(claims.values())


def recovery(after: Seen, usual: Seen) -> float:
    """Seconds until no call was refused any more, and none took longer than usual."""
    if not after.done:
        return math.inf
    slow = 2 * usual.took(0.99)
    last = max(after.refused, default=0.0)
    windows: dict[int, list[float]] = {}
    for at, took in after.done:
        windows.setdefault(int(at / WINDOW_SECONDS), []).append(took)
    late = [number for number, took in windows.items() if percentile(took, 0.9) > slow]
    return max(last, (max(late) + 1) * WINDOW_SECONDS if late else 0.0)


def told(seen: Seen) -> str:
    """A step's figures."""
    refused = len(seen.refused) / seen.seconds
    return (
        f"{seen.rate:.0f} answers/s, p50 {1000 * seen.took(0.5):.0f} ms, p99 "
        f"{1000 * seen.took(0.99):.0f} ms; {refused:.0f} refused/s; the clients took "
        f"{seen.cpu_seconds / seen.seconds:.2f} of a core, and sent {1000 * seen.late_seconds:.0f} "
        "ms late at p99"
    )


def told_of(others: set[str]) -> str:
    """What else there was."""
    return f"others: {', '.join(sorted(others)) or 'none'}"


def main() -> None:
    """Prints a line a step and a line a claim; with `--client`, is the clients."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of overload; default: 60")
    parser.add_argument("--most", type=int, default=64, help="job.max_in_flight; default: 64")
    parser.add_argument("--latency", type=float, default=0.5, help="of teachers; default: 0.5 s")
    parser.add_argument("--client", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        address, *secrets = options.client
        asyncio.run(client(address, secrets))
        return
    print(f"overload | {where()}", flush=True)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[len(cores) // 2 :])
    with (
        mock_teacher(options.latency, 800) as base_url,
        serving(base_url, options.most, set(cores)) as (process, address, secrets),
        generator(address, secrets) as clients,
    ):
        holds = measure(clients, process, options.seconds, options.most)
    if not holds:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
