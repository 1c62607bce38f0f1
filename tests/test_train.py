"""Training reward models: pairs read and parted, heads and whole classifiers learned and served."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from arbitrage import config
from arbitrage.errors import ConfigError
from arbitrage.types import Prompt
from reward import open_reward
from reward.head import HEAD, Head, Reading, features
from reward.pairs import Pair, read_pairs, split
from reward.report import accuracies
from reward.train import TrainSettings, train
from tests.reward_models import CONFIGS, answers, make_classifier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

GOOD, BAD = ("yes it is so", "yes indeed"), ("no no no", "no not at all")
WIDTH = 6


def line(**changes: Any) -> str:
    return json.dumps({"language": "de", "prompt": "p", "chosen": "a", "rejected": "b", **changes})


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def easy(tmp_path: Path) -> Path:
    """Pairs of 32 prompts in two languages; the answer that begins with "yes" is better."""
    rows = [
        line(
            language=("de", "fr")[number % 2],
            prompt=f"is it {number}?",
            chosen=f"{GOOD[number % 3 % 2]} {number}",
            rejected=f"{BAD[number % 3 % 2]} {number}",
        )
        for number in range(32)
    ]
    return write(tmp_path / "pairs.jsonl", *rows)


def causal(folder: Path, architecture: str = "llama") -> str:
    """Saves a language model of two random layers, and a tokenizer that reads bytes."""
    make_classifier(folder, architecture, template=None)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(7)
    untyped: Any = AutoModelForCausalLM
    made = CONFIGS[architecture](max_position_embeddings=4096, initializer_range=0.3)
    untyped.from_config(made).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def trained(pairs: Path, model: str, output: Path, **changes: Any) -> tuple[Any, list[str]]:
    told: list[str] = []
    usual: dict[str, Any] = {"holdout": 0.25, "device": "cpu"}
    chosen = TrainSettings(pairs=(pairs,), output=output, model=model, **(usual | changes))
    return train(chosen, told.append), told


# --- pairs


def test_pairs_are_read_from_plain_and_gzipped_files(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.jsonl", line(language="zh-CN", margin=2), "", line(prompt_id=7))
    zipped = tmp_path / "b.jsonl.gz"
    zipped.write_bytes(gzip.compress(line(prompt="q", other=1).encode()))
    assert read_pairs([plain, zipped]) == [
        Pair("zh", "p", "a", "b", margin=2.0),
        Pair("de", "p", "a", "b", prompt_id="7"),
        Pair("de", "q", "a", "b"),
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "must be an object"),
        (line(chosen=""), "'chosen' must be text"),
        (line(prompt=None), "'prompt' must be text"),
        (line(rejected="a"), "are the same"),
        (line(language="!!"), "'language'"),
        (line(margin=0), "'margin' must be a number above 0"),
        (line(margin=True), "'margin' must be a number above 0"),
        ('{"language": "de", "prompt": "p", "chosen": "a", "rejected": "b", "margin": NaN}', "0"),
    ],
)
def test_a_wrong_line_is_named_with_its_number(tmp_path: Path, wrong: str, message: str) -> None:
    path = write(tmp_path / "pairs.jsonl", line(), wrong)
    with pytest.raises(ConfigError, match=r"pairs\.jsonl:2: .*" + message) as caught:
        read_pairs([path])
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_and_files_without_pairs_are_one_line(tmp_path: Path) -> None:
    damaged = tmp_path / "x.jsonl.gz"
    damaged.write_bytes(gzip.compress(line().encode() * 99)[:40])
    binary = tmp_path / "x.jsonl"
    binary.write_bytes(b"\xff\xfe\xff")
    for path in (tmp_path / "none.jsonl", damaged, binary, tmp_path):
        with pytest.raises(ConfigError, match=r"cannot be read: \S") as caught:
            read_pairs([path])
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="no pairs"):
        read_pairs([write(tmp_path / "empty.jsonl", "")])


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.floats(0.0, 0.99))
def test_a_prompt_is_held_out_whole_and_whatever_else_there_is(
    prompts: list[int], holdout: float
) -> None:
    pairs = [Pair("de", str(prompt), "a", f"b{n}") for n, prompt in enumerate(prompts)]
    learn, held = split(pairs, holdout)
    assert sorted(learn + held, key=pairs.index) == pairs
    assert not {p.group for p in learn} & {p.group for p in held}
    assert split(pairs[:1], holdout)[1] == [p for p in held if p == pairs[0]]


def test_about_the_share_asked_for_is_held_out_and_parallel_prompts_stay_together() -> None:
    many = [Pair("de", str(number), "a", "b") for number in range(2000)]
    assert len(split(many, 0.2)[1]) == pytest.approx(400, abs=60)
    same = [Pair(tag, f"in {tag}", "a", "b", prompt_id="one") for tag in ("de", "fr", "ja")]
    assert sorted(map(len, split(same, 0.5))) == [0, 3]


# --- the report


def test_accuracy_counts_ties_half_and_is_told_by_language_and_for_all() -> None:
    pairs = [Pair(tag, f"{tag}{n}", "a", "b") for tag in ("fr", "de") for n in range(4)]
    french, german = (1.0, 2.0, -1.0, 0.0), (1.0, 1.0, 1.0, 1.0)
    rows = accuracies(pairs, [*french, *german])
    assert [(row.language, row.pairs, row.accuracy) for row in rows] == [
        ("de", 4, 1.0),
        ("fr", 4, 0.625),
        ("all", 8, 0.8125),
    ]
    assert all(0 <= row.low < row.high <= 1 for row in rows)


def test_the_interval_counts_prompts_and_not_their_many_like_pairs() -> None:
    margins = [1.0, -1.0, 1.0, 1.0] * 10
    apart = [Pair("de", str(n), "a", "b") for n in range(40)]
    together = [Pair("de", str(n % 4), "a", "b") for n in range(40)]
    (wide, _), (narrow, _) = (accuracies(pairs, margins) for pairs in (together, apart))
    # Wilson 1927: 30 of 40
    assert (narrow.low, narrow.high) == pytest.approx((0.5981, 0.8581), abs=1e-3)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from((-1.0, 0.0, 1.0))), min_size=1))
def test_every_interval_holds_its_accuracy(hits: list[tuple[int, float]]) -> None:
    rows = accuracies([Pair("de", str(p), "a", "b") for p, _ in hits], [m for _, m in hits])
    assert all(0 <= row.low <= row.accuracy <= row.high <= 1 for row in rows)


# --- the head


def reading(tokens: int, seed: int = 0) -> Reading:
    chance = torch.Generator().manual_seed(seed)
    given_, alone = (torch.randn(tokens + 1, WIDTH, generator=chance) for _ in "ab")
    log_p = [-3 * torch.rand(tokens, generator=chance) for _ in "ab"]
    return Reading(given_, alone, *log_p)


def head(seed: int = 0) -> Head:
    chance = torch.Generator().manual_seed(seed)
    count = len(features(reading(5)))
    return Head(
        "gemma-3-270m",
        torch.randn(count, generator=chance),
        torch.rand(count, generator=chance) + 0.1,
        torch.randn(count, generator=chance),
    )


@given(st.integers(1, 60), st.integers(0, 9))
@settings(deadline=None)
def test_an_answer_of_any_length_has_as_many_finite_features(tokens: int, seed: int) -> None:
    row = features(reading(tokens, seed))
    assert row.shape == features(reading(5)).shape
    assert row.dtype == torch.float32
    assert bool(row.isfinite().all())


def test_bfloat16_states_give_nearly_the_same_features() -> None:
    exact = reading(30)
    rounded = dataclasses.replace(
        exact,
        states_given=exact.states_given.bfloat16(),
        states_alone=exact.states_alone.bfloat16(),
    )
    assert torch.allclose(features(exact), features(rounded), atol=0.05)


def test_a_loop_brings_its_states_back_and_features_tell() -> None:
    once = reading(8)
    states = once.states_given[1:]
    looped = Reading(
        torch.cat([once.states_given[:1], *[states] * 4]),
        torch.cat([once.states_alone[:1], *[once.states_alone[1:]] * 4]),
        once.log_p_given.repeat(4),
        once.log_p_alone.repeat(4),
    )
    assert features(looped)[-1] > features(reading(32))[-1]


def test_a_saved_head_scores_as_before(tmp_path: Path) -> None:
    saved = head()
    saved.save(tmp_path / HEAD)
    opened = Head.open(tmp_path / HEAD)
    assert opened.backbone == "gemma-3-270m"
    assert opened.score(reading(9)) == pytest.approx(saved.score(reading(9)), rel=1e-5)
    assert opened.to(torch.device("cpu")).score(reading(9)) == opened.score(reading(9))


def test_one_extreme_feature_does_not_decide() -> None:
    judge = head()
    row = features(reading(9))
    extreme = row.clone()
    extreme[0] = 1e9
    more = extreme.clone()
    more[0] = 1e12
    assert judge.scores(extreme.unsqueeze(0)) == judge.scores(more.unsqueeze(0))


def test_what_is_no_head_is_told_in_one_line(tmp_path: Path) -> None:
    from safetensors.torch import save_file  # noqa: PLC0415

    damaged, other = tmp_path / "damaged", tmp_path / "other"
    damaged.write_bytes(b"none")
    vectors = {name: torch.zeros(3) for name in ("mean", "scale", "weight")}
    save_file(vectors, other, {"head": json.dumps({"features": 0, "backbone": "x"})})
    for path, message in (
        (tmp_path / "missing", "cannot be read"),
        (damaged, "cannot be read"),
        (other, "no head of this version"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            Head.open(path)
        assert "\n" not in str(caught.value)


# --- training


async def opens_and_prefers_the_good(settings: config.AnyReward) -> None:
    """What was learned from the easy pairs, as the service would open it."""
    reward = await open_reward(settings)
    good, bad = await reward.score(
        Prompt.of("is it 99?"), answers("yes it is so 99", "no no no 99")
    )
    await reward.close()
    assert good
    assert bad
    assert good.reward > bad.reward


@pytest.mark.parametrize("architecture", ["llama", "bert"])
async def test_a_whole_model_learns_and_opens_as_a_transformers_reward(
    easy: Path, tmp_path: Path, architecture: str
) -> None:
    base = make_classifier(tmp_path / "base", architecture, template=None)
    out = tmp_path / "out"
    report, told = trained(easy, base, out, whole=True, epochs=8, learning_rate=3e-3)
    assert report.losses[-1] < report.losses[0] * 0.8
    assert [row.language for row in report.held_out] == ["de", "fr", "all"]
    assert report.held_out[-1].accuracy > 0.9
    assert json.loads((out / "report.json").read_text())["train_pairs"] == report.train_pairs
    assert any(text.startswith("epoch 8 of 8: loss ") for text in told)
    assert any("accuracy" in text for text in report.lines())
    await opens_and_prefers_the_good(config.TransformersReward(model=str(out), device="cpu"))


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
async def test_a_head_learns_on_a_frozen_model_and_opens_as_an_embedded_reward(
    easy: Path, tmp_path: Path, architecture: str
) -> None:
    base = causal(tmp_path / "base", architecture)
    out = tmp_path / "out"
    report, told = trained(easy, base, out)
    assert report.losses[-1] < report.losses[0]
    assert report.held_out[-1].accuracy > 0.9
    assert report.penalty is not None
    assert any("cross-validation" in text for text in told)
    assert Head.open(out / HEAD).backbone == base
    await opens_and_prefers_the_good(config.EmbeddedReward(model=str(out), device="cpu"))


@pytest.mark.parametrize("whole", [True, False])
def test_the_same_seed_gives_the_same_weights(easy: Path, tmp_path: Path, whole: bool) -> None:
    make: Callable[[Path], str] = make_classifier if whole else causal
    base = make(tmp_path / "base")
    name = "model.safetensors" if whole else HEAD
    files = []
    for out in (tmp_path / "one", tmp_path / "two"):
        trained(easy, base, out, whole=whole, epochs=1, seed=3)
        files.append((out / name).read_bytes())
    assert files[0] == files[1]


def test_small_batches_accumulate_to_the_same_step(easy: Path, tmp_path: Path) -> None:
    base = make_classifier(tmp_path / "base")
    losses = [
        trained(easy, base, tmp_path / str(size), whole=True, epochs=2, max_tokens_per_batch=size)[
            0
        ].losses
        for size in (128, 100_000)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_margins_weigh_pairs_where_asked(easy: Path, tmp_path: Path) -> None:
    rows = [json.loads(text) for text in easy.read_text().splitlines()]
    # wrong pairs, of which there are more, but which count little
    swapped = [
        {**row, "chosen": row["rejected"], "rejected": row["chosen"], "margin": 0.01}
        for row in rows
        for _ in range(2)
    ]
    right = [{**row, "margin": 5.0} for row in rows]
    mixed = write(tmp_path / "mixed.jsonl", *map(json.dumps, itertools.chain(right, swapped)))
    base = make_classifier(tmp_path / "base")

    def accuracy(out: str, **changes: Any) -> float:
        report, _ = trained(
            mixed, base, tmp_path / out, whole=True, epochs=6, learning_rate=3e-3, **changes
        )
        return float(report.held_out[-1].accuracy)

    # one pair in three is right
    assert accuracy("alike") > 0.5 > accuracy("weighed", weigh_by_margin=True)


def test_pairs_with_an_answer_too_long_to_read_are_left_out(easy: Path, tmp_path: Path) -> None:
    long = line(prompt="long?", chosen="yes " * 400, rejected="no", prompt_id="is it 1?")
    pairs = write(tmp_path / "more.jsonl", easy.read_text().strip(), long)
    base = make_classifier(tmp_path / "base")
    report, told = trained(pairs, base, tmp_path / "out", whole=True, epochs=1, max_tokens=200)
    assert report.left_out == 1
    assert any("1 pairs are left out" in text for text in told)


def wrong_settings() -> Sequence[tuple[dict[str, Any], str]]:
    return [
        ({"model": "./nowhere"}, "no such folder"),
        ({"model": "./nowhere", "whole": True}, "no such folder"),
        ({"holdout": 1.0}, "--holdout"),
        ({"holdout": 1e-9}, "leaves 32 pairs to learn from and 0"),
        ({"epochs": 0}, "--epochs"),
        ({"learning_rate": 0.0}, "--lr"),
        ({"device": "abacus"}, "abacus"),
        ({"max_tokens": 2, "whole": True}, "every pair has a longer answer"),
    ]


@pytest.mark.parametrize(("changes", "message"), wrong_settings())
def test_what_cannot_be_trained_is_told_in_one_line(
    easy: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    base = make_classifier(tmp_path / "base")
    model = changes.pop("model", base)
    with pytest.raises(ConfigError, match=message) as caught:
        trained(easy, model, tmp_path / "out", **changes)
    assert "\n" not in str(caught.value)


def test_a_folder_that_holds_something_is_not_written_to(easy: Path, tmp_path: Path) -> None:
    for taken in (tmp_path, easy):
        with pytest.raises(ConfigError, match="is there already"):
            trained(easy, "any", taken)
