"""Encoders that embed prompts: real weights, one thread, and an event loop that goes on."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, T5Config, ViTConfig

from arbitrage import config, weights
from arbitrage.errors import ArbitrageError, ConfigError
from router.encoders import open_encoder
from router.encoders.lines import Lines
from router.encoders.tune import REPORT, TuneSettings, tune
from router.encoders.worker import Worker
from router.features import HashedNgrams
from tests.reward_models import CONFIGS, make_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from arbitrage.ports import Encoder

GEMMA = "gemma-3-270m"
TEXTS = ["Wie alt bist du?", "Why do people drink water?", "人为什么喝水？", "x"]


def make_encoder(folder: Path, architecture: str = "llama", **more: Any) -> str:
    """Saves a network of two random layers, and a tokenizer that reads bytes."""
    make_tokenizer(folder)
    torch.manual_seed(7)
    made = CONFIGS[architecture](pad_token_id=0, initializer_range=0.3, **more)
    untyped: Any = AutoModel
    untyped.from_config(made).save_pretrained(folder)
    return str(folder)


async def opened(model: str, kind: Any = "transformers", device: str = "cpu") -> Encoder:
    encoder = await open_encoder(config.Features(kind=kind, model=model, device=device))
    assert encoder
    return encoder


def naive(model: str, text: str) -> npt.NDArray[np.float32]:
    """One text through the network, alone and without padding."""
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    network: Any = AutoModel.from_pretrained(model)
    with torch.inference_mode():
        states = network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
    mean = states.mean(dim=0)
    return np.asarray(mean / mean.norm())


async def refused(model: str, kind: Any = "transformers", device: str = "cpu") -> str:
    with pytest.raises(ConfigError) as caught:
        await opened(model, kind, device)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- which


async def test_the_kinds_without_a_model() -> None:
    assert await open_encoder(config.Features(kind="none")) is None
    assert isinstance(await open_encoder(config.Features()), HashedNgrams)


def test_importing_the_router_imports_no_model_library() -> None:
    code = (
        "import sys, asyncio, router, router.encoders; from arbitrage import config; "
        "asyncio.run(router.encoders.open_encoder(config.Features())); "
        "heavy = {'torch', 'transformers', 'xllamacpp', 'pyarrow', 'scipy', 'faiss'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("kind", "library", "extra"),
    [
        ("transformers", "torch", "reward"),
        ("transformers", "transformers", "reward"),
        ("llama_cpp", "xllamacpp", "embedded"),
    ],
)
async def test_a_missing_extra_is_one_line(
    kind: Any, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, f"router.encoders.{kind}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    message = await refused("any", kind)
    assert message == (
        f"policy.features.kind: {kind!r} needs {library}; "
        f"run: pip install 'data-arbitrage[{extra}]'"
    )


# --- Transformers


@pytest.mark.parametrize("architecture", CONFIGS)
async def test_a_text_has_the_mean_of_its_tokens_alone_and_beside_others(
    tmp_path: Path, architecture: str
) -> None:
    model = make_encoder(tmp_path, architecture)
    encoder = await opened(model)
    together = await asyncio.gather(*map(encoder.encode, TEXTS))
    for text, features in zip(TEXTS, together, strict=True):
        expected = naive(model, text)
        assert features.dtype == np.float32
        assert features == pytest.approx(expected, abs=1e-5)
        assert await encoder.encode(text) == pytest.approx(expected, abs=1e-5)
    await encoder.close()


async def test_of_an_encoder_with_a_decoder_the_encoder_embeds(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    torch.manual_seed(7)
    shape: dict[str, Any] = {
        "vocab_size": 259,
        "d_model": 32,
        "d_ff": 64,
        "d_kv": 8,
        "num_layers": 2,
    }
    untyped: Any = AutoModel
    made = T5Config(**shape, num_heads=4, pad_token_id=0)
    untyped.from_config(made).save_pretrained(tmp_path)
    encoder = await opened(str(tmp_path))
    assert (await encoder.encode("Wie alt?")).shape == (32,)
    await encoder.close()
    with pytest.raises(ConfigError, match=r"^model: .* has a decoder, too"):
        tune(TuneSettings(model=str(tmp_path), device="cpu"), toy(40), tmp_path / "out", print)


@pytest.mark.parametrize("text", ["", " ", "\ud800 \x00", "Wasser " * 20_000])
async def test_any_text_is_embedded(tmp_path: Path, text: str) -> None:
    encoder = await opened(make_encoder(tmp_path, max_position_embeddings=64))
    assert np.linalg.norm(await encoder.encode(text)) == pytest.approx(1.0, abs=1e-5)
    await encoder.close()


async def test_a_text_is_read_as_far_as_the_model_has_positions(tmp_path: Path) -> None:
    encoder = await opened(make_encoder(tmp_path, "bert", max_position_embeddings=64))
    # the tokenizer puts one token in front of a text's bytes
    text = "abcdefg " * 20
    long, cut, shorter = [await encoder.encode(text[:end]) for end in (160, 63, 62)]
    assert np.array_equal(long, cut)
    assert not np.array_equal(long, shorter)
    await encoder.close()


async def test_a_text_without_tokens_has_zeros(tmp_path: Path) -> None:
    model = make_encoder(tmp_path)
    plain = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(plain | {"post_processor": None}))
    encoder = await opened(model)
    empty, text = await asyncio.gather(encoder.encode(""), encoder.encode("x"))
    assert not empty.any()
    assert np.linalg.norm(text) == pytest.approx(1.0, abs=1e-5)
    assert not (await encoder.encode("")).any()
    await encoder.close()


async def test_a_model_that_is_nowhere_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"'{tmp_path}/nowhere': no such folder" in await refused(f"{tmp_path}/nowhere")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = await refused("nobody/no-encoder")
    assert message.startswith("policy.features.model: 'nobody/no-encoder' cannot be loaded: ")


async def test_what_is_no_text_model_is_one_line(tmp_path: Path) -> None:
    make_tokenizer(tmp_path / "vision")
    untyped: Any = AutoModel
    shape: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    untyped.from_config(ViTConfig(**shape, intermediate_size=32, image_size=32)).save_pretrained(
        tmp_path / "vision"
    )
    assert "does not embed text" in await refused(f"{tmp_path}/vision")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
async def test_a_damaged_model_is_one_line(tmp_path: Path, name: str) -> None:
    model = make_encoder(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:100])
    assert (await refused(model)).startswith(f"policy.features.model: {model!r} cannot be loaded: ")


async def test_a_model_that_lacks_weights_is_refused_but_for_a_pooler(tmp_path: Path) -> None:
    model = make_encoder(tmp_path, "bert")
    untyped: Any = AutoModel
    network = untyped.from_pretrained(model)
    kept = {k: v for k, v in network.state_dict().items() if "pooler" not in k}
    network.save_pretrained(model, state_dict=kept)
    await (await opened(model)).close()
    kept.pop("encoder.layer.1.output.dense.weight")
    network.save_pretrained(model, state_dict=kept)
    assert "has no weights for 'encoder.layer.1.output.dense.weight'" in await refused(model)


async def test_a_device_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    model = make_encoder(tmp_path)
    for device in ("abacus", "cuda:99"):
        message = await refused(model, device=device)
        assert message.startswith(f"policy.features.device: {device!r} cannot be used here")
    await (await opened(model, device="auto")).close()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
async def test_a_gpu_gives_nearly_the_same_features(tmp_path: Path) -> None:
    model = make_encoder(tmp_path)
    there = await opened(model, device="cuda")
    assert await there.encode(TEXTS[0]) @ naive(model, TEXTS[0]) > 0.99
    await there.close()


# --- llama.cpp


@pytest.fixture
def gemma() -> str:
    try:
        distribution(weights.PACKAGED[GEMMA].package)
    except PackageNotFoundError:
        pytest.skip(f"{GEMMA} is not installed")
    return GEMMA


async def test_a_gguf_file_embeds_any_text_while_the_loop_goes_on(gemma: str) -> None:
    encoder = await opened(gemma, "llama_cpp")
    turns = 0
    long = asyncio.create_task(encoder.encode("\U0001f4a7 water" * 500))
    while not long.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10
    asked = [
        "Why do people drink water every day?",
        "Warum trinken Menschen jeden Tag Wasser?",
        "def add(a, b):\n    return a + b",
        "\ud800",
    ]
    water, wasser, code, odd = await asyncio.gather(*map(encoder.encode, asked))
    for features in (water, wasser, code, odd, await long):
        assert features.shape == (640,)
        assert features.dtype == np.float32
        assert np.linalg.norm(features) == pytest.approx(1.0, abs=1e-5)
    assert water @ wasser > water @ code
    assert await encoder.encode(asked[0]) == pytest.approx(water, abs=1e-3)
    await encoder.close()
    with pytest.raises(ArbitrageError, match="is closed"):
        await encoder.encode("x")


def test_an_interrupt_stays_the_process_s_own(gemma: str) -> None:
    code = (
        "import asyncio, os, signal; from arbitrage import config; "
        "from router.encoders import open_encoder\n"
        # whoever runs the tests in the background may have them ignore it
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"settings = config.Features(kind='llama_cpp', model={gemma!r})\n"
        "async def main():\n"
        "    encoder = await open_encoder(settings)\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        await asyncio.sleep(60)\n"
        "    except asyncio.CancelledError:\n"
        "        await encoder.close()\n"
        "        print('closed')\n"
        "        raise\n"
        "try:\n"
        "    asyncio.run(main())\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["closed", "interrupted"]


async def test_a_wrong_or_cut_gguf_file_is_one_line(tmp_path: Path, gemma: str) -> None:
    cut = tmp_path / "cut.gguf"
    with weights.locate(gemma).open("rb") as source:
        cut.write_bytes(source.read(8_000_000))
    assert "cut.gguf: llama.cpp cannot load it" in await refused(str(cut), "llama_cpp")
    assert "no such file" in await refused(str(tmp_path / "none.gguf"), "llama_cpp")


# --- the thread


class Embedding:
    """Embeds a text as its length and 1, when it is let to."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.threads: set[int] = set()
        self.began = threading.Event()
        self.let = threading.Event()
        self.freed = 0

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.calls.append(list(texts))
        self.threads.add(threading.get_ident())
        self.began.set()
        assert self.let.wait(60)
        if "bad" in texts:
            raise RuntimeError("no such word\nin any book")
        return np.array([[float("nan") if t == "nan" else len(t), 1.0] for t in texts], np.float32)

    def free(self) -> None:
        self.threads.add(threading.get_ident())
        self.freed += 1


