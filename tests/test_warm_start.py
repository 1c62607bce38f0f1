"""What a policy knows before its first prompt: from a snapshot, a table of scores, samples."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import assembly
import router
from arbitrage import config
from arbitrage.errors import ArbitrageError, ConfigError
from arbitrage.types import Candidate, Completion, Context, Prompt, Score
from router.snapshots import snapshot, warm_start
from router.snapshots.snapshot import Snapshot
from router.snapshots.warm_start import answers, read_scores
from tests.service import scripted
from tests.service import settings as service

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from arbitrage import ports
    from arbitrage.types import Sample
    from router.snapshots.warm_start import Table

ARMS = ("ada", "bob", "cyd")
TABLE = {"de": {"ada": 70.0, "bob": 50.0, "cyd": 30.0}, "sw": {"ada": 20.0, "bob": 60.0}}
CSV = """language,teacher,score
de,ada,70
de,bob,50
de-DE,cyd,30.0
"""


def make(kind: Any = "thompson", **chosen: Any) -> ports.Policy:
    chosen = {"fan_out": 1, "audit_rate": 0.0, **chosen}
    return router.build(config.Policy(kind=kind, **chosen))


def rewards_of(
    table: Table, weight: float, *, standardised: bool
) -> dict[tuple[str, str], list[float]]:
    rewards: dict[tuple[str, str], list[float]] = {}
    for context, candidates in answers(table, ARMS, weight, standardised=standardised):
        for candidate in candidates:
            assert candidate.reward is not None
            rewards.setdefault((context.language, candidate.teacher), []).append(candidate.reward)
    return rewards


def samples_of(_: Sequence[Path]) -> Iterable[Sample]:
    raise AssertionError("no samples are asked for")


async def begin(policy: ports.Policy, **chosen: Any) -> None:
    arguments: dict[str, Any] = {"arms": ARMS, "standardised": True, "read": samples_of}
    arguments |= {key: chosen.pop(key) for key in list(chosen) if key in (*arguments, "encoder")}
    await warm_start.begin(policy, config.WarmStart(**chosen), **arguments)


# Tables of scores


def test_a_table_is_read_with_its_languages_normalised(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_bytes(
        b"\xef\xbb\xbfrank,score,teacher,language\r\n1,0.5,ada,zh-CN\r\n\r\n2,-1e2,bob,zh"
    )
    assert read_scores(path) == {"zh": {"ada": 0.5, "bob": -100.0}}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1: there is no column 'language'; name language, teacher, score"),
        ("language,teacher\nde,ada\n", "line 1: there is no column 'score'"),
        ("language,teacher,score\n", "holds no score"),
        (CSV + "de,dan\n", "line 5: a language, a teacher or a score is missing"),
        (CSV + "de,,3\n", "line 5: a language, a teacher or a score is missing"),
        (CSV + "de,dan,good\n", "line 5: could not convert string to float: 'good'"),
        (CSV + "de,dan,nan\n", "line 5: 'nan' is no score"),
        (CSV + "de,dan,-inf\n", "line 5: '-inf' is no score"),
        (CSV + "\nklingonisch,dan,3\n", "line 6: unknown language tag 'klingonisch'"),
        (CSV + "deu,ada,3\n", "line 5: a second score of 'ada' in 'de'"),
        (CSV + 'de,"dan,3\n', "line 5: unexpected end of data"),
        (b"language,teacher,score\nde,\xff,3\n", "is not UTF-8"),
    ],
)
def test_a_table_with_a_mistake_is_one_line(tmp_path: Path, text: str | bytes, reason: str) -> None:
    path = tmp_path / "scores.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        read_scores(path)
    message = str(caught.value)
    assert message.startswith(f"policy.warm_start.scores: {path}: ")
    assert reason in message
    assert "\n" not in message


def test_a_table_that_is_missing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"scores: .*none\.csv: cannot be read: No such file"):
        read_scores(tmp_path / "none.csv")


@settings(deadline=None, derandomize=True)
@given(
    scores=st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=3).filter(
        lambda scores: np.std(scores) > 1e-3
    ),
    weight=st.floats(2.0, 40.0),
)
def test_answers_have_the_tables_means_and_its_spread(scores: list[float], weight: float) -> None:
    table = {"de": dict(zip(ARMS, scores, strict=False))}
    given_as = rewards_of(table, weight, standardised=False)
    for arm, score in table["de"].items():
        rewards = given_as["de", arm]
        assert len(rewards) == round(weight)
        assert np.mean(rewards) == pytest.approx(score, rel=1e-9, abs=1e-6)
        assert np.std(rewards) == pytest.approx(np.std(scores), rel=1e-6)
    everyone = np.array(list(rewards_of(table, weight, standardised=True).values()))
    assert everyone.mean() == pytest.approx(0.0, abs=1e-9)
    assert everyone.var() == pytest.approx(1.0)
    means = everyone.mean(axis=1)
    apart = (np.array(scores) - np.mean(scores)) / np.std(scores) / math.sqrt(2.0)
    assert means == pytest.approx(apart, abs=1e-9)


def test_answers_come_in_rounds_of_languages_and_teachers() -> None:
    told = list(answers(TABLE, ["cyd", "ada", "new"], 2.4, standardised=False))
    order = [(context.language, [c.teacher for c in candidates]) for context, candidates in told]
    assert order == [("de", ["cyd", "ada"]), ("sw", ["ada"])] * 2
    assert told == list(answers(TABLE, ["cyd", "ada", "new"], 2.4, standardised=False))


def test_answers_that_nobody_gave_cost_nothing_and_count_as_cached() -> None:
    for _, candidates in answers(TABLE, ARMS, 3.0, standardised=True):
        for candidate in candidates:
            assert candidate.completion
            assert candidate.completion.cached
            assert candidate.cost_usd == 0.0


def test_a_teacher_alone_in_its_language_compares_nothing() -> None:
    table = {"de": {"ada": 3.0}}
    assert rewards_of(table, 2.0, standardised=True) == {}
    assert rewards_of(table, 2.0, standardised=False) == {("de", "ada"): [3.0, 3.0]}


def test_a_weight_below_two_is_one_answer_a_score() -> None:
    assert rewards_of(TABLE, 0.1, standardised=False)["sw", "bob"] == [60.0]
    ties = rewards_of({"de": {"ada": 5.0, "bob": 5.0}}, 1.0, standardised=True)
    assert set(map(tuple, ties.values())) == {(0.0,)}


async def test_a_table_lets_a_policy_begin_with_its_favourites(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "scores.csv"
    rows = [f"{lang},{arm},{score}" for lang, of in TABLE.items() for arm, score in of.items()]
    path.write_text("\n".join(["language,teacher,score", *rows, "de,eve,99", "fr,dan,1"]))
    policy = make()
    await begin(policy, scores=path, score_weight=20.0)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith(
        "no teacher is named 'dan', 'eve'; their scores are ignored"
    )
    assert favourites(policy) == {"de": "ada", "sw": "bob"}
    for estimate in policy.estimates(ARMS):
        assert estimate.scored == (0 if (estimate.language, estimate.arm) == ("sw", "cyd") else 20)


async def test_real_answers_outvote_a_table_that_was_wrong(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(CSV)
    policy = make()
    await begin(policy, scores=path)
    assert favourites(policy) == {"de": "ada"}
    rng = np.random.default_rng(1)
    for _ in range(150):
        truth = zip(ARMS, (-1.0, 0.0, 1.0), strict=True)
        policy.update(
            Context("de"),
            [
                Candidate(arm, Completion("."), score=Score(mean + float(rng.normal()), {}))
                for arm, mean in truth
            ],
        )
    assert favourites(policy) == {"de": "cyd"}


def favourites(policy: ports.Policy) -> dict[str, str]:
    best: dict[str, tuple[float, str]] = {}
    for estimate in policy.estimates(ARMS):
        found = estimate.reward, estimate.arm
        best[estimate.language] = max(best.get(estimate.language, (-math.inf, "")), found)
    return {language: arm for language, (_, arm) in best.items()}


# Snapshots


async def test_a_snapshot_is_gone_on_from_even_by_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "policy.json.gz"
    policy = make("thompson")
    for _, candidates in answers(TABLE, ARMS, 9.0, standardised=True):
        policy.update(Context("de"), candidates)
    snapshot.save(path, Snapshot.of(policy))
    for kind in ("thompson", "random"):
        other = make(kind)
        await begin(other, snapshot=path)
        assert other.version == policy.version
        beliefs = [(e.reward, e.standard_error, e.scored) for e in policy.estimates(ARMS)]
        assert beliefs == [(e.reward, e.standard_error, e.scored) for e in other.estimates(ARMS)]


async def test_what_others_have_spent_and_drawn_is_not_this_runs(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    dear = make(usd_per_prompt=0.01)
    for _ in range(60):
        decision = dear.select(Context("de"), ARMS, [])
        assert decision
        told = [
            Candidate(arm, Completion("."), score=Score(0.0, {}), cost_usd=1.0)
            for arm in decision.arms
        ]
        dear.update(Context("de"), told)
    snapshot.save(path, Snapshot.of(dear))
    policy, fresh = make(usd_per_prompt=0.01, seed=8), make(usd_per_prompt=0.01, seed=8)
    await begin(policy, snapshot=path)
    learned, new = policy.state(), fresh.state()
    assert (learned["pacer"], learned["rng"]) == (new["pacer"], new["rng"])
    assert learned["pacer"] != dear.state()["pacer"]
    assert policy.version == 60


async def test_a_snapshot_that_cannot_be_used_names_the_key(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    with pytest.raises(ConfigError, match=r"^policy\.warm_start\.snapshot: .*policy\.json: cannot"):
        await begin(make(), snapshot=path)
    path.write_bytes(Snapshot("thompson", 1, {"nothing": 1}).encode())
    with pytest.raises(ConfigError, match=r"^policy\.warm_start\.snapshot: .*policy\.json: "):
        await begin(make(), snapshot=path)


async def test_snapshot_table_and_samples_add_up(tmp_path: Path) -> None:
    path, table = tmp_path / "policy.json", tmp_path / "scores.csv"
    table.write_text(CSV)
    before = make()
    before.update(Context("fr"), [Candidate("ada", Completion("."), score=Score(1.0, {}))])
    snapshot.save(path, Snapshot.of(before))
    policy = make()
    await begin(policy, snapshot=path, scores=table, score_weight=4.0)
    assert policy.version == 5
    scored = {(e.language, e.arm): e.scored for e in policy.estimates(ARMS)}
    assert scored["fr", "ada"] == 1
    assert scored["de", "cyd"] == 4


# Runs


async def run(folder: Path, *texts: str, **sections: Any) -> None:
    async with assembly.open(service(folder, **sections)) as engine:
        for text in texts:
            await engine.arbitrate(Prompt.of(text, language="de", domain="chat"))


async def test_a_finished_runs_samples_are_learned_with_their_features(tmp_path: Path) -> None:
    await run(tmp_path / "first", "Warum?", "Wo liegt Lima?", "Was ist Eis?")
    sections = {
        "policy": config.Policy(
            kind="thompson", warm_start=config.WarmStart(samples=(tmp_path / "first" / "out",))
        )
    }
    async with assembly.open(service(tmp_path / "second", **sections)) as engine:
        estimates = {e.arm: e for e in engine.policy.estimates(["ada", "bob"])}
        lessons = engine.policy.state()["experience"]["lessons"]
    assert engine.policy.version == 3
    assert {e.scored for e in estimates.values()} == {3}
    assert estimates["ada"].reward > estimates["bob"].reward
    assert [lesson["domain"] for lesson in lessons] == ["chat"] * 3
    assert all(lesson["features"].shape == (512,) for lesson in lessons)


async def test_many_samples_are_all_learned(tmp_path: Path) -> None:
    await run(tmp_path, "Warum?")
    (sample,) = warm_log(tmp_path / "out")

    def many(folders: Sequence[Path]) -> Iterator[Sample]:
        assert folders == (tmp_path,)
        return iter([sample] * 150)

    policy = make()
    await begin(policy, samples=(tmp_path,), read=many)
    assert policy.version == 150


async def test_a_prompt_that_cannot_be_embedded_is_learned_without_features(tmp_path: Path) -> None:
    class Picky:
        async def encode(self, text: str) -> npt.NDArray[np.float32]:
            if text == "Warum?":
                raise ArbitrageError("is too short")
            return np.ones(512, np.float32)

        async def close(self) -> None:
            """Holds nothing."""

    await run(tmp_path, "Warum?", "Wo liegt Lima?")
    policy = make()
    samples = warm_log(tmp_path / "out")
    await begin(policy, samples=(tmp_path,), read=lambda _: samples, encoder=Picky())
    lessons = policy.state()["experience"]["lessons"]
    assert [lesson["features"] is None for lesson in lessons] == [True, False]


def warm_log(folder: Path) -> list[Sample]:
    from sink.log import Log  # noqa: PLC0415 - pyarrow is not needed by the other tests

    return list(Log([folder]))


@pytest.mark.parametrize("made", [False, True])
async def test_a_folder_without_samples_names_the_key(tmp_path: Path, made: bool) -> None:
    folder = tmp_path / "none"
    if made:
        folder.mkdir()
    chosen = config.Policy(warm_start=config.WarmStart(samples=(folder,)))
    with pytest.raises(ConfigError, match=rf"^policy\.warm_start\.samples: {folder}: "):
        await run(tmp_path, policy=chosen)


async def test_a_warm_start_is_for_a_folder_that_knows_nothing(tmp_path: Path) -> None:
    table = tmp_path / "scores.csv"
    table.write_text(CSV)
    chosen = config.Policy(kind="best_of", warm_start=config.WarmStart(scores=table))
    teachers = scripted("ada", 1.0), scripted("bob", -1.0), scripted("cyd", 0.0)

    async def version_after(*texts: str) -> int:
        async with assembly.open(service(tmp_path, *teachers, policy=chosen)) as engine:
            for text in texts:
                await engine.arbitrate(Prompt.of(text, language="de"))
        return engine.policy.version

    assert await version_after() == 10
    assert not (tmp_path / "out" / "policy.json").exists(), "nothing was learned but the table"
    assert await version_after("Warum?") == 11
    table.unlink()
    assert await version_after("Wo liegt Lima?") == 12
