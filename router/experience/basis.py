"""What the prompts of this pool differ in: principal components, and types of prompts."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from router.arrays import Features, FloatArray, IntArray

_ROUNDS = 50  # of k-means, at most
_STARTS = 4
_TINY = 1e-12
_OVERSAMPLED = 10
_POWERS = 6


@dataclass(frozen=True, slots=True)
class Basis:
    """A map from features to fewer, learned from the first prompts and then fixed.

    Attributes:
        mean: `(features,)`, of the prompts that it was learned from.
        components: `(features, dimensions)`, their leading principal components; zero
            columns where there were not so many.
        centres: `(types, dimensions)`, unit vectors in the middle of each prompt type.
    """

    mean: FloatArray
    components: FloatArray
    centres: FloatArray
    _origin: FloatArray = field(init=False)  # the mean's coordinates
    _map: Features = field(init=False)  # the components in half the bytes, for every decision

    def __post_init__(self) -> None:
        object.__setattr__(self, "_origin", self.mean @ self.components)
        object.__setattr__(self, "_map", self.components.astype(np.float32))

    @classmethod
    def fit(cls, features: Features, dimensions: int, types: int) -> Self:
        """Learns from prompts, `(prompts, features)`; the same prompts give the same basis.

        Prompt types come from spherical k-means (Dhillon & Modha 2001) in the space of the
        components, begun by k-means++ (Arthur & Vassilvitskii 2007).
        """
        prompts = features.astype(np.float64)
        mean = prompts.mean(axis=0)
        away = prompts - mean
        found = min(dimensions, len(prompts) - 1, away.shape[1])
        components = np.zeros((len(mean), dimensions))
        components[:, :found] = _leading(away, found)
        # an eigenvector's sign is arbitrary
        largest = np.abs(components).argmax(axis=0)
        components *= np.where(np.take_along_axis(components, largest[None], 0) < 0.0, -1.0, 1.0)
        return cls(mean, components, _centres(_unit(away @ components), types))

    @property
    def name(self) -> str:
        """A digest: bases of one name are one."""
        parts = (self.mean, self.components, self.centres)
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:16]

    def place(self, features: Features) -> tuple[FloatArray, int]:
        """A prompt's coordinates, a unit vector `(dimensions,)`, and its type."""
        x: FloatArray = features @ self._map - self._origin
        x /= max(math.sqrt(x @ x), _TINY)
        return x, int((self.centres @ x).argmax())

    def state(self) -> dict[str, Any]:
        """Everything, for a snapshot."""
        return {"mean": self.mean, "components": self.components, "centres": self.centres}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Self:
        """What `state` was taken from."""
        return cls(*(np.array(state[key]) for key in ("mean", "components", "centres")))


def _leading(away: FloatArray, count: int) -> FloatArray:
    """The leading directions, `(features, count)`, by a randomised range finder.

    Halko, Martinsson & Tropp (2011), SIAM Review 53: a few products with the prompts, where
    a whole decomposition would hold up everything else for long.
    """
    rng = np.random.default_rng(0)
    guesses = min(count + _OVERSAMPLED, *away.shape)
    basis = np.linalg.qr(away.T @ rng.standard_normal((len(away), guesses)))[0]
    for _ in range(_POWERS):
        basis = np.linalg.qr(away.T @ np.linalg.qr(away @ basis)[0])[0]
    _, sizes, rotation = np.linalg.svd(away @ basis, full_matrices=False)
    leading: FloatArray = (basis @ rotation.T)[:, :count] * (sizes[:count] > _TINY)
    return leading


def _unit(vectors: FloatArray) -> FloatArray:
    unit: FloatArray = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), _TINY)
    return unit


def _centres(points: FloatArray, types: int) -> FloatArray:
    types = min(types, len(points))
    rng = np.random.default_rng(0)
    attempts = (_converged(points, _spread_out(points, types, rng)) for _ in range(_STARTS))
    return max(attempts, key=lambda centres: float((points @ centres.T).max(axis=1).sum()))


def _spread_out(points: FloatArray, types: int, rng: np.random.Generator) -> FloatArray:
    """Points far from one another, to begin with."""
    centres = points[[rng.integers(len(points))]]
    while len(centres) < types:
        distance = np.maximum(1.0 - (points @ centres.T).max(axis=1), 0.0) + _TINY
        following = rng.choice(len(points), p=distance / distance.sum())
        centres = np.concatenate((centres, points[[following]]))
    return centres


def _converged(points: FloatArray, centres: FloatArray) -> FloatArray:
    types: IntArray = np.full(len(points), -1)
    for _ in range(_ROUNDS):
        nearest = (points @ centres.T).argmax(axis=1)
        if np.array_equal(nearest, types):
            break
        types = nearest
        sums = np.zeros_like(centres)
        np.add.at(sums, types, points)
        taken = np.bincount(types, minlength=len(centres)) > 0
        centres = np.where(taken[:, None], _unit(sums), centres)
    return centres
