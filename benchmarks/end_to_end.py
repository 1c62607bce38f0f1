"""`arbitrage run` beside the least that fans the same prompts out, each in a process of its own.

Four teachers on a mock server, which is a process, too; scoring stubbed, a policy that learns,
every completion and every sample durable before it counts. The floor posts each prompt to the
four models by aiohttp, so many prompts at once, reads the JSON, and keeps nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from sqlite3 import connect
from statistics import median
from tempfile import TemporaryDirectory

import aiohttp

TEACHERS = ("ada", "bob", "cleo", "dan")
LANGUAGES = ("de", "fr", "ja", "sw")
_COMMAND = (sys.executable, "-c", "import sys, cli; sys.exit(cli.main())", "run")


def measure(base_url: str, *, prompts: int, in_flight: int, rounds: int) -> None:
    """Prints, round by round and as medians, prompts a second and CPU milliseconds a prompt.

    Args:
        base_url: of the mock server, with `/v1` at its end.
        prompts: of each round.
        in_flight: prompts at once.
        rounds: in which the floor and the run take turns.
    """
    shares = []
    for number in range(1, rounds + 1):
        least, least_ms = floor(base_url, prompts=prompts, in_flight=in_flight)
        with TemporaryDirectory() as folder:
            job = Path(folder)
            _write(job, base_url, prompts, in_flight)
            begun = time.perf_counter()
            command = (*_COMMAND, "-c", str(job / "config.toml"), str(job / "prompts.jsonl"))
            _, ms = _measured((*command, "-o", str(job / "out")), count=prompts)
            whole = prompts / (time.perf_counter() - begun)
            rate = _rate(job / "out" / "journal.sqlite", prompts)
        shares.append(rate / least)
        print(
            f"run | round {number} | aiohttp alone {least:.0f} prompts/s, {least_ms:.2f} ms CPU | "
            f"arbitrage run {rate:.0f} prompts/s, {ms:.2f} ms CPU with its start "
            f"({whole:.0f} prompts/s from the start to the end) | {shares[-1]:.2f} of the floor"
        )
    print(f"run | {in_flight} in flight | median {median(shares):.2f} of aiohttp alone")


def _measured(command: tuple[str, ...], count: int | None = None) -> tuple[float, float]:
    """What a command prints as its last word, and its CPU milliseconds a prompt."""
    # not communicate(), which would not tell what the process used
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
    ) as process:
        told = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{told}")
    seconds = usage.ru_utime + usage.ru_stime
    if count:
        return 0.0, 1000 * seconds / count
    rate, ms = told.split()[-2:]
    return float(rate), float(ms)


def environment() -> dict[str, str]:
    """In which a process finds this checkout."""
    root = str(Path(__file__).resolve().parent.parent)
    return {**os.environ, "PYTHONPATH": root}


def floor(base_url: str, *, prompts: int, in_flight: int) -> tuple[float, float]:
    """Prompts a second, and CPU milliseconds a prompt, of aiohttp alone in a process of its own."""
    return _measured((sys.executable, __file__, base_url, str(prompts), str(in_flight)))


def _write(job: Path, base_url: str, prompts: int, in_flight: int) -> None:
    lines = (
        json.dumps({"prompt": f"Question {n}?", "language": LANGUAGES[n % len(LANGUAGES)]})
        for n in range(prompts)
    )
    (job / "prompts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    teachers = "".join(
        f'[[teachers]]\nname = "{name}"\nkind = "openai"\nmodel = "{name}"\n'
        f'base_url = "{base_url}"\nmax_concurrency = {in_flight}\n'
        for name in TEACHERS
    )
    rest = (
        '[reward]\nkind = "scripted"\ngates = []\n'
        f'[policy]\nkind = "thompson"\nfan_out = {len(TEACHERS)}\n'
        f"[job]\nmax_in_flight = {in_flight}\n"
    )
    (job / "config.toml").write_text(teachers + rest, encoding="utf-8")


def _rate(journal: Path, prompts: int) -> float:
    """Samples a second, from the first that was made to the last.

    Raises:
        SystemExit: some are missing.
    """
    query = """SELECT count(*), min(json_extract(CAST(document AS TEXT), '$.created_at')),
        max(json_extract(CAST(document AS TEXT), '$.created_at')) FROM samples
        WHERE teacher IS NOT NULL"""
    with closing(connect(journal)) as database:
        ((samples, first, last),) = database.execute(query)
    if samples != prompts:
        raise SystemExit(f"{samples} samples of {prompts} prompts")
    seconds = datetime.fromisoformat(last) - datetime.fromisoformat(first)
    return float(samples / seconds.total_seconds())


async def _floor(base_url: str, prompts: int, in_flight: int) -> tuple[float, float]:
    slots = asyncio.Semaphore(in_flight)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(teacher: str, number: int) -> object:
            messages = [{"role": "user", "content": f"Question {number}?"}]
            body = {"model": teacher, "messages": messages}
            async with session.post(f"{base_url}/chat/completions", json=body) as response:
                return await response.json()

        async def fan_out(number: int) -> None:
            async with slots:
                await asyncio.gather(*(ask(teacher, number) for teacher in TEACHERS))

        cpu, begun = time.process_time(), time.perf_counter()
        await asyncio.gather(*map(fan_out, range(prompts)))
        seconds = time.perf_counter() - begun
        return prompts / seconds, 1000 * (time.process_time() - cpu) / prompts


def main() -> None:
    """The floor, alone in its process: prints prompts a second and CPU milliseconds a prompt."""
    parser = argparse.ArgumentParser(description="the floor of `throughput.py --stage run`")
    parser.add_argument("base_url")
    parser.add_argument("prompts", type=int)
    parser.add_argument("in_flight", type=int)
    arguments = parser.parse_args()
    rate, ms = asyncio.run(_floor(arguments.base_url, arguments.prompts, arguments.in_flight))
    print(rate, ms)


if __name__ == "__main__":
    main()
