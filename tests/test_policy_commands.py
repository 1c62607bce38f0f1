"""`arbitrage policy`, and what a service leaves of its policy for the next one."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import AsyncExitStack
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

import assembly
from arbitrage import config, errors
from arbitrage.client import AsyncClient, Learned
from arbitrage.display.policy import learned
from arbitrage.types import Candidate, Completion, Context, Prompt, Score
from arbitrage.v1 import arbitrage_pb2 as pb
from commands import policies
from router.snapshots import keeper, snapshot
from router.snapshots.snapshot import Snapshot
from service.arbitrage_service import ArbitrageService
from tests.processes import arbitrage, published, served, write_config
from tests.service import scripted, serving, settings

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from arbitrage import ports
    from tests.service import Client

THOMPSON = config.Policy(kind="thompson", seed=3)
TEXTS = ("Warum ist das so?", "Wo liegt Lima?", "Was ist Eis?")


def rows(table: Table) -> list[list[str]]:
    """The cells of a table, as they would be printed."""
    console = Console(width=200, file=StringIO(), highlight=False)
    console.print(table)
    assert isinstance(console.file, StringIO)
    lines = [line for line in console.file.getvalue().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


async def ask(client: Client, *texts: str, language: str = "de") -> None:
    for text in texts:
        await client.complete(text, language=language)


async def told(client: Client, **fields: Any) -> pb.GetPolicyResponse:
    return await client.arbitrage.GetPolicy(pb.GetPolicyRequest(**fields))


def complaint_of(caught: pytest.ExceptionInfo[errors.ArbitrageError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


# What a service leaves


async def test_the_next_run_goes_on_from_what_was_learned(tmp_path: Path) -> None:
    chosen = settings(tmp_path, policy=THOMPSON)
    async with serving(chosen) as client:
        await ask(client, *TEXTS)
        before = await told(client, include_state=True)
    async with serving(chosen) as client:
        after = await told(client, include_state=True)
        await ask(client, "Und warum?")
        assert (await told(client)).version == 4
    assert before.version == 3
    assert after == before


async def test_a_policy_of_another_kind_takes_over_what_was_learned(tmp_path: Path) -> None:
    async with serving(settings(tmp_path, policy=THOMPSON)) as client:
        await ask(client, *TEXTS)
        (before,) = (await told(client)).languages
    async with serving(settings(tmp_path, policy=config.Policy(kind="random"))) as client:
        after = await told(client)
    assert (after.policy, after.version) == ("random", 3)
    for old, new in zip(before.arms, after.languages[0].arms, strict=True):
        assert (new.arm, new.count) == (old.arm, old.count)
        assert (new.mean_reward, new.standard_error) == (old.mean_reward, old.standard_error)


async def test_a_policy_that_cannot_be_saved_costs_no_sample(tmp_path: Path) -> None:
    stack = AsyncExitStack()
    engine = await stack.enter_async_context(assembly.open(settings(tmp_path)))
    sample = await engine.arbitrate(Prompt.of("Warum?", language="de"))
    (tmp_path / "out" / keeper.FILE).mkdir()
    with pytest.raises(errors.SnapshotError, match=r"policy\.json: cannot be written: Is a dir"):
        await stack.aclose()
    assert published(tmp_path / "out") == [sample.sample_id]


def test_a_damaged_state_stops_the_start_until_it_is_reset(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    state = tmp_path / "out" / keeper.FILE
    with served(path) as running:
        answered = arbitrage("complete", "-a", running.address, "-l", "de", "Warum?")
        assert (answered.code, running.stop(signal.SIGTERM).code) == (0, 0)
    state.write_bytes(state.read_bytes()[:-20])
    for command in (("serve",), ("policy", "show"), ("policy", "snapshot", tmp_path / "copy.json")):
        ended = arbitrage(*command, "-c", path)
        assert (ended.code, ended.out) == (1, "")
        assert ended.complaint.startswith(f"arbitrage {command[0]}: {state}: is damaged or was ed")
        if command == ("serve",):
            assert ended.complaint.endswith("arbitrage policy reset -c CONFIG")
    reset = arbitrage("policy", "reset", "-c", path)
    assert (reset.code, reset.err) == (0, "")
    assert reset.out == f"{state}: forgotten; the next run on this folder begins to learn anew\n"
    with served(path) as running:
        shown = arbitrage("policy", "show", "-a", running.address)
        assert "0 prompts learned from" in shown.out
        assert running.stop(signal.SIGTERM).code == 0


# Show


async def test_a_service_and_its_folder_tell_the_same(tmp_path: Path) -> None:
    chosen = settings(tmp_path, policy=THOMPSON)
    async with serving(chosen) as client:
        await ask(client, *TEXTS)
        await ask(client, "Pourquoi ?", language="fr")
        live = rows(await policies.show(client.running.address, None))
    saved = rows(await policies.show(chosen, None))
    assert saved == live
    assert [row[:2] for row in saved] == [
        ["de", "ada"], ["de", "bob"], ["fr", "ada"], ["fr", "bob"]
    ]  # fmt: skip


async def test_one_language_is_shown_alone(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    async with serving(chosen) as client:
        await ask(client, *TEXTS)
        await ask(client, "Pourquoi ?", language="fr")
        live = rows(await policies.show(client.running.address, "fr-CA"))
    saved = rows(await policies.show(chosen, "fr-CA"))
    assert {row[0] for row in live} == {"fr"}
    assert saved == live
    assert rows(await policies.show(chosen, "sw")) == []
    with pytest.raises(errors.InvalidPrompt, match="language"):
        await policies.show(chosen, "klingonisch")


async def test_what_is_shown_is_what_is_believed(tmp_path: Path) -> None:
    prices = {"price_per_million": config.Price(prompt=1.0, completion=2.0)}
    teachers = scripted("ada", 1.0, **prices), scripted("bob", -1.0)
    async with serving(settings(tmp_path, *teachers)) as client:
        await ask(client, *TEXTS, *(f"Warum {number}?" for number in range(20)))
        async with AsyncClient(client.running.address) as asked:
            policy = await asked.policy("de")
    ada, bob = sorted(policy.estimates, key=lambda arm: arm.arm)
    assert ada.reward > bob.reward
    assert ada.best is not None
    assert bob.best is not None
    assert 0.5 < ada.best <= 1.0
    assert ada.best + bob.best == pytest.approx(1.0)
    assert ada.cost_usd is not None
    assert ada.cost_usd > 0.0
    assert bob.cost_usd is None
    assert policy.usd_per_prompt >= 0.0
    shown, other = rows(learned(policy))
    assert shown == [
        "de",
        "ada",
        f"{ada.reward:+.2f} ± {1.96 * ada.standard_error:.2f}",
        f"{ada.best:.0%}",
        "100%",
        f"{1000 * ada.cost_usd:.4g}",
        "23",
        "0",
    ]
    assert other[:2] == ["de", "bob"]


def test_the_price_of_quality_is_told() -> None:
    free = learned(Learned("thompson", 0, 0.0, 0.00125, ()))
    paid = learned(Learned("knn", 0, 12.0, 0.5, ()))
    assert free.caption == "a prompt costs 0.00125 USD; rewards alone decide, whatever they cost"
    assert paid.caption == (
        "a prompt costs 0.5 USD; 0.001 USD more have to bring 0.012 standard deviations of reward"
    )


@pytest.mark.parametrize("command", [("show",), ("snapshot", "copy.json")])
def test_a_folder_where_nothing_was_learned_says_so(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    ended = arbitrage("policy", *command, "-c", write_config(tmp_path))
    assert ended.code == 1
    state = tmp_path / "out" / keeper.FILE
    assert ended.complaint.startswith(f"arbitrage policy: {state}: no such file: nobody has lear")
    assert not (tmp_path / "out").exists()


# Many languages


def teach(policy: ports.Policy, languages: int) -> None:
    for number in range(languages):
        answers = [
            Candidate(arm, Completion("."), score=Score(reward, {}))
            for arm, reward in (("ada", 0.5), ("bob", -0.5))
        ]
        policy.update(Context(f"x{number:03}"), answers)


async def test_showing_many_languages_lets_others_have_their_turn(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as client:
        teach(client.running.engine.policy, 200)
        turns = 0
        asked = asyncio.ensure_future(told(client))
        while not asked.done():
            turns += 1
            await asyncio.sleep(0)
        shown = await asked
    assert [entry.language for entry in shown.languages] == [f"x{n:03}" for n in range(200)]
    assert turns >= 200


async def test_a_state_of_many_megabytes_gets_through(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as client:
        policy: Any = client.running.engine.policy
        teach(policy, 1)
        state = policy.state() | {"own": {"noise": "x" * 5_000_000}}
        policy.state = lambda: state
        said = await policies.save(client.running.address, tmp_path / "large.json")
    assert said.endswith("policy 'best_of', 1 prompts learned from")
    assert snapshot.load(tmp_path / "large.json").state["own"] == state["own"]


# Snapshot


@pytest.mark.parametrize("name", ["copy.json", "copy.json.gz"])
async def test_a_snapshot_of_a_service_and_of_its_folder_are_one(tmp_path: Path, name: str) -> None:
    chosen = settings(tmp_path, policy=THOMPSON)
    live, saved = tmp_path / f"live-{name}", tmp_path / f"saved-{name}"
    async with serving(chosen) as client:
        await ask(client, *TEXTS)
        said = await policies.save(client.running.address, live)
        policy = client.running.engine.policy
        expected = Snapshot.of(policy).encode()
    assert said == f"{live}: policy 'thompson', 3 prompts learned from"
    await policies.save(chosen, saved)
    assert live.read_bytes() == saved.read_bytes()
    assert snapshot.load(live).encode() == expected
    warm = config.Policy(kind="random", warm_start=config.WarmStart(snapshot=live))
    async with assembly.open(settings(tmp_path / "other", policy=warm)) as engine:
        assert engine.policy.version == 3


async def test_the_state_comes_only_when_asked_for(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as client:
        await ask(client, "Warum?")
        assert (await told(client)).state == b""
        state = (await told(client, include_state=True, language="sw")).state
    assert Snapshot.decode(state).version == 1
    assert json.loads(state)["kind"] == "best_of"


async def test_a_service_of_before_there_were_snapshots_is_one_line(tmp_path: Path) -> None:
    async def before(*_: object) -> pb.GetPolicyResponse:
        return pb.GetPolicyResponse(policy="thompson", version=3)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ArbitrageService, "GetPolicy", before)
        async with serving(settings(tmp_path)) as client:
            with pytest.raises(errors.NotBuilt, match="gives no snapshots; upgrade it"):
                await policies.save(client.running.address, tmp_path / "copy.json")
    assert not (tmp_path / "copy.json").exists()


def test_a_snapshot_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "none" / "copy.json"
    with served(write_config(tmp_path)) as running:
        ended = arbitrage("policy", "snapshot", file, "-a", running.address)
    assert ended.code == 1
    assert ended.complaint.endswith(f"{file}: cannot be written: No such file or directory")


# Reset


async def test_nothing_is_reset_while_a_service_has_the_folder(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    state = tmp_path / "out" / keeper.FILE
    async with serving(chosen) as client:
        await ask(client, "Warum?")
    async with serving(chosen):
        with pytest.raises(errors.SinkError) as caught:
            await policies.reset(chosen)
        assert state.exists()
    assert "is in use by process" in complaint_of(caught)
    assert complaint_of(caught).endswith("; stop it, and reset again")
    assert await policies.reset(chosen) == (
        f"{state}: forgotten; the next run on this folder begins to learn anew"
    )
    assert len(published(tmp_path / "out")) == 1
    async with serving(chosen) as client:
        assert (await told(client)).version == 0


# Usage


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("show", "-a", "127.0.0.1:1", "-c", "x.toml"), "not allowed with argument -a/--address"),
        (("snapshot",), "required: FILE"),
        (("reset",), "required: -c/--config"),
        (("forget",), "invalid choice: 'forget'"),
        (("show", "-c", "none.toml"), "none.toml: cannot be read: No such file or directory"),
    ],
)
def test_wrong_usage_is_one_line(arguments: tuple[str, ...], reason: str) -> None:
    ended = arbitrage("policy", *arguments)
    assert ended.code == 2
    assert reason in ended.complaint
