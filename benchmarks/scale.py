"""A job of 200,000 prompts: what it holds in memory on the way, and how soon it says it is done.

`arbitrage run` with two scripted teachers, which answer at once, and a policy that learns; the
resident memory of its process at every tenth of the way; then the same command again, which has
nothing left to do.

    python benchmarks/scale.py                   # some ten minutes
    python benchmarks/scale.py --prompts 20000   # one
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from sqlite3 import OperationalError, connect
from tempfile import TemporaryDirectory

from turns import where

_LANGUAGES = ("de", "fr", "ja", "sw", "hi", "ar", "ko", "tr")
_STEPS = 10
_AGAIN = 3
_LOOK_SECONDS = 0.5
_CONFIG = """
[[teachers]]
name = "ada"
kind = "scripted"
quality = { default = 0.8 }
[[teachers]]
name = "bob"
kind = "scripted"
quality = { default = 0.5 }
[reward]
kind = "scripted"
gates = []
[policy]
kind = "thompson"
fan_out = 2
"""


def main() -> None:
    """Runs the job, and prints a line a step."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prompts", type=int, default=200_000, help="default: 200000")
    prompts = parser.parse_args().prompts
    print(f"scale | {where()}")
    with TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder, prompts)
        begun = time.perf_counter()
        with _job(folder) as process:
            _watch(process, folder / "out" / "journal.sqlite", prompts)
        if process.returncode:
            raise SystemExit(f"the job ended with {process.returncode}")
        rate = prompts / (time.perf_counter() - begun)
        print(f"scale | {prompts} prompts | {rate:.0f} prompts/s from the start to the end")
        for _ in range(_AGAIN):
            begun = time.perf_counter()
            with _job(folder) as process:
                _, _, usage = os.wait4(process.pid, 0)
                process.returncode = 0
            print(
                f"scale | the same command again | {time.perf_counter() - begun:.2f} s, "
                f"{usage.ru_utime + usage.ru_stime:.2f} s CPU, {usage.ru_maxrss / 1024:.0f} MB"
            )


def _write(folder: Path, prompts: int) -> None:
    (folder / "config.toml").write_text(_CONFIG, encoding="utf-8")
    with (folder / "prompts.jsonl").open("w", encoding="utf-8") as file:
        for number in range(prompts):
            language = _LANGUAGES[number % len(_LANGUAGES)]
            text = f"Question {number}: what is the {number % 997}th thing about {language}?"
            file.write(json.dumps({"prompt": text, "language": language}) + "\n")


def _job(folder: Path) -> subprocess.Popen[bytes]:
    command = (sys.executable, "-c", "import sys, cli; sys.exit(cli.main())", "run")
    paths = ("-c", "config.toml", "prompts.jsonl", "-o", "out")
    root = str(Path(__file__).resolve().parent.parent)
    return subprocess.Popen(
        (*command, *paths),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.DEVNULL,
    )


def _watch(process: subprocess.Popen[bytes], journal: Path, prompts: int) -> None:
    step = prompts // _STEPS
    due = step
    while process.poll() is None:
        time.sleep(_LOOK_SECONDS)
        done = _samples(journal)
        if done >= due:
            print(f"scale | {done} prompts | {_resident_mb(process.pid):.0f} MB resident")
            due = (done // step + 1) * step


def _samples(journal: Path) -> int:
    try:
        with closing(connect(f"{journal.absolute().as_uri()}?mode=ro", uri=True)) as database:
            ((last,),) = database.execute("SELECT coalesce(max(seq), 0) FROM samples")
    except OperationalError:  # it is not there yet
        return 0
    return int(last)


def _resident_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:  # it has just ended
        return 0.0
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")] or ["VmRSS: 0"]
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
