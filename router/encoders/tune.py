"""Fine-tuning an encoder so that prompts which want the same teachers lie close together.

The loss is Zooter's (Lu et al., arXiv 2311.08692): a linear head on the embedding predicts a
distribution over the arms, and is drawn to the softmax of the prompt's rewards, which are
smoothed toward their mean over prompts of the same language and domain. What is saved is the
encoder; the head goes, since a policy learns its own from what the features are worth now.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import normalize
from transformers import get_cosine_schedule_with_warmup

from arbitrage.errors import ArbitrageError, ConfigError
from router.encoders.transformers import load, quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from router.arrays import FloatArray
    from router.encoders.lines import Lines
    from router.encoders.transformers import Model

REPORT = "report.json"
_HEAD_LEARNING_RATE = 1e-2  # the head begins at zero, where an encoder only moves a little
_WEIGHT_DECAY = 0.01
_MAX_GRADIENT = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneSettings:
    """What to tune, and how.

    Attributes:
        model: a folder or hub name of the encoder to start from.
        temperature: of the softmax of the rewards, in standard deviations of a reward from
            its prompt's mean.
        smoothing: weight of the prompt's own rewards; the rest is the mean of its tags.
        epochs: passes over the prompts.
        learning_rate: its peak, for the encoder.
        warmup: share of the steps in which the learning rate rises; then it falls as a
            cosine does.
        prompts_per_step: prompts whose gradients make up one step.
        prompts_at_once: prompts that are computed together.
        holdout: share of the prompts that nothing is learned from.
        device: cpu, cuda, cuda:1, ..., or auto.
        seed: of all that is drawn.
    """

    model: str
    temperature: float = 0.5
    smoothing: float = 0.3
    epochs: int = 3
    learning_rate: float = 2e-5
    warmup: float = 0.1
    prompts_per_step: int = 32
    prompts_at_once: int = 8
    holdout: float = 0.2
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """What a tuning came to.

    Attributes:
        settings: what it was run with.
        learned, held_out: prompts learned from, and prompts kept to test on.
        losses: of each epoch, the mean divergence (KL) of the head's distribution from the
            labels', in nats a prompt.
        accuracy: share of the held-out prompts whose favourite is the best of the arms that
            were scored; None where none was held out.
        accuracy_of_tags: the same, of the arm that is best on average under the prompt's tags.
        chance: the same, of an arm taken at random.
    """

    settings: dict[str, str]
    learned: int
    held_out: int
    losses: Sequence[float]
    accuracy: float | None
    accuracy_of_tags: float | None
    chance: float | None
    seconds: float


def tune(settings: TuneSettings, lines: Lines, output: Path, tell: Callable[[str], None]) -> Report:
    """Tunes an encoder and saves it with its report; takes minutes to hours.

    Args:
        output: a folder that is not there yet, or is empty; `kind = "transformers"` opens it.
        tell: is told, a line at a time, how it goes.

    Raises:
        ConfigError: the settings, the lines or the model cannot be used, or the output is taken.
        ArbitrageError: the device is out of memory.
    """
    started = time.perf_counter()
    _check(settings, output)
    learn, held = lines.parted(settings.holdout)
    tell(f"{len(learn.texts)} prompts to learn from, {len(held.texts)} held out")
    torch.manual_seed(settings.seed)
    model = load(settings.model, settings.device, trains=True, where="")
    training = _Training(model, settings, learn)
    losses = []
    try:
        for epoch in range(settings.epochs):
            losses.append(training.epoch())
            tell(f"epoch {epoch + 1} of {settings.epochs}: loss {losses[-1]:.4f}")
        favourites = training.favourites(held.texts)
    except torch.OutOfMemoryError as error:
        raise ArbitrageError(f"{model.device} is out of memory; lower prompts_at_once") from error
    with quiet():
        model.network.save_pretrained(output)
        model.tokenizer.save_pretrained(output)
    report = Report(
        settings={name: str(value) for name, value in dataclasses.asdict(settings).items()},
        learned=len(learn.texts),
        held_out=len(held.texts),
        losses=losses,
        accuracy=held.accuracy(favourites),
        accuracy_of_tags=held.accuracy(learn.expected(held.tags)),
        chance=held.chance(),
        seconds=round(time.perf_counter() - started, 1),
    )
    told = json.dumps(dataclasses.asdict(report), indent=2, ensure_ascii=False)
    (output / REPORT).write_text(told + "\n", encoding="utf-8")
    return report


class _Training:
    """An encoder and its head, with their optimiser and schedule."""

    def __init__(self, model: Model, settings: TuneSettings, learn: Lines) -> None:
        wanted = learn.labels(temperature=settings.temperature, smoothing=settings.smoothing)
        self._model = model
        self._settings = settings
        self._rows = model.tokens(learn.texts)
        self._labels = torch.tensor(wanted, dtype=torch.float32, device=model.device)
        self._known = torch.tensor(np.isfinite(learn.rewards), device=model.device)
        self._chance = torch.Generator().manual_seed(settings.seed)
        width = model.pooled(self._rows[:1]).shape[1]
        self._scale = float(width) ** 0.5
        self._head = torch.nn.Linear(width, wanted.shape[1], device=model.device)
        torch.nn.init.zeros_(self._head.weight)
        torch.nn.init.zeros_(self._head.bias)
        self._parameters = [*model.network.parameters(), *self._head.parameters()]
        self._optimiser = torch.optim.AdamW(
            [
                {"params": list(model.network.parameters()), "lr": settings.learning_rate},
                {"params": list(self._head.parameters()), "lr": _HEAD_LEARNING_RATE},
            ],
            weight_decay=_WEIGHT_DECAY,
        )
        steps = settings.epochs * -(-len(self._rows) // settings.prompts_per_step)
        self._schedule = get_cosine_schedule_with_warmup(
            self._optimiser, int(settings.warmup * steps), steps
        )

    def epoch(self) -> float:
        """Learns once from every prompt, in an order of its own; returns the mean loss."""
        self._model.network.train()
        order = torch.randperm(len(self._rows), generator=self._chance).tolist()
        size = self._settings.prompts_per_step
        steps = (order[start : start + size] for start in range(0, len(order), size))
        return sum(map(self._step, steps)) / len(order)

    @torch.no_grad()
    def favourites(self, texts: Sequence[str]) -> FloatArray:
        """The head's logits, `(texts, arms)`."""
        self._model.network.eval()
        rows = self._model.tokens(texts) if texts else []
        size = self._settings.prompts_at_once
        parts = [self._logits(rows[start : start + size]) for start in range(0, len(rows), size)]
        arms = self._labels.shape[1]
        joined = torch.cat(parts).double().cpu().numpy() if parts else np.zeros((0, arms))
        return np.asarray(joined)

    def _step(self, prompts: Sequence[int]) -> float:
        """One step of the optimiser on the mean of the prompts' losses; returns their sum."""
        total = 0.0
        size = self._settings.prompts_at_once
        # of one length, as near as may be, so that little is padding
        prompts = sorted(prompts, key=lambda i: len(self._rows[i]))
        for start in range(0, len(prompts), size):
            batch = prompts[start : start + size]
            loss = self._divergence(batch)
            (loss / len(prompts)).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self._parameters, _MAX_GRADIENT)
        self._optimiser.step()
        self._schedule.step()
        self._optimiser.zero_grad(set_to_none=True)
        return total

    def _divergence(self, batch: Sequence[int]) -> torch.Tensor:
        known, wanted = self._known[batch], self._labels[batch]
        logits = self._logits([self._rows[i] for i in batch]).masked_fill(~known, -torch.inf)
        # an arm without a label adds 0, and not 0 times infinity
        predicted = logits.log_softmax(dim=1).masked_fill(~known, 0.0)
        return (torch.xlogy(wanted, wanted) - wanted * predicted).sum()

    def _logits(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        with self._precision():
            pooled = self._model.pooled(rows)
        # at unit length, as a policy sees it; the scale keeps the head's weights ordinary
        logits: torch.Tensor = self._head(self._scale * normalize(pooled, dim=1))
        return logits

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self._model.device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return contextlib.nullcontext()


def _check(settings: TuneSettings, output: Path) -> None:
    if not 0 <= settings.holdout < 1:
        raise ConfigError(f"holdout: {settings.holdout:g} is no share; give 0 to under 1")
    if not 0 <= settings.smoothing <= 1:
        raise ConfigError(f"smoothing: {settings.smoothing:g} is no share; give 0 to 1")
    for name in ("epochs", "prompts_per_step", "prompts_at_once"):
        if getattr(settings, name) < 1:
            raise ConfigError(f"{name}: {getattr(settings, name)}; give at least 1")
    for name in ("temperature", "learning_rate"):
        if not getattr(settings, name) > 0:
            raise ConfigError(f"{name}: {getattr(settings, name):g}; give a number above 0")
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise ConfigError(f"{output}: is there already; name a folder that is not")
