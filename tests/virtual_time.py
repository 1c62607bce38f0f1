"""An event loop whose clock jumps to the next thing to do: a test of hours takes milliseconds.

Only for tests without sockets and processes, whose time is not the loop's. What is left to
a thread is done at once.
"""

from __future__ import annotations

import asyncio
import selectors
from contextlib import ExitStack
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, TypeVarTuple
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Executor

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_Types = TypeVarTuple("_Types")
_START_SECONDS = 1000.0
_TURN_SECONDS = 1e-9  # a turn of the loop takes time, if only a little
_CLOCKS = (
    "teachers.breaker.monotonic",
    "teachers.limits.monotonic",
    "teachers.member.monotonic",
    "teachers.pool.perf_counter",
)


class _Selector(selectors.DefaultSelector):
    """Does not sleep: the time that it was asked to wait has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = _START_SECONDS

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("every task waits, and nothing will ever wake one")
            self.now += timeout
        self.now += _TURN_SECONDS
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop in virtual time; what nobody else catches ends up in `failures`."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)
        self.failures: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    def time(self) -> float:
        """Seconds since some moment."""
        return self._clock.now

    def stand_still(self, seconds: float) -> None:
        """What a callback does that holds the loop up."""
        self._clock.now += seconds

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*_Types], _Result],
        *args: *_Types,
    ) -> asyncio.Future[_Result]:
        """Does it here and now."""
        del executor
        done: asyncio.Future[_Result] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - the caller's, as from a thread
            done.set_exception(error)
        return done


def run(main: Coroutine[Any, Any, _Result]) -> _Result:
    """Runs a coroutine in virtual time, the clocks of the pool included."""
    loop = VirtualTimeLoop()
    with ExitStack() as stack:
        for clock in _CLOCKS:
            stack.enter_context(mock.patch(clock, loop.time))
        result = stack.enter_context(asyncio.Runner(loop_factory=lambda: loop)).run(main)
    assert not loop.failures
    return result


def in_virtual_time(
    test: Callable[_Arguments, Coroutine[Any, Any, None]],
) -> Callable[_Arguments, None]:
    """Makes an asynchronous test a synchronous one, which takes no time."""

    @wraps(test)
    def timeless(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        run(test(*args, **kwargs))

    return timeless
