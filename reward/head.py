"""A linear head on what a frozen language model computes when it reads an answer.

The model reads each answer twice: after the question, and alone. What it leaves of both passes is
a `Reading`; `features` turns it into one vector, of a length that does not depend on the answer's;
a `Head` weighs the vector. Training and scoring share this file, so a head is served on exactly
the features that it was trained on.

    reading = Reading(states_given, states_alone, log_p_given, log_p_alone)
    head = Head.open(Path("head.safetensors"))
    reward = head.score(reading)

Of the features, none is a sum over tokens: a longer answer does not win by its length.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.nn.functional import normalize

from arbitrage.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "head.safetensors"
# a head of another number was trained on other features
_VERSION = 1
_QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9)
# nats a token: as good as certain, and as good as out of the question
_CERTAIN, _ABSURD = -0.1, -8.0
_SURPRISING, _TELLING = -4.0, (1.0, 2.0)
_EDGE = 8
_ALIKE = (0.8, 0.9, 0.95)
# an answer that is unlike any that a head has learned from must not win by that
_MOST_DEVIATIONS = 6.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What a language model of `width` leaves of an answer of n tokens, n at least 1.

    Attributes:
        states_given: `(n + 1, width)`, the last hidden states (after the final norm) when the
            answer follows the question: the state before its first token, which predicts it,
            and the state after each of its tokens.
        states_alone: `(n + 1, width)`, the same when nothing but "Answer:" stands before it.
        log_p_given: `(n,)`, log probability of each token after the question, in nats.
        log_p_alone: `(n,)`, log probability of each token without the question.
    """

    states_given: torch.Tensor
    states_alone: torch.Tensor
    log_p_given: torch.Tensor
    log_p_alone: torch.Tensor


def features(reading: Reading) -> torch.Tensor:
    """The features of an answer, `(3 * width + statistics,)`, in float32.

    The mean of the states after its tokens; the last of them; the product, place by place, of the
    state before the answer with that mean, both of length 1; then statistics of the tokens'
    probabilities, of what the question changes, and of how much the states repeat.
    """
    states = reading.states_given.float()
    asked, answered = normalize(states[0], dim=0), normalize(states[1:].mean(0), dim=0)
    return torch.cat([states[1:].mean(0), states[-1], asked * answered, _statistics(reading)])


def _statistics(reading: Reading) -> torch.Tensor:
    given, alone = reading.log_p_given.float(), reading.log_p_alone.float()
    states = reading.states_given.float()
    return torch.cat(
        [
            _spread(given),
            _spread(alone),
            _spread(given - alone),
            _extremes(given),
            _extremes(alone),
            _gain(given, alone),
            _change(states[1:], reading.states_alone[1:].float()),
            _kinship(states),
            _repetition(states[1:]),
        ]
    )


def _spread(values: torch.Tensor) -> torch.Tensor:
    """Where the values of n tokens lie, and how they go on, `(14,)`."""
    quantiles = torch.quantile(values, values.new_tensor(_QUANTILES))
    middle = (len(values) + 1) // 2
    first, second = values[:middle], values[-middle:]
    figures = [
        values.mean(),
        values.std(correction=0),
        values.min(),
        values[0],
        values[-1],
        values[:_EDGE].mean(),
        values[-_EDGE:].mean(),
        second.mean() - first.mean(),
    ]
    return torch.cat([torch.stack(figures), quantiles])


def _extremes(log_p: torch.Tensor) -> torch.Tensor:
    """The mean probability, and the shares of tokens that are certain and absurd, `(3,)`."""
    shares = [log_p.exp(), (log_p > _CERTAIN).float(), (log_p < _ABSURD).float()]
    return torch.stack(shares).mean(dim=1)


def _gain(given: torch.Tensor, alone: torch.Tensor) -> torch.Tensor:
    """What the question tells of the answer's tokens, of the surprising ones above all, `(6,)`.

    The first is the pointwise mutual information over the answer's own information.
    """
    gain = given - alone
    surprising = (alone < _SURPRISING).float()
    figures = [
        gain.mean() / (-alone.mean()).clamp(min=0.1),
        (gain * surprising).sum() / surprising.sum().clamp(min=1.0),
        gain.clamp(min=0.0).mean(),
        *((gain > limit).float().mean() for limit in _TELLING),
        torch.quantile(gain, 0.95),
    ]
    return torch.stack(figures)


