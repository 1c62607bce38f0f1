"""One device's side of the scoring engine: its thread, and what it does when a batch fails.

What goes wrong in a batch of several is the business of one of them. Out of memory, the
batch is computed again in smaller ones; otherwise its items are computed one by one, so
that one of them fails alone.
"""

from __future__ import annotations

import logging
import traceback
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from arbitrage.errors import RewardError
from arbitrage.events import Batched
from reward.scoring.backlog import next_batch

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Sequence

    from reward.scoring.backlog import Backlog, Item

__all__ = ["Budget", "Device", "Worker", "fail", "runs_out_of_memory"]

W = TypeVar("W")
R = TypeVar("R")
_W_contra = TypeVar("_W_contra", contravariant=True)
_R_co = TypeVar("_R_co", covariant=True)

_log = logging.getLogger(__name__)
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cublas_status_alloc_failed")
# batches that have to fit before a device that ran out of memory is given more: doubles each time
_PATIENCE_BATCHES, _MOST_PATIENCE_BATCHES = 64, 4096


class Device(Protocol[_W_contra, _R_co]):
    """What one device computes. Called on that device's own thread only."""

    def compute(self, batch: Sequence[_W_contra]) -> Sequence[_R_co]:
        """One result a work item, in order. What it raises fails as few items as may be."""


def runs_out_of_memory(error: Exception) -> bool:
    """Whether torch or Python says with an error that memory is short; imports neither.

    >>> runs_out_of_memory(RuntimeError("MPS backend out of memory"))
    True
    >>> runs_out_of_memory(ValueError("out of memory"))
    False
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in message for words in _OUT_OF_MEMORY)


class Budget:
    """Tokens that a device takes at once: fewer after it ran out of memory, slowly more again."""

    def __init__(self, limit: int) -> None:
        self.tokens = self._limit = limit
        self._fitted = 0
        self._patience = _PATIENCE_BATCHES

    def shrink(self, tokens: int) -> None:
        """So many were too many."""
        self.tokens = max(1, tokens // 2)
        self._fitted = 0
        self._patience = min(2 * self._patience, _MOST_PATIENCE_BATCHES)

    def fits(self) -> None:
        """A batch was computed: what had filled the memory may be gone."""
        self._fitted += 1
        if self._fitted >= self._patience:
            self._fitted = 0
            self.tokens = min(self._limit, self.tokens * 2)


@dataclass(frozen=True, slots=True)
class Worker(Generic[W, R]):
    """Takes batches for one device until the backlog is closed. Lives on a thread of its own.

    Attributes:
        loop: where the callers wait.
        hear: is told of each batch computed, on the loop.
    """

    name: str
    device: Device[W, R]
    backlog: Backlog[W, R]
    budget: Budget
    is_out_of_memory: Callable[[Exception], bool]
    loop: AbstractEventLoop
    hear: Callable[[Batched], None]

    def run(self) -> None:
        """Computes batches; returns when the backlog is closed."""
        while items := self.backlog.take(self.budget.tokens):
            try:
                self._compute(items)
            except BaseException as error:  # noqa: BLE001 - nobody else would tell the callers
                fail(self.loop, items, f"{self.name}: cannot score: {_told(error)}", error)
            del items  # nothing of it is kept while waiting for the next

    def _compute(self, items: Sequence[Item[W, R]]) -> None:
        items = [item for item in items if not item.future.cancelled()]
        if not items:
            return
        outcome = self._attempt([item.work for item in items])
        if not isinstance(outcome, BaseException):
            self.budget.fits()
            _on(self.loop, _answer, items, outcome, self.hear)
            return
        # an error's frames hold on to what the device has allocated
        traceback.clear_frames(outcome.__traceback__)
        short_of_memory = isinstance(outcome, Exception) and self.is_out_of_memory(outcome)
        if len(items) == 1:
            fail(self.loop, items, self._reason(items[0], outcome, short_of_memory), outcome)
        elif short_of_memory:
            self._compute_less_at_once(items)
        else:
            for item in items:
                self._compute([item])

    def _attempt(self, works: Sequence[W]) -> Sequence[R] | BaseException:
        try:
            results = self.device.compute(works)
            if len(results) == len(works):
                return results
        except BaseException as error:  # noqa: BLE001 - a panic of a tokenizer is no Exception
            return error
        return RewardError(f"{len(results)} results for {len(works)} inputs")

    def _compute_less_at_once(self, items: Sequence[Item[W, R]]) -> None:
        tokens = sum(item.tokens for item in items)
        self.budget.shrink(tokens)
        _log.warning(
            "%s: out of memory with %d tokens at once; goes on with %d; "
            "lower reward.max_tokens_per_batch",
            self.name,
            tokens,
            self.budget.tokens,
        )
        left = OrderedDict.fromkeys(items)
        while left:
            batch = next_batch(left, self.budget.tokens)
            for item in batch:
                del left[item]
            self._compute(batch)

    def _reason(self, item: Item[W, R], error: BaseException, short_of_memory: bool) -> str:
        if short_of_memory:
            return (
                f"{self.name}: out of memory with one text of {item.tokens} tokens; "
                "lower reward.max_tokens_per_batch or send shorter texts"
            )
        return f"{self.name}: cannot score: {_told(error)}"


def fail(
    loop: AbstractEventLoop,
    items: Sequence[Item[W, R]],
    message: str,
    cause: BaseException | None = None,
) -> None:
    """Gives the callers of these items a `RewardError`. May be called on any thread."""
    _on(loop, _refuse, items, message, cause)


def _on(loop: AbstractEventLoop, callback: Callable[..., None], *arguments: object) -> None:
    with suppress(RuntimeError):  # on a closed loop nobody waits any more
        loop.call_soon_threadsafe(callback, *arguments)


def _answer(
    items: Sequence[Item[W, R]], results: Sequence[R], hear: Callable[[Batched], None]
) -> None:
    for item, result in zip(items, results, strict=True):
        if not item.future.done():
            item.future.set_result(result)
    hear(Batched(sum(item.tokens for item in items)))


def _refuse(items: Sequence[Item[W, R]], message: str, cause: BaseException | None) -> None:
    for item in items:
        if not item.future.done():
            error = RewardError(message)
            error.__cause__ = cause
            item.future.set_exception(error)


def _told(error: BaseException) -> str:
    """An error as one line of ours can quote it."""
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    return lines[0] if isinstance(error, RewardError) else f"{type(error).__name__}: {lines[0]}"
