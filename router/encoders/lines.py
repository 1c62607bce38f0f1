"""Prompts with the rewards of their answers: what an encoder is tuned on."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from arbitrage.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from router.arrays import FloatArray

    Tag = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class Lines:
    """Prompts whose answers were scored.

    Attributes:
        texts: of the prompts.
        tags: language and domain of each.
        rewards: `(prompts, arms)`; NaN where an arm was not asked, or not scored.
    """

    texts: Sequence[str]
    tags: Sequence[Tag]
    rewards: FloatArray

    def parted(self, holdout: float) -> tuple[Lines, Lines]:
        """Those to learn from and those to test on; a text is in one of them only.

        A prompt with fewer than two rewards is left out: it does not say who is better.

        Raises:
            ConfigError: there are none in one of the parts.
        """
        if not len(self.texts) == len(self.tags) == len(self.rewards):
            raise ConfigError("texts, tags and rewards must have one length")
        usable = np.flatnonzero(np.isfinite(self.rewards).sum(axis=1) > 1).tolist()
        held = [i for i in usable if _place(self.texts[i]) < holdout]
        learn, test = self._of(sorted(set(usable) - set(held))), self._of(held)
        if not learn.texts or (holdout and not test.texts):
            raise ConfigError(
                f"holdout {holdout:g} leaves {len(learn.texts)} prompts with two rewards to learn "
                f"from, and {len(test.texts)} to test on; give more of them, or another share"
            )
        return learn, test

    def labels(self, *, temperature: float, smoothing: float) -> FloatArray:
        """The softmax of the smoothed rewards, `(prompts, arms)`; 0 for an arm without one.

        Args:
            temperature: in standard deviations of a reward from its prompt's mean.
            smoothing: weight of a prompt's own rewards; the rest is the mean of its tag.
        """
        known = np.isfinite(self.rewards)
        own = np.where(known, self.rewards, 0.0)
        middle = own.sum(axis=1, keepdims=True) / np.maximum(known.sum(axis=1, keepdims=True), 1)
        spread = float(np.sqrt(np.mean((own - middle)[known] ** 2))) or 1.0
        typical = np.where(known, self.expected(self.tags), 0.0)
        smoothed = smoothing * own + (1.0 - smoothing) * typical
        logits = np.where(known, smoothed, -np.inf) / (temperature * spread)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    def expected(self, tags: Sequence[Tag]) -> FloatArray:
        """The mean reward of each arm under these tags, or where it is unknown there, under all.

        Returns:
            `(tags, arms)`; negative infinity for an arm that nobody has scored.
        """
        rows: Mapping[Tag, list[int]] = defaultdict(list)
        for row, tag in enumerate(self.tags):
            rows[tag].append(row)
        everywhere = _means(self.rewards, otherwise=np.full(self.rewards.shape[1], -np.inf))
        means = {tag: _means(self.rewards[own], everywhere) for tag, own in rows.items()}
        table = [means.get(tag, everywhere) for tag in tags]
        return np.reshape(np.array(table), (len(tags), self.rewards.shape[1]))

    def accuracy(self, scores: FloatArray) -> float | None:
        """In how many prompts the arm with the highest score is the best; None without prompts.

        Args:
            scores: `(prompts, arms)`; those of arms without a reward do not count.
        """
        if not len(self.rewards):
            return None
        known = np.isfinite(self.rewards)
        rewards = np.where(known, self.rewards, -np.inf)
        chosen = np.where(known, scores, -np.inf).argmax(axis=1)
        hits = rewards[np.arange(len(rewards)), chosen] == rewards.max(axis=1)
        return float(hits.mean())

    def chance(self) -> float | None:
        """The accuracy of an arm taken at random from those with a reward."""
        if not len(self.rewards):
            return None
        known = np.isfinite(self.rewards)
        rewards = np.where(known, self.rewards, -np.inf)
        best = rewards == rewards.max(axis=1, keepdims=True)
        return float((best.sum(axis=1) / known.sum(axis=1)).mean())

    def _of(self, rows: Sequence[int]) -> Lines:
        texts, tags = [self.texts[i] for i in rows], [self.tags[i] for i in rows]
        return Lines(texts, tags, self.rewards[list(rows)])


def _means(rewards: FloatArray, otherwise: FloatArray) -> FloatArray:
    """The mean reward of each arm, `(arms,)`."""
    known = np.isfinite(rewards)
    counts = known.sum(axis=0)
    sums = np.where(known, rewards, 0.0).sum(axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), otherwise)


def _place(text: str) -> float:
    """A number in [0, 1) that is a text's own."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) / 2**64
