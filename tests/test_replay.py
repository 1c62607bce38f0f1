"""`arbitrage replay`: finished runs read back, a policy led through them, and the report."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import assembly
import router
import sink
from arbitrage import config
from arbitrage.errors import ArbitrageError, SinkError
from arbitrage.types import (
    Candidate,
    Completion,
    Context,
    Decision,
    Failure,
    Prompt,
    Sample,
    Score,
    Verdict,
)
from commands import replay
from router.offpolicy.prompt_types import PromptTypes
from router.offpolicy.trial import Replay
from router.offpolicy.valuation import DIRECT, SNIPS, evaluate
from sink.log import Log
from tests.processes import arbitrage
from tests.samples import sample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from router.offpolicy.trial import Trial

ARMS = ("a", "b", "c")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

# Reading a log


async def store(out: Path, samples: Sequence[Sample], part_rows: int = 7) -> None:
    opened = await sink.open(config.Sink(path=out), part_rows=part_rows)
    for one in samples:
        await opened.write(one)
    await opened.close()


def made(count: int, seed: int) -> list[Sample]:
    """In several languages, some without a winner, written a little out of order."""
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    return [
        replace(
            sample(number, language=("de", "fr", "ar")[number % 3], won=number % 5 != 0),
            created_at=NOON + timedelta(seconds=number + rng.uniform(-5.0, 5.0)),
        )
        for number in range(count)
    ]


async def test_a_log_gives_back_what_was_stored_in_the_order_of_its_making(tmp_path: Path) -> None:
    one, other = made(40, seed=0), made(25, seed=1)
    await store(tmp_path / "one", one)
    await store(tmp_path / "other", other, part_rows=100)
    log = Log([tmp_path / "one", tmp_path / "other"])
    expected = sorted([*one, *other], key=lambda s: (s.created_at, s.sample_id))
    assert list(log) == expected
    assert list(log) == expected, "it can be read again"
    assert len(log) == 65
    assert log.teachers == ("alpha", "beta", "delta", "gamma")


async def test_a_folder_named_twice_is_read_once(tmp_path: Path) -> None:
    await store(tmp_path / "out", made(3, seed=0))
    assert len(list(Log([tmp_path / "out", tmp_path / "." / "out"]))) == 3


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "cannot be read"), (b"PAR1 and no more", "cannot be read")]
)
async def test_a_damaged_part_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    await store(tmp_path / "out", made(3, seed=0))
    part = tmp_path / "out" / "data" / "fr" / "part-00001.parquet"
    part.write_bytes(content)
    with pytest.raises(SinkError, match=f"{part}: {reason}"):
        Log([tmp_path / "out"])


# Leading a policy through it


class Recorder:
    """A policy that tells what it was asked and told."""

    def __init__(self, shares: Mapping[str, float]) -> None:
        self.heard: list[tuple[str, Any]] = []
        self._shares = shares

    def shares(self, context: Context, arms: Sequence[str]) -> list[float]:
        self.heard.append(("shares", (context, tuple(arms))))
        return [self._shares[arm] for arm in arms]

    def update(self, context: Context, candidates: Sequence[Candidate]) -> None:
        self.heard.append(("update", (context, candidates)))


def scored(arm: str, reward: float) -> Candidate:
    return Candidate(arm, Completion("."), score=Score(reward, {}))


def stopped(arm: str) -> Candidate:
    return Candidate(arm, Completion("."), gates=(Verdict("empty", "has no text"),))


def failed(arm: str) -> Candidate:
    return Candidate(arm, failure=Failure("timeout", "no answer in 60 s"))


def logged(
    number: int,
    candidates: Sequence[Candidate],
    propensities: Mapping[str, float],
    *,
    later: Mapping[str, float] | None = None,
    language: str = "de",
) -> Sample:
    later = later or {}
    return Sample.of(
        Prompt.of(f"Frage {number}", language=language),
        Decision(
            "random",
            number,
            (*propensities, *later),
            (*propensities.values(), *later.values()),
            (0,) * len(propensities) + (1,) * len(later),
        ),
        candidates,
        job="test",
        created_at=NOON + timedelta(seconds=number),
    )


def led(
    samples: Sequence[Sample], policy: Any, arms: Sequence[str] = ARMS, *, several: bool = False
) -> Trial:
    course = Replay(policy, arms, lambda _: arms, several=several)
    for one in samples:
        course.add(one)
    return course.trial()


def test_a_target_is_asked_first_and_told_afterwards_what_the_log_knows() -> None:
    policy: Any = Recorder({"a": 0.2, "b": 0.2, "c": 0.6001})
    samples = [logged(i, [scored("b", float(i))], {"b": 0.5}) for i in range(3)]
    features = np.ones(4, dtype=np.float32)
    course = Replay(policy, ARMS, lambda _: ("c", "a"))
    for one in samples:
        course.add(one, features)
    trial = course.trial()
    asked, told = policy.heard[::2], policy.heard[1::2]
    assert [what for what, _ in asked] == ["shares"] * 3
    assert all(heard == (Context("de"), ("c", "a")) for _, heard in asked)
    assert all(heard[0].features is features for _, heard in asked)
    assert [heard for _, heard in told] == [(Context("de"), one.candidates) for one in samples]
    assert trial.pool.tolist() == [[True, False, True]] * 3
    assert trial.shares[0] == pytest.approx([0.2 / 0.8001, 0.0, 0.6001 / 0.8001])
    assert trial.propensities.tolist() == [[0.0, 0.5, 0.0]] * 3
    assert trial.outcomes[:, 1].tolist() == [0.0, 1.0, 2.0]


def test_a_learning_target_is_judged_by_what_it_knew_at_each_prompt() -> None:
    target = router.build(config.Policy(kind="thompson", fan_out=1, audit_rate=0.0))
    samples = [
        logged(i, [scored("a", 1.0 + i % 2 / 10), scored("b", i % 2 / 10)], {"a": 1.0, "b": 1.0})
        for i in range(30)
    ]
    shares = led(samples, target, ("a", "b")).shares
    assert shares[0] == pytest.approx([0.5, 0.5], abs=0.01)
    assert shares[-1, 0] > 0.95


def test_what_the_ways_of_ending_count_for() -> None:
    policy: Any = Recorder(dict.fromkeys(ARMS, 1 / 3))
    samples = [
        logged(0, [scored("a", 1.0), scored("a", 3.0), stopped("a")], {"a": 0.5}),
        logged(1, [stopped("a"), failed("b")], {"a": 0.5, "b": 0.5}),
        logged(2, [scored("a", math.nan), scored("b", 5.0)], {"a": 0.5, "b": 0.5}),
        logged(3, [failed("a"), scored("b", 7.0)], {"a": 0.5}, later={"b": 1.0}),
        logged(4, [replace(scored("a", 0.0), score=None)], {"a": 0.5}),
        logged(5, [stopped("b")], {"b": 1.0}, language="fr"),
    ]
    trial = led(samples, policy)
    # level (3 + 5) / 2, spread sqrt(1 + 1)
    worth = 4.0 - 3.0 * 2.0**0.5
    unknown = math.nan
    expected = [
        [3.0, unknown, unknown],
        [worth, unknown, unknown],
        [unknown, 5.0, unknown],
        [unknown, unknown, unknown],
        [unknown, unknown, unknown],
        [unknown, worth, unknown],
    ]
    assert trial.outcomes == pytest.approx(np.array(expected), nan_ok=True)
    assert trial.won == pytest.approx([3.0, worth, 5.0, 7.0, unknown, worth], nan_ok=True)
    assert trial.propensities[3].tolist() == [0.5, 0.0, 0.0], "later waves knew the rewards"
    assert (trial.stopped, trial.failed) == (2, 4)


def test_a_prompt_that_nobody_may_answer_teaches_and_does_not_count() -> None:
    policy: Any = Recorder(dict.fromkeys(ARMS, 1 / 3))
    course = Replay(policy, ARMS, lambda language: ARMS if language == "de" else ())
    course.add(logged(0, [scored("a", 1.0)], {"a": 0.5}, language="fr"))
    course.add(logged(1, [scored("a", 1.0)], {"a": 0.5}))
    assert course.skipped == 1
    assert course.trial().languages == ("de",)
    assert [what for what, _ in policy.heard] == ["update", "shares", "update"]


def test_domains_are_contexts_and_an_id_that_comes_again_is_one_prompt() -> None:
    policy: Any = Recorder(dict.fromkeys(ARMS, 1 / 3))
    samples = [logged(i, [scored("a", 1.0)], {"a": 0.5}) for i in range(4)]
    samples[1] = replace(samples[1], prompt=replace(samples[1].prompt, domain="math"))
    samples[3] = replace(samples[3], prompt=samples[0].prompt)
    trial = led(samples, policy)
    assert trial.context.tolist() == [0, 1, 0, 0]
    assert trial.prompt.tolist() == [0, 1, 2, 0]


def everybody(rewards: Sequence[Sequence[float]]) -> list[Sample]:
    sure = dict.fromkeys(ARMS, 1.0)
    return [
        logged(i, [scored(arm, r) for arm, r in zip(ARMS, row, strict=True)], sure)
        for i, row in enumerate(rewards)
    ]


def build(kind: Any, fan_out: int) -> Any:
    experts = {"default": ARMS}
    settings = config.Policy(kind=kind, fan_out=fan_out, audit_rate=0.0, experts=experts)
    return router.build(settings)


class Knowing:
    """A policy that sees in the features who is good."""

    def shares(self, context: Context, arms: Sequence[str]) -> list[float]:
        assert context.features is not None
        good = "a" if context.features[0] > 0.0 else "b"
        return [float(arm == good) for arm in arms]

    def update(self, context: Context, candidates: Sequence[Candidate]) -> None:
        pass


@pytest.mark.parametrize(("types", "expected"), [(PromptTypes(2, 2), 1.0), (None, 5 / 9)])
def test_types_of_prompts_tell_the_direct_method_what_languages_do_not(
    types: PromptTypes | None, expected: float
) -> None:
    rng = np.random.default_rng(0)
    policy: Any = Knowing()
    course = Replay(policy, ARMS, lambda _: ARMS, types=types)
    for number in range(600):
        first = number % 3 == 0
        features = rng.normal([1.0 if first else -1.0, 0.0, 0.0], 0.1).astype(np.float32)
        asked = int(rng.integers(3))
        reward = float(asked == (0 if first else 1))
        course.add(logged(number, [scored(ARMS[asked], reward)], {ARMS[asked]: 1 / 3}), features)
    answers = evaluate(course.trial()).answers
    direct, snips = answers[DIRECT].figure, answers[SNIPS].figure
    assert direct is not None
    assert snips is not None
    assert direct.value == pytest.approx(expected, abs=0.1)
    assert snips.value == pytest.approx(1.0)


def test_types_are_learned_from_the_first_prompts_and_not_from_few() -> None:
    rng = np.random.default_rng(0)
    side = rng.integers(0, 2, 3000)
    features = (rng.normal(0.0, 0.1, (3000, 4)) + side[:, None]).astype(np.float32)
    types = PromptTypes(4, 2)
    for row in features[:100]:
        types.add(row)
    assert types.numbers().tolist() == [-1] * 100
    for row in features[100:]:
        types.add(row)
    types.add(None)
    *found, last = types.numbers().tolist()
    assert last == -1
    assert found in (side.tolist(), (1 - side).tolist())


def test_best_of_gets_the_best_of_all_where_all_are_known() -> None:
    samples = everybody([[1.0, 2.0, 3.0], [5.0, 4.0, 3.0]])
    samples.append(logged(2, [scored("a", 9.0)], {"a": 0.5}))
    trial = led(samples, build("best_of", 1), several=True)
    assert trial.played == pytest.approx(
        np.array([[1.0, 3.0], [1.0, 5.0], [math.nan, math.nan]]), nan_ok=True
    )
    assert trial.calls == pytest.approx(
        np.array([[3.0, 3.0], [3.0, 3.0], [math.nan, 1.0]]), nan_ok=True
    )


def test_a_target_that_draws_is_played_until_chance_evens_out() -> None:
    rewards = np.random.default_rng(0).normal(size=(200, 3))
    trial = led(everybody(rewards.tolist()), build("random", 2), several=True)
    pairs = [
        np.maximum(rewards[:, i], rewards[:, j]) for i, j in itertools.combinations(range(3), 2)
    ]
    assert trial.played[:, 1].mean() == pytest.approx(np.mean(pairs), abs=0.03)
    assert trial.calls[:, 0].tolist() == [2.0] * 200


def test_a_target_whose_first_answer_is_stopped_asks_again_as_the_engine_would() -> None:
    sure = dict.fromkeys(ARMS, 1.0)
    samples = [
        logged(0, [stopped("a"), scored("b", 2.0), scored("c", 9.0)], sure),
        logged(1, [failed("a"), stopped("b"), failed("c")], sure),
        logged(2, [failed("a"), failed("b"), failed("c")], sure),
        logged(3, [scored("a", 4.0), scored("b", 5.0), scored("c", 6.0)], sure),
    ]
    trial = led(samples, build("fixed", 1), several=True)
    levels = [4.0, 3.5, 7.5]
    level = np.mean(levels)
    rewards = np.array([2.0, 9.0, 4.0, 5.0, 6.0])
    worth = level - 3.0 * (((rewards - level) ** 2).sum() / 4) ** 0.5
    assert trial.played == pytest.approx(np.array([[1, 2.0], [1, worth], [0, 0.0], [1, 4.0]]))
    assert trial.calls[:, 0].tolist() == [2.0, 3.0, 3.0, 1.0]


# From end to end

QUALITY = {
    "ada": {"de": 1.0, "en": 0.0},
    "bob": {"de": 0.0, "en": 1.0},
    "cyd": {"de": 0.6, "en": 0.4},
}
CONFIG = """
[[teachers]]
name = "ada"
kind = "scripted"
quality = { de = 1.0, en = 0.0 }

