"""Ten bad minutes for a service, and what has become of every request at their end.

A server with four teachers and a judge for its reward, on a small disk, and clients of every kind,
each in a process of its own. Meanwhile, all at once and at random: teachers hang, refuse, reset and
are killed; the judge fails, hangs and talks nonsense; the disk fills and empties; clients are
killed in the middle of what they ask; and SIGHUP comes in storms, with configurations good and bad.
Then the faults end, and a line a claim says whether it holds.

    python benchmarks/chaos.py                            # some eleven minutes
    python benchmarks/chaos.py --seconds 60 --seed 7
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import end_to_end
import grpc
from chaos_clients import FINAL, OPTIONS
from chaos_findings import Dataset, Told, scrape
from chaos_server import TEACHERS, Judge, configs, serving, small_disk
from grpc_health.v1 import health_pb2, health_pb2_grpc
from mock_process import mock_teacher
from turns import where

from arbitrage.v1 import arbitrage_pb2 as pb
from arbitrage.v1.arbitrage_pb2_grpc import ArbitrageServiceStub, JobServiceStub

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from chaos_findings import Held
    from chaos_server import Server
    from mock_process import MockServer

KINDS = ("complete", "complete", "stream", "arbitrate", "jobs", "openai")
WARM_UP_SECONDS = 6.0
RECOVERY_SECONDS = 20.0  # a breaker's break, and the pause of those who wait for the disk
PATIENCE_SECONDS = 90.0
IDLE_SECONDS = 32.0  # within which unused connections to teachers are closed
IN_FLIGHT_SECONDS = 2.0
_ALL_GONE, _FROZEN = 0.15, 0.3  # shares of the times
FAULTS = ("hang", "reset", "error", "rate_limit", "half_body", "bad_json", "drip")
COMPLAINTS = re.compile(
    r"Traceback|never retrieved|never awaited|was destroyed|\bCRITICAL\b|Unclosed"
)


@dataclass
class Clients:
    """Processes that ask."""

    server: Server
    folder: Path
    running: dict[str, tuple[str, subprocess.Popen[bytes]]] = field(default_factory=dict)
    told: Told = field(default_factory=Told)
    begun: int = 0
    killed: int = 0

    def begin(self, kind: str) -> None:
        """Starts one more."""
        self.begun += 1
        name = f"{kind}-{self.begun}"
        script = str(Path(__file__).with_name("chaos_clients.py"))
        places = (self.server.address, self.server.openai, str(self.folder / name), name)
        process = subprocess.Popen(
            (sys.executable, script, kind, *places), env=end_to_end.environment()
        )
        self.running[name] = (kind, process)

    def kill(self, name: str) -> None:
        """Ends one at once, and starts another like it."""
        kind, process = self.running.pop(name)
        process.kill()
        process.wait()
        self.killed += 1
        self.told.read(self.folder / name, killed=True)
        self.begin(kind)

    async def end(self) -> None:
        """Lets all of them hear what they have asked, and takes their notes."""
        for _, process in self.running.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for name, (_, process) in self.running.items():
            code = await asyncio.to_thread(process.wait, 2 * PATIENCE_SECONDS)
            if code:
                self.told.faults.append(f"{name} ended with exit code {code}")
            self.told.read(self.folder / name, killed=False)
        self.running.clear()


@dataclass
class Teachers:
    """All teachers, in a process that can be killed and comes back at the same address."""

    mock: MockServer
    stack: ExitStack

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Teachers]:
        """Starts them; whichever process runs at the end is killed."""
        with ExitStack() as stack:
            self = cls(stack.enter_context(mock_teacher()), stack)
            yield self

    def kill(self) -> None:
        """Ends them at once."""
        self.mock.process.kill()
        self.mock.process.wait()

    def begin(self) -> None:
        """Starts them again, well."""
        self.kill()
        self.mock = self.stack.enter_context(mock_teacher(port=self.mock.address[1]))


@dataclass
class Chaos:
    """All that goes wrong; each fault is a coroutine that goes on until it is cancelled."""

    rng: random.Random
    disk: Path | None
    judge: Judge
    server: Server
    clients: Clients
    configs: Callable[[int], str]
    teachers: Teachers
    counts: Counter[str] = field(default_factory=Counter)

    async def for_seconds(self, seconds: float) -> None:
        """Has everything go wrong for a while; then all is as it was, but for what came of it."""
        faults = [self._teachers, self._judge, self._kill, self._hang_up]
        if self.disk:
            faults.append(self._fill)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                for fault in faults:
                    group.create_task(fault())
        self.judge.mood = "well"
        self.teachers.begin()
        self._reload(self.configs(0))

    async def _pause(self, least: float, most: float) -> None:
        await asyncio.sleep(self.rng.uniform(least, most))

    async def _teachers(self) -> None:
        """Some of them fail at some or all of their calls; at times all are gone."""
        while True:
            if self.rng.random() < _ALL_GONE:
                self.teachers.kill()
                await self._pause(0.5, 3.0)
                self.teachers.begin()
                self.counts["teachers killed"] += 1
            sick = self.rng.sample(TEACHERS, self.rng.randint(1, len(TEACHERS)))
            models = {
                name: {"faults": [{"kind": kind, "share": self.rng.choice((0.3, 1.0))}]}
                for name in sick
                for kind in [self.rng.choice(FAULTS)]
            }
            self.teachers.mock.script({"models": models})
            self.counts["teachers sick"] += len(models)
            await self._pause(1.0, 4.0)
            self.teachers.mock.script({})
            await self._pause(1.0, 4.0)

    async def _judge(self) -> None:
        while True:
            await self._pause(2.0, 6.0)
            self.judge.mood = self.rng.choice(("failing", "hanging", "resetting", "babbling"))
            self.counts["judge sick"] += 1
            await self._pause(0.5, 3.0)
            self.judge.mood = "well"

    async def _fill(self) -> None:
        """Takes all room on the disk, as often as any becomes free, and gives it back."""
        disk = self.disk or Path()
        ballast = disk / "ballast"
        try:
            while True:
                await self._pause(4.0, 12.0)
                self.counts["disk full"] += 1
                until = time.monotonic() + self.rng.uniform(0.5, 6.0)
                with ballast.open("wb") as file:
                    while time.monotonic() < until:
                        free = os.statvfs(disk)
                        if room := free.f_bavail * free.f_frsize:
                            size = file.seek(0, os.SEEK_END)
                            with suppress(OSError):
                                os.posix_fallocate(file.fileno(), size, room)
                        await asyncio.sleep(0.02)
                ballast.unlink()
        finally:
            ballast.unlink(missing_ok=True)

    async def _kill(self) -> None:
        while True:
            await self._pause(2.0, 5.0)
            name = self.rng.choice(list(self.clients.running))
            if self.rng.random() < _FROZEN:  # first it reads no more, and says nothing of it
                self.clients.running[name][1].send_signal(signal.SIGSTOP)
                await self._pause(0.5, 4.0)
            self.clients.kill(name)

    async def _hang_up(self) -> None:
        while True:
            await self._pause(2.0, 8.0)
            for _ in range(self.rng.randint(3, 20)):
                self._reload(self.configs(self.rng.randrange(10)))
                await self._pause(0.0, 0.1)
            self._reload(self.configs(0))
            self.counts["storms"] += 1

    def _reload(self, text: str) -> None:
        self.server.config.write_text(text, "utf-8")
        self.server.process.send_signal(signal.SIGHUP)
        self.counts["SIGHUP"] += 1


async def until(what: Callable[[], Awaitable[bool]], seconds: float) -> float:
    """Waits for something; returns how long, infinity if in vain."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        with suppress(grpc.aio.AioRpcError, OSError):
            if await what():
                return time.monotonic() - begun
        await asyncio.sleep(0.1)
    return math.inf


