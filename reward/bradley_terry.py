"""Weights that rank pairs: the Bradley-Terry model, linear in features, with an L2 penalty."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import softplus

FOLDS = 5
EPOCHS = 10
_STEPS_PER_EPOCH = 10
_PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3)


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Pairs as a head learns from them.

    Attributes:
        differences: `(pairs, features)`, chosen minus rejected, standardised.
        weights: `(pairs,)`, what each counts; their mean is 1.
        folds: `(pairs,)`, the fold of each, which those of one prompt share.
    """

    differences: torch.Tensor
    weights: torch.Tensor
    folds: torch.Tensor


def fit(comparisons: Comparisons, penalty: float, epochs: int) -> tuple[list[float], torch.Tensor]:
    """Minimises the mean loss and `penalty` times the weights' squares, which is convex.

    Returns:
        The minimised sum before each epoch, and the weights, `(features,)`.
    """
    weight = torch.zeros(comparisons.differences.shape[1], requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weight], max_iter=_STEPS_PER_EPOCH, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        total = _loss(comparisons, weight) + penalty * weight.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total.detach()

    losses = [float(optimiser.step(loss)) for _ in range(epochs)]  # type: ignore[no-untyped-call]
    return losses, weight.detach()


def _loss(comparisons: Comparisons, weight: torch.Tensor) -> torch.Tensor:
    return (comparisons.weights * softplus(-(comparisons.differences @ weight))).mean()


def best_penalty(comparisons: Comparisons) -> float:
    """The penalty with the smallest loss on prompts that were not learned from."""
    folds = [fold for fold in range(FOLDS) if bool((comparisons.folds == fold).any())]
    if len(folds) == 1:
        return _PENALTIES[len(_PENALTIES) // 2]

    def loss(penalty: float) -> float:
        total = 0.0
        for fold in folds:
            tested = comparisons.folds == fold
            _, weight = fit(_taken(comparisons, ~tested), penalty, EPOCHS // 2)
            total += float(_loss(_taken(comparisons, tested), weight)) * int(tested.sum())
        return total

    return min(_PENALTIES, key=loss)


def _taken(comparisons: Comparisons, mask: torch.Tensor) -> Comparisons:
    return Comparisons(
        comparisons.differences[mask], comparisons.weights[mask], comparisons.folds[mask]
    )
