"""Who is let in while a crowd calls, decided before anything is read of a call."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arbitrage.errors import ArbitrageError
    from arbitrage.metrics import Metrics
    from service.admission import Admission

_CROWDED = frozenset(
    f"/arbitrage.v1.ArbitrageService/{name}" for name in ("Complete", "StreamComplete")
)


class AdmissionDoor:
    """Lets calls in that bring a prompt each, as long as there is room for one.

    Args:
        admission: knows whether there is; whom it lets in, it asks again.
        metrics: count those who are not let in.
    """

    def __init__(self, admission: Admission, metrics: Metrics) -> None:
        self._admission = admission
        self._metrics = metrics

    def crowded(self, method: str) -> bool:
        """Whether the method's calls bring a prompt each."""
        return method in _CROWDED

    def refusal(self, calls: int) -> ArbitrageError | None:
        """Why no prompt would be admitted; None where one may be."""
        return self._admission.full(calls)

    def refused(self, method: str) -> None:
        """Counts a call that was not let in."""
        self._metrics.requests.labels(method.rpartition("/")[2], "RESOURCE_EXHAUSTED").inc()
