"""The reward on vLLM: the scores of Transformers, on the CPU, and nothing left behind.

It needs an environment of its own: `make test-vllm`.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import warnings
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

pytest.importorskip("vllm", reason="vLLM has an environment of its own: make test-vllm")

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from arbitrage import config
from arbitrage.errors import ConfigError, RewardError
from arbitrage.types import Prompt
from reward import open_reward
from reward.rendering import Rendering
from reward.vllm import VLLMReward
from reward.vllm.engine import Engine
from tests import reward_models
from tests.contracts import test_reward_model as contract
from tests.reward_models import TEMPLATE, answers, make_classifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

# an engine belongs to its loop, and takes half a minute to load: the tests share both
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:unclosed context:ResourceWarning"),
]

PROMPT = Prompt.of("Warum schwimmt Eis auf Wasser? " * 10)
TEXTS = ["Weil es leichter ist.", "Nein.", "氷は水より軽いからです。" * 4, "🧊", ""]
A_MINUTE = 60.0


@pytest.fixture(scope="module", autouse=True)
def wide_heads() -> Iterator[None]:
    """Models whose attention heads are as wide as vLLM wants them on a CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(reward_models._SHAPE, "hidden_size", 128)
        patch.setitem(reward_models._DECODER, "head_dim", 32)
        yield


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """vLLM leaves its ZeroMQ contexts to the garbage collector: not in somebody else's test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def settings(model: str, dtype: str = "float32", **engine: Any) -> config.VLLMReward:
    engine.setdefault("kv_cache_memory_bytes", 1 << 28)
    return config.VLLMReward(model=model, dtype=dtype, engine=engine)


@asynccontextmanager
async def opened(model: str, dtype: str = "float32", **engine: Any) -> AsyncIterator[VLLMReward]:
    reward = await open_reward(settings(model, dtype, **engine))
    assert isinstance(reward, VLLMReward)
    try:
        yield reward
    finally:
        await reward.close()


class Lent(Engine):
    """An engine that somebody else closes."""

    async def close(self) -> None:
        """Leaves it to them."""


def lent(reward: VLLMReward, template: str = TEMPLATE) -> VLLMReward:
    """Another reward on the engine of one that is open."""
    tokenizer = reward._rendering._tokenizer
    tokenizer = type(tokenizer).from_pretrained(tokenizer.name_or_path)
    tokenizer.chat_template = template
    return VLLMReward(Rendering(tokenizer, reward._engine.limit), Lent(reward._engine._llm))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def held(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VLLMReward]:
    """A reward that keeps the engine open from one test to the next."""
    async with opened(make_classifier(tmp_path_factory.mktemp("held"), "llama")) as reward:
        yield reward


@pytest_asyncio.fixture(loop_scope="module")
async def subject(held: VLLMReward) -> AsyncIterator[contract.Subject]:
    """The contract's."""
    async with asyncio.timeout(A_MINUTE):
        yield contract.Subject(lent(held), computes=True, tolerance=1e-4)


_OTHERS = {
    "test_a_configuration_opens_it",  # those of the other kinds
    "test_scoring_twice_gives_the_same_scores",  # to the last bit; see below
}
globals().update(
    {
        name: test
        for name, test in vars(contract).items()
        if name.startswith("test_") and name not in _OTHERS
    }
)


async def rewards(reward: VLLMReward, prompt: Prompt, texts: Sequence[str]) -> list[float]:
    scores = await reward.score(prompt, answers(*texts))
    return [score.reward for score in scores if score]


def naive(model: str, rows: Sequence[Sequence[int]], dtype: str = "float32") -> list[float]:
    """`logits[0][0]` by Transformers, one row at a time."""
    classifier = AutoModelForSequenceClassification.from_pretrained(
        model, dtype=getattr(torch, dtype)
    )
    with torch.inference_mode():
        return [float(classifier(torch.tensor([row])).logits[0][0]) for row in rows]


def rendered(model: str, prompt: Prompt, texts: Sequence[str]) -> list[list[int]]:
    """The rows by the chat template itself."""
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    turns = [{"role": m.role, "content": m.content} for m in prompt.messages]
    return [
        tokenizer.apply_chat_template(
            [*turns, {"role": "assistant", "content": text}], return_dict=False
        )
        for text in texts
    ]


async def computing(reward: VLLMReward, requests: int) -> None:
    """Waits until so many are under way."""
    async with asyncio.timeout(A_MINUTE):
        while reward._engine._llm.get_num_unfinished_requests() < requests:  # noqa: ASYNC110
            await asyncio.sleep(0)


def model_of(reward: VLLMReward) -> str:
    return str(reward._engine._llm.model_config.model)


async def test_scores_are_those_of_transformers(held: VLLMReward) -> None:
    model = model_of(held)
    expected = naive(model, rendered(model, PROMPT, TEXTS))
    assert await rewards(held, PROMPT, TEXTS) == pytest.approx(expected, abs=1e-3)
    # once more, from the prefix cache
    assert await rewards(held, PROMPT, TEXTS) == pytest.approx(expected, abs=1e-3)
    assert max(expected) - min(expected) > 0.1


