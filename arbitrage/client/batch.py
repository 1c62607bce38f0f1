"""Many prompts over one stream: what is sent, what is still open, and what is sent again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from arbitrage.client import wire
from arbitrage.client.replies import Outcome, Request
from arbitrage.types import Prompt

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from arbitrage.v1 import arbitrage_pb2 as pb

_REFUSAL_SECONDS = 0.2


class Batch:
    """The requests of one `arbitrate`, over as many streams as it takes.

    Args:
        source: gives them.
        most: that are sent and have no outcome yet.
        include_candidates: with all candidates.

    Attributes:
        failure: what the caller's own iterator has raised; None so far.
    """

    def __init__(
        self,
        source: AsyncIterator[str | Prompt | Request],
        *,
        most: int,
        include_candidates: bool,
    ) -> None:
        self.failure: Exception | None = None
        self._source = source
        self._most = most
        self._include_candidates = include_candidates
        self._open: dict[str, Request] = {}
        self._answered = asyncio.Event()
        self._next: asyncio.Future[Request | None] | None = None

    @property
    def done(self) -> bool:
        """Whether every request that was sent has its outcome."""
        return not self._open

    async def send(self, call: Any, *, again: bool) -> None:
        """Sends over a stream what has no outcome yet, and then what the source has.

        Args:
            call: a stream; where it ends early, so does this.
            again: a stream was lost before. A service that refuses one at once is given the time
                to say why, of which a write under way would leave nothing.
        """
        try:
            if again:
                refusal = asyncio.ensure_future(call.code())
                await asyncio.wait({refusal}, timeout=_REFUSAL_SECONDS)
                refusal.cancel()
            for request in list(self._open.values()):
                await call.write(self._message(request))
            while (following := await self._pull()) is not None:
                await call.write(self._message(following))
            await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the stream is lost: its reader hears why
        except Exception as error:  # noqa: BLE001 - the caller's own, who is told by the reader
            self.failure = error
            call.cancel()

    def take(self, response: pb.ArbitrateResponse) -> Outcome | None:
        """What a response tells; None where nobody waits for it."""
        request = self._open.pop(response.request_id, None)
        self._answered.set()
        return wire.outcome_from(response, request) if request else None

    async def close(self) -> None:
        """Lets go of the source."""
        if self._next:
            self._next.cancel()
            await asyncio.wait({self._next})

    async def _pull(self) -> Request | None:
        """The next request; None at the end. One that is pulled is not lost with the stream."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._following())
        request = await asyncio.shield(self._next)
        # the service refuses an id that it is at work on; HTTP/2 would take megabytes of prompts
        while request and (request.request_id in self._open or len(self._open) >= self._most):
            self._answered.clear()
            await self._answered.wait()
        if request:
            self._open[request.request_id] = request
        self._next = None
        return request

    async def _following(self) -> Request | None:
        async for given in self._source:
            if isinstance(given, Request):
                return given
            prompt = given if isinstance(given, Prompt) else Prompt.of(given)
            return Request(prompt.prompt_id, prompt)
        return None

    def _message(self, request: Request) -> pb.ArbitrateRequest:
        return wire.request_to(request, include_candidates=self._include_candidates)
