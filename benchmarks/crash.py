"""Kill a job at random moments, begin it again, and hold what is there against what should be.

`arbitrage run` over prompts, with four teachers on a mock server in a process of its own that
counts their calls; `kill -9` whenever a while has passed since the journal last grew; the same
command again, and at the end once to its end. Then every figure is worked out from the outside:
from the mock's counters, the journal, what readers find, and a policy that learns from the
samples all at once.

    python benchmarks/crash.py                       # 20 kills, some two minutes
    python benchmarks/crash.py --kills 5 --prompts 2000 --seed 7
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from sqlite3 import OperationalError, connect
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import duckdb
from mock_process import mock_teacher
from turns import where

import router
from arbitrage import config
from arbitrage.journal import Journal
from arbitrage.types import Context
from router.features import HashedNgrams
from router.snapshots import snapshot
from router.snapshots.state import text_of

if TYPE_CHECKING:
    from mock_process import MockServer

ROOT = Path(__file__).resolve().parents[1]
LANGUAGES = ("de", "en", "fr", "ja", "sw", "th")
TEACHERS = ("ada", "bob", "eve", "ivy")
IN_FLIGHT = 64
FAN_OUT = 2
PATIENCE_SECONDS = 120.0
FRESH_SECONDS = 0.25
ROUNDING = 1e-9

CONFIG = """
[reward]
kind = "scripted"
gates = []
calibration = { per_language = true, by_length = true }
[policy]
kind = "thompson"
fan_out = %d
seed = 3
[job]
max_in_flight = %d
"""
TEACHER = """
[[teachers]]
name = "%s"
kind = "openai"
model = "%s"
base_url = "%s"
max_concurrency = 256
price_per_million = { prompt = 1.0, completion = 2.0 }
"""


def write(folder: Path, base_url: str, prompts: int) -> tuple[Path, Path]:
    """A configuration, and a file of prompts."""
    settings, rows = folder / "config.toml", folder / "prompts.jsonl"
    teachers = (TEACHER % (name, name, base_url) for name in TEACHERS)
    settings.write_text(CONFIG % (FAN_OUT, IN_FLIGHT) + "".join(teachers))
    with rows.open("w") as file:
        for number in range(prompts):
            language = LANGUAGES[number % len(LANGUAGES)]
            print(json.dumps({"prompt": f"Question {number}?", "language": language}), file=file)
    return settings, rows


def begin(settings: Path, rows: Path, out: Path) -> subprocess.Popen[str]:
    """The job in a process of its own."""
    command = [sys.executable, "-m", "cli", "run", "-c", settings, rows, "-o", out]
    return subprocess.Popen(
        [*map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def count(out: Path, table: str) -> int:
    """Rows of a table of the journal; 0 while there is none."""
    try:
        with closing(connect(f"file:{out / 'journal.sqlite'}?mode=ro", uri=True)) as journal:
            query = f"SELECT count(*) FROM {table}"  # noqa: S608 - a name of ours
            ((rows,),) = journal.execute(query).fetchall()
    except OperationalError:
        return 0
    return int(rows)


def kill(
    process: subprocess.Popen[str], mock: MockServer, out: Path, seconds: float
) -> tuple[int, int]:
    """Kills the job so long after its journal has grown.

    Returns:
        The calls under way then, and those answered in the `FRESH_SECONDS` before, of which
        a busy job may not have read the answer yet.
    """
    before, deadline = count(out, "completions"), time.monotonic() + PATIENCE_SECONDS
    while count(out, "completions") == before and process.poll() is None:
        if time.monotonic() > deadline:
            raise TimeoutError("the job does not begin")
        time.sleep(0.005)
    time.sleep(seconds)
    answered = int(mock.stats()["total"]["answered"])
    time.sleep(FRESH_SECONDS)
    if process.poll() is not None:
        raise SystemExit("the job has ended before it could be killed; give it more --prompts")
    # frozen, so that what is under way does not change between counting and killing
    os.kill(process.pid, signal.SIGSTOP)
    total = mock.stats()["total"]
    process.kill()
    process.communicate()
    return int(total["in_flight"]), int(total["answered"]) - answered


async def relearned(settings: config.Config, out: Path) -> tuple[dict[str, Any], int, float]:
    """What a policy knows that learns from all samples at once; their number, and the ledger."""
    policy, encoder = router.build(settings.policy), HashedNgrams()
    journal = await Journal.open(out / "journal.sqlite")
    try:
        samples = [sample for _, sample in await journal.after(0, 1 << 30)]
        ledger = journal.cost_usd
    finally:
        await journal.close()
    for sample in samples:
        features = await encoder.encode(sample.prompt.text)
        context = Context(sample.prompt.language, sample.prompt.domain, features)
        policy.update(context, sample.candidates)
    return comparable(dict(policy.state())), len(samples), ledger


def comparable(state: dict[str, Any]) -> dict[str, Any]:
    """A policy's state, but for the random numbers that it would draw next."""
    state.pop("rng")
    told: dict[str, Any] = json.loads(text_of(state))
    return told


