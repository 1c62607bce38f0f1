"""A stream lasts as long as whoever began it may have it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from grpc.aio import AbortError

from arbitrage.errors import ArbitrageError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine

_EVERY_SECONDS = 2.0
_T = TypeVar("_T")


async def while_allowed(
    responses: AsyncGenerator[_T, None],
    require: Callable[[], object],
    abort: Callable[[ArbitrageError], Coroutine[Any, Any, None]],
) -> AsyncIterator[_T]:
    """The responses of a stream; ends them within seconds of their being allowed no more.

    Args:
        responses: waited for, and closed, in the stream's task.
        require: raises where the stream may not go on.
        abort: ends a stream whose client does not read, where nothing can be raised.

    Raises:
        ArbitrageError: what `require` has raised.
    """
    standing = _Standing(require, abort)
    try:
        async with aclosing(responses):
            while True:
                try:
                    standing.waiting = True
                    response = await anext(responses)
                except StopAsyncIteration:
                    return
                except asyncio.CancelledError:
                    standing.raise_refusal()
                    raise
                finally:
                    standing.waiting = False
                yield response
                if standing.refusal:
                    raise standing.refusal
    finally:
        standing.timer.cancel()


class _Standing:
    """Asks again and again, and ends the task in which it was made.

    Attributes:
        refusal: what it was told.
        waiting: for a response, rather than for its reader.
        timer: of the next time.
    """

    def __init__(
        self,
        require: Callable[[], object],
        abort: Callable[[ArbitrageError], Coroutine[Any, Any, None]],
    ) -> None:
        self.refusal: ArbitrageError | None = None
        self.waiting = False
        self._require = require
        self._abort = abort
        self._stream = asyncio.current_task()
        self._interrupted = False
        self._cut: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self.timer = self._loop.call_later(_EVERY_SECONDS, self._ask)

    def raise_refusal(self) -> None:
        """Raises it in place of the cancellation that it was told by, if there is no other."""
        if self.refusal and self._interrupted and self._stream and not self._stream.uncancel():
            raise self.refusal from None

    def _ask(self) -> None:
        late = self.refusal is not None
        try:
            self._require()
        except ArbitrageError as error:
            self.refusal = error
        if self.refusal and self.waiting and self._stream:
            self._interrupted = self._stream.cancel()
        elif self.refusal and late:
            self._cut = self._loop.create_task(self._end(self.refusal))
        else:
            self.timer = self._loop.call_later(_EVERY_SECONDS, self._ask)

    async def _end(self, refusal: ArbitrageError) -> None:
        """Ends the task at once, and the call behind what its client has not read."""
        ending = self._loop.create_task(self._abort(refusal))
        await asyncio.sleep(0)  # it counts from its first step on
        if self._stream:
            self._stream.cancel()
        with suppress(AbortError):  # as it says that it has done so
            await ending