@pytest.mark.parametrize("architecture", ["qwen3", "mistral", "gemma3", "bert"])
async def test_other_architectures_score_as_in_transformers(
    tmp_path: Path, architecture: str
) -> None:
    model = make_classifier(tmp_path, architecture)
    expected = naive(model, rendered(model, PROMPT, TEXTS))
    async with opened(model) as reward:
        assert await rewards(reward, PROMPT, TEXTS) == pytest.approx(expected, abs=1e-3)
        assert await rewards(reward, PROMPT, TEXTS) == pytest.approx(expected, abs=1e-3)


async def test_bfloat16_is_no_further_from_float32_than_in_transformers(tmp_path: Path) -> None:
    model = make_classifier(tmp_path, "llama")
    rows = rendered(model, PROMPT, TEXTS)
    exact = torch.tensor(naive(model, rows))
    theirs = torch.tensor(naive(model, rows, "bfloat16"))
    async with opened(model, "bfloat16") as reward:
        ours = torch.tensor(await rewards(reward, PROMPT, TEXTS))
    assert (ours - exact).abs().max() < (theirs - exact).abs().max() + 1e-2


async def test_scoring_again_gives_the_same_scores_but_for_rounding(held: VLLMReward) -> None:
    once = await rewards(held, PROMPT, TEXTS)
    assert await rewards(held, PROMPT, TEXTS) == pytest.approx(once, abs=1e-5)


async def test_the_raw_output_is_the_reward(held: VLLMReward) -> None:
    (score,) = await held.score(PROMPT, answers("Ja."))
    assert score
    assert dict(score.raw) == {"vllm": score.reward}


async def test_a_template_that_ends_in_padding_is_read_as_transformers_reads_it(
    held: VLLMReward,
) -> None:
    reward = lent(held, TEMPLATE + "<pad><pad>")
    rows = [reward._rendering.tokens(PROMPT, text) for text in TEXTS]
    assert {row[-1] for row in rows} == {0}
    expected = naive(model_of(held), rows)
    assert await rewards(reward, PROMPT, TEXTS) == pytest.approx(expected, abs=1e-3)


async def test_a_prompt_that_is_too_long_is_cut_and_its_answer_is_not(held: VLLMReward) -> None:
    prompt = Prompt.of("Warum schwimmt Eis? " * 1000)
    row = held._rendering.tokens(prompt, TEXTS[0])
    assert len(row) == held._engine.limit == 4096
    (score,) = await held.score(prompt, answers(TEXTS[0]))
    assert score
    assert score.reward == pytest.approx(naive(model_of(held), [row])[0], abs=1e-3)
    assert score.raw["vllm.left_out"] > 10_000


async def test_an_answer_that_is_too_long_has_no_score(held: VLLMReward) -> None:
    short, long = await held.score(PROMPT, answers("Ja.", "Ja. " * 2000))
    assert short
    assert long is None