def main() -> None:
    """Prints what was found, a line a claim; fails where one does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)  # noqa: S311 - moments, no secrets
    print(where())
    with TemporaryDirectory() as folder, mock_teacher(latency=0.05) as mock:
        out = Path(folder) / "out"
        settings, rows = write(Path(folder), mock.base_url, options.prompts)
        under_way: list[tuple[int, int]] = []
        moments: list[int] = []
        for _ in range(options.kills):
            process = begin(settings, rows, out)
            under_way.append(kill(process, mock, out, rng.uniform(0.0, 1.0)))
            moments.append(count(out, "samples"))
        process = begin(settings, rows, out)
        said, complaint = process.communicate()
        if process.returncode:
            raise SystemExit(complaint)
        print(said.splitlines()[-1])
        print(f"killed {options.kills} times, with {moments} samples stored")
        report(settings, out, mock, options.prompts, under_way)


def report(
    settings: Path, out: Path, mock: MockServer, prompts: int, under_way: list[tuple[int, int]]
) -> None:
    """Holds what is there against what should be."""
    calls, kept = mock.stats()["total"]["calls"], count(out, "completions")
    open_calls, fresh = (sum(part) for part in zip(*under_way, strict=True))
    found = Counter(
        text
        for (text,) in duckdb.read_parquet(str(out / "data" / "**" / "*.parquet"))
        .project("messages[1].content")
        .fetchall()
    )
    loaded = config.load(settings)
    knows, samples, ledger = asyncio.run(relearned(loaded, out))
    saved = snapshot.load(out / "policy.json")
    with closing(connect(out / "journal.sqlite")) as journal:
        query = """SELECT sum(json_extract(value, '$.cost_usd'))
            FROM completions, json_each(CAST(document AS TEXT))"""
        ((paid,),) = journal.execute(query).fetchall()
    claims = {
        f"calls repeated: {calls - kept}; when killed, {open_calls} were under way and {fresh} "
        f"answered within {FRESH_SECONDS:g} s": calls - kept <= open_calls + fresh,
        f"samples lost: {prompts - len(found)}": len(found) == prompts,
        f"samples twice: {found.total() - len(found)}": found.total() == len(found),
        f"samples in the journal: {samples}; read: {found.total()}": samples == prompts,
        f"ledger: {ledger:.6f} USD; completions: {paid:.6f} USD": abs(ledger - paid) < ROUNDING,
        f"the policy has learned from {saved.version} samples": saved.version == prompts,
        "its state is that of one that saw them all at once": comparable(dict(saved.state))
        == knows,
    }
    for claim, holds in claims.items():
        print("ok  " if holds else "FAIL", claim)
    if not all(claims.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
