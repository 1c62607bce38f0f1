"""Reward models that are sequence classifiers: Skywork-Reward-V2 and its kind.

Any `AutoModelForSequenceClassification` with one label whose tokenizer has a
chat template. The conversation and the answer are rendered by that template,
without a system prompt, as the Skywork-Reward-V2 cards (arXiv 2507.01352) ask;
the raw output `logits[0][0]` is the reward.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from transformers import AutoModelForSequenceClassification, AutoTokenizer

from arbitrage.errors import ConfigError
from arbitrage.types import Candidate, Prompt, Score
from reward.inference import (
    InferenceThread,
    batches,
    device_named,
    dtype_named,
    padded,
    use_all_cores,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from arbitrage import config

_MAX_TOKENS = 16_384


async def open_reward(settings: config.Reward, _teachers: object = ()) -> TransformersReward:
    """Loads a reward model from a folder, or from the hub's cache by its name.

    Raises:
        ConfigError: there is no such model, or it is no reward model.
    """
    if not settings.model:
        raise ConfigError("reward.model: is required for kind 'transformers'")
    device = device_named(settings.device)
    dtype = dtype_named(settings.dtype, device)
    tokenizer, model = await asyncio.to_thread(_load, settings.model, device, dtype)
    return TransformersReward(tokenizer, model, device, settings.max_tokens_per_batch)


class TransformersReward:
    """Scores answers with a sequence classifier; a larger logit is a better answer."""

    def __init__(
        self, tokenizer: Any, model: Any, device: torch.device, max_tokens_per_batch: int
    ) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self._pad: int | None = model.config.pad_token_id
        # a classifier finds an answer's end by the padding behind it: without a padding token,
        # no two answers share a batch
        self._max_tokens = max_tokens_per_batch if self._pad is not None else 1
        self._limit = min(
            _MAX_TOKENS, getattr(model.config, "max_position_embeddings", _MAX_TOKENS)
        )
        self._thread = InferenceThread(device)

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        """Scores the candidates of one prompt, one score each, in order."""
        answers = [c.completion.text if c.completion else "" for c in candidates]
        rewards = await self._thread.run(lambda: self._rewards(prompt, answers))
        return [Score(reward=reward, raw={"transformers": reward}) for reward in rewards]

    async def close(self) -> None:
        """Frees the model."""
        await self._thread.close()

    def _rewards(self, prompt: Prompt, answers: Sequence[str]) -> list[float]:
        rows = [self._tokens(prompt, answer) for answer in answers]
        rewards = [0.0] * len(rows)
        for batch in batches([len(row) for row in rows], self._max_tokens):
            inputs = padded([rows[i] for i in batch], self._thread.device, self._pad or 0)
            logits = self._model(**inputs).logits
            for i, logit in zip(batch, logits[:, 0].float().tolist(), strict=True):
                rewards[i] = logit
        return rewards

    def _tokens(self, prompt: Prompt, answer: str) -> list[int]:
        """The rendered pair; a too long one loses its beginning, never its answer."""
        turns = [
            {"role": m.role, "content": m.content} for m in prompt.messages if m.role != "system"
        ]
        turns.append({"role": "assistant", "content": answer})
        text: str = self._tokenizer.apply_chat_template(turns, tokenize=False)
        bos = self._tokenizer.bos_token
        if bos and text.startswith(bos):
            text = text[len(bos) :]  # the tokenizer puts its own in front
        tokens: list[int] = self._tokenizer(text).input_ids
        return tokens[-self._limit :]


def _load(name: str, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    use_all_cores()
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForSequenceClassification.from_pretrained(name, dtype=dtype)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"reward.model: {name!r} cannot be loaded: {reason}") from error
    if model.config.num_labels != 1:
        labels = model.config.num_labels
        raise ConfigError(f"reward.model: {name!r} has {labels} labels; a reward model has one")
    if not tokenizer.chat_template:
        raise ConfigError(f"reward.model: {name!r} has no chat template in its tokenizer")
    return tokenizer, model.to(device).eval()
