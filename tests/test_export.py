"""`arbitrage export`: what finished runs have left, as a data set to train on."""

from __future__ import annotations

import asyncio
import json
import string
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import datasets
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sink
from arbitrage import config
from arbitrage.errors import ArbitrageError, ConfigError, SinkError
from arbitrage.types import (
    Candidate,
    Completion,
    Decision,
    Failure,
    Message,
    Prompt,
    Sample,
    Score,
    TeacherInfo,
    Verdict,
)
from commands import dataset
from sink.export import Alarms, Filters, export
from sink.export.files import Target
from sink.export.reasons import Reason
from sink.quality.floors import Floor
from sink.schema import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sink.export import Kind, Report

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TEACHERS = [
    TeacherInfo("alpha", "openai", "alpha-7b", available=True, license="mit", trainable=True),
    TeacherInfo("beta", "openai", "beta|9b", available=True, trainable=False),
    TeacherInfo("gamma", "openai", "gamma-2b", available=True, license="own"),
]
KINDS: Sequence[Kind] = ("sft", "dpo", "scored")


def asked(
    number: int,
    answers: Sequence[tuple[str, float | None]] = (("gut", 1.0), ("schlecht", 0.0)),
    *,
    prompt: str | Sequence[Message] | None = None,
    language: str = "de",
    teachers: Sequence[str] = ("alpha", "beta", "gamma"),
) -> Sample:
    """A sample whose answers have these texts and rewards; without one, a gate stopped it."""
    candidates = [
        Candidate(
            teacher,
            Completion(text),
            gates=() if reward is not None else (Verdict("empty", "has no text"),),
            score=None if reward is None else Score(reward, {"embedded": 3.0}),
            cost_usd=0.5,
        )
        for teacher, (text, reward) in zip(teachers, answers, strict=False)
    ]
    candidates.append(Candidate("delta", failure=Failure("timeout", "no answer in 60 s")))
    arms = tuple(candidate.teacher for candidate in candidates)
    return Sample.of(
        Prompt.of(
            prompt or f"Frage {number}: was ist {number} mal {number + 7}?",
            prompt_id=str(number),
            language=language,
            domain="math",
        ),
        Decision("thompson", number, arms, (0.5,) * len(arms), (0,) * len(arms)),
        candidates,
        job="test",
        created_at=NOON + timedelta(seconds=number),
    )


async def run(out: Path, samples: Sequence[Sample], part_rows: int = 7) -> Path:
    opened = await sink.open(config.Sink(path=out), teachers=lambda: TEACHERS, part_rows=part_rows)
    for one in samples:
        await opened.write(one)
    await opened.close()
    return out


def rows(to: Path, language: str = "de") -> list[dict[str, Any]]:
    """What an export has written in a language, in its order."""
    path = to / "data" / language / "part-00000.parquet"
    read: list[dict[str, Any]] = pq.ParquetFile(path).read().to_pylist()
    return read


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def counted(report: Report) -> dict[Reason, int]:
    assert report.kept + sum(report.left_out.values()) == report.read
    return dict(report.left_out)


# What the lines are


async def test_sft_lines_are_dialogues_that_end_in_the_winner(tmp_path: Path) -> None:
    turns = [
        Message("system", "Sei knapp."),
        Message("user", "Hallo"),
        Message("assistant", "Ja?"),
        Message("user", "Wo liegt Lima?"),
    ]
    sample = asked(1, [("In Peru.", 0.25), ("In Chile.", -1.0)], prompt=turns)
    out = await run(tmp_path / "out", [sample])
    export([out], tmp_path / "to", "sft")
    (row,) = rows(tmp_path / "to")
    assert [turn["role"] for turn in row["messages"]] == [*(t.role for t in turns), "assistant"]
    assert row["messages"][-1]["content"] == "In Peru."
    del row["messages"]
    assert row == {
        "language": "de",
        "domain": "math",
        "sample_id": sample.sample_id,
        "teacher": "alpha",
        "reward": 0.25,
    }