[[teachers]]
name = "bob"
kind = "scripted"
quality = { de = 0.0, en = 1.0 }
languages = ["LANGUAGE"]

[[teachers]]
name = "NAME"
kind = "scripted"
quality = { de = 0.6, en = 0.4 }

[reward]
kind = "scripted"

[policy]
experts = { default = ["ada"] }
"""


def write(folder: Path, *, name: str = "cyd", language: str = "en-GB") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(CONFIG.replace("NAME", name).replace("LANGUAGE", language), "utf-8")
    return path


async def run(out: Path, prompts: int, **policy: Any) -> None:
    """A run of scripted teachers, who are as good as their qualities say."""
    settings = config.Config(
        teachers=tuple(
            config.ScriptedTeacher(name=name, kind="scripted", quality=quality)
            for name, quality in QUALITY.items()
        ),
        reward=config.ScriptedReward(kind="scripted"),
        policy=config.Policy(**policy),
        sink=config.Sink(path=out),
    )
    questions = {"de": "Was ist {}, und warum?", "en": "What is {}, and why?"}
    async with assembly.open(settings) as engine:
        for number, (tag, text) in itertools.product(range(prompts // 2), questions.items()):
            await engine.arbitrate(Prompt.of(text.format(number), language=tag))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 400 prompts: two of three teachers each, everybody on a fifth."""
    folder = tmp_path_factory.mktemp("replay") / "out"
    asyncio.run(run(folder, 400, kind="random", fan_out=2, audit_rate=0.2, seed=3))
    return folder