def _change(given: torch.Tensor, alone: torch.Tensor) -> torch.Tensor:
    """How much the question turns the states: cosines of both passes, `(4,)`."""
    cosines = (normalize(given, dim=1) * normalize(alone, dim=1)).sum(dim=1)
    return torch.stack(
        [cosines.mean(), cosines.min(), cosines[:_EDGE].mean(), cosines[-_EDGE:].mean()]
    )


def _kinship(states: torch.Tensor) -> torch.Tensor:
    """Cosines of the state before the answer with those after its tokens, `(3,)`."""
    asked, answered = normalize(states[0], dim=0), states[1:]
    each = normalize(answered, dim=1) @ asked
    return torch.stack([normalize(answered.mean(0), dim=0) @ asked, each.max(), each[-1]])


def _repetition(states: torch.Tensor) -> torch.Tensor:
    """How much states resemble earlier ones of the answer, `(5,)`; a loop brings them back."""
    if len(states) <= 3:  # noqa: PLR2004 - no token has an earlier one but its neighbour
        return states.new_zeros(2 + len(_ALIKE))
    centred = normalize(states - states.mean(0), dim=1)
    # a state resembles its neighbour's in any text
    earlier = (centred @ centred.T).tril(-2)[2:]
    unseen = torch.ones_like(earlier, dtype=torch.bool).triu(1)
    nearest = earlier.masked_fill(unseen, -1.0).amax(dim=1)
    shares = [(nearest > limit).float().mean() for limit in _ALIKE]
    return torch.stack([nearest.mean(), nearest[len(nearest) // 2 :].mean(), *shares])


class Head:
    """Weighs features; a larger sum is a better answer.

    Attributes:
        backbone: the model whose readings it was trained on, as the training was told it.
    """

    def __init__(
        self, backbone: str, mean: torch.Tensor, scale: torch.Tensor, weight: torch.Tensor
    ) -> None:
        """Takes three vectors of one value a feature, in float32.

        Args:
            mean, scale: of the features over the answers that were learned from.
            weight: of the features once they are standardised.
        """
        self.backbone = backbone
        self._mean, self._scale, self._weight = mean, scale, weight

    @classmethod
    def open(cls, path: Path) -> Head:
        """Reads a head's file.

        Raises:
            ConfigError: it is missing or damaged, or of another version of this package.
        """
        try:
            with safe_open(path, framework="pt") as file:
                told = json.loads((file.metadata() or {}).get("head", "{}"))
                vectors = [file.get_tensor(name) for name in ("mean", "scale", "weight")]
        except (OSError, SafetensorError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(f"{path}: cannot be read: {reason}") from error
        if told.get("features") != _VERSION or "backbone" not in told:
            raise ConfigError(f"{path}: is no head of this version; train it again")
        return cls(told["backbone"], *vectors)

    def save(self, path: Path) -> None:
        """Writes the head's file: a few kilobytes."""
        vectors = {"mean": self._mean, "scale": self._scale, "weight": self._weight}
        # one entry, since those of a file have no order and the same head is to be the same file
        told = json.dumps({"features": _VERSION, "backbone": self.backbone})
        save_file(vectors, path, {"head": told})

    def score(self, reading: Reading) -> float:
        """The reward of an answer."""
        return float(self.scores(features(reading).to(self._mean.device).unsqueeze(0)))

    def scores(self, rows: torch.Tensor) -> torch.Tensor:
        """The rewards, `(answers,)`, of rows of features, `(answers, features)`."""
        return evened(rows, self._mean, self._scale) @ self._weight

    def to(self, device: torch.device) -> Head:
        """The same head on another device."""
        vectors = (v.to(device) for v in (self._mean, self._scale, self._weight))
        return Head(self.backbone, *vectors)


def evened(rows: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Rows of features in standard deviations from their means, no value an outlier."""
    return ((rows - mean) / scale).clamp(-_MOST_DEVIATIONS, _MOST_DEVIATIONS)
