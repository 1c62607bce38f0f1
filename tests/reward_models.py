"""Reward models to test: the packaged one, loaded once, and tiny ones made on the spot."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from arbitrage.types import Candidate, Completion
from reward import packaged as packaged_weights
from reward.embedded import SHIPPED, EmbeddedReward, Grader
from reward.head import Head
from reward.packed import packs
from reward.reader import Reader
from reward.scoring import ScoringEngine
from reward.wording import Wording

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}</s>{% endfor %}"
)
_SPECIAL = ["<pad>", "<s>", "</s>"]
_SHAPE: dict[str, Any] = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_DECODER: dict[str, Any] = {"num_key_value_heads": 2, "head_dim": 8}
CONFIGS: dict[str, Any] = {
    "llama": lambda **more: LlamaConfig(**_SHAPE, **_DECODER, **more),
    "qwen3": lambda **more: Qwen3Config(**_SHAPE, **_DECODER, **more),
    "mistral": lambda **more: MistralConfig(**_SHAPE, **_DECODER, sliding_window=16, **more),
    "gemma2": lambda **more: Gemma2Config(**_SHAPE, **_DECODER, sliding_window=16, **more),
    "gemma3": lambda **more: Gemma3TextConfig(**_SHAPE, **_DECODER, sliding_window=16, **more),
    "bert": lambda **more: BertConfig(**_SHAPE, **more),
}


def answers(*texts: str) -> list[Candidate]:
    """One candidate a text, of teachers 0, 1, ..."""
    return [Candidate(str(number), Completion(text)) for number, text in enumerate(texts)]


@cache
def packaged() -> tuple[Any, Any]:
    """Gemma 3 270M's tokenizer and model, in bfloat16 as they are stored."""
    tokenizer, model = packaged_weights.load(packaged_weights.GEMMA, torch.bfloat16)
    assert packs(model.model, CPU)
    return tokenizer, model


def packaged_reward(*packed: Any, max_tokens_per_batch: int = 2048) -> EmbeddedReward:
    """The embedded reward over the weights that this process has loaded already, or over others."""
    tokenizer, model = packed or packaged()
    engine = ScoringEngine(
        {"cpu": Grader(Reader(model, CPU), Head.open(SHIPPED), CPU)},
        tokens=lambda answers: answers.tokens,
        max_tokens_per_batch=max_tokens_per_batch,
    )
    return EmbeddedReward(Wording(tokenizer, max_tokens_per_batch), engine)


def make_classifier(
    folder: Path,
    architecture: str = "llama",
    *,
    template: str | None = TEMPLATE,
    pad: int | None = 0,
    labels: int = 1,
    positions: int = 4096,
    **more: Any,
) -> str:
    """Saves a classifier of two random layers, and a tokenizer that reads bytes.

    The tokenizer puts `<s>` in front, as the template does.
    """
    make_tokenizer(folder, template=template, pad=pad)
    torch.manual_seed(7)
    config = CONFIGS[architecture](
        pad_token_id=pad,
        num_labels=labels,
        max_position_embeddings=positions,
        **more,
        initializer_range=0.3,  # far from zero, so that a wrong token shows in the reward
    )
    untyped: Any = AutoModelForSequenceClassification
    untyped.from_config(config).save_pretrained(folder)
    return str(folder)


def make_tokenizer(folder: Path, *, template: str | None = TEMPLATE, pad: int | None = 0) -> None:
    """Saves a tokenizer that reads bytes, and puts `<s>` in front."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*_SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    untyped: Any = PreTrainedTokenizerFast
    fast = untyped(tokenizer_object=tokenizer)
    fast.bos_token, fast.eos_token = "<s>", "</s>"
    fast.pad_token = None if pad is None else "<pad>"
    fast.chat_template = template
    fast.save_pretrained(folder)
