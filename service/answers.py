"""The prompts of one stream, answered side by side, as far as the client reads."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from arbitrage import wire
from arbitrage.errors import ArbitrageError, InvalidPrompt, Stopping
from arbitrage.status import status_of
from arbitrage.v1 import arbitrage_pb2 as pb
from service.request import internal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from service.admission import Admission

_LOG = logging.getLogger(__name__)
_HELD = 4096  # answers that are given again to a client that lost its stream ...
_HELD_BYTES = 64 << 20  # ... as long as they are no larger together
_UNREAD = 64  # answers of a stream, done or under way, that its client has not read


class Held:
    """The latest answers to streams, by client, request and id."""

    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[str, bytes], pb.ArbitrateResponse] = OrderedDict()
        self._bytes = 0

    def get(self, client: str, request: pb.ArbitrateRequest) -> pb.ArbitrateResponse | None:
        """The answer that this client's request was given before."""
        key = (client, _content(request))
        if key in self._answers:
            self._answers.move_to_end(key)
        return self._answers.get(key)

    def put(
        self, client: str, request: pb.ArbitrateRequest, response: pb.ArbitrateResponse
    ) -> None:
        """Holds an answer, at the cost of the oldest."""
        key = (client, _content(request))
        if (before := self._answers.pop(key, None)) is not None:
            self._bytes -= before.ByteSize()
        self._answers[key] = response
        self._bytes += response.ByteSize()
        while len(self._answers) > _HELD or self._bytes > _HELD_BYTES:
            _, oldest = self._answers.popitem(last=False)
            self._bytes -= oldest.ByteSize()


class Answers:
    """Answers the requests of one stream.

    A request is read when there is room for its prompt, and few enough answers wait to be
    read: a client that stops reading is not worked for.

    Args:
        admission: room in the whole server.
        held: what was answered before.
        answer: answers one request.
        client: who asks; what is held for one is no other's.
    """

    def __init__(
        self,
        admission: Admission,
        held: Held,
        answer: Callable[[pb.ArbitrateRequest], Awaitable[pb.ArbitrateResponse]],
        client: str,
    ) -> None:
        self._admission = admission
        self._held = held
        self._answer = answer
        self._client = client
        self._unread = asyncio.Semaphore(_UNREAD)
        self._done: asyncio.Queue[pb.ArbitrateResponse | None] = asyncio.Queue()
        self._under_way: dict[str, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def of(
        self, requests: AsyncIterator[pb.ArbitrateRequest]
    ) -> AsyncIterator[AsyncIterator[pb.ArbitrateResponse]]:
        """The responses, as they are done; on leaving, what is under way is cancelled."""
        reading = asyncio.create_task(self._read(requests))
        reading.add_done_callback(lambda _: self._done.put_nowait(None))
        try:
            yield self._responses(reading)
        finally:
            tasks = {reading, *self._under_way.values()}
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _responses(self, reading: asyncio.Task[None]) -> AsyncIterator[pb.ArbitrateResponse]:
        while (response := await self._done.get()) is not None:
            yield response
            self._unread.release()  # it is on its way: gRPC holds back who does not read
        await reading  # raises what went wrong with it

    async def _read(self, requests: AsyncIterator[pb.ArbitrateRequest]) -> None:
        closing = asyncio.create_task(self._admission.closed.wait())
        try:
            async with asyncio.TaskGroup() as group:
                while (request := await self._next(requests, closing)) is not None:
                    if (answer := self._known(request)) is not None:
                        self._done.put_nowait(answer)
                        continue
                    try:
                        priority = wire.priority_from(request.options, default="batch")
                        await self._admission.wait(self._client, priority)
                    except Stopping as error:
                        self._done.put_nowait(_failed(request, error))
                        break
                    task = group.create_task(self._work(request))
                    self._under_way[request.request_id] = task
                    # not in the task, which may be cancelled before it has begun
                    task.add_done_callback(partial(self._end, request.request_id))
        finally:
            closing.cancel()
        if self._admission.closed.is_set():
            raise Stopping("the server stops; send what is not answered when it has begun anew")

    async def _next(
        self, requests: AsyncIterator[pb.ArbitrateRequest], closing: asyncio.Task[bool]
    ) -> pb.ArbitrateRequest | None:
        """The next request, once its answer may wait; None at the end, or the server's."""
        await self._unread.acquire()
        following = asyncio.ensure_future(anext(requests, None))
        try:
            await asyncio.wait({following, closing}, return_when=asyncio.FIRST_COMPLETED)
            return following.result() if following.done() else None
        finally:
            following.cancel()

    def _known(self, request: pb.ArbitrateRequest) -> pb.ArbitrateResponse | None:
        """The answer to a request for which nobody has to be asked."""
        return self._held.get(self._client, request) or self._refusal(request)

    def _refusal(self, request: pb.ArbitrateRequest) -> pb.ArbitrateResponse | None:
        if not request.request_id:
            return _failed(request, InvalidPrompt("request_id", "is required"))
        if request.request_id in self._under_way:
            return _failed(request, InvalidPrompt("request_id", "is being answered; use another"))
        return None

    async def _work(self, request: pb.ArbitrateRequest) -> None:
        try:
            response = await self._answer(request)
            self._held.put(self._client, request, response)
        except ArbitrageError as error:
            response = _failed(request, error)
        except Exception:  # noqa: BLE001 - a bug that one request meets must not end the others
            _LOG.exception("Arbitrate failed")
            response = _failed(request, ArbitrageError(internal()))
        self._done.put_nowait(response)

    def _end(self, request_id: str, _: object) -> None:
        self._admission.leave(self._client)
        del self._under_way[request_id]


def _failed(request: pb.ArbitrateRequest, error: ArbitrageError) -> pb.ArbitrateResponse:
    return pb.ArbitrateResponse(
        request_id=request.request_id, error=wire.error_to(status_of(error))
    )


def _content(request: pb.ArbitrateRequest) -> bytes:
    """All of a request, its id included, as bytes that say the same whenever it does."""
    return request.SerializeToString(deterministic=True)
