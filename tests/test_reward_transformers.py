"""The reward by a sequence classifier, against transformers used by hand."""

from __future__ import annotations

import asyncio
from shutil import which
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from arbitrage import config
from arbitrage.errors import ConfigError, RewardError
from arbitrage.types import Prompt
from reward import open_reward
from reward.transformers import TransformersReward
from tests.reward_models import CONFIGS, TEMPLATE, answers, make_classifier

if TYPE_CHECKING:
    from pathlib import Path

PROMPT = Prompt.of("Warum schwimmt Eis?")
TEXTS = ["Weil es leichter ist.", "Nein.", "氷は水より軽いからです。" * 4, "🧊", ""]


async def opened(model: str, *, device: str = "cpu", max_tokens: int = 4096) -> TransformersReward:
    reward = await open_reward(
        config.TransformersReward(
            model=model,
            dtype="float32",
            device=device,
            max_tokens_per_batch=max_tokens,
        )
    )
    assert isinstance(reward, TransformersReward)
    return reward


def conversation(prompt: Prompt, answer: str) -> list[dict[str, str]]:
    turns = [{"role": m.role, "content": m.content} for m in prompt.messages]
    return [*turns, {"role": "assistant", "content": answer}]


def naive(model: str, prompt: Prompt, texts: list[str]) -> list[float]:
    """`logits[0][0]`, one answer at a time, without padding."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    classifier = AutoModelForSequenceClassification.from_pretrained(model).eval()
    rewards = []
    for text in texts:
        ids = tokenizer.apply_chat_template(conversation(prompt, text), return_dict=False)
        with torch.inference_mode():
            rewards.append(float(classifier(torch.tensor([ids])).logits[0][0]))
    return rewards


async def rewards(reward: TransformersReward, prompt: Prompt, texts: list[str]) -> list[float]:
    scores = await reward.score(prompt, answers(*texts))
    return [score.reward for score in scores if score]


@pytest.mark.parametrize("architecture", CONFIGS)
async def test_scores_are_those_of_one_answer_at_a_time(tmp_path: Path, architecture: str) -> None:
    model = make_classifier(tmp_path, architecture)
    reward = await opened(model)
    expected = naive(model, PROMPT, TEXTS)
    assert await rewards(reward, PROMPT, TEXTS) == pytest.approx(expected, abs=1e-3)
    assert max(expected) - min(expected) > 0.01


async def test_the_raw_output_is_the_reward(tmp_path: Path) -> None:
    reward = await opened(make_classifier(tmp_path))
    (score,) = await reward.score(PROMPT, answers("Ja."))
    assert score
    assert dict(score.raw) == {"transformers": score.reward}


@pytest.mark.parametrize("architecture", CONFIGS)
async def test_padding_that_the_template_ends_with_is_not_read(
    tmp_path: Path, architecture: str
) -> None:
    model = make_classifier(tmp_path, architecture, template=TEMPLATE + "<pad><pad>")
    reward = await opened(model)
    assert await rewards(reward, PROMPT, TEXTS) == pytest.approx(
        naive(model, PROMPT, TEXTS), abs=1e-3
    )
    await reward.close()


async def test_system_prompts_are_left_out(tmp_path: Path) -> None:
    reward = await opened(make_classifier(tmp_path))
    prompt = Prompt.of(
        [
            {"role": "system", "content": "Antworte auf Latein."},
            {"role": "user", "content": PROMPT.text},
        ]
    )
    assert await rewards(reward, prompt, TEXTS) == await rewards(reward, PROMPT, TEXTS)


async def test_a_conversation_that_the_template_refuses_is_a_reward_error(tmp_path: Path) -> None:
    template = (
        "{% if messages[0]['role'] != 'user' %}{{ raise_exception('user first') }}{% endif %}"
        + TEMPLATE
    )
    reward = await opened(make_classifier(tmp_path, template=template))
    prompt = Prompt.of(
        [{"role": "assistant", "content": "Hallo!"}, {"role": "user", "content": "Warum?"}],
        prompt_id="p1",
    )
    with pytest.raises(RewardError, match=r"^prompt 'p1' cannot be scored: .*user first$"):
        await reward.score(prompt, answers("Ja."))
    assert len(await reward.score(PROMPT, answers("Ja."))) == 1


async def refused(model: str) -> str:
    with pytest.raises(ConfigError) as caught:
        await opened(model)
    message = str(caught.value)
    assert message.startswith("reward.model: ")
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


async def test_a_model_without_a_padding_token_works(tmp_path: Path) -> None:
    for architecture in CONFIGS:
        model = make_classifier(tmp_path / architecture, architecture, pad=None)
        reward = await opened(model)
        assert await rewards(reward, PROMPT, TEXTS) == pytest.approx(
            naive(model, PROMPT, TEXTS), abs=1e-3
        )
        await reward.close()


@pytest.mark.parametrize("architecture", ["llama", "bert"])
async def test_a_small_batch_changes_nothing(tmp_path: Path, architecture: str) -> None:
    model = make_classifier(tmp_path, architecture)
    reward = await opened(model, max_tokens=100)
    texts = ["Weil " * (number % 30) for number in range(20)]
    assert await rewards(reward, PROMPT, texts) == pytest.approx(
        naive(model, PROMPT, texts), abs=1e-3
    )
    await reward.close()


@pytest.mark.parametrize("devices", ["cpu,cpu", "cpu,cpu:0", "cpu, cpu:0, cpu:0"])
async def test_several_devices_give_the_scores_of_one(tmp_path: Path, devices: str) -> None:
    model = make_classifier(tmp_path)
    expected = await rewards(await opened(model), PROMPT, TEXTS)
    both = await opened(model, device=devices)
    together = await asyncio.gather(*(rewards(both, PROMPT, TEXTS) for _ in range(20)))
    assert together == [pytest.approx(expected, abs=1e-4)] * 20
    await both.close()


async def test_a_prompt_that_is_cut_says_so_and_an_answer_never_is(tmp_path: Path) -> None:
    reward = await opened(make_classifier(tmp_path, positions=200))
    long = Prompt.of("Warum " * 100)
    short, longer, too_long = await reward.score(long, answers("Ja.", "Nein " * 20, "Nein " * 60))
    assert short
    assert longer
    assert longer.raw["transformers.left_out"] - short.raw["transformers.left_out"] == 97
    assert too_long is None
    await reward.close()


async def test_closing_fails_those_who_wait_with_a_reward_error(tmp_path: Path) -> None:
    reward = await opened(make_classifier(tmp_path))
    long = Prompt.of("Warum? " * 5_000)
    calls = [asyncio.create_task(rewards(reward, long, TEXTS)) for _ in range(6)]
    await asyncio.sleep(0)
    assert reward.queue_depth == 6 * len(TEXTS)
    await reward.close()
    for end in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(end, RewardError | list)
    assert reward.queue_depth == 0


async def test_a_template_that_raises_anything_is_a_reward_error(tmp_path: Path) -> None:
    reward = await opened(make_classifier(tmp_path, template="{{ messages + 1 }}"))
    with pytest.raises(RewardError, match="cannot be scored"):
        await rewards(reward, PROMPT, TEXTS)
    await reward.close()


@pytest.mark.filterwarnings("ignore:`torch.jit")  # torch warns of itself
async def test_a_compiled_model_gives_the_same_scores(tmp_path: Path) -> None:
    if not which("c++"):
        pytest.skip("torch compiles with a C++ compiler, and there is none")
    model = make_classifier(tmp_path)
    reward = await open_reward(
        config.TransformersReward(model=model, dtype="float32", device="cpu", compile=True)
    )
    assert isinstance(reward, TransformersReward)
    assert await rewards(reward, PROMPT, TEXTS) == pytest.approx(
        naive(model, PROMPT, TEXTS), abs=1e-3
    )
    await reward.close()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
async def test_a_gpu_gives_the_same_scores(tmp_path: Path) -> None:
    model = make_classifier(tmp_path)
    there = await opened(model, device="cuda")
    assert await rewards(there, PROMPT, TEXTS) == pytest.approx(
        naive(model, PROMPT, TEXTS), abs=1e-3
    )
    await there.close()