async def test_the_prompt_is_read_once_for_all_its_candidates(
    held: VLLMReward, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached: list[int] = []
    llm = held._engine._llm
    encode = llm.encode

    async def noting(*arguments: Any) -> AsyncIterator[Any]:
        async for output in encode(*arguments):
            cached.append(output.num_cached_tokens)
            yield output

    monkeypatch.setattr(llm, "encode", noting)
    await held.score(Prompt.of("Und warum schwimmt Holz? " * 20), answers("a", "b", "c", "d"))
    first, *others = sorted(cached)
    assert first == 0
    assert all(tokens > 300 for tokens in others)


async def test_cancelling_a_call_takes_its_candidates_out_of_the_engine(held: VLLMReward) -> None:
    llm = held._engine._llm
    texts = [f"{number} {'Eis ' * 900}" for number in range(32)]
    call = asyncio.create_task(held.score(PROMPT, answers(*texts)))
    await computing(held, len(texts))
    assert held.queue_depth == len(texts)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert llm.get_num_unfinished_requests() == 0
    assert held.queue_depth == 0
    assert len(await rewards(held, PROMPT, TEXTS)) == len(TEXTS)


async def test_closing_ends_calls_under_way_and_not_those_of_others(held: VLLMReward) -> None:
    closing, other = lent(held), lent(held)
    texts = ["Eis " * 900] * 8
    calls = [asyncio.create_task(r.score(PROMPT, answers(*texts))) for r in (closing, other)]
    await computing(held, 2 * len(texts))
    await closing.close()
    ended, answered = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(ended, RewardError)
    assert not isinstance(answered, BaseException)
    assert len(answered) == 8
    assert closing.queue_depth == other.queue_depth == 0


async def test_a_conversation_that_the_template_refuses_is_a_reward_error(
    held: VLLMReward,
) -> None:
    refuses = "{% if messages[0]['role'] != 'user' %}{{ raise_exception('user first') }}{% endif %}"
    reward = lent(held, refuses + TEMPLATE)
    prompt = Prompt.of(
        [{"role": "assistant", "content": "Hallo!"}, {"role": "user", "content": "Warum?"}],
        prompt_id="p1",
    )
    with pytest.raises(RewardError, match=r"^prompt 'p1' cannot be scored: .*user first$"):
        await reward.score(prompt, answers("Ja.", "Nein."))
    assert len(await rewards(reward, PROMPT, TEXTS)) == len(TEXTS)


async def refused(model: str, dtype: str = "float32", **engine: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        await open_reward(settings(model, dtype, **engine))
    message = str(caught.value)
    assert message.startswith("reward.")
    assert "\n" not in message
    return message


async def test_a_reward_model_has_one_label(tmp_path: Path) -> None:
    assert "has 3 labels" in await refused(make_classifier(tmp_path, labels=3))


async def test_a_reward_model_has_a_chat_template(tmp_path: Path) -> None:
    assert "no chat template" in await refused(make_classifier(tmp_path, template=None))


async def test_a_model_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    model = make_classifier(tmp_path)
    whole = AutoModelForSequenceClassification.from_pretrained(model)
    whole.save_pretrained(
        model, state_dict={k: v for k, v in whole.state_dict().items() if k != "score.weight"}
    )
    assert "no weights for 'score.weight'" in await refused(model)


async def test_a_missing_folder_is_named_without_asking_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"'{tmp_path}/nowhere': no such folder" in await refused(f"{tmp_path}/nowhere")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "'nobody/no-reward-model'" in await refused("nobody/no-reward-model")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
async def test_a_damaged_model_is_named(tmp_path: Path, name: str) -> None:
    model = make_classifier(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:100])
    assert repr(model) in await refused(model)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"max_num_seq": 4}, "max_num_seq: unknown key; did you mean 'max_num_seqs'?"),
        ({"model": "other"}, "reward.engine.model: set reward.model instead"),
        ({"runner": "generate"}, "reward.engine.runner: is the reward's own; leave it out"),
        ({"max_num_seqs": -1}, "vLLM cannot load"),
        ({"quantization": "none such"}, "vLLM cannot load"),
    ],
)
async def test_a_mistake_in_the_engines_settings_is_one_line(
    tmp_path: Path, wrong: dict[str, Any], reason: str
) -> None:
    # a mapping, since `model` is an argument here, too
    mistaken = config.VLLMReward(model=make_classifier(tmp_path), engine=wrong)
    with pytest.raises(ConfigError) as caught:
        await open_reward(mistaken)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_an_unknown_precision_is_one_line(tmp_path: Path) -> None:
    assert "vLLM cannot load" in await refused(make_classifier(tmp_path), "float7")


async def test_a_model_that_the_processor_cannot_run_is_told_when_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(reward_models._SHAPE, "hidden_size", 32)
    assert "vLLM cannot run" in await refused(make_classifier(tmp_path, "bert"))


async def test_an_engine_that_dies_fails_its_calls_and_can_be_closed(tmp_path: Path) -> None:
    async with opened(make_classifier(tmp_path, "llama")) as reward:
        llm = reward._engine._llm
        texts = [f"{number} {'Eis ' * 900}" for number in range(32)]
        call = asyncio.create_task(reward.score(PROMPT, answers(*texts)))
        await computing(reward, len(texts))
        (process,) = llm.engine_core.resources.engine_manager.processes
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(RewardError, match=r"^vLLM: .*$"):
            await call
        with pytest.raises(RewardError, match=r"^vLLM: .*$"):
            await reward.score(PROMPT, answers("Ja."))
        assert reward.queue_depth == 0


_SCORES_WHEN_INTERRUPTED = """
import asyncio, multiprocessing, signal, sys
from tests.test_vllm_reward import PROMPT, TEXTS, opened, rewards
async def main():
    interrupted = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted.set)
    async with opened(sys.argv[1]) as reward:
        print("loaded", flush=True)
        await interrupted.wait()
        print("scored", len(await rewards(reward, PROMPT, TEXTS)), flush=True)
    print("processes", multiprocessing.active_children(), flush=True)
asyncio.run(main())
"""


async def test_it_scores_on_when_interrupted_says_nothing_and_leaves_no_process(
    tmp_path: Path,
) -> None:
    root = Path(__file__).parents[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _SCORES_WHEN_INTERRUPTED,
        make_classifier(tmp_path, "llama"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        start_new_session=True,
    )
    assert process.stdout
    assert await process.stdout.readline() == b"loaded\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to the engine, too
    said, complained = await process.communicate()
    assert said.decode() == f"scored {len(TEXTS)}\nprocesses []\n"
    # PyTorch misses Triton, which this environment leaves out
    assert [line for line in complained.decode().splitlines() if "Triton" not in line] == []
    assert process.returncode == 0