def told(*arguments: Any) -> Any:
    ended = arbitrage("replay", *arguments, "--json")
    assert (ended.code, ended.err) == (0, "")
    return json.loads(ended.out)


def test_what_a_learning_policy_would_have_got_is_known_from_a_random_one(out: Path) -> None:
    report = told(out, "--policy", "thompson", "--seed", "1")
    assert report["logged_by"] == {"random": 400}
    assert report["teachers"] == ["ada", "bob", "cyd"]
    valuation = report["valuation"]
    assert valuation["prompts"] == 400
    assert 50 <= valuation["audits"] <= 110
    assert valuation["weight"]["value"] == pytest.approx(1.0, abs=0.1)
    assert valuation["own"]["value"] == pytest.approx(0.5, abs=0.05)
    for name in ("direct_method", "snips", "doubly_robust"):
        answer = valuation["answers"][name]
        assert answer["refusal"] is None
        assert 0.85 < answer["figure"]["value"] < 1.0, "it soon knows who is good in what"
        assert answer["gain"]["low"] > 0.3
        assert abs(answer["off"]["value"]) < 4 * answer["off"]["standard_error"]
    assert valuation["audited"]["best_of_all"]["value"] == pytest.approx(1.0, abs=0.05)
    assert valuation["ahead"]["best_single"]["low"] > 0.3
    assert valuation["ahead"]["best_of_all"]["value"] < 0.0