async def recovered(server: Server) -> float:
    """Seconds until it is ready, with the last configuration, and answers twenty in a row."""
    async with grpc.aio.insecure_channel(server.address, OPTIONS) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        stub = ArbitrageServiceStub(channel)

        async def answers() -> bool:
            status = (await health.Check(health_pb2.HealthCheckRequest())).status
            listed = (await stub.ListTeachers(pb.ListTeachersRequest())).teachers
            if status != health_pb2.HealthCheckResponse.SERVING:
                return False
            if [one.name for one in listed] != list(TEACHERS):
                return False
            for _ in range(20):
                prompt = pb.Prompt(text=f"At {time.time_ns()}?", language="en")
                await stub.Complete(pb.CompleteRequest(prompt=prompt), timeout=2.0)
            return True

        return await until(answers, PATIENCE_SECONDS)


async def all_jobs(server: Server) -> list[pb.Job]:
    """Every job that there is."""
    jobs: list[pb.Job] = []
    token = ""
    async with grpc.aio.insecure_channel(server.address, OPTIONS) as channel:
        stub = JobServiceStub(channel)
        while token or not jobs:
            page = await stub.ListJobs(pb.ListJobsRequest(page_size=1000, page_token=token))
            jobs += page.jobs
            if not (token := page.next_page_token):
                break
    return jobs


async def measure(seconds: float, seed: int, folder: Path) -> dict[str, bool]:
    """Runs it all; returns what is claimed, and whether it holds."""
    async with AsyncExitStack() as stack:
        disk, small = stack.enter_context(small_disk(folder))
        if not small:
            print("chaos | no file system may be mounted here: the disk never fills")
        judge = Judge()
        judge_url = await stack.enter_async_context(judge.listening())
        teachers = stack.enter_context(Teachers.running())
        texts = configs(disk, judge_url, teachers.mock.base_url)
        server = stack.enter_context(serving(folder, texts(0)))
        clients = Clients(server, folder)
        await warm_up(clients)
        before = server.held()
        print(f"chaos | before | {before}", flush=True)
        rng = random.Random(seed)  # noqa: S311 - moments, no secrets
        full = disk if small else None
        chaos = Chaos(rng, full, judge, server, clients, texts, teachers)
        for kind in KINDS:
            clients.begin(kind)
        await chaos.for_seconds(seconds)
        print(f"chaos | {seconds:.0f} s | {counted(chaos.counts)}, clients killed {clients.killed}")
        back = await recovered(server)
        await clients.end()
        fates = clients.told.fates
        print(f"chaos | {fates.total()} requests | {counted(fates)}", flush=True)
        return await findings(server, clients.told, before, back, disk)


