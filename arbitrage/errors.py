"""What can go wrong, and whose business it is.

    ArbitrageError
    ├── InvalidPrompt          the caller's request is wrong (names the field)
    ├── ConfigError            the operator's configuration is wrong (names the key)
    ├── Unauthenticated        the caller has shown no token that is known
    ├── PermissionDenied       ... or one that is not for this
    ├── NotFound               the caller names what does not exist
    ├── AlreadyExists          ... or wants made what does, and is another
    ├── Overloaded             as many prompts are in flight, or jobs wait, as may be
    ├── Stopping               the service is on its way down
    ├── Unavailable            a client: the service cannot do it now, or nobody answers
    ├── DeadlinePassed         ... or has not done it in time
    ├── NoTeacherAvailable     no teacher of the pool may be asked now
    │   └── BudgetSpent        nor later, before somebody raises the budget
    ├── NoWinner               every answer failed or was stopped by a gate
    ├── NotBuilt               a named feature that this version does not offer
    ├── TeacherError           one call failed: becomes a failed candidate
    │   ├── TeacherTimeout
    │   ├── TeacherRateLimited
    │   ├── TeacherUnavailable
    │   │   └── TeacherLeftAlone   not called, since it fails
    │   ├── TeacherRejected    the provider refuses this request: do not repeat it
    │   │   └── TeacherMisconfigured   ... and every other: wrong key, model or address
    │   ├── TeacherAnswerInvalid
    │   └── TeacherOverBudget  not called, since the budget is spent
    ├── RewardError            the reward model could not score
    ├── SinkError              a sample could not be made durable
    └── SnapshotError          a policy's saved state cannot be read, or written

Every message is one line that says what, where and what to do; nothing in it
is a secret. `status.py` maps these to gRPC codes, `cli.py` to exit codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arbitrage.types import Sample


class ArbitrageError(Exception):
    """Base of everything this package raises on purpose.

    Attributes:
        retry_after_seconds: when trying again is first worth it; None where that is not
            known, or it never is.
    """

    retry_after_seconds: float | None = None


class InvalidPrompt(ArbitrageError):
    """A request that no teacher should be asked.

    Attributes:
        field: name of the offending field, as the caller spells it.
        reason: what is wrong with it, and what would be right.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.reason = message


class ConfigError(ArbitrageError):
    """A configuration that cannot be run."""


class Unauthenticated(ArbitrageError):
    """Nobody knows who calls: no token came, or none that is known."""


class PermissionDenied(ArbitrageError):
    """The caller is known, and may not do this.

    Attributes:
        scope: what its token would have to be for.
    """

    def __init__(self, message: str, *, scope: str) -> None:
        super().__init__(message)
        self.scope = scope


class NotFound(ArbitrageError):
    """Nothing has the name that the caller gave."""


class AlreadyExists(ArbitrageError):
    """Something else has the name that the caller gave."""


class Overloaded(ArbitrageError):
    """The limit on prompts in flight, or on jobs, is reached; nothing was started."""


class Stopping(ArbitrageError):
    """The service is being stopped; another one may go on."""


class Unavailable(ArbitrageError):
    """What a client hears of a service that cannot do it now, or does not answer."""


class DeadlinePassed(ArbitrageError):
    """What a client hears when its own deadline has passed."""


class NoTeacherAvailable(ArbitrageError):
    """The pool is empty for this prompt; trying later may help.

    Attributes:
        retry_after_seconds: when trying again is first worth it, if that is known.
    """

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class BudgetSpent(NoTeacherAvailable):
    """Every teacher that might answer has a price, and nothing is left to pay it."""


class NoWinner(ArbitrageError):
    """All teachers that may be asked were asked, and no answer passed the gates.

    Attributes:
        sample: the candidates with their errors and verdicts; already stored. None where
            a client has heard of it from a service.
        transient: nobody answered at all, for reasons that pass: asking again may help.
    """

    def __init__(self, message: str, sample: Sample | None) -> None:
        super().__init__(message)
        self.sample = sample
        failures = [candidate.failure for candidate in sample.candidates] if sample else [None]
        self.transient = all(f is not None and f.outcome in _TRANSIENT for f in failures)


class NotBuilt(ArbitrageError):
    """A feature of the contract that this version answers with its reason."""


class TeacherError(ArbitrageError):
    """One call to one teacher failed.

    Attributes:
        outcome: short label for metrics and datasets, from a bounded set.
        retry_after_seconds: how long the teacher asked us to wait, if it did.
        prompt_tokens, completion_tokens: what was billed all the same, where it is known.
    """

    outcome = "error"

    def __init__(
        self,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        prompt_tokens: int | None = None,
        completion_tokens: int | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = completion_tokens


class TeacherTimeout(TeacherError):
    """No answer within `timeout_seconds` or the request's deadline."""

    outcome = "timeout"


class TeacherRateLimited(TeacherError):
    """HTTP 429 or the provider's equivalent."""

    outcome = "rate_limited"


class TeacherUnavailable(TeacherError):
    """Refused or broken connection, or HTTP 5xx.

    Attributes:
        overloaded: the provider says that it has too much to do (HTTP 503, 529).
    """

    outcome = "unavailable"

    def __init__(
        self,
        message: str,
        *,
        overloaded: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.overloaded = overloaded


class TeacherLeftAlone(TeacherUnavailable):
    """Not called, since it fails: a probe will tell when it is well again."""

    outcome = "left_alone"


PUT_OFF = frozenset(kind.outcome for kind in (TeacherRateLimited, TeacherLeftAlone))
"""Outcomes of calls that were left to others, and may be made when these have failed."""
_TRANSIENT = PUT_OFF | {TeacherTimeout.outcome, TeacherUnavailable.outcome}


class TeacherRejected(TeacherError):
    """HTTP 4xx: this request is refused, such as a prompt that is too long."""

    outcome = "rejected"


class TeacherMisconfigured(TeacherRejected):
    """HTTP 401, 402, 403, 404: wrong key, no credit, unknown model, wrong address."""


class TeacherAnswerInvalid(TeacherError):
    """An answer that does not follow the provider's own protocol."""

    outcome = "invalid_answer"


class TeacherOverBudget(TeacherError):
    """The budget was spent between choosing the teacher and calling it."""

    outcome = "over_budget"


class RewardError(ArbitrageError):
    """The reward model could not score a prompt's candidates."""


class SinkError(ArbitrageError):
    """A sample could not be written; it was not acknowledged."""


class SnapshotError(ArbitrageError):
    """A policy's state that cannot be saved, read, or taken over."""
