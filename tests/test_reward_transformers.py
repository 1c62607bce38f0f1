"""The reward by a sequence classifier, against transformers used by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    return [score.reward for score in await reward.score(prompt, answers(*texts))]


def batch_shapes(reward: TransformersReward) -> list[tuple[int, ...]]:
    """The shapes of what the model is given from now on."""
    shapes: list[tuple[int, ...]] = []

    def note(_module: Any, _args: Any, inputs: dict[str, Any]) -> None:
        shapes.append(tuple(inputs["input_ids"].shape))

    reward._model.register_forward_pre_hook(note, with_kwargs=True)
    return shapes


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
    assert dict(score.raw) == {"transformers": score.reward}


@pytest.mark.parametrize("architecture", CONFIGS)
async def test_a_model_without_a_padding_token_works(tmp_path: Path, architecture: str) -> None:
    model = make_classifier(tmp_path, architecture, pad=None)
    reward = await opened(model)
    shapes = batch_shapes(reward)
    assert await rewards(reward, PROMPT, TEXTS) == pytest.approx(
        naive(model, PROMPT, TEXTS), abs=1e-3
    )
    assert [rows for rows, _ in shapes] == [1] * len(TEXTS)


@pytest.mark.parametrize(
    ("template", "starts_with"),
    [
        (TEMPLATE, [1]),
        (TEMPLATE.replace("{{ bos_token }}", ""), [1]),  # then the tokenizer writes it
    ],
)
async def test_a_conversation_has_one_first_token(
    tmp_path: Path, template: str, starts_with: list[int]
) -> None:
    reward = await opened(make_classifier(tmp_path, template=template))
    tokens = reward._tokens(PROMPT, "Ja.")
    assert tokens[:1] == starts_with
    assert tokens.count(1) == 1


async def test_tokens_are_those_of_the_chat_template(tmp_path: Path) -> None:
    model = make_classifier(tmp_path)
    reward = await opened(model)
    for text in TEXTS:
        expected = AutoTokenizer.from_pretrained(model).apply_chat_template(
            conversation(PROMPT, text), tokenize=True, return_dict=False
        )
        assert reward._tokens(PROMPT, text) == expected


async def test_system_prompts_are_left_out(tmp_path: Path) -> None:
    reward = await opened(make_classifier(tmp_path))
    prompt = Prompt.of(
        [
            {"role": "system", "content": "Antworte auf Latein."},
            {"role": "user", "content": PROMPT.text},
        ]
    )
    assert reward._tokens(prompt, "Ja.") == reward._tokens(PROMPT, "Ja.")
    assert await rewards(reward, prompt, TEXTS) == await rewards(reward, PROMPT, TEXTS)


async def test_a_pair_that_is_too_long_keeps_the_answer(tmp_path: Path) -> None:
    reward = await opened(make_classifier(tmp_path, positions=64))
    shapes = batch_shapes(reward)
    prompt = Prompt.of("Warum " * 100)
    tokens = reward._tokens(prompt, "Weil es leichter ist.")
    assert len(tokens) == 64
    assert tokens[0] == 1
    assert reward._tokenizer.decode(tokens).endswith("[assistant]Weil es leichter ist.</s>")
    short, other = await rewards(reward, prompt, ["Weil es leichter ist.", "Nein, es geht unter."])
    assert short != other
    assert len(await rewards(reward, prompt, ["Weil " * 4_000])) == 1
    assert max(width for _, width in shapes) == 64


async def test_a_batch_holds_no_more_padded_tokens_than_it_may(tmp_path: Path) -> None:
    model = make_classifier(tmp_path)
    reward = await opened(model, max_tokens=300)
    shapes = batch_shapes(reward)
    texts = ["Weil " * (number % 7) for number in range(30)]
    scores = await rewards(reward, PROMPT, texts)
    assert sum(rows for rows, _ in shapes) == 30
    assert all(rows * width <= 300 for rows, width in shapes)
    assert any(rows > 1 for rows, _ in shapes)
    assert scores == pytest.approx(naive(model, PROMPT, texts), abs=1e-3)
    shapes.clear()
    await rewards(reward, PROMPT, ["Weil " * 200])
    assert [rows for rows, _ in shapes] == [1]  # longer than a batch: alone, but whole
    assert shapes[0][1] > 1000


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
async def test_a_gpu_gives_the_same_scores(tmp_path: Path) -> None:
    model = make_classifier(tmp_path)
    there = await opened(model, device="cuda")
    assert await rewards(there, PROMPT, TEXTS) == pytest.approx(
        naive(model, PROMPT, TEXTS), abs=1e-3
    )
    await there.close()
