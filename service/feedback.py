"""Rewards that come later: kept, and learned from, each once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import assembly
from arbitrage.errors import AlreadyExists, InvalidPrompt, NotFound
from arbitrage.events import Corrected
from router.snapshots.keeper import FEEDBACK

if TYPE_CHECKING:
    from arbitrage.engine import Engine
    from arbitrage.types import Feedback, Sample


class Feedbacks:
    """Takes feedback on the samples of an engine that `assembly.open` has made."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = asyncio.Lock()  # learned in the order of its numbers

    async def take(self, feedback: Feedback) -> bool:
        """Stores feedback and learns from it: both, even if the caller gives up meanwhile.

        Args:
            feedback: an empty teacher stands for the winner.

        Returns:
            Whether it is new.

        Raises:
            NotFound: there is no such sample.
            InvalidPrompt: its teacher has no answer there to be judged.
            AlreadyExists: its id was used before, with other content.
            SinkError: it was not stored.
        """
        return await asyncio.shield(asyncio.ensure_future(self._take(feedback)))

    async def _take(self, feedback: Feedback) -> bool:
        journal = assembly.journal_of(self._engine)
        sample = await journal.sample(feedback.sample_id)
        if sample is None:
            raise NotFound(f"no sample has the id {feedback.sample_id!r}")
        feedback = replace(feedback, teacher=_judged(sample, feedback.teacher))
        async with self._turn:
            number = await journal.record(feedback)
            if number is None:
                if await journal.recorded(feedback.feedback_id) != feedback:
                    raise AlreadyExists(
                        f"{feedback.feedback_id}: was used for other feedback; choose another id"
                    )
                return False
            engine = self._engine
            await engine.judge(sample, feedback.teacher, feedback.reward)
            for observer in engine.observers:
                observer.observe(Corrected(engine.policy.kind))
            assembly.keeper_of(self._engine).learned(number, FEEDBACK)
        return True


def _judged(sample: Sample, teacher: str) -> str:
    """Whose answer is meant.

    Raises:
        InvalidPrompt: nobody's.
    """
    if not teacher:
        if sample.winner is None:
            raise InvalidPrompt("teacher", "nobody has won this sample; name a teacher")
        return sample.winner.teacher
    if teacher not in sample.decision.arms:
        asked = ", ".join(sample.decision.arms)
        raise InvalidPrompt("teacher", f"{teacher!r} was not asked for this sample; {asked} were")
    return teacher
