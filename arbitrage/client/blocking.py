"""An asynchronous client's methods for threads that wait: written once, called from both worlds."""

from __future__ import annotations

import asyncio
import threading
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator

_Given = ParamSpec("_Given")
_Client = TypeVar("_Client")
_Item = TypeVar("_Item")
_Value = TypeVar("_Value")
_END: Any = object()
_starting = threading.Lock()
_shared: asyncio.AbstractEventLoop | None = None


def background() -> asyncio.AbstractEventLoop:
    """The loop of this process's one background thread, which is started with its first use."""
    global _shared  # noqa: PLW0603 - gRPC wants one loop a process rather than one a client
    with _starting:
        if _shared is None:
            _shared = asyncio.new_event_loop()
            name = "arbitrage-client"
            threading.Thread(target=_shared.run_forever, name=name, daemon=True).start()
        return _shared


class Blocking(Generic[_Client]):
    """Waits for what an asynchronous client does in the background.

    Args:
        made: makes that client, there.
    """

    def __init__(self, made: Coroutine[Any, Any, _Client]) -> None:
        self._loop = background()
        self._client = self._wait(made)

    def _wait(self, work: Coroutine[Any, Any, _Value]) -> _Value:
        """Does work in the background to its end; who is interrupted cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _iterate(self, items: AsyncIterator[_Item]) -> Iterator[_Item]:
        """Takes items one by one; who stops taking them ends what makes them."""
        try:
            while (item := self._wait(_next(items))) is not _END:
                yield item
        finally:
            asyncio.run_coroutine_threadsafe(_close(items), self._loop)


def awaited(
    method: Callable[Concatenate[_Client, _Given], Coroutine[Any, Any, _Value]],
) -> Callable[Concatenate[Blocking[_Client], _Given], _Value]:
    """The method, waited for."""

    @wraps(method)
    def call(self: Blocking[_Client], /, *args: _Given.args, **options: _Given.kwargs) -> _Value:
        return self._wait(method(self._client, *args, **options))

    return call


def iterated(
    method: Callable[Concatenate[_Client, _Given], AsyncIterator[_Item]],
) -> Callable[Concatenate[Blocking[_Client], _Given], Iterator[_Item]]:
    """The method, whose items are waited for."""

    @wraps(method)
    def call(
        self: Blocking[_Client], /, *args: _Given.args, **options: _Given.kwargs
    ) -> Iterator[_Item]:
        return self._iterate(method(self._client, *args, **options))

    return call


async def in_threads(items: Iterable[_Item]) -> AsyncIterator[_Item]:
    """Items whose making may block."""
    iterator = iter(items)
    while (item := await asyncio.to_thread(next, iterator, _END)) is not _END:
        yield item


async def _next(items: AsyncIterator[Any]) -> Any:
    return await anext(items, _END)


async def _close(items: Any) -> None:
    await items.aclose()