def test_the_same_again_is_the_same_and_another_seed_is_near(out: Path) -> None:
    once, again = (told(out, "--policy", "thompson") for _ in range(2))
    assert once == again
    other = told(out, "--policy", "thompson", "--seed", "9")
    names = ("valuation", "answers", "snips", "figure")
    figures = [once, other]
    for name in names:
        figures = [figure[name] for figure in figures]
    assert figures[0] != figures[1]
    assert figures[0]["value"] == pytest.approx(figures[1]["value"], abs=1e-9)


def test_a_table_says_it_to_people(out: Path) -> None:
    ended = arbitrage("replay", out, "--policy", "random")
    assert (ended.code, ended.err) == (0, "")
    for text in (
        "what policy 'random' would get by asking one teacher a prompt",
        "prompts of the log, by its policy: random (400)",
        "doubly robust",
        "teachers that may be asked: ada, bob, cyd",
        "effective prompts of 400",
        "prompts on which everybody was asked at once",
        "random is ahead by",
    ):
        assert text in ended.out
    widths = {len(line) for line in ended.out.splitlines()}
    assert max(widths) <= 80


def test_the_configuration_names_experts_and_whom_may_be_asked(out: Path, tmp_path: Path) -> None:
    fixed = told(out, "--policy", "fixed", "-c", write(tmp_path))["valuation"]
    assert fixed["answers"]["snips"]["figure"]["value"] == pytest.approx(0.5, abs=0.1)
    without_bob_in_german = told(out, "--policy", "random", "-c", write(tmp_path))["valuation"]
    expected = ((1.0 + 0.6) / 2 + (0.0 + 1.0 + 0.4) / 3) / 2
    snips = without_bob_in_german["answers"]["snips"]["figure"]
    assert snips["value"] == pytest.approx(expected, abs=0.06)


