"""Training reward models from preference pairs.

Both trainings minimise the Bradley-Terry loss -log sigmoid(r(chosen) - r(rejected)): of a linear
head on what a frozen language model computes (`train_head`), or of every weight of a sequence
classifier (`train_whole`). What is held out is held out by prompt.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from arbitrage.errors import ConfigError, RewardError
from reward.checkpoints import source
from reward.devices import devices_named, use_all_cores
from reward.pairs import read_pairs, split
from reward.report import Report, accuracies

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from reward.pairs import Pair

REPORT = "report.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """What to train, on what, and how.

    Attributes:
        pairs: files of pairs, as `reward.pairs.read_pairs` reads them.
        output: a folder that is not there yet, or is empty.
        model: a folder or hub name of the weights to start from; of a head, also the name
            of packaged ones.
        whole: whether all weights learn, and not only a head.
        epochs: passes over the pairs; of a head, steps of L-BFGS at most.
        learning_rate: its peak; a head has none.
        warmup: share of the steps in which the learning rate rises; then it falls as a
            cosine does.
        pairs_per_step: pairs whose gradients make up one step.
        max_tokens_per_batch: tokens computed at once; a step takes as many batches as it needs.
        max_tokens: of a prompt and an answer together; a pair with a longer answer is left out.
        weigh_by_margin: whether a pair counts by its margin.
        holdout: share of the prompts that nothing is learned from.
        device: as a configuration names it; of several, the first is taken.
        seed: of all that is drawn.
    """

    pairs: tuple[Path, ...]
    output: Path
    model: str
    whole: bool = False
    epochs: int | None = None
    learning_rate: float = 1e-5
    warmup: float = 0.1
    pairs_per_step: int = 32
    max_tokens_per_batch: int = 4096
    max_tokens: int = 1024
    weigh_by_margin: bool = False
    holdout: float = 0.2
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Trained:
    """What a kind of training hands back, its model already saved.

    Attributes:
        margins: of each held-out pair that could be read, the chosen answer's reward minus
            the other's.
        held_out: those pairs.
    """

    train_pairs: int
    left_out: int
    losses: Sequence[float]
    held_out: Sequence[Pair]
    margins: Sequence[float]
    penalty: float | None = None


def train(settings: TrainSettings, tell: Callable[[str], None]) -> Report:
    """Trains a reward model and saves it with its report; takes minutes to hours.

    Args:
        tell: is told, a line at a time, how the training goes.

    Raises:
        ConfigError: the pairs, the model or the device cannot be used, or the output is taken.
        RewardError: the device is out of memory, or a chat template refuses a prompt.
    """
    started = time.perf_counter()
    _check(settings)
    # a whole path, since what is trained may be opened from elsewhere
    settings = dataclasses.replace(settings, model=source(settings.model, "--model"))
    pairs = read_pairs(settings.pairs)
    learn, held = split(pairs, settings.holdout)
    if not learn or (settings.holdout and not held):
        raise ConfigError(
            f"--holdout {settings.holdout:g} leaves {len(learn)} pairs to learn from and "
            f"{len(held)} to test on; give the pairs of more prompts, or another share"
        )
    tell(f"{len(learn)} pairs to learn from, {len(held)} held out")
    device = devices_named(settings.device)[0]
    use_all_cores()
    torch.manual_seed(settings.seed)
    try:
        trained = _kind(settings)(settings, learn, held, device, tell)
    except torch.OutOfMemoryError as error:
        raise RewardError(
            f"{device} is out of memory; lower --max-tokens-per-batch, or --max-tokens"
        ) from error
    report = Report(
        settings={k: str(v) for k, v in dataclasses.asdict(settings).items()},
        train_pairs=trained.train_pairs,
        left_out=trained.left_out,
        losses=trained.losses,
        held_out=accuracies(trained.held_out, trained.margins),
        seconds=round(time.perf_counter() - started, 1),
        penalty=trained.penalty,
    )
    (settings.output / REPORT).write_text(report.json(), encoding="utf-8")
    return report


def _kind(
    settings: TrainSettings,
) -> Callable[
    [TrainSettings, Sequence[Pair], Sequence[Pair], torch.device, Callable[[str], None]], Trained
]:
    # each brings what the other does without
    if settings.whole:
        from reward.train_whole import train_whole  # noqa: PLC0415

        return train_whole
    from reward.train_head import train_head  # noqa: PLC0415

    return train_head


def _check(settings: TrainSettings) -> None:
    if not 0 <= settings.holdout < 1:
        raise ConfigError(f"--holdout: {settings.holdout:g} is no share; give 0 to under 1")
    if settings.epochs is not None and settings.epochs < 1:
        raise ConfigError(f"--epochs: {settings.epochs}; give at least 1")
    if not settings.learning_rate > 0:
        raise ConfigError(f"--lr: {settings.learning_rate:g}; give a number above 0")
    output = settings.output
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise ConfigError(f"{output}: is there already; name a folder that is not")