async def settled(embedding: Embedding, worker: Worker, *texts: str) -> list[asyncio.Task[Any]]:
    """One task a text, the first of which is being embedded."""
    tasks = [asyncio.create_task(worker.encode(text)) for text in texts]
    await asyncio.to_thread(embedding.began.wait, 60)
    return tasks


async def test_texts_that_wait_are_embedded_together_on_one_thread() -> None:
    embedding = Embedding()
    worker = Worker(embedding, at_once=3, free=embedding.free)
    first = await settled(embedding, worker, "0")
    rest = [asyncio.create_task(worker.encode("0" * n)) for n in range(2, 7)]
    await asyncio.sleep(0)
    embedding.let.set()
    features = await asyncio.gather(*first, *rest)
    assert [list(map(len, call)) for call in embedding.calls] == [[1], [2, 3, 4], [5, 6]]
    for length, vector in enumerate(features, start=1):
        assert vector == pytest.approx(np.array([length, 1.0]) / np.hypot(length, 1.0))
    await worker.close()
    assert embedding.freed == 1
    assert len(embedding.threads) == 1
    assert threading.get_ident() not in embedding.threads


@pytest.mark.parametrize("bad", ["bad", "nan"])
async def test_a_text_that_fails_fails_alone_in_one_line(bad: str) -> None:
    embedding = Embedding()
    worker = Worker(embedding, at_once=8)
    tasks = await settled(embedding, worker, "first", "good", bad, "also good")
    embedding.let.set()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(end, ArbitrageError) for end in ends] == [False, False, True, False]
    reason = "no such word" if bad == "bad" else "the model's output is not finite"
    assert str(ends[2]) == f"a text of 3 characters cannot be embedded: {reason}"
    await worker.close()


