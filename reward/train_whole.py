"""Training every weight of a sequence classifier: the usual reward model (arXiv 2203.02155)."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch.nn.functional import logsigmoid
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    get_cosine_schedule_with_warmup,
)

from arbitrage.errors import ConfigError
from arbitrage.types import Prompt
from reward.classifier import batches, padded
from reward.devices import first_line
from reward.rendering import Rendering
from reward.train import Trained, TrainSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from reward.pairs import Pair

_EPOCHS = 2
_WEIGHT_DECAY = 0.01
_MAX_GRADIENT = 1.0
# for a backbone that has no template: no control tokens, which such a model may not know
PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}"
    "{{ message['role'] | capitalize }}: {{ message['content'] }}\n{% endfor %}"
)


@dataclass(frozen=True, slots=True)
class Tokens:
    """A pair as the classifier reads it.

    Attributes:
        pair: what it was.
        chosen, rejected: token ids of the prompt with each answer.
        weight: what the pair counts.
    """

    pair: Pair
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    weight: float = 1.0


def train_whole(
    settings: TrainSettings,
    learn: Sequence[Pair],
    held: Sequence[Pair],
    device: torch.device,
    tell: Callable[[str], None],
) -> Trained:
    """Trains a classifier with one label on any backbone, and saves it as a folder.

    Raises:
        ConfigError: the model cannot be loaded, or all pairs are too long.
    """
    tokenizer, model = _load(settings.model)
    model.to(device)
    readable = [_tokens(pairs, tokenizer, model, settings) for pairs in (learn, held)]
    left_out = len(learn) + len(held) - sum(map(len, readable))
    if not readable[0]:
        raise ConfigError(f"--max-tokens {settings.max_tokens}: every pair has a longer answer")
    if left_out:
        tell(f"{left_out} pairs are left out: an answer is over {settings.max_tokens} tokens")
    training = _Training(model, device, settings, len(readable[0]))
    losses = []
    for epoch in range(training.epochs):
        losses.append(training.epoch(readable[0]))
        tell(f"epoch {epoch + 1} of {training.epochs}: loss {losses[-1]:.4f}")
    margins = training.margins(readable[1])
    model.to(model.config.dtype).save_pretrained(settings.output)
    tokenizer.save_pretrained(settings.output)
    tested = [row.pair for row in readable[1]]
    return Trained(len(readable[0]), left_out, losses, tested, margins)


class _Training:
    """A model with its optimiser and its schedule."""

    def __init__(
        self, model: Any, device: torch.device, settings: TrainSettings, pairs: int
    ) -> None:
        self.epochs = settings.epochs or _EPOCHS
        self._model = model
        self._device = device
        self._settings = settings
        self._chance = torch.Generator().manual_seed(settings.seed)
        steps = self.epochs * -(-pairs // settings.pairs_per_step)
        self._optimiser = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, weight_decay=_WEIGHT_DECAY
        )
        self._schedule = get_cosine_schedule_with_warmup(
            self._optimiser, int(settings.warmup * steps), steps
        )

    def epoch(self, rows: Sequence[Tokens]) -> float:
        """Learns once from every pair, in an order of its own; returns the mean loss."""
        self._model.train()
        order = torch.randperm(len(rows), generator=self._chance).tolist()
        size = self._settings.pairs_per_step
        total = sum(
            self._step([rows[i] for i in order[start : start + size]])
            for start in range(0, len(order), size)
        )
        return total / sum(row.weight for row in rows)

    @torch.no_grad()
    def margins(self, rows: Sequence[Tokens]) -> list[float]:
        """Of each pair, the chosen answer's reward minus the other's."""
        self._model.eval()
        margins = [0.0] * len(rows)
        for indices in self._batches(rows):
            differences = self._differences([rows[i] for i in indices]).tolist()
            for i, difference in zip(indices, differences, strict=True):
                margins[i] = difference
        return margins

    def _step(self, rows: Sequence[Tokens]) -> float:
        """One step of the optimiser on the mean of the pairs' losses; returns their sum."""
        weights = sum(row.weight for row in rows)
        total = 0.0
        for indices in self._batches(rows):
            batch = [rows[i] for i in indices]
            counts = torch.tensor([row.weight for row in batch], device=self._device)
            loss = -(counts * logsigmoid(self._differences(batch))).sum()
            (loss / weights).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), _MAX_GRADIENT)
        self._optimiser.step()
        self._schedule.step()
        self._optimiser.zero_grad(set_to_none=True)
        return total

    def _batches(self, rows: Sequence[Tokens]) -> Iterator[list[int]]:
        lengths = [2 * max(len(row.chosen), len(row.rejected)) for row in rows]
        return batches(lengths, self._settings.max_tokens_per_batch)

    def _differences(self, rows: Sequence[Tokens]) -> torch.Tensor:
        pad = self._model.config.get_text_config().pad_token_id
        texts = [*(row.chosen for row in rows), *(row.rejected for row in rows)]
        with self._precision():
            logits = self._model(**padded(texts, self._device, pad)).logits
        rewards: torch.Tensor = logits[:, 0].float()
        return rewards[: len(rows)] - rewards[len(rows) :]

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        if self._device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return contextlib.nullcontext()


def _tokens(
    pairs: Sequence[Pair], tokenizer: Any, model: Any, settings: TrainSettings
) -> list[Tokens]:
    """The pairs whose answers both fit."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    rendering = Rendering(tokenizer, min(settings.max_tokens, positions or settings.max_tokens))
    rows = []
    for pair in pairs:
        prompt = Prompt.of(pair.prompt, language=pair.language)
        chosen, rejected = (rendering.render(prompt, a) for a in (pair.chosen, pair.rejected))
        if chosen and rejected:
            weight = pair.margin if settings.weigh_by_margin else 1.0
            rows.append(Tokens(pair, chosen.tokens, rejected.tokens, weight))
    return rows


def _load(name: str) -> tuple[Any, Any]:
    """The tokenizer, with a template and a padding token, and the classifier, in float32."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForSequenceClassification.from_pretrained(name, num_labels=1)
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"--model: {name!r} cannot be loaded: {first_line(error)}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise ConfigError(f"--model: the tokenizer of {name!r} has no token to pad with")
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    tokenizer.chat_template = tokenizer.chat_template or PLAIN_TEMPLATE
    return tokenizer, model.float()
