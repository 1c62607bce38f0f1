"""Training a head: the backbone is frozen, and reads every answer once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from arbitrage.errors import ConfigError
from reward import packaged, packed
from reward.bradley_terry import EPOCHS, FOLDS, Comparisons, best_penalty, fit
from reward.devices import dtype_named
from reward.head import HEAD, Head, evened, features
from reward.reader import Reader
from reward.train import Trained, TrainSettings
from reward.wording import Wording

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from reward.pairs import Pair
    from reward.reader import Answers

_TELL_EVERY = 500
# a mean state tells an answer's topic, which says nothing of a new prompt's: it counts for less.
# Both were chosen on five of the questions that benchmarks/reward_pairs.py holds out.
_MEAN_EMPHASIS, _STATISTICS_EMPHASIS = 0.5, 3.0

Text = tuple[str, str]
"""A prompt and an answer."""


@dataclass(frozen=True, slots=True)
class Learned:
    """A head, and how it came about.

    Attributes:
        penalty: the weight of its L2 penalty, chosen by cross-validation over prompts.
        losses: the minimised sum before each epoch.
    """

    head: Head
    penalty: float
    losses: Sequence[float]


def train_head(
    settings: TrainSettings,
    learn: Sequence[Pair],
    held: Sequence[Pair],
    device: torch.device,
    tell: Callable[[str], None],
) -> Trained:
    """Trains a head and saves it as `head.safetensors`.

    Raises:
        ConfigError: the model cannot be loaded, or its passes cannot be packed.
    """
    tokenizer, model = load(settings.model, device)
    wording = Wording(tokenizer, settings.max_tokens_per_batch, settings.max_tokens)
    texts = [text for pair in (*learn, *held) for text in texts_of(pair)]
    rows = read(texts, wording, Reader(model, device), settings.max_tokens_per_batch, tell)
    learned = learn_head(settings, learn, rows, model.config.get_text_config().hidden_size)
    first, last = learned.losses[0], learned.losses[-1]
    tell(f"L2 penalty {learned.penalty:g}, by cross-validation; loss {first:.4f} to {last:.4f}")
    settings.output.mkdir(parents=True, exist_ok=True)
    learned.head.save(settings.output / HEAD)
    margins = margins_of(held, rows, learned.head)
    return Trained(len(learn), 0, learned.losses, held, margins, learned.penalty)


def learn_head(
    settings: TrainSettings, pairs: Sequence[Pair], rows: Mapping[Text, torch.Tensor], width: int
) -> Learned:
    """The head that ranks the pairs, learned from the features of their answers.

    Args:
        rows: as `read` gives them.
        width: of the backbone's states.
    """
    answers = torch.stack([rows[t] for t in sorted({t for p in pairs for t in texts_of(p)})])
    mean, scale = answers.mean(0), answers.std(0, correction=0).clamp(min=1e-6)
    emphasis = _emphasis(width, len(mean))
    chosen, rejected = (
        evened(torch.stack([rows[texts_of(pair)[side]] for pair in pairs]), mean, scale)
        for side in (0, 1)
    )
    counts = torch.tensor([p.margin if settings.weigh_by_margin else 1.0 for p in pairs])
    folds = torch.tensor([_fold(pair.group, settings.seed) for pair in pairs])
    comparisons = Comparisons((chosen - rejected) * emphasis, counts / counts.mean(), folds)
    penalty = best_penalty(comparisons)
    losses, weight = fit(comparisons, penalty, settings.epochs or EPOCHS)
    return Learned(Head(settings.model, mean, scale, weight * emphasis), penalty, losses)


def margins_of(pairs: Sequence[Pair], rows: Mapping[Text, torch.Tensor], head: Head) -> list[float]:
    """Of each pair, the chosen answer's reward minus the other's."""
    if not pairs:
        return []
    chosen, rejected = (
        head.scores(torch.stack([rows[texts_of(pair)[side]] for pair in pairs])) for side in (0, 1)
    )
    margins: list[float] = (chosen - rejected).tolist()
    return margins


def _emphasis(width: int, count: int) -> torch.Tensor:
    """What each feature counts before it has a weight, `(count,)`."""
    emphasis = torch.ones(count)
    emphasis[:width] = _MEAN_EMPHASIS
    emphasis[3 * width :] = _STATISTICS_EMPHASIS
    return emphasis


def _fold(group: str, seed: int) -> int:
    digest = hashlib.sha256(f"{seed} {group}".encode("utf-8", "surrogatepass")).digest()
    return digest[0] % FOLDS


def texts_of(pair: Pair) -> tuple[Text, Text]:
    """The prompt with the chosen answer, and with the other."""
    return (pair.prompt, pair.chosen), (pair.prompt, pair.rejected)


def read(
    texts: Sequence[Text],
    wording: Wording,
    reader: Reader,
    max_tokens: int,
    tell: Callable[[str], None],
) -> dict[Text, torch.Tensor]:
    """The features of every answer, each read once.

    Args:
        max_tokens: computed in one pass.
    """
    answers: dict[str, list[str]] = {}
    for prompt, answer in dict.fromkeys(texts):
        answers.setdefault(prompt, []).append(answer)
    left = iter([(prompt, answer) for prompt, several in answers.items() for answer in several])
    count = sum(map(len, answers.values()))
    parts = (part for item in answers.items() for part in wording.parts(*item))
    rows: dict[Text, torch.Tensor] = {}
    for batch in _batches(parts, max_tokens):
        before = len(rows) // _TELL_EVERY
        for readings in reader.compute(batch):
            rows.update((next(left), features(reading).cpu()) for reading in readings)
        if len(rows) // _TELL_EVERY > before:
            tell(f"read {len(rows)} of {count} answers")
    return rows


def _batches(parts: Iterator[Answers], max_tokens: int) -> Iterator[list[Answers]]:
    batch: list[Answers] = []
    for part in parts:
        if batch and sum(p.tokens for p in batch) + part.tokens > max_tokens:
            yield batch
            batch = []
        batch.append(part)
    if batch:
        yield batch


def load(name: str, device: torch.device) -> tuple[Any, Any]:
    """The tokenizer and the language model, on its device.

    Raises:
        ConfigError: it cannot be loaded, or its passes cannot be packed.
    """
    tokenizer, model = packaged.load(name, dtype_named("auto", device))
    model = model.to(device).eval()
    if not packed.packs(model.model, device):
        raise ConfigError(f"--model: the attention of {name!r} does not pack; train it --whole")
    return tokenizer, model
