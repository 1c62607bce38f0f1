"""Clients of a running service, for code with and without asyncio: values in, values out.

>>> from arbitrage.client import Client
>>> with Client("127.0.0.1:50051") as client:  # doctest: +SKIP
...     print(client.complete("Wo liegt Lima?").winner.completion.text)

Every failure is an `ArbitrageError` (`arbitrage/errors.py`): what a service refuses comes back as
what it has raised. `docs/clients.md` tells more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbitrage.client.asynchronous import MAX_IN_FLIGHT, AsyncClient
from arbitrage.client.blocking import Blocking, awaited, in_threads, iterated
from arbitrage.client.channel import ADDRESS, TLS, Options, environment
from arbitrage.client.replies import (
    CandidateArrived,
    CandidatesScored,
    Decided,
    Event,
    Job,
    Learned,
    Outcome,
    Request,
    Result,
    TokenDelta,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self, Unpack

    from arbitrage.types import Prompt

__all__ = [
    "ADDRESS",
    "TLS",
    "AsyncClient",
    "CandidateArrived",
    "CandidatesScored",
    "Client",
    "Decided",
    "Event",
    "Job",
    "Learned",
    "Options",
    "Outcome",
    "Request",
    "Result",
    "TokenDelta",
    "environment",
]


class Client(Blocking[AsyncClient]):
    """`AsyncClient` for code without asyncio; several threads may share one.

    Args:
        address: `host:port`, or what else gRPC takes for one.
        options: see `Options`.

    Raises:
        ConfigError: an option is wrong.
    """

    def __init__(self, address: str = ADDRESS, **options: Unpack[Options]) -> None:
        super().__init__(_made(address, options))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    close = awaited(AsyncClient.close)
    complete = awaited(AsyncClient.complete)
    stream = iterated(AsyncClient.stream)
    feedback = awaited(AsyncClient.feedback)
    teachers = awaited(AsyncClient.teachers)
    policy = awaited(AsyncClient.policy)
    create_job = awaited(AsyncClient.create_job)
    job = awaited(AsyncClient.job)
    jobs = iterated(AsyncClient.jobs)
    watch_job = iterated(AsyncClient.watch_job)
    cancel_job = awaited(AsyncClient.cancel_job)

    def arbitrate(
        self,
        prompts: Iterable[str | Prompt | Request],
        *,
        max_in_flight: int = MAX_IN_FLIGHT,
        include_candidates: bool = False,
        timeout_seconds: float | None = None,
    ) -> Iterator[Outcome]:
        """As `AsyncClient.arbitrate`; prompts are taken from their iterator in another thread."""
        outcomes = self._client.arbitrate(
            in_threads(prompts),
            max_in_flight=max_in_flight,
            include_candidates=include_candidates,
            timeout_seconds=timeout_seconds,
        )
        return self._iterate(outcomes)


async def _made(address: str, options: Options) -> AsyncClient:
    """A channel belongs to the loop in which it is made."""
    return AsyncClient(address, **options)
