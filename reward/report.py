"""How well a trained reward agrees with held-out pairs."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from reward.pairs import Pair

ALL = "all"
_Z = 1.959964


@dataclass(frozen=True, slots=True)
class Accuracy:
    """In how many pairs of a language the chosen answer has the higher reward.

    Attributes:
        language: its tag; `all` for the pairs of all languages together.
        prompts: how many prompts the pairs belong to.
        accuracy: share of the pairs, a tie counted as half.
        low, high: 95 % interval of `accuracy`.
    """

    language: str
    pairs: int
    prompts: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Report:
    """What a training came to.

    Attributes:
        settings: what it was run with.
        train_pairs, left_out: pairs learned from, and those that were too long to read.
        losses: mean Bradley-Terry loss of each epoch, in nats a pair; of a head, with its
            penalty, before each epoch.
        held_out: accuracy on the held-out pairs, by language; all together last. Empty if
            nothing was held out.
        penalty: of a head, the weight of its L2 penalty, chosen by cross-validation.
    """

    settings: Mapping[str, object]
    train_pairs: int
    left_out: int
    losses: Sequence[float]
    held_out: Sequence[Accuracy]
    seconds: float
    penalty: float | None = None

    def lines(self) -> Iterator[str]:
        """The accuracies as a table to print."""
        yield f"{'language':<9} {'pairs':>6} {'prompts':>8} {'accuracy':>9}   95 % interval"
        for row in self.held_out:
            share = f"{row.accuracy:>9.1%}   {row.low:.1%} to {row.high:.1%}"
            yield f"{row.language:<9} {row.pairs:>6} {row.prompts:>8} {share}"

    def json(self) -> str:
        """The report as a JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"


def accuracies(pairs: Sequence[Pair], margins: Sequence[float]) -> list[Accuracy]:
    """The accuracy in each language, and in all.

    Args:
        margins: of each pair, the chosen answer's reward minus the other's.
    """
    hits: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for pair, margin in zip(pairs, margins, strict=True):
        for language in (pair.language, ALL):
            hits[language][pair.group].append(float(margin > 0) + float(margin == 0) / 2)
    order = sorted(hits.keys() - {ALL}) + ([ALL] if hits else [])
    return [_accuracy(language, list(hits[language].values())) for language in order]


def _accuracy(language: str, prompts: Sequence[Sequence[float]]) -> Accuracy:
    pairs = sum(map(len, prompts))
    share = sum(map(sum, prompts)) / pairs
    low, high = _wilson(share, _independent(prompts, share))
    return Accuracy(language, pairs, len(prompts), share, low, high)


def _independent(prompts: Sequence[Sequence[float]], share: float) -> float:
    """How many independent pairs say as much: pairs of one prompt tend to agree.

    The variance of one pair, over that of the mean when whole prompts are drawn (Kish 1965).
    """
    pairs = sum(map(len, prompts))
    spread = sum((sum(hits) - len(hits) * share) ** 2 for hits in prompts)
    if not spread:  # all alike: each prompt has said what it can say
        return float(len(prompts))
    return min(float(pairs), max(1.0, share * (1 - share) * pairs**2 / spread))


def _wilson(share: float, count: float) -> tuple[float, float]:
    """The score interval of Wilson (1927), which stays within 0 and 1 and is never a point."""
    middle = share + _Z**2 / (2 * count)
    reach = _Z * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    scale = 1 + _Z**2 / count
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)
