"""What a client sends and hears beside the core's own values: all frozen, no protobuf."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from arbitrage.types import AS_CONFIGURED, Prompt, Routing

if TYPE_CHECKING:
    from datetime import datetime

    from arbitrage.errors import ArbitrageError
    from arbitrage.registry import Progress, State
    from arbitrage.spec import Spec
    from arbitrage.types import Candidate, Decision, Estimate, Sample


@dataclass(frozen=True, slots=True)
class Decided:
    """The policy chose a wave of teachers, who are asked now."""

    decision: Decision


@dataclass(frozen=True, slots=True)
class TokenDelta:
    """The only teacher of a wave has written more of its answer.

    Attributes:
        wave: counted from 0.
    """

    teacher: str
    text: str
    wave: int


@dataclass(frozen=True, slots=True)
class CandidateArrived:
    """A teacher answered or failed; nobody has judged it yet.

    Attributes:
        wave: counted from 0.
    """

    candidate: Candidate
    wave: int


@dataclass(frozen=True, slots=True)
class CandidatesScored:
    """The candidates of a wave were judged.

    Attributes:
        wave: counted from 0.
    """

    candidates: tuple[Candidate, ...]
    wave: int


@dataclass(frozen=True, slots=True)
class Result:
    """The sample is stored: the last event of a stream."""

    sample: Sample


Event = Decided | TokenDelta | CandidateArrived | CandidatesScored | Result


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt of a batch.

    Attributes:
        request_id: comes back with the outcome; what is sent again under it is not asked
            again while the service still holds its result.
        routing: how it is routed.
    """

    request_id: str
    prompt: Prompt
    routing: Routing = AS_CONFIGURED


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one prompt of a batch: exactly one of `sample` and `error` is set."""

    request: Request
    sample: Sample | None = None
    error: ArbitrageError | None = None


@dataclass(frozen=True, slots=True)
class Learned:
    """What a service's policy has learned.

    Attributes:
        version: how many updates it has learned from.
        price: the reward that a US dollar has to bring, in standard deviations of the
            language's rewards; 0 where costs do not matter.
        usd_per_prompt: what a prompt has cost of late.
        estimates: by language, as the service orders them; NaN where there is none.
        state: contents of a snapshot file; empty unless it was asked for.
    """

    policy: str
    version: int
    price: float
    usd_per_prompt: float
    estimates: tuple[Estimate, ...]
    state: bytes = b""


@dataclass(frozen=True, slots=True)
class Job:
    """A job of a service, as it stands.

    Attributes:
        error: why it failed; None in any other state.
        started, ended: None until then.
    """

    job_id: str
    spec: Spec
    state: State
    progress: Progress
    created: datetime
    started: datetime | None = None
    ended: datetime | None = None
    error: ArbitrageError | None = None