async def warm_up(clients: Clients) -> None:
    """Everything is done once, so that what a process holds is there."""
    for kind in set(KINDS):
        clients.begin(kind)
    await asyncio.sleep(WARM_UP_SECONDS)
    await clients.end()
    await asyncio.sleep(IDLE_SECONDS)


async def findings(
    server: Server, told: Told, before: Held, back: float, disk: Path
) -> dict[str, bool]:
    """Holds what is there against what should be."""
    claims = {
        f"ready, and answering, {back:.1f} s after the last fault": back < RECOVERY_SECONDS,
        f"requests without one end, or with one that no client should see: {len(told.faults)}"
        f"{shown(told.faults)}": not told.faults,
    }
    jobs: list[pb.Job] = []

    async def ended() -> bool:
        jobs[:] = await all_jobs(server)
        return all(job.state in FINAL for job in jobs)

    took = await until(ended, PATIENCE_SECONDS)
    states = Counter(pb.JobState.Name(job.state).removeprefix("JOB_STATE_") for job in jobs)
    claims[f"jobs have ended, {took:.1f} s later: {counted(states)}"] = took < PATIENCE_SECONDS

    async def idle() -> bool:
        return (await asyncio.to_thread(scrape, server.metrics))["arbitrage_in_flight_prompts"] == 0

    took = await until(idle, PATIENCE_SECONDS)
    claims[f"nothing in flight, {took:.1f} s later"] = took < IN_FLIGHT_SECONDS
    figures = await asyncio.to_thread(scrape, server.metrics)

    async def little() -> bool:
        return (await asyncio.to_thread(server.held)).within(before)

    await until(little, IDLE_SECONDS)
    after = server.held()
    claims[f"held before: {before}; after: {after}"] = after.within(before)
    bugs = sum(figures[f"arbitrage_requests_total {code}"] for code in ("INTERNAL", "UNKNOWN"))
    claims[f"RPCs that ended in INTERNAL or UNKNOWN: {bugs}"] = not bugs
    begun = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    code = await asyncio.to_thread(server.process.wait, PATIENCE_SECONDS)
    claims[f"SIGTERM: exit code {code} after {time.monotonic() - begun:.1f} s"] = code == 0
    complaints = server.complaints.read_text("utf-8")
    wrong = [line for line in complaints.splitlines() if COMPLAINTS.search(line)]
    claims[f"complaints of bugs in the log: {len(wrong)}{shown(wrong)}"] = not wrong
    return claims | on_disk(disk, jobs, told, int(figures["arbitrage_sink_samples_total"]))


def on_disk(disk: Path, jobs: list[pb.Job], told: Told, counted: int) -> dict[str, bool]:
    """Holds the datasets against what was told of them."""
    served = Dataset.of(disk / "out")
    lost = sum(one not in served.won for one in told.samples)
    runs = {job.job_id: job for job in jobs if (disk / "jobs" / job.job_id).exists()}
    of_jobs = {name: Dataset.of(disk / "jobs" / name) for name in runs}
    every = [served, *of_jobs.values()]
    journalled = sum(dataset.journal.total() for dataset in every)
    done = [job for job in jobs if job.state == pb.JOB_STATE_SUCCEEDED]
    missing = sum(
        prompt.text not in of_jobs[job.job_id].prompts
        for job in done
        for prompt in job.spec.prompts.prompts
    )
    rows = sum(job.progress.samples != of_jobs[job.job_id].journal.total() for job in done)
    twice, apart = (sum(one) for one in zip(*((d.twice, d.apart) for d in every), strict=True))
    return {
        f"samples that clients were told of: {len(told.samples)}; lost: {lost}": not lost,
        f"prompts of jobs that succeeded without a sample: {missing}": not missing,
        f"such jobs whose progress is not what is there: {rows}": not rows,
        f"samples twice: {twice}": not twice,
        f"samples in a journal or a file alone: {apart} of {journalled}": not apart,
        f"samples counted by the metrics: {counted}; in the journals: {journalled}": counted
        == journalled,
    }


def counted(counts: Counter[str]) -> str:
    """What there was how often, the most first."""
    return ", ".join(f"{name} {number}" for name, number in counts.most_common())


def shown(faults: list[str]) -> str:
    """The first of them."""
    return "".join(f"\n     {fault}" for fault in faults[:10])


def main() -> None:
    """Prints what was done and found, a line a claim; fails where one does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="of faults; default: 600")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"chaos | {where()} | seed {options.seed}", flush=True)
    with TemporaryDirectory() as folder:
        claims = asyncio.run(measure(options.seconds, options.seed, Path(folder)))
    for claim, holds in claims.items():
        print("ok  " if holds else "FAIL", claim)
    if not all(claims.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
