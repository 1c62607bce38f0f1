"""What its calls have told of a teacher: whether it is well, and how much of it may be had."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbitrage.errors import (
    TeacherAnswerInvalid,
    TeacherLeftAlone,
    TeacherMisconfigured,
    TeacherRateLimited,
    TeacherUnavailable,
)
from teachers.breaker import Breaker
from teachers.hedge import Latencies
from teachers.limits import Concurrency, Cooldown

if TYPE_CHECKING:
    from arbitrage.errors import TeacherError
    from teachers.breaker import Circuit

_SICK = (TeacherUnavailable, TeacherAnswerInvalid, TeacherMisconfigured)
_SLOW_SHARE = 0.95
_TOO_SLOW = 2.0  # times that
_SILENT_SHARE = 0.25  # of the timeout, where nobody knows how long answers take


class Health:
    """The circuit breaker, the cooldown and the permits of one teacher, and what moves them.

    What one call learns holds for all: the next one, whichever prompt it is for,
    meets the same pause and the same open circuit.

    Attributes:
        breaker: opens when calls fail, or are met with silence, several in a row.
        cooldown: begins when the provider says that it has too much to do.
        concurrency: permits; halved when a cooldown begins or the circuit opens.
        latencies: of answered calls.
    """

    def __init__(self, max_concurrency: int) -> None:
        self.breaker = Breaker()
        self.cooldown = Cooldown()
        self.concurrency = Concurrency(max_concurrency)
        self.latencies = Latencies()
        self._last_error = "it has not answered"

    @property
    def limited(self) -> bool:
        """Whether a call would have to wait for the provider."""
        return self.cooldown.remaining_seconds > 0.0 or self.concurrency.squeezed

    def enter(self) -> Circuit:
        """Lets a call through.

        Raises:
            TeacherLeftAlone: it is.
        """
        circuit = self.breaker.enter()
        if circuit is None:
            raise self.refusal()
        return circuit

    def refusal(self) -> TeacherLeftAlone:
        """Why the open circuit lets no call through, and since which error."""
        seconds = self.breaker.remaining_seconds
        when = f"for another {seconds:.1f} s" if seconds else "while a probe is under way"
        return TeacherLeftAlone(f"left alone {when}, since it fails: {self._last_error}")

    def answered(self, circuit: Circuit, called_at: float, seconds: float) -> None:
        """A call was answered in so many seconds; `called_at` is on the monotonic clock."""
        self.breaker.succeeded(circuit)
        self.cooldown.end(called_at)
        self.concurrency.grow()
        self.latencies.add(seconds)

    def limited_by(self, error: TeacherError, called_at: float) -> None:
        """Takes from an error what the provider says of its limits, if it does."""
        pause = error.retry_after_seconds
        overloaded = isinstance(error, TeacherUnavailable) and error.overloaded
        limited = isinstance(error, TeacherRateLimited) or overloaded or pause is not None
        if limited and self.cooldown.begin(called_at, pause):
            self.concurrency.shrink()

    def failed(self, circuit: Circuit, error: TeacherError, called_at: float) -> None:
        """A call came back with an error."""
        self.limited_by(error, called_at)
        if isinstance(error, _SICK):
            self._failed(circuit, str(error))
        else:
            self.breaker.succeeded(circuit)  # it is alive, if only to refuse this request

    def silent(self, circuit: Circuit, seconds: float, timeout_seconds: float) -> None:
        """A call was given up after some seconds, by its timeout, its prompt or its client."""
        usual = self.latencies.percentile(_SLOW_SHARE)
        patience = timeout_seconds * _SILENT_SHARE if usual is None else usual * _TOO_SLOW
        if seconds >= min(patience, timeout_seconds):
            self._failed(circuit, f"no answer within {seconds:.3g} s")
        else:
            self.breaker.left(circuit)

    def _failed(self, circuit: Circuit, reason: str) -> None:
        self._last_error = reason
        if self.breaker.failed(circuit):
            self.concurrency.shrink()
            self.concurrency.turn_away(self.refusal)
