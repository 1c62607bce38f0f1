"""What happens to one prompt, step by step, as the events of a stream."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from arbitrage import wire
from arbitrage.events import Answered, Drafted, Judged, Routed
from arbitrage.v1 import arbitrage_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from arbitrage.events import Event
    from arbitrage.types import Candidate


class Steps:
    """Listens to one prompt, and tells what it hears to whoever iterates, until `end`."""

    def __init__(self) -> None:
        self._told: asyncio.Queue[pb.StreamCompleteResponse | None] = asyncio.Queue()
        self._wave = -1
        self._rewards: list[float] = []

    def observe(self, event: Event) -> None:
        """Takes one event of the engine."""
        match event:
            case Routed(_, wave):
                self._wave += 1
                numbered = replace(wave, waves=(self._wave,) * len(wave.arms))
                self._tell(pb.StreamCompleteResponse(decision=wire.decision_to(numbered)))
            case Drafted(_, teacher, text):
                delta = pb.TokenDelta(teacher=teacher, text=wire.unicode(text), wave=self._wave)
                self._tell(pb.StreamCompleteResponse(token_delta=delta))
            case Answered(_, candidate):
                arrived = wire.candidate_to(candidate, self._wave)
                self._tell(pb.StreamCompleteResponse(candidate_arrived=arrived))
            case Judged(_, candidates):
                self._tell(pb.StreamCompleteResponse(candidates_scored=self._scored(candidates)))

    def end(self) -> None:
        """Nothing more will be heard."""
        self._told.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[pb.StreamCompleteResponse]:
        while (told := await self._told.get()) is not None:
            yield told

    def _tell(self, response: pb.StreamCompleteResponse) -> None:
        self._told.put_nowait(response)

    def _scored(self, candidates: Sequence[Candidate]) -> pb.CandidatesScored:
        self._rewards += [one.reward for one in candidates if one.reward is not None]
        mean = sum(self._rewards) / max(len(self._rewards), 1)
        return pb.CandidatesScored(
            wave=self._wave,
            candidates=[
                wire.candidate_to(
                    one if one.reward is None else replace(one, advantage=one.reward - mean),
                    self._wave,
                )
                for one in candidates
            ],
        )
