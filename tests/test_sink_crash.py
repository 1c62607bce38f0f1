from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

import sink
from arbitrage import config
from tests.samples import ids, sample, start

if TYPE_CHECKING:
    from pathlib import Path

LANGUAGES = ("de", "fr", "ko")

KILL = """
import asyncio, os, pathlib, signal, sys
import sink
from arbitrage import config
from arbitrage.journal import Journal
from sink.layout import Layout
from sink.parquet import Parquet
from tests.samples import sample
from tests.test_sink_crash import LANGUAGES

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def on_call(count, original):
    calls = []
    def counted(*arguments):
        calls.append(arguments)
        return die() if len(calls) == count else original(*arguments)
    return counted

match sys.argv[2]:
    case "before any file":
        Parquet.write = die
    case "between two files":
        Layout.put = on_call(2, Layout.put)
    case "before the rename":
        pathlib.Path.replace = die
    case "before the card":
        pathlib.Path.replace = on_call(4, pathlib.Path.replace)
    case "before the mark":
        Journal.mark_published = die

async def main():
    opened = await sink.open(config.Sink(path=pathlib.Path(sys.argv[1])))
    for number in range(9):
        await opened.write(sample(number, language=LANGUAGES[number % 3]))
    await opened.close()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "moment",
    [
        "before any file",
        "between two files",
        "before the rename",
        "before the card",
        "before the mark",
    ],
)
async def test_a_kill_while_publishing_leaves_every_sample_once(
    tmp_path: Path, moment: str
) -> None:
    out = tmp_path / "out"
    with start(KILL, out, moment) as process:
        pass
    assert process.returncode == -signal.SIGKILL
    opened = await sink.open(config.Sink(path=out))
    await opened.write(sample(100))
    await opened.close()
    parts = sorted(out.rglob("*part-*"))
    found = [
        name for part in parts for name in pq.ParquetFile(part).read()["sample_id"].to_pylist()
    ]
    written = [sample(number, language=LANGUAGES[number % 3]) for number in range(9)]
    assert sorted(found) == ids([*written, sample(100)])
    files = [str(part.relative_to(out / "data")) for part in parts]
    assert files == [
        "de/part-00001-00002.parquet",
        "fr/part-00001.parquet",
        "ko/part-00001.parquet",
    ]
    assert list(out.rglob(".*")) == [], "nothing half written is left"
    assert "10 samples in 3 languages." in (out / "README.md").read_text(encoding="utf-8")
