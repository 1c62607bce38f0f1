"""What chaos must not leave behind, and that the benchmark that looks for it would find it."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from chaos_findings import Dataset, Held, Told
from overload import Seen, recovery

import sink
from arbitrage import config
from arbitrage.v1 import arbitrage_pb2 as pb
from tests.samples import sample
from tests.service import PATIENCE_SECONDS, Client, figure, scripted, serving, settings

if TYPE_CHECKING:
    from pathlib import Path


SOME, MANY = 4, 30


def notes(path: Path, *lines: dict[str, str]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def ended(name: str, fate: str = "OK", sample_id: str = "") -> dict[str, str]:
    return {"ended": name, "fate": fate, "sample": sample_id}


async def gauge(client: Client, name: str) -> float:
    found = figure(await client.metrics(), name)
    assert found is not None
    return found


async def test_clients_that_leave_in_the_middle_leave_no_task_behind(tmp_path: Path) -> None:
    teachers = scripted("ada", latency_seconds=5.0), scripted("bob", latency_seconds=5.0)
    async with serving(settings(tmp_path, *teachers)) as client:
        before = await gauge(client, "tasks")
        calls: list[Any] = []
        for number in range(MANY):
            prompt = pb.Prompt(text=f"Was ist {number}?")
            stream = client.arbitrage.StreamComplete(pb.StreamCompleteRequest(prompt=prompt))
            request = pb.ArbitrateRequest(request_id=str(number), prompt=prompt)
            calls += [
                client.arbitrage.Complete(pb.CompleteRequest(prompt=prompt)),
                stream,
                client.arbitrage.Arbitrate(iter([request])),
            ]
        reading: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(anext(aiter(call))) for call in calls[2::3]
        ]
        await client.until("in_flight_prompts", 3.0 * MANY)
        assert await gauge(client, "tasks") > before + MANY
        for call in calls:
            call.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        await client.until("in_flight_prompts", 0.0)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await gauge(client, "tasks") > before + SOME:
                pass  # a scrape takes its time


def test_each_request_has_one_end_and_one_that_clients_may_see(tmp_path: Path) -> None:
    told = Told()
    asked = [{"asked": name} for name in "abcde"]
    ends = [ended("a", "OK", "s1"), ended("b", "UNAVAILABLE"), ended("c"), ended("c")]
    bug = ended("d", "INTERNAL: internal error")
    told.read(notes(tmp_path / "one", *asked, *ends, bug), killed=False)
    assert told.samples == {"s1"}
    assert told.faults == [
        "d: INTERNAL: internal error",
        "c ended 2 times",
        "e: never ended",
    ]


def test_a_client_that_was_killed_may_not_have_heard_and_may_have_died_writing(
    tmp_path: Path,
) -> None:
    told = Told()
    path = notes(tmp_path / "one", {"asked": "a"}, {"asked": "b"}, ended("a", "OK", "s1"))
    with path.open("a", encoding="utf-8") as file:
        file.write('{"ended": "b", "fa')
    told.read(path, killed=True)
    told.read(tmp_path / "died before it wrote", killed=True)
    assert (told.faults, told.unheard, told.samples) == ([], 1, {"s1"})


async def test_samples_that_are_lost_or_doubled_show(tmp_path: Path) -> None:
    out = tmp_path / "out"
    opened = await sink.open(config.Sink(path=out))
    for number in range(10):
        await opened.write(sample(number, language="de" if number % 2 else "fr"))
    await opened.close()
    whole = Dataset.of(out)
    assert (whole.twice, whole.apart, whole.journal.total()) == (0, 0, 10)
    (part,) = (out / "data" / "de").iterdir()
    shutil.copy(part, part.with_name("part-00099.parquet"))
    assert Dataset.of(out).twice == 5
    shutil.rmtree(out / "data" / "de")
    assert Dataset.of(out).apart == 5


def test_what_leaks_is_more_than_what_comes_and_goes() -> None:
    before = Held(files=30, clients=0, threads=18, tasks=20, megabytes=300.0)
    assert Held(files=33, clients=0, threads=23, tasks=21, megabytes=420.0).within(before)
    assert not Held(files=130, clients=0, threads=18, tasks=20, megabytes=300.0).within(before)
    assert not Held(files=30, clients=1, threads=18, tasks=20, megabytes=300.0).within(before)
    assert not Held(files=30, clients=0, threads=18, tasks=50, megabytes=300.0).within(before)


@pytest.mark.parametrize(
    ("after", "seconds"),
    [
        (Seen(done=[(at / 10, 0.1) for at in range(50)]), 0.0),
        (Seen(done=[(at / 10, 0.1) for at in range(50)], refused=[0.2, 0.7]), 0.7),
        (Seen(done=[(at / 10, 0.9 if at < 12 else 0.1) for at in range(50)]), 1.25),
        (Seen(), math.inf),
    ],
)
def test_a_service_has_recovered_when_nothing_is_refused_or_slow_any_more(
    after: Seen, seconds: float
) -> None:
    usual = Seen(seconds=5.0, done=[(at / 10, 0.1) for at in range(50)])
    assert recovery(after, usual) == seconds
