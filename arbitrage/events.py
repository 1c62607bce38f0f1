"""What the core tells its observers, in the order in which it happens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage.types import Candidate, Decision, Prompt, Sample


@dataclass(frozen=True, slots=True)
class Accepted:
    """A prompt has a language and enters the engine."""

    prompt: Prompt


@dataclass(frozen=True, slots=True)
class Routed:
    """The policy chose a wave of arms."""

    prompt: Prompt
    wave: Decision


@dataclass(frozen=True, slots=True)
class Called:
    """An attempt to call a teacher ended; a candidate may have cost several.

    Attributes:
        outcome: `ok`, or what kind of failure it was.
    """

    teacher: str
    outcome: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Drafted:
    """The only teacher of a wave has written more of its answer."""

    prompt: Prompt
    teacher: str
    text: str


@dataclass(frozen=True, slots=True)
class Answered:
    """A teacher answered or failed: once a candidate."""

    prompt: Prompt
    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Judged:
    """The gates and the reward model have spoken on a wave's candidates.

    Attributes:
        reward_seconds: time in the reward model, its queue included; 0 if nothing passed.
    """

    prompt: Prompt
    candidates: Sequence[Candidate]
    reward_seconds: float


@dataclass(frozen=True, slots=True)
class Batched:
    """A reward model has run one batch."""

    tokens: int


@dataclass(frozen=True, slots=True)
class Shifted:
    """The scores in a language are no longer what they were.

    Attributes:
        shift: of the recent mean against the mean before, in standard deviations.
    """

    language: str
    shift: float


@dataclass(frozen=True, slots=True)
class Stored:
    """A sample is durable, with or without a winner, and learned from.

    Attributes:
        number: the sink's, from 1 in the order in which samples became durable.
    """

    sample: Sample
    number: int


@dataclass(frozen=True, slots=True)
class Corrected:
    """A policy has learned from a reward that came later.

    Attributes:
        policy: its kind.
    """

    policy: str


@dataclass(frozen=True, slots=True)
class Left:
    """A prompt leaves the engine: stored, failed or cancelled."""

    prompt: Prompt


Event = (
    Accepted
    | Routed
    | Called
    | Drafted
    | Answered
    | Judged
    | Batched
    | Shifted
    | Stored
    | Corrected
    | Left
)
