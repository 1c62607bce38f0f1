"""One thread that embeds texts for everybody who waits, several of them at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from arbitrage.errors import ArbitrageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

_CLOSED = "the encoder is closed; open it again to embed"


class Worker:
    """An `Encoder` around a function that blocks; its features have unit length.

    Args:
        embed: from texts that UTF-8 can write to their embeddings, `(texts, features)`.
            It is called on one thread, always the same.
        at_once: how many texts it is given at most.
        free: gives up what `embed` holds; the last call on that thread.
    """

    def __init__(
        self,
        embed: Callable[[Sequence[str]], npt.NDArray[np.float32]],
        *,
        at_once: int = 1,
        free: Callable[[], None] = lambda: None,
    ) -> None:
        self._embed = embed
        self._at_once = at_once
        self._free = free
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self._waiting: deque[_Waiting] = deque()
        self._working: asyncio.Task[None] | None = None
        self._closed = False

    async def encode(self, text: str) -> npt.NDArray[np.float32]:
        """The features of one text, `(features,)`; cancelled before its turn, it costs nothing.

        Raises:
            ArbitrageError: the text cannot be embedded, or the encoder is closed.
        """
        if self._closed:
            raise ArbitrageError(_CLOSED)
        waiting = _Waiting(text)
        self._waiting.append(waiting)
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return await waiting.features

    async def close(self) -> None:
        """Waits for the texts under way, fails those that have had no turn, and frees the model."""
        if self._closed:
            return
        self._closed = True
        while self._waiting:
            self._waiting.popleft().fail(_CLOSED)
        if self._working:
            await self._working
        await asyncio.get_running_loop().run_in_executor(self._thread, self._free)
        self._thread.shutdown()

    async def _work(self) -> None:
        try:
            while batch := list(islice(self._turns(), self._at_once)):
                await self._answer(batch)
        finally:
            self._working = None

    def _turns(self) -> Iterator[_Waiting]:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.features.done():
                yield waiting

    async def _answer(self, batch: Sequence[_Waiting]) -> None:
        texts = [waiting.text for waiting in batch]
        loop = asyncio.get_running_loop()
        embedded = await loop.run_in_executor(self._thread, self._attempt, texts)
        if not isinstance(embedded, str):
            for waiting, features in zip(batch, embedded, strict=True):
                waiting.take(features)
        elif len(batch) == 1:
            batch[0].fail(f"a text of {len(texts[0])} characters cannot be embedded: {embedded}")
        else:
            # it may be one of them, or all of them together
            for waiting in batch:
                await self._answer([waiting])

    def _attempt(self, texts: Sequence[str]) -> npt.NDArray[np.float32] | str:
        """The features of the texts, `(texts, features)`, or why there are none."""
        try:
            return scaled(self._embed(texts))
        except BaseException as error:  # noqa: BLE001 - a panic of a tokenizer is no Exception
            return first_line(error)


class _Waiting:
    """A text whose features somebody waits for."""

    def __init__(self, text: str) -> None:
        # a tokenizer takes no lone surrogates
        self.text = text.encode("utf-8", "replace").decode()
        self.features: asyncio.Future[npt.NDArray[np.float32]] = (
            asyncio.get_running_loop().create_future()
        )

    def take(self, features: npt.NDArray[np.float32]) -> None:
        if not self.features.done():
            self.features.set_result(features)

    def fail(self, reason: str) -> None:
        if not self.features.done():
            self.features.set_exception(ArbitrageError(reason))


def scaled(embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The embeddings, `(texts, features)`, at unit length; zeros stay.

    Raises:
        ValueError: one of them is not finite.
    """
    if not np.isfinite(embeddings).all():
        raise ValueError("the model's output is not finite")
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(embeddings / np.where(lengths > 0.0, lengths, 1.0), np.float32)


def first_line(error: BaseException) -> str:
    """What an error of a library says, as one line of ours can quote it."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