async def test_a_cancelled_text_is_not_embedded() -> None:
    embedding = Embedding()
    worker = Worker(embedding)
    tasks = await settled(embedding, worker, "one", "two", "three")
    tasks[1].cancel()
    await asyncio.sleep(0)
    embedding.let.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert embedding.calls == [["one"], ["three"]]
    await worker.close()


async def test_closing_waits_for_the_text_under_way_and_fails_the_others() -> None:
    embedding = Embedding()
    worker = Worker(embedding, free=embedding.free)
    tasks = await settled(embedding, worker, "one", "two")
    closing = asyncio.create_task(worker.close())
    await asyncio.sleep(0.01)
    assert embedding.freed == 0
    embedding.let.set()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    await closing
    assert isinstance(ends[0], np.ndarray)
    assert str(ends[1]) == "the encoder is closed; open it again to embed"
    await worker.close()
    assert embedding.freed == 1


# --- tuning


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On a busy machine, the threads of so small a model wait for one another most of the time."""
    before = torch.get_num_threads()
    monkeypatch.setattr("router.encoders.transformers.usable_cores", lambda: 1)
    yield
    torch.set_num_threads(before)


def toy(count: int) -> Lines:
    """Prompts about sums, which arm a answers best, and about poems, which arm b does."""
    rng = np.random.default_rng(3)
    texts, rewards = [], []
    for number in range(count):
        sum_ = number % 2 == 0
        texts.append(
            f"{number} + {7 * number}" if sum_ else f"ode to {chr(97 + number % 26)} {number}"
        )
        rewards.append(np.array([1.0, 0.0, 0.4] if sum_ else [0.0, 1.0, 0.4]))
    table = np.array(rewards) + rng.normal(0.0, 0.05, (count, 3))
    table[rng.random((count, 3)) < 0.1] = np.nan
    tags = [("de" if number % 3 else "fr", None) for number in range(count)]
    return Lines(texts, tags, table)


def tuned(folder: Path, lines: Lines, **changes: Any) -> tuple[Any, list[str]]:
    told: list[str] = []
    usual: dict[str, Any] = {"epochs": 6, "learning_rate": 1e-3, "device": "cpu"}
    settings = TuneSettings(model=make_encoder(folder / "from", "bert"), **(usual | changes))
    return tune(settings, lines, folder / "to", told.append), told


@pytest.mark.usefixtures("one_thread")
async def test_tuning_learns_a_separable_corpus_and_its_folder_opens(tmp_path: Path) -> None:
    lines = toy(160)
    report, told = tuned(tmp_path, lines)
    assert report.losses[-1] < 0.7 * report.losses[0]
    assert report.accuracy > 0.8
    assert report.accuracy > report.accuracy_of_tags + 0.2
    assert report.accuracy > report.chance + 0.2
    assert report.learned + report.held_out <= 160
    assert report.held_out > 16
    assert told[0] == f"{report.learned} prompts to learn from, {report.held_out} held out"
    assert told[-1].startswith("epoch 6 of 6: loss ")
    assert json.loads((tmp_path / "to" / REPORT).read_text())["accuracy"] == report.accuracy
    before, after = await opened(f"{tmp_path}/from"), await opened(f"{tmp_path}/to")
    asked = ["111 + 3", "5 + 90", "ode to p 9", "ode to q 44"]

    async def contrast(encoder: Encoder) -> float:
        sums, more, ode, other = await asyncio.gather(*map(encoder.encode, asked))
        return float(sums @ more + ode @ other - sums @ ode - more @ other)

    assert await contrast(after) > await contrast(before) + 0.2
    await before.close()
    await after.close()


@pytest.mark.usefixtures("one_thread")
def test_tuning_with_one_seed_is_repeatable(tmp_path: Path) -> None:
    runs = [tuned(tmp_path / name, toy(48), epochs=1)[0].losses for name in "ab"]
    assert runs[0] == pytest.approx(runs[1], rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"holdout": 1.0}, "holdout: 1 is no share"),
        ({"holdout": 0.001}, "test on"),
        ({"smoothing": 2.0}, "smoothing: 2 is no share"),
        ({"epochs": 0}, "epochs: 0; give at least 1"),
        ({"prompts_at_once": 0}, "prompts_at_once: 0; give at least 1"),
        ({"temperature": 0.0}, "temperature: 0; give a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate: nan; give a number above 0"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        tuned(tmp_path, toy(20), **changes)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "mine").touch()
    with pytest.raises(ConfigError, match="is there already"):
        tuned(tmp_path, toy(20))


# --- labels

DE, FR = ("de", None), ("fr", "math")
NAN = float("nan")


def test_labels_are_the_softmax_of_rewards_smoothed_toward_the_tags_mean() -> None:
    rewards = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 3.0]])
    lines = Lines(["a", "b", "c"], [DE, DE, FR], rewards)
    spread = np.sqrt((2 * 0.5**2 + 2 * 1.5**2) / 6)
    # in German, the first arm has 0.5 on average; in French, the only prompt is the mean
    smoothed = np.array([[0.3 + 0.7 * 0.5, 0.0], [0.7 * 0.5, 0.0], [0.0, 3.0]])
    expected = 1.0 / (1.0 + np.exp((smoothed[:, 1] - smoothed[:, 0]) / (0.5 * spread)))
    found = lines.labels(temperature=0.5, smoothing=0.3)
    assert found[:, 0] == pytest.approx(expected)
    assert found.sum(axis=1) == pytest.approx([1.0, 1.0, 1.0])


@pytest.mark.parametrize("smoothing", [0.0, 0.3, 1.0])
def test_an_arm_without_a_reward_has_no_share(smoothing: float) -> None:
    rewards = np.array([[1.0, NAN, NAN, 0.0], [1.0, 0.5, NAN, NAN]])
    found = Lines(["a", "b"], [DE, DE], rewards).labels(temperature=1e-3, smoothing=smoothing)
    assert found == pytest.approx(np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]))


def test_labels_of_constant_rewards_are_even() -> None:
    lines = Lines(["a"], [DE], np.full((1, 4), 2.0))
    assert lines.labels(temperature=0.5, smoothing=0.3) == pytest.approx(np.full((1, 4), 0.25))


def test_labels_do_not_depend_on_the_rewards_scale() -> None:
    lines = toy(30)
    other = Lines(lines.texts, lines.tags, 40.0 * lines.rewards - 7.0)
    one, two = (part.labels(temperature=0.5, smoothing=0.3) for part in (lines, other))
    assert one == pytest.approx(two)


def test_what_is_expected_of_an_unknown_tag_is_the_mean_of_all() -> None:
    lines = Lines(["a", "b"], [DE, FR], np.array([[1.0, NAN, NAN], [3.0, 2.0, NAN]]))
    expected = np.array([[1.0, 2.0, -np.inf], [2.0, 2.0, -np.inf]])
    assert np.array_equal(lines.expected([DE, ("ja", None)]), expected)


def test_a_text_is_learned_from_or_tested_on_and_never_both() -> None:
    lines = toy(100)
    twice = Lines(
        [*lines.texts, *lines.texts], [*lines.tags, *lines.tags], np.tile(lines.rewards, (2, 1))
    )
    learn, held = twice.parted(0.3)
    assert not set(learn.texts) & set(held.texts)
    assert len(set(held.texts)) == len(held.texts) // 2 > 15
    assert all(np.isfinite(part.rewards).sum(axis=1).min() >= 2 for part in (learn, held))


def test_accuracy_counts_the_best_of_the_arms_with_a_reward() -> None:
    lines = Lines(
        list("abc"), [DE] * 3, np.array([[1.0, 0.0, NAN], [0.5, 0.5, 0.0], [0.0, 1.0, 2.0]])
    )
    assert lines.accuracy(np.array([[1.0, 0.0, 9.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])) == 2 / 3
    assert lines.chance() == pytest.approx((1 / 2 + 2 / 3 + 1 / 3) / 3)
    none = Lines([], [], np.zeros((0, 3)))
    assert none.accuracy(np.zeros((0, 3))) is none.chance() is None