@pytest.mark.parametrize(("rejected", "text"), [("worst", "c"), ("second", "b")])
async def test_a_pair_holds_the_winner_against_the_answer_that_was_chosen_for_it(
    tmp_path: Path, rejected: Any, text: str
) -> None:
    sample = asked(1, [("c", -2.0), ("a", 1.0), ("b", 0.5)])
    out = await run(tmp_path / "out", [sample])
    export([out], tmp_path / "to", "dpo", Filters(rejected=rejected))
    (row,) = rows(tmp_path / "to")
    assert row["prompt"] == [{"role": "user", "content": sample.prompt.text}]
    assert row["chosen"] == [{"role": "assistant", "content": "a"}]
    assert row["rejected"] == [{"role": "assistant", "content": text}]
    assert row["score_chosen"] - row["score_rejected"] == row["margin"] > 0
    assert row["teacher_chosen"] == "beta"


async def test_a_random_rejected_one_depends_on_the_seed_alone(tmp_path: Path) -> None:
    samples = [asked(n, [("a", 1.0), ("b", 0.5), ("c", 0.0)]) for n in range(40)]
    out = await run(tmp_path / "out", samples)
    seen = []
    for seed in (1, 1, 2):
        export([out], tmp_path / "to", "dpo", Filters(rejected="random", seed=seed))
        seen.append([row["rejected"][0]["content"] for row in rows(tmp_path / "to")])
    assert seen[0] == seen[1] != seen[2]
    assert set(seen[0]) == {"b", "c"}


async def test_pairs_are_of_two_answers_that_passed_and_differ_in_text_and_reward(
    tmp_path: Path,
) -> None:
    samples = [
        asked(1, [("a", 1.0), ("b", 0.0)]),
        asked(2, [("a", 1.0), ("b", 1.0)]),
        asked(3, [("a", 1.0), ("b", None)]),
        asked(4, [("a", 1.0), ("a", 0.0)]),
        asked(5, [("a", None), ("b", None)]),
    ]
    out = await run(tmp_path / "out", samples)
    report = export([out], tmp_path / "to", "dpo")
    assert [row["sample_id"] for row in rows(tmp_path / "to")] == [samples[0].sample_id]
    assert counted(report) == {Reason.ALONE: 2, Reason.TIE: 1, Reason.UNANSWERED: 1}


async def test_scored_lines_are_the_samples_with_all_that_was_answered(tmp_path: Path) -> None:
    samples = [asked(1), asked(2, [("a", None)])]
    out = await run(tmp_path / "out", samples)
    report = export([out], tmp_path / "to", "scored")
    assert counted(report) == {}
    assert pq.ParquetFile(tmp_path / "to/data/de/part-00000.parquet").schema_arrow == SCHEMA
    answered, unanswered = rows(tmp_path / "to")
    assert [c["reward"] for c in answered["candidates"]] == [1.0, 0.0, None]
    assert [c["error"] for c in answered["candidates"]][2] == "timeout: no answer in 60 s"
    assert unanswered["candidates"][0]["gates"] == [{"gate": "empty", "reason": "has no text"}]


# What loads them


@pytest.mark.parametrize("kind", KINDS)
async def test_datasets_loads_a_language_and_all_of_them(tmp_path: Path, kind: Kind) -> None:
    samples = [asked(n, language=("de", "no", "zh-Hant")[n % 3]) for n in range(9)]
    out = await run(tmp_path / "out", samples)
    export([out], tmp_path / "to", kind)
    for name, count in (("no", 3), ("zh-Hant", 3), ("all", 9)):
        loaded = datasets.load_dataset(str(tmp_path / "to"), name, cache_dir=str(tmp_path / "c"))
        assert loaded["train"].num_rows == count
        assert set(loaded["train"].unique("language")) <= {"de", "no", "zh-Hant"}


@pytest.mark.parametrize(
    ("kind", "name"), [("sft", "one.jsonl"), ("dpo", "one.parquet"), ("scored", "one.jsonl")]
)
async def test_one_file_has_every_language(tmp_path: Path, kind: Kind, name: str) -> None:
    samples = [asked(n, language=("de", "no")[n % 2]) for n in range(260)]
    out = await run(tmp_path / "out", samples, part_rows=300)
    export([out], tmp_path / "some" / name, kind)
    reader = "json" if name.endswith("jsonl") else "parquet"
    files, cache = str(tmp_path / "some" / name), str(tmp_path / "cache")
    loaded = datasets.load_dataset(reader, data_files=files, split="train", cache_dir=cache)
    assert loaded["sample_id"] == [sample.sample_id for sample in samples]
    assert names(tmp_path / "some") == {name, f"{name}.md", f"{name}.json"}


