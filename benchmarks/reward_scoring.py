"""Candidates scored a second: the scoring engine beside the naive loop, on the same weights.

The naive loop is Transformers as its users write it: pairs in the order in which they arrive,
sixteen a batch, padded to the longest. Four candidates a prompt, of mixed lengths, from
`examples/reward/answers` in 14 languages; the prompts are single questions, and then
conversations whose earlier turn all four share. Sides take turns, and their scores are compared.

    python benchmarks/reward_scoring.py [--shape gemma3-270m] [--prompts 28] [--device cpu]

Shapes are those of real models; only Gemma 3 270M has its trained weights, the others random ones:
speed does not depend on values. With vLLM's environment beside this one (`make install-vllm`), its
pooling runner is a third side, over the same tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from corpus import questions
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Gemma3TextConfig,
    LlamaConfig,
    Qwen3Config,
)
from turns import where

from arbitrage import config
from arbitrage.types import Candidate, Completion, Prompt
from reward import open_reward
from reward.packaged import folder_of
from reward.rendering import Rendering

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arbitrage.ports import RewardModel

_ROOT = Path(__file__).parents[1]
_VLLM = _ROOT / ".venv-vllm" / "bin" / "python"
_NAIVE_BATCH = 16
_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n"
    "{{ m['content'] }}<end_of_turn>\n{% endfor %}"
)
_SHAPES: Mapping[str, Any] = {
    "qwen3-0.6b": lambda **more: Qwen3Config(
        hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
        num_key_value_heads=8, head_dim=128, **more,
    ),
    "llama-1b": lambda **more: LlamaConfig(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
        num_key_value_heads=8, head_dim=64, **more,
    ),
    "qwen3-8b": lambda **more: Qwen3Config(
        hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128, **more,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pairs:
    """Prompts with their candidates."""

    name: str
    prompts: Sequence[tuple[Prompt, Sequence[Candidate]]]

    @property
    def candidates(self) -> int:
        """How many there are over all prompts."""
        return sum(len(candidates) for _, candidates in self.prompts)


def make_model(shape: str, folder: Path, dtype: torch.dtype) -> None:
    """Saves a one-label classifier of a shape, with Gemma's tokenizer and a chat template."""
    source = folder_of()
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.chat_template = _TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    if shape == "gemma3-270m":
        settings = Gemma3TextConfig.from_pretrained(source, num_labels=1)
        model = AutoModelForSequenceClassification.from_pretrained(
            source, config=settings, dtype=dtype
        )
    else:
        settings = _SHAPES[shape](
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            max_position_embeddings=8192,
            num_labels=1,
        )
        untyped: Any = AutoModelForSequenceClassification
        model = untyped.from_config(settings, dtype=dtype)
    model.save_pretrained(folder)


def pairs(count: int, *, conversations: bool) -> Pairs:
    """So many prompts, spread over the languages, with four candidates of mixed lengths each."""
    chance = random.Random(0)  # noqa: S311 - it draws texts
    languages = list(questions().values())
    prompts = []
    for number in range(count):
        question, before, *others = chance.sample(languages[number % len(languages)], 5)
        turns = [{"role": "user", "content": question.prompt}]
        if conversations:
            turns = [
                {"role": "user", "content": before.prompt},
                {"role": "assistant", "content": before.answer},
                *turns,
            ]
        texts = [
            question.brief,
            question.answer,
            question.answer + " " + others[0].answer,
            " ".join(other.answer for other in others),
        ]
        chance.shuffle(texts)
        candidates = [Candidate(str(n), Completion(text)) for n, text in enumerate(texts)]
        prompts.append((Prompt.of(turns), candidates))
    return Pairs("conversations" if conversations else "questions", prompts)


class Naive:
    """Batches of sixteen in arrival order, padded."""

    def __init__(self, folder: Path, device: str, dtype: torch.dtype) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._tokenizer.padding_side = "right"
        self._rendering = Rendering(self._tokenizer)
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype)
        self._model = model.to(device).eval()
        self._device = device

    async def score(self, over: Pairs) -> list[float]:
        """The score of every candidate, in order."""
        rows = [
            self._rendering.tokens(prompt, candidate.completion.text)
            for prompt, candidates in over.prompts
            for candidate in candidates
            if candidate.completion
        ]
        rewards: list[float] = []
        with torch.inference_mode():
            for start in range(0, len(rows), _NAIVE_BATCH):
                batch = {"input_ids": rows[start : start + _NAIVE_BATCH]}
                inputs = self._tokenizer.pad(batch, return_tensors="pt").to(self._device)
                rewards += self._model(**inputs).logits[:, 0].float().tolist()
        return rewards


class Ours:
    """The scoring engine, all prompts in flight."""

    def __init__(self, model: RewardModel) -> None:
        self._model = model

    async def score(self, over: Pairs) -> list[float]:
        """The score of every candidate, in order."""
        scores = await asyncio.gather(
            *(self._model.score(prompt, candidates) for prompt, candidates in over.prompts)
        )
        return [score.reward for prompt in scores for score in prompt if score]


async def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Prints a line a side and mix of prompts."""
    dtype = getattr(torch, arguments.dtype)
    make_model(arguments.shape, folder, dtype)
    naive = Naive(folder, arguments.device, dtype)
    model = await open_reward(
        config.TransformersReward(
            model=str(folder),
            device=arguments.device,
            dtype=arguments.dtype,
            max_tokens_per_batch=arguments.max_tokens,
        )
    )
    ours = Ours(model)
    for conversations in (False, True):
        over = pairs(arguments.prompts, conversations=conversations)
        few = Pairs("warm-up", over.prompts[:4])
        sides: dict[str, Naive | Ours] = {"naive": naive, "engine": ours}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        scores: dict[str, list[float]] = {}
        for side in sides.values():
            await side.score(few)
        for _ in range(arguments.rounds):
            for name, side in sides.items():
                started = perf_counter()
                scores[name] = await side.score(over)
                seconds[name].append(perf_counter() - started)
        rates = {name: over.candidates / median(taken) for name, taken in seconds.items()}
        ratio = median(a / b for a, b in zip(seconds["naive"], seconds["engine"], strict=True))
        apart = max(abs(a - b) for a, b in zip(scores["naive"], scores["engine"], strict=True))
        print(
            f"{arguments.shape} {arguments.dtype} {arguments.device} | {over.name} | "
            f"naive {rates['naive']:.2f} candidates/s | engine {rates['engine']:.2f} | "
            f"{ratio:.2f}x | scores at most {apart:.1e} apart"
        )
    await model.close()
    if _VLLM.exists() and arguments.vllm:
        _print_vllm(arguments, folder)


def _print_vllm(arguments: argparse.Namespace, folder: Path) -> None:
    """The pooling runner lives in another environment, so it is another process."""
    script = _ROOT / "benchmarks" / "reward_vllm.py"
    command = [str(_VLLM), str(script), str(folder), str(arguments.prompts)]
    paths = {**os.environ, "PYTHONPATH": str(_ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=paths)
    print(done.stdout.strip() or done.stderr.strip().splitlines()[-1])


def main() -> None:
    """Reads the arguments, and measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", default="gemma3-270m", choices=["gemma3-270m", *_SHAPES])
    parser.add_argument("--prompts", type=int, default=28)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--max-tokens", type=int, default=4096)
    parser.add_argument("--vllm", action="store_true", help="vLLM's pooling runner, too")
    arguments = parser.parse_args()
    print(where())
    with TemporaryDirectory() as folder:
        asyncio.run(measure(arguments, Path(folder)))


if __name__ == "__main__":
    main()