def test_several_a_prompt_are_played_on_the_audits(out: Path) -> None:
    report = told(out, "--policy", "best_of")
    valuation = report["valuation"]
    assert report["fan_out"] == 3
    assert list(valuation["answers"]) == ["played"]
    figure = valuation["answers"]["played"]["figure"]
    assert figure == valuation["audited"]["best_of_all"]
    assert valuation["calls"][0] == 3.0
    assert 2.0 < valuation["calls"][1] < 3.0
    pair = told(out, "--policy", "random", "--fan-out", "2")["valuation"]
    value = pair["answers"]["played"]["figure"]["value"]
    assert value == pytest.approx((1.0 + 1.0 + 0.6 + 1.0 + 1.0 + 0.4) / 6, abs=0.08)
    assert pair["calls"][0] == 2.0


def test_a_teacher_that_the_log_does_not_know_is_refused(out: Path, tmp_path: Path) -> None:
    stranger = write(tmp_path, name="eve", language="de")
    ended = arbitrage("replay", out, "--policy", "random", "-c", stranger)
    assert ended.code == 1
    assert ended.out.count("refused") >= 4
    assert ended.complaint.startswith("arbitrage replay: the log does not tell: ")
    assert ended.complaint.endswith("of its choices were never asked first: eve in en, de")


