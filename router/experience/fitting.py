"""A new basis, learned beside what is in use."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_Lesson = TypeVar("_Lesson")
_Fitted = TypeVar("_Fitted")


class Fitting(Generic[_Lesson, _Fitted]):
    """What some lessons make, and more of them as they come, on a thread of its own.

    To learn a basis takes up to a second, for which nobody else should have to wait. What comes
    of it does not depend on how long it takes: it is the same lessons, in the same order.

    Args:
        fit: makes it of the lessons so far; None for nothing.
        learn: adds another.
        lessons: those so far.
    """

    def __init__(
        self,
        fit: Callable[[Sequence[_Lesson]], _Fitted | None],
        learn: Callable[[_Fitted, _Lesson], None],
        lessons: Sequence[_Lesson],
    ) -> None:
        self._learn = learn
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fitting")
        self._fitted = self._thread.submit(fit, tuple(lessons))
        self._added: list[Future[None]] = []

    def add(self, lesson: _Lesson) -> None:
        """Has one more learned, after all before it."""
        self._added.append(self._thread.submit(self._add, lesson))

    def result(self) -> _Fitted | None:
        """What they have made; blocks until all are learned."""
        self._thread.shutdown()
        for added in self._added:
            added.result()
        return self._fitted.result()

    def _add(self, lesson: _Lesson) -> None:
        fitted = self._fitted.result()  # at once: the thread takes one after the other
        if fitted is not None:
            self._learn(fitted, lesson)
