"""Reward models that are sequence classifiers: Skywork-Reward-V2 and its kind.

Any `AutoModelForSequenceClassification` with one label whose tokenizer has a
chat template. The conversation and the answer are rendered by that template,
without a system prompt, as the Skywork-Reward-V2 cards (arXiv 2507.01352) ask;
the raw output `logits[0][0]` is the reward.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from arbitrage.errors import ConfigError, RewardError
from arbitrage.types import Candidate, Prompt, Score
from reward.inference import (
    InferenceThread,
    batches,
    device_named,
    dtype_named,
    first_line,
    padded,
    use_all_cores,
    well_formed,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from arbitrage import config

_MAX_TOKENS = 16_384


async def open_reward(
    settings: config.TransformersReward, _run: object = None
) -> TransformersReward:
    """Loads a reward model from a folder, or from the hub by its name.

    Raises:
        ConfigError: there is no such model, or it is no reward model.
    """
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
        text_config = model.config.get_text_config()
        self._pad: int | None = text_config.pad_token_id
        # a classifier finds an answer's end by the padding behind it: without a padding token,
        # no two answers share a batch
        self._max_tokens = max_tokens_per_batch if self._pad is not None else 1
        self._limit = min(
            _MAX_TOKENS,
            tokenizer.model_max_length,
            getattr(text_config, "max_position_embeddings", _MAX_TOKENS),
        )
        self._thread = InferenceThread(device)

    @property
    def queue_depth(self) -> int:
        """Candidates that wait to be scored, or are being scored now."""
        return 0

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        """Scores the candidates of one prompt, one score each, in order."""
        answers = [c.completion.text if c.completion else "" for c in candidates]
        rewards = await self._thread.run(lambda: self._rewards(prompt, answers))
        return [Score(reward=reward, raw={"transformers": reward}) for reward in rewards]

    async def close(self) -> None:
        """Frees the model; a call that comes later fails."""
        await self._thread.close()
        self._model = None

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
        """The rendered pair; one that is too long loses its beginning, never its answer's end."""
        turns = [(m.role, m.content) for m in prompt.messages if m.role != "system"]
        conversation = [
            {"role": role, "content": well_formed(text)}
            for role, text in (*turns, ("assistant", answer))
        ]
        try:
            text: str = self._tokenizer.apply_chat_template(conversation, tokenize=False)
        except TemplateError as error:
            reason = f"its chat template refuses the conversation: {first_line(error)}"
            raise RewardError(f"prompt {prompt.prompt_id!r} cannot be scored: {reason}") from error
        bos = self._tokenizer.bos_token
        # a template that writes the first token itself is not given a second one
        own_start = bool(bos) and text.startswith(bos)
        tokens: list[int] = self._tokenizer(text, add_special_tokens=not own_start).input_ids
        over = len(tokens) - self._limit
        return tokens[:1] + tokens[1 + over :] if over > 0 else tokens


def _load(name: str, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    use_all_cores()
    if name.startswith((".", "/", "~")):
        name = str(Path(name).expanduser())
        if not Path(name).is_dir():
            raise ConfigError(f"reward.model: {name!r}: no such folder")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model, found = AutoModelForSequenceClassification.from_pretrained(
            name, dtype=dtype, output_loading_info=True
        )
    except (OSError, ValueError, SafetensorError) as error:
        message = f"reward.model: {name!r} cannot be loaded: {first_line(error)}"
        raise ConfigError(message) from error
    if model.config.num_labels != 1:
        labels = model.config.num_labels
        raise ConfigError(f"reward.model: {name!r} has {labels} labels; a reward model has one")
    if found["missing_keys"]:
        missing = min(found["missing_keys"])
        raise ConfigError(f"reward.model: {name!r} has no weights for {missing!r}")
    if not tokenizer.chat_template:
        raise ConfigError(f"reward.model: {name!r} has no chat template in its tokenizer")
    return tokenizer, model.to(device).eval()
