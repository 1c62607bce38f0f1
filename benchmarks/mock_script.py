"""What the mock teacher does: settings by model, and what each call meets.

Nothing here is random: a draw is a function of seed, model and call number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT = "default"
AT_ONCE = frozenset({"rate_limit", "overloaded", "unauthorized"})
"""Faults that refuse a call before any of its latency has passed."""
HARMLESS = frozenset({"drip", "huge"})
"""Faults that still bring a whole answer."""


@dataclass(frozen=True, slots=True)
class Latency:
    """How long answers take.

    Attributes:
        kind: `constant`, `exponential` or `lognormal`.
        seconds: the mean; of a lognormal one, the median.
        sigma: of a lognormal one, the standard deviation of its logarithm.
    """

    kind: str = "constant"
    seconds: float = 0.0
    sigma: float = 0.0

    def draw(self, first: float, second: float) -> float:
        """Seconds, from two chances in [0, 1) that are independent of each other."""
        if self.kind == "constant":
            return self.seconds
        if self.kind == "exponential":
            return -self.seconds * math.log1p(-first)
        return self.seconds * math.exp(self.sigma * normal(first, second))


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong in a share of the calls from number `from_call` to before `to_call`.

    Attributes:
        retry_after: seconds that a refusal asks to wait, sent as `seconds` or as a `date`.
        seconds: time that the bytes of a `drip` take.
        megabytes: size of a `huge` answer, in millions of bytes.
    """

    kind: str
    share: float = 1.0
    from_call: int = 0
    to_call: float = math.inf
    retry_after: float | None = None
    retry_after_as: str = "seconds"
    seconds: float = 1.0
    megabytes: float = 64.0

    def covers(self, number: int) -> bool:
        """Whether a call is in the window."""
        return self.from_call <= number < self.to_call


@dataclass(frozen=True, slots=True)
class Model:
    """How one model answers; the keys of its table."""

    latency: Latency = Latency()
    answer_characters: int = 800
    usage: bool = True
    reasoning: str = "none"
    quality: Mapping[str, float] = field(default_factory=lambda: {DEFAULT: 0.5})
    quality_noise: float = 0.1
    stream_pieces: int = 8
    faults: tuple[Fault, ...] = ()

    def mean_quality(self, language: str) -> float:
        """Of a language, of its parent, or the default."""
        for key in (language, language.partition("-")[0], DEFAULT):
            if key in self.quality:
                return self.quality[key]
        return 0.5


@dataclass(frozen=True, slots=True)
class Call:
    """What one call meets."""

    number: int
    latency: float
    fault: Fault | None


@dataclass(frozen=True, slots=True)
class Script:
    """Every model's settings; a model that is not named has those of `default`."""

    seed: int = 0
    default: Model = Model()
    models: Mapping[str, Model] = field(default_factory=dict)

    def model(self, name: str) -> Model:
        """The settings of a model."""
        return self.models.get(name, self.default)

    def call(self, name: str, number: int) -> Call:
        """What a model's call meets: a pure function of seed, name and number, from 0."""
        model = self.model(name)
        chance, first, second = chances(self.seed, name, "call", number)
        latency = model.latency.draw(first, second)
        for fault in model.faults:
            if fault.covers(number):
                if chance < fault.share:
                    return Call(number, latency, fault)
                chance -= fault.share
        return Call(number, latency, None)


def chances(*parts: object) -> tuple[float, float, float]:
    """Three independent numbers in [0, 1) that depend on the parts alone."""
    drawn = int.from_bytes(blake2b(repr(parts).encode(), digest_size=21).digest(), "little")
    mask = (1 << 53) - 1
    return (drawn & mask) / 2**53, (drawn >> 56 & mask) / 2**53, (drawn >> 112 & mask) / 2**53


def normal(first: float, second: float) -> float:
    """A standard normal draw, by Box and Muller, from two chances in [0, 1)."""
    return math.sqrt(-2.0 * math.log1p(-first)) * math.cos(math.tau * second)
