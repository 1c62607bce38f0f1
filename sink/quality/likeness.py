"""Figures of how different some texts are from one another."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_ZSTD = 9
_ORDERS = (1, 2, 3, 4)


@dataclass(frozen=True, slots=True)
class Figures:
    """How different some texts are from one another.

    Attributes:
        distinct: how many of their n-grams are different ones, of 1, 2 and 3 tokens
            (Li et al. 2016, arXiv 1510.03055); low means alike. It falls with the number
            of tokens, so that only texts of as many are to be compared.
        self_bleu: mean BLEU-4 of each text against all others (Zhu et al. 2018, arXiv
            1802.01886), in [0, 1]; high means alike.
        compression: their size in bytes over what zstd makes of it (Shaib et al. 2024,
            arXiv 2403.00553); high means alike.
    """

    distinct: tuple[float, float, float]
    self_bleu: float
    compression: float

    @classmethod
    def of(cls, texts: Sequence[str], parts: Sequence[Sequence[str]]) -> Figures:
        """The figures of some texts, given their tokens, too."""
        one, two, three = (_distinct(parts, order) for order in _ORDERS[:3])
        return cls((one, two, three), self_bleu(parts), _compression(texts))


def self_bleu(texts: Sequence[Sequence[str]]) -> float:
    """Mean BLEU-4 of each text against all others, in [0, 1]; texts are sequences of tokens.

    As sacrebleu's sentence BLEU with several references and exponential smoothing, whose
    order is lowered for texts of less than four tokens. An n-gram may count as often as in
    the text that has it most often, for which two counts of each n-gram are enough: linear
    in the tokens, where comparing every pair is quadratic.

    >>> self_bleu([["a", "b", "c", "d"]] * 2), self_bleu([["a", "b"], ["c", "d"]])
    (1.0, 0.0)
    """
    if len(texts) < 2:  # noqa: PLR2004 - nothing to compare with
        return 0.0
    counts = [[_ngrams(text, order) for order in _ORDERS] for text in texts]
    most = [_two_highest(own[i] for own in counts) for i in range(len(_ORDERS))]
    lengths = sorted(map(len, texts))
    scores = []
    for text, own in zip(texts, counts, strict=True):
        score = _precision(own, most, len(text))
        closest = _closest_other(lengths, len(text))
        penalty = math.exp(min(0.0, 1.0 - closest / len(text))) if text else 0.0
        scores.append(score * penalty)
    return math.fsum(scores) / len(scores)


_Two = dict[tuple[str, ...], tuple[int, int]]


def _precision(own: Sequence[Counter[tuple[str, ...]]], most: Sequence[_Two], length: int) -> float:
    """The geometric mean of the clipped precisions of all orders that the text has."""
    logs, smooth = [], 1.0
    for order, ngrams, highest in zip(_ORDERS, own, most, strict=True):
        if length < order:
            break
        total = length - order + 1
        shared = 0
        for ngram, count in ngrams.items():
            first, second = highest[ngram]
            shared += min(count, second if count == first else first)
        if not shared:
            if order == 1:
                return 0.0
            smooth *= 2.0
        logs.append(math.log(shared / total if shared else 1.0 / (smooth * total)))
    return math.exp(math.fsum(logs) / len(logs)) if logs else 0.0


def _two_highest(texts: Iterator[Counter[tuple[str, ...]]]) -> _Two:
    """How often each n-gram is in the two texts that have it most often."""
    highest: _Two = {}
    for counts in texts:
        for ngram, count in counts.items():
            first, second = highest.get(ngram, (0, 0))
            highest[ngram] = (count, first) if count > first else (first, max(second, count))
    return highest


def _closest_other(lengths: Sequence[int], length: int) -> int:
    """The length that is nearest to a text's own among all others; of two, the shorter."""
    place = bisect_left(lengths, length)
    others = [lengths[i] for i in (place - 1, place + 1) if 0 <= i < len(lengths)]
    return min(others, key=lambda other: (abs(other - length), other))


def _ngrams(text: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(text[i:] for i in range(order)), strict=False))


def _distinct(texts: Sequence[Sequence[str]], order: int) -> float:
    ngrams: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        ngrams += _ngrams(text, order)
    return len(ngrams) / ngrams.total() if ngrams else 0.0


def _compression(texts: Sequence[str]) -> float:
    whole = "\n".join(texts).encode("utf-8", "replace")
    if not whole:
        return 1.0
    codec = pa.Codec("zstd", compression_level=_ZSTD)
    return len(whole) / len(codec.compress(whole, asbytes=True))