async def test_a_log_without_chance_or_audits_is_refused(tmp_path: Path) -> None:
    experts = {"de": ("ada",), "en": ("bob",), "default": ("cyd",)}
    await run(tmp_path / "out", 80, kind="fixed", fan_out=1, audit_rate=0.0, experts=experts)
    for arguments in (("random",), ("thompson",), ("thompson", "--fan-out", "2")):
        ended = arbitrage("replay", tmp_path / "out", "--policy", *arguments)
        assert ended.code == 1
        assert "the log does not tell: " in ended.complaint
    same = told(tmp_path / "out", "--policy", "fixed", "-c", _experts(tmp_path))
    assert same["valuation"]["answers"]["ips"]["figure"]["value"] == pytest.approx(1.0, abs=0.05)
    assert same["valuation"]["audited"] == {}


def _experts(folder: Path) -> Path:
    path = write(folder)
    text = path.read_text("utf-8").replace(
        '{ default = ["ada"] }', "{ de = ['ada'], default = ['bob'] }"
    )
    path.write_text(text.replace('languages = ["en-GB"]\n', ""), "utf-8")
    return path


def test_mistakes_are_one_line(out: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "new" / "data").mkdir(parents=True)
    for folder, reason in (
        ("none", "is no folder; name the output folder of a run"),
        ("empty", "holds no samples (data/*/part-*.parquet)"),
        ("new", "holds no samples (data/*/part-*.parquet)"),
    ):
        ended = arbitrage("replay", out, tmp_path / folder, "--policy", "random")
        assert ended.code == 1
        assert ended.complaint.startswith(f"arbitrage replay: {tmp_path / folder}: {reason}")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "required: LOG, --policy"),
        (("out",), "required: --policy"),
        (("out", "--policy", "oracle"), "--policy: invalid choice: 'oracle'"),
        (("out", "--policy", "random", "--fan-out", "0"), "'0' is no number from 1 on"),
        (("out", "--policy", "random", "-c", "none.toml"), "none.toml: cannot be read"),
    ],
)
def test_wrong_usage_is_one_line(arguments: tuple[str, ...], reason: str) -> None:
    ended = arbitrage("replay", *arguments)
    assert ended.code == 2
    assert reason in ended.complaint


def test_a_policy_that_lacks_its_settings_is_wrong_usage(out: Path) -> None:
    ended = arbitrage("replay", out, "--policy", "fixed")
    assert ended.code == 2
    assert "policy.experts.default: is required for kind 'fixed'" in ended.complaint


async def test_nobody_for_any_language_of_the_log_is_said(out: Path) -> None:
    russian = config.ScriptedTeacher(name="ada", kind="scripted", languages=("ru",))
    with pytest.raises(ArbitrageError, match="no teacher is for any of the log's languages"):
        await replay.replay([out], config.Policy(kind="random", fan_out=1), [russian])


def test_a_fan_out_replaces_the_most_of_a_table_and_keeps_its_waves() -> None:
    table = config.FanOut(min=3, max=5, waves=4, latency_budget=2.0)
    policy = config.Policy(kind="random", fan_out=table, seed=7)
    pandora = replay.target(policy, kind="pandora", fan_out=2)
    assert pandora.fan_out == config.FanOut(min=2, max=2, waves=4, latency_budget=2.0)
    assert (pandora.kind, pandora.seed) == ("pandora", 7)
    assert replay.target(policy, kind="random", fan_out=1, seed=0).fan_out == 1