surrogates = st.text(st.characters() | st.sampled_from("\ud800\udfff"), max_size=30)


@given(
    texts=st.lists(st.tuples(surrogates, surrogates), min_size=1, max_size=4),
    name=st.sampled_from(["to", "to.jsonl", "to.parquet"]),
    kind=st.sampled_from(KINDS),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_was_answered_is_what_is_loaded(
    texts: list[tuple[str, str]], name: str, kind: Kind
) -> None:
    def told(text: str) -> str:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    samples = [
        asked(n, [(f"{n}{good}", 1.0), (f"-{bad}", 0.0)]) for n, (good, bad) in enumerate(texts)
    ]
    with TemporaryDirectory() as folder:
        out = asyncio.run(run(Path(folder) / "out", samples))
        to = Path(folder) / name
        export([out], to, kind)
        if name == "to.jsonl":
            read = [json.loads(line) for line in to.read_text("utf-8").split("\n") if line]
        elif name == "to.parquet":
            read = pq.ParquetFile(to).read().to_pylist()
        else:
            read = rows(to)
    for row, (good, bad), number in zip(read, texts, range(len(texts)), strict=True):
        wanted = [told(f"{number}{good}"), told(f"-{bad}")]
        if kind == "sft":
            assert row["messages"][-1]["content"] == wanted[0]
        elif kind == "dpo":
            assert [row["chosen"][0]["content"], row["rejected"][0]["content"]] == wanted
        else:
            assert [candidate["completion"] for candidate in row["candidates"][:2]] == wanted


# What is left out


async def test_a_least_reward_and_margin_may_be_a_value_or_a_share_of_each_language(
    tmp_path: Path,
) -> None:
    samples = [
        asked(n, [("a", float(n)), ("b", 0.0)], language=language)
        for first, language in ((0, "de"), (100, "fr"))
        for n in range(first + 1, first + 9)
    ]
    out = await run(tmp_path / "out", [*samples, asked(300, [("a", 5.0)])])
    for given_, kept, lost in (
        (Filters(min_reward=Floor(4.0)), {"de": 6, "fr": 8}, Reason.LOW_REWARD),
        (Filters(min_reward=Floor.parse("50%")), {"de": 5, "fr": 4}, Reason.LOW_REWARD),
        (Filters(min_margin=Floor(4.0)), {"de": 5, "fr": 8}, Reason.LOW_MARGIN),
        (Filters(min_margin=Floor.parse("25%")), {"de": 6, "fr": 6}, Reason.LOW_MARGIN),
    ):
        report = export([out], tmp_path / "to", "sft", given_)
        assert {name: one.kept for name, one in report.languages.items()} == kept
        assert set(counted(report)) == {lost}


async def test_a_margin_of_pairs_is_the_one_between_the_two(tmp_path: Path) -> None:
    out = await run(tmp_path / "out", [asked(1, [("a", 1.0), ("b", 0.9), ("c", -1.0)])])
    least = Filters(min_margin=Floor(0.5))
    assert export([out], tmp_path / "to", "dpo", least).kept == 1
    with pytest.raises(ArbitrageError, match="of 1 samples, 1 margin below the least"):
        export([out], tmp_path / "to", "dpo", replace(least, rejected="second"))


async def test_a_prompt_seen_before_is_left_out_and_the_first_that_is_good_enough_stays(
    tmp_path: Path,
) -> None:
    text = "Erzähle eine Geschichte von einer Katze, die fliegen lernt und nie mehr landet"
    good, bad = [("a", 1.0), ("b", 0.0)], [("a", -1.0), ("b", -2.0)]
    samples = [
        asked(1, bad, prompt=text),
        asked(2, good, prompt=text.upper()),
        asked(3, good, prompt=text + "!"),
        asked(4, good, prompt=text, language="nb"),
        asked(5, good, prompt=[Message("system", "Reime!"), Message("user", text)]),
    ]
    out = await run(tmp_path / "out", samples)
    report = export([out], tmp_path / "to", "sft", Filters(dedupe=0.8, min_reward=Floor(0.0)))
    kept = [row["sample_id"] for row in rows(tmp_path / "to")]
    assert kept == [samples[1].sample_id, samples[4].sample_id]
    assert counted(report) == {Reason.LOW_REWARD: 1, Reason.DUPLICATE: 1}


async def test_an_answer_seen_before_is_left_out_unless_it_is_short(tmp_path: Path) -> None:
    long = " ".join(string.ascii_lowercase)
    samples = [asked(n, [(text, 1.0)]) for n, text in enumerate([long, "42", "42", long])]
    out = await run(tmp_path / "out", samples)
    report = export([out], tmp_path / "to", "sft", Filters(dedupe_answers=0.9))
    assert len(rows(tmp_path / "to")) == 3
    assert counted(report) == {Reason.DUPLICATE_ANSWER: 1}


async def test_what_an_eval_set_holds_is_left_out_of_prompts_and_of_answers(
    tmp_path: Path,
) -> None:
    leaked = " ".join(f"Wort{n}" for n in range(14))
    test = tmp_path / "eval.jsonl"
    test.write_text(json.dumps({"id": 7}) + "\n" + json.dumps({"question": leaked}) + "\n")
    samples = [
        asked(1, prompt=f"Bitte: {leaked.lower()}!"),
        asked(2, [("gut", 1.0), (f"so: {leaked}", 0.0)]),
        asked(3),
    ]
    out = await run(tmp_path / "out", samples)
    report = export([out], tmp_path / "to", "dpo", Filters(decontaminate=(test,)))
    assert [row["sample_id"] for row in rows(tmp_path / "to")] == [samples[2].sample_id]
    assert counted(report) == {Reason.CONTAMINATED: 2}
    leaks = report.leaks[str(test)]
    assert [(name, where) for name, where, _ in leaks.examples] == [
        (samples[0].sample_id, "prompt"),
        (samples[1].sample_id, "answer"),
    ]
    assert leaks.examples[0][2].line == 2
    assert export([out], tmp_path / "to", "sft", Filters(decontaminate=(test,))).kept == 2


async def test_languages_are_balanced_by_chance_or_by_reward(tmp_path: Path) -> None:
    samples = [
        asked(n, [("a", float(n))], language=language)
        for language, numbers in (("de", range(20)), ("fr", range(20, 25)), ("sw", range(25, 27)))
        for n in numbers
    ]
    out = await run(tmp_path / "out", samples)
    for balance, kept in ((4, (4, 4, 2)), ("min", (2, 2, 2)), ("median", (5, 5, 2))):
        report = export([out], tmp_path / "to", "sft", Filters(balance=balance))  # type: ignore[arg-type]
        assert tuple(one.kept for one in report.languages.values()) == kept
        assert set(counted(report)) == {Reason.SURPLUS}
    by_chance = {row["reward"] for row in rows(tmp_path / "to")}
    export([out], tmp_path / "to", "sft", Filters(balance="median", keep="best"))
    assert {row["reward"] for row in rows(tmp_path / "to")} == {15.0, 16.0, 17.0, 18.0, 19.0}
    assert by_chance != {15.0, 16.0, 17.0, 18.0, 19.0}


async def test_only_what_may_train_others_is_exported_when_that_is_asked(tmp_path: Path) -> None:
    samples = [
        asked(1, [("a", 1.0), ("b", None), ("c", 0.0)]),
        asked(2, [("a", 0.0), ("b", 1.0)]),
        asked(3, [("a", 1.0), ("b", 0.0)]),
    ]
    out = await run(tmp_path / "out", samples)
    report = export([out], tmp_path / "to", "sft", Filters(only_trainable=True))
    assert counted(report) == {Reason.NOT_TRAINABLE: 1}
    with pytest.raises(ArbitrageError, match="3 a teacher's outputs may not train others"):
        export([out], tmp_path / "to", "dpo", Filters(only_trainable=True))
    told = [replace(TEACHERS[2], trainable=True)]
    report = export([out], tmp_path / "to", "dpo", Filters(only_trainable=True), teachers=told)
    assert report.kept == 1


@given(
    data=st.lists(
        st.tuples(
            st.sampled_from(["de", "fr", "zh"]),
            st.sampled_from(["Wo liegt Lima?", "Was ist ein Bandit?", "Erzähle eine Geschichte"]),
            st.lists(st.none() | st.sampled_from([-1.0, 0.0, 0.5, 1.0]), max_size=3),
        ),
        min_size=1,
        max_size=12,
    ),
    kind=st.sampled_from(KINDS),
    filters=st.builds(
        Filters,
        languages=st.sampled_from([(), ("de", "zh")]),
        min_reward=st.none() | st.builds(Floor, st.just(0.5), st.booleans()),
        min_margin=st.none() | st.builds(Floor, st.just(0.5), st.booleans()),
        dedupe=st.sampled_from([None, 0.7, 1.0]),
        balance=st.sampled_from([None, 1, 2, "min", "median"]),
        keep=st.sampled_from(["best", "random"]),
        rejected=st.sampled_from(["worst", "second", "random"]),
    ),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_sample_is_kept_or_counted(
    data: list[tuple[str, str, list[float | None]]], kind: Kind, filters: Filters
) -> None:
    samples = [
        asked(n, [(f"Antwort {i}", r) for i, r in enumerate(rewards)], prompt=text, language=tag)
        for n, (tag, text, rewards) in enumerate(data)
    ]
    with TemporaryDirectory() as folder:
        out = asyncio.run(run(Path(folder) / "out", samples))
        try:
            report = export([out], Path(folder) / "to", kind, filters)
        except ArbitrageError as error:
            assert "nothing is left" in str(error)  # noqa: PT017 - either is right
            return
        written = {
            name: rows(Path(folder) / "to", name)
            for name in report.languages
            if report.languages[name].kept
        }
    assert report.kept == sum(map(len, written.values()))
    assert report.kept + sum(report.left_out.values()) == report.read == len(samples)
    for name, count in Counter(tag for tag, _, _ in data).items():
        assert report.languages[name].read == count
        if isinstance(filters.balance, int):
            assert report.languages[name].kept <= filters.balance
    if filters.balance == "min":
        assert len(set(map(len, written.values()))) == 1


# Where it goes


async def test_an_export_replaces_an_export(tmp_path: Path) -> None:
    out = await run(tmp_path / "out", [asked(1, language="de"), asked(2, language="fr")])
    export([out], tmp_path / "to", "sft")
    export([out], tmp_path / "to", "dpo", Filters(languages=("fr",)))
    assert not (tmp_path / "to/data/de").exists()
    assert rows(tmp_path / "to", "fr")[0]["chosen"]
    assert names(tmp_path) == {"out", "to"}, "nothing is left over"


@pytest.mark.parametrize("name", ["to", "to.jsonl"])
async def test_what_no_export_has_written_is_not_overwritten(tmp_path: Path, name: str) -> None:
    out, to = await run(tmp_path / "out", [asked(1)]), tmp_path / name
    export([out], to, "sft")
    if to.is_dir():
        strange = [to / "notes.txt", to / "README.md", to / "data/de/mine.parquet"]
    else:
        strange = [to, tmp_path / "to.jsonl.md"]
    for path in strange:
        export([out], to, "sft")
        before = path.read_bytes() if path.exists() else None
        path.write_text("mine")
        with pytest.raises(SinkError, match=f"{path.name}: is not as an export has written it"):
            export([out], to, "dpo")
        assert path.read_text() == "mine"
        path.unlink()
        if before is not None:
            path.write_bytes(before)


async def test_a_run_is_not_overwritten_by_its_own_export(tmp_path: Path) -> None:
    out = await run(tmp_path / "out", [asked(1)])
    with pytest.raises(SinkError, match="is not as an export has written it"):
        export([out], out, "sft")
    assert export([out], out / "exported", "sft").kept == 1
    assert export([out], out / "exported", "sft").read == 1


async def test_an_export_that_fails_changes_nothing(tmp_path: Path) -> None:
    out = await run(tmp_path / "out", [asked(n) for n in range(20)])
    export([out], tmp_path / "to", "sft")
    before = {path: path.read_bytes() for path in (tmp_path / "to").rglob("*") if path.is_file()}
    (out / "data/de/part-00003.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(SinkError, match="part-00003"):
        export([out], tmp_path / "to", "dpo")
    after = {path: path.read_bytes() for path in (tmp_path / "to").rglob("*") if path.is_file()}
    assert after == before
    assert names(tmp_path) == {"out", "to"}


@pytest.mark.parametrize("name", ["to", "to.jsonl"])
async def test_what_a_killed_export_has_left_is_cleared_away(tmp_path: Path, name: str) -> None:
    out = await run(tmp_path / "out", [asked(1)])
    for left in (f".{name}.tmp/data/fr", f".{name}.old" if name == "to" else f".{name}.tmp"):
        (tmp_path / left).mkdir(parents=True, exist_ok=True)
        (tmp_path / left / "part-00000.parquet").write_text("torn")
    export([out], tmp_path / name, "sft")
    assert not [left for left in names(tmp_path) if left.startswith(".")]
    assert not (tmp_path / name / "data/fr").exists()


async def test_two_exports_do_not_write_to_one_place_at_once(tmp_path: Path) -> None:
    out = await run(tmp_path / "out", [asked(1)])
    waits = pytest.raises(SinkError, match="another export writes there; wait for it")
    with Target(tmp_path / "to").staged(), waits:
        export([out], tmp_path / "to", "sft")
    assert (tmp_path / "to").is_dir()


def test_a_name_that_promises_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"to.csv: cannot be written; name a folder"):
        export([tmp_path], tmp_path / "to.csv", "sft")


async def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    out = await run(tmp_path / "out", [asked(1)])
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="file/to: cannot be written: Not a directory"):
        export([out], tmp_path / "file" / "to", "sft")


# What is told


async def test_the_card_tells_whose_answers_they_are_and_what_was_left_out(
    tmp_path: Path,
) -> None:
    samples = [asked(1), asked(2, [("a", 0.0), ("b", 1.0)]), asked(3, [("a", None)])]
    out = await run(tmp_path / "out", samples)
    command = "arbitrage export out --format sft --to to"
    report = export([out], tmp_path / "to", "sft", command=command)
    card = (tmp_path / "to/README.md").read_text()
    assert "# 2 lines in 1 languages, chosen by arbitrage" in card
    assert "| alpha | alpha-7b | mit | yes | 1 |" in card
    assert "| beta | beta\\|9b | not stated | no | 1 |" in card
    assert "> **Mind:** 1 lines hold answers of beta, whose outputs may not train others." in card
    assert "| de | 2 | 3 | 1.000 | 1.000, 1.000, 1.000 |" in card
    assert "| no answer passed the gates | 1 |" in card
    assert "| policies, with lines | thompson 2 |" in card
    assert "| cost of all answers to these prompts | $2.0000 |" in card
    assert "| cost of the runs' answers | $2.5000 |" in card
    assert f"```\n{command}\n```" in card
    recorded = json.loads((tmp_path / "to/export.json").read_text())
    assert recorded["kept"] == report.kept == 2
    assert recorded["command"] == command


async def test_of_two_runs_the_stricter_terms_hold(tmp_path: Path) -> None:
    one, other = await run(tmp_path / "a", [asked(1)]), await run(tmp_path / "b", [asked(2)])
    card = (other / "README.md").read_text()
    (other / "README.md").write_text(
        card.replace("alpha-7b | mit | yes", "alpha-7b | apache-2.0 | no")
    )
    report = export([one, other], tmp_path / "to", "sft")
    assert report.teachers["alpha"][1].trainable is False
    assert report.teachers["alpha"][1].license == "mit / apache-2.0"


async def test_a_run_without_a_card_has_teachers_of_whom_nothing_is_stated(
    tmp_path: Path,
) -> None:
    out = await run(tmp_path / "out", [asked(1)])
    (out / "README.md").unlink()
    report = export([out], tmp_path / "to", "sft")
    assert report.warnings == ("nobody has said whether outputs may train others: alpha",)


async def test_answers_that_all_begin_alike_raise_an_alarm(tmp_path: Path) -> None:
    words = [f"{a}{b}{c}" for a in "bdgkmnt" for b in "aeiou" for c in "lrsz"]
    samples = [
        asked(
            n,
            [("Natürlich, gerne helfe ich dir dabei: " + " ".join(words[n * 3 : n * 3 + 9]), 1.0)],
            prompt=" ".join(words[n * 2 : n * 2 + 12]),
        )
        for n in range(40)
    ]
    out = await run(tmp_path / "out", samples)
    report = export([out], tmp_path / "to", "sft")
    alarm = (
        "de: 100% of the answers begin with 'natürlich gerne helfe ich', most of them from alpha"
    )
    assert alarm in report.warnings
    quiet = export([out], tmp_path / "to", "sft", alarms=Alarms(least=1000))
    assert quiet.warnings == ()


async def test_the_command_prints_what_was_kept_and_why_the_rest_was_not(tmp_path: Path) -> None:
    samples = [asked(1, language="fr"), asked(2), asked(3, [("a", None)])]
    out = await run(tmp_path / "out", samples)
    told = await dataset.export([out], tmp_path / "to", "dpo", Filters())
    assert told.splitlines() == [
        f"{tmp_path / 'to'}: 2 lines of 3 samples, format dpo",
        "  language  lines  samples  mean reward",
        "  de            1        2        1.000",
        "  fr            1        1        1.000",
        "left out:",
        "  1 no answer passed the gates",
        "mind: 2 lines hold answers of beta, whose outputs may not train others",
    ]


async def test_a_log_that_leaves_nothing_is_told_and_writes_nothing(tmp_path: Path) -> None:
    out = await run(tmp_path / "out", [asked(1), asked(2, [("a", None)])])
    with pytest.raises(ArbitrageError, match="2 in another language"):
        export([out], tmp_path / "to", "sft", Filters(languages=("fr",)))
    with pytest.raises(SinkError, match="is no folder"):
        export([tmp_path / "nowhere"], tmp_path / "to", "sft")
    assert not (tmp_path / "to").exists()


def test_what_a_user_writes_becomes_filters() -> None:
    typed = {"languages": ["de-AT", "zh_TW"], "min_reward": "25%", "balance": "9", "dedupe": 0.8}
    written = dataset.filters({**typed, "min_margin": None, "command": "export"})
    floor = Floor(0.25, share=True)
    wanted = Filters(languages=("de", "zh-Hant"), min_reward=floor, balance=9, dedupe=0.8)
    assert written == wanted
    assert dataset.filters({"balance": "min"}).balance == "min"


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"languages": ["xx-what"]}, "unknown language tag 'xx-what'"),
        ({"min_margin": "much"}, "'much' is no least value"),
        ({"balance": "0"}, "'0' is no balance"),
        ({"balance": "max"}, "'max' is no balance"),
    ],
)
def test_a_filter_that_is_none_is_told_on_one_line(setting: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        dataset.filters(setting)


async def test_a_similarity_of_zero_is_refused_and_not_left_unused(tmp_path: Path) -> None:
    out = await run(tmp_path / "out", [asked(1)])
    with pytest.raises(ConfigError, match="a similarity of 0 is none"):
        export([out], tmp_path / "to", "sft", Filters(dedupe=0.0))


async def test_eval_sets_are_told_of_whether_they_were_hit_or_not(tmp_path: Path) -> None:
    out = await run(tmp_path / "out", [asked(1), asked(2, prompt="Wo liegt denn eigentlich Lima?")])
    (tmp_path / "hit.txt").write_text("wo liegt denn eigentlich lima")
    (tmp_path / "clean.txt").write_text("etwas ganz anderes")
    sets = (tmp_path / "clean.txt", tmp_path / "hit.txt")
    told = await dataset.export([out], tmp_path / "to", "sft", Filters(decontaminate=sets))
    assert f"in {sets[1]}: 1" in told
    assert "line 1: 'wo liegt denn eigentlich lima'" in told
    assert str(sets[0]) not in told
    card = (tmp_path / "to/README.md").read_text()
    assert "| clean.txt | 0 |" in card
    assert "| hit.txt | 1 | prompt and line 1 |" in card
    for name in ("README.md", "export.json"):
        assert "eigentlich" not in (tmp_path / "to" / name).read_text().lower()
