"""The Python entry point: a configuration in, an engine out, closed in reverse order."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import assembly
from arbitrage import config
from arbitrage.errors import ConfigError, SinkError
from arbitrage.events import Accepted, Answered, Called, Judged, Left, Routed, Stored
from arbitrage.types import Prompt
from tests.processes import published, write_config
from tests.service import scripted, settings

if TYPE_CHECKING:
    from pathlib import Path

    from arbitrage.events import Event

PARTS = {
    "pool": "teachers.pool.Pool",
    "sink": "sink.journaled.JournaledSink",
    "gates": "reward.gates.AnswerGates",
    "reward": "reward.scripted.ScriptedReward",
}


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts that were closed, in order."""
    parts: list[str] = []

    def recording(part: str, close: Any) -> Any:
        async def recorded(self: object) -> None:
            parts.append(part)
            await close(self)

        return recorded

    for part, path in PARTS.items():
        module, _, name = path.rpartition(".")
        kind = getattr(__import__(module, fromlist=[name]), name)
        monkeypatch.setattr(kind, "close", recording(part, kind.close))
    return parts


@pytest.mark.parametrize("kind", [str, lambda path: path, config.load])
async def test_a_file_is_an_engine(tmp_path: Path, kind: Any) -> None:
    async with assembly.open(kind(write_config(tmp_path))) as engine:
        sample = await engine.arbitrate(Prompt.of("Wo liegt das, und warum?"))
    assert sample.winner
    assert (sample.winner.teacher, sample.prompt.language) == ("ada", "de")
    assert published(tmp_path / "out") == [sample.sample_id]


async def test_observers_hear_everything_in_order(tmp_path: Path) -> None:
    class Listener:
        def observe(self, event: Event) -> None:
            heard.append(type(event))

    heard: list[type[Event]] = []
    async with assembly.open(settings(tmp_path), observers=[Listener()]) as engine:
        await engine.arbitrate(Prompt.of("Warum?", language="de"))
    assert heard == [Accepted, Routed, *[Called, Answered] * 2, Judged, Stored, Left]


async def test_parts_are_closed_in_reverse_order(tmp_path: Path, closed: list[str]) -> None:
    async with assembly.open(settings(tmp_path)):
        assert closed == []
    assert closed == ["reward", "sink", "pool", "gates"]


async def test_parts_are_closed_when_the_body_fails(tmp_path: Path, closed: list[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        async with assembly.open(settings(tmp_path)):
            raise ZeroDivisionError
    assert closed == ["reward", "sink", "pool", "gates"]


async def test_parts_are_closed_when_one_does_not_close(tmp_path: Path, closed: list[str]) -> None:
    stack = AsyncExitStack()
    engine = await stack.enter_async_context(assembly.open(settings(tmp_path)))
    await engine.arbitrate(Prompt.of("Warum?", language="de"))
    (tmp_path / "out" / "data").write_text("in the way")
    with pytest.raises(SinkError, match="the journal kept every sample"):
        await stack.aclose()
    assert closed == ["reward", "sink", "pool", "gates"]


@pytest.mark.parametrize(
    ("sections", "reason", "open_then"),
    [
        (
            {"reward": config.ScriptedReward(gates=("none",))},
            "reward.gates",
            [],
        ),
        (
            {"teachers": (scripted(), scripted("bob", quality=1.0, drift_quality={"?": 1.0}))},
            "drift_quality",
            ["sink", "pool", "gates"],
        ),
        (
            {"policy": config.Policy(kind="fixed")},
            "policy",
            [],
        ),
    ],
    ids=["gates", "reward", "policy"],
)
async def test_what_is_open_is_closed_when_a_part_cannot_be_opened(
    tmp_path: Path, closed: list[str], sections: dict[str, Any], reason: str, open_then: list[str]
) -> None:
    with pytest.raises(ConfigError, match=reason):
        async with assembly.open(settings(tmp_path, **sections)):
            pass
    assert closed == open_then
    async with assembly.open(settings(tmp_path)) as engine:  # the folder is free again
        assert (await engine.arbitrate(Prompt.of("Warum?", language="de"))).winner


async def test_the_pool_is_closed_when_the_sink_cannot_be_opened(
    tmp_path: Path, closed: list[str]
) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(SinkError, match="choose another output folder"):
        async with assembly.open(settings(tmp_path)):
            pass
    assert closed == ["pool", "gates"]


@pytest.mark.parametrize("horizon", [None, 1000])
async def test_a_budget_may_change_while_it_runs_unless_it_is_spread(
    tmp_path: Path, horizon: int | None
) -> None:
    policy = config.Policy(budget_usd=10.0, horizon=horizon)
    before = settings(tmp_path, scripted("ada", 1.0), policy=policy)
    after = replace(before, policy=replace(policy, budget_usd=20.0))
    async with assembly.open(before) as engine:
        if horizon:
            with pytest.raises(ConfigError, match=r"^policy: has changed, which needs a restart"):
                await assembly.reload(engine, before, after)
        else:
            assert await assembly.reload(engine, before, after)
