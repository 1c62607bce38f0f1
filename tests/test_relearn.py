"""What a killed run had learned, and paid for, the next one knows."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import assembly
from arbitrage import config
from arbitrage.types import Prompt
from router.snapshots import keeper
from router.snapshots.state import text_of
from tests.samples import start

if TYPE_CHECKING:
    from pathlib import Path

    from arbitrage.engine import Engine
    from arbitrage.types import Sample

LANGUAGES = ("de", "fr", "ja", "sw")


def settings(folder: Path, **policy: Any) -> config.Config:
    return config.Config(
        teachers=tuple(
            config.ScriptedTeacher(
                name=name,
                kind="scripted",
                quality={"default": quality},
                price_per_million=config.Price(100.0, 100.0),
            )
            for name, quality in (("ada", 0.8), ("bob", 0.5), ("eve", 0.2))
        ),
        reward=config.ScriptedReward(gates=(), calibration=config.Calibration()),
        policy=config.Policy(kind="thompson", fan_out=2, **policy),
        sink=config.Sink(path=folder),
    )


def prompt(number: int) -> Prompt:
    return Prompt.of(f"Question number {number}?", language=LANGUAGES[number % 4])


async def answer(engine: Engine, numbers: range) -> None:
    await asyncio.gather(*(engine.arbitrate(prompt(number)) for number in numbers))


def learned(engine: Engine) -> dict[str, Any]:
    """What policy and calibration know, but for how they would go on drawing."""
    state = dict(engine.policy.state())
    del state["rng"]
    return {"policy": plain(state), "calibration": plain(engine.calibration.state())}


def plain(state: Any) -> Any:
    return json.loads(text_of(state))


@pytest.mark.parametrize("saved", [0, 25], ids=["never saved", "saved in the middle"])
async def test_what_was_not_saved_is_learned_again_exactly(tmp_path: Path, saved: int) -> None:
    folder, copy = tmp_path / "out", tmp_path / "copy"
    async with assembly.open(settings(folder)) as engine:
        await answer(engine, range(saved))
    async with assembly.open(settings(folder)) as engine:
        await answer(engine, range(saved, 60))
        # as it lies there when the process is killed: the state is saved seconds later
        shutil.copytree(folder, copy)
        uninterrupted = learned(engine)
    async with assembly.open(settings(copy)) as again:
        assert again.policy.version == 60
        assert learned(again) == uninterrupted
        await answer(again, range(60))  # which is known, and not learned twice
        assert learned(again) == uninterrupted


async def test_learning_goes_on_from_where_the_file_stood(tmp_path: Path) -> None:
    async with assembly.open(settings(tmp_path / "out")) as engine:
        await answer(engine, range(10))
    saved = json.loads((tmp_path / "out" / keeper.FILE).read_text())
    assert saved["learned"] == 10
    assert saved["calibration"]["scales"]["learned"] > 0


async def test_a_rerun_with_another_reward_and_gates_pays_for_no_completion_twice(
    tmp_path: Path,
) -> None:
    first = settings(tmp_path / "one", seed=1)
    everyone = replace(first, policy=config.Policy(kind="best_of", fan_out=3))
    async with assembly.open(everyone) as engine:
        await answer(engine, range(12))
    other = replace(
        everyone,
        reward=config.ScriptedReward(gates=("empty",)),
        sink=config.Sink(path=tmp_path / "two"),
        job=config.Job(cache=tmp_path / "one" / "journal.sqlite"),
    )
    async with assembly.open(other) as engine:
        samples = [await engine.arbitrate(prompt(number)) for number in range(14)]
    cached = [[c.completion and c.completion.cached for c in s.candidates] for s in samples]
    assert cached == [[True] * 3] * 12 + [[False] * 3] * 2
    assert all(c.cost_usd == 0.0 for s in samples[:12] for c in s.candidates)


async def test_what_is_stored_for_who_has_given_up_is_learned_all_the_same(
    tmp_path: Path,
) -> None:
    async with assembly.open(settings(tmp_path / "out")) as engine:
        write, writing = engine.sink.write, asyncio.Event()

        async def slow(sample: Sample) -> int | None:
            writing.set()
            await asyncio.sleep(0.02)
            return await write(sample)

        engine.sink.write = slow  # type: ignore[method-assign] # a disk that takes its time
        asking = asyncio.create_task(engine.arbitrate(prompt(1)))
        await writing.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert engine.policy.version == engine.sink.pending == 1


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
import assembly
from tests.test_relearn import answer, settings

async def main():
    async with assembly.open(settings(Path(sys.argv[1]))) as engine:
        await answer(engine, range(40))
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_after_kill_9_nothing_paid_is_unknown(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with start(KILLED, folder) as process:
        assert process.wait(timeout=60) == -signal.SIGKILL
    async with assembly.open(settings(folder)) as engine:
        assert engine.policy.version == 40
        budget = assembly.pool_of(engine).budget
        spent = float(budget.spent)
        samples = [await engine.arbitrate(prompt(number)) for number in range(40)]
        paid = sum(c.cost_usd for sample in samples for c in sample.candidates)
        assert float(budget.spent) == pytest.approx(spent + paid)
    assert spent > 0.0
