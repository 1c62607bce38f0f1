"""Several rewards side by side, so that no fooled one decides alone.

Here they only score; what they hold together is made of it by their calibration,
`reward.calibrate.consensus`, which sees all candidates of a prompt, those of earlier waves too.
"""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import reward
from arbitrage.errors import RewardError
from arbitrage.types import Score
from reward.calibrate.consensus import member_names
from reward.calibrate.raw import usable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arbitrage import config
    from arbitrage.ports import RewardModel
    from arbitrage.types import Candidate, Prompt

_log = logging.getLogger(__name__)
_SECONDS_BETWEEN_WARNINGS = 60.0


async def open_reward(settings: config.EnsembleReward, run: reward.Run) -> EnsembleReward:
    """Opens the members, one after the other.

    Raises:
        ConfigError: one cannot be opened; those that were open are closed again.
    """
    members: dict[str, RewardModel] = {}
    async with AsyncExitStack() as opening:
        for name, member in zip(member_names(settings), settings.members, strict=True):
            members[name] = await reward.open_reward(member, run)
            opening.push_async_callback(members[name].close)
        closing = opening.pop_all()
    return EnsembleReward(members, settings.weights or (1.0,) * len(members), closing)


class EnsembleReward:
    """Lets all members score, and keeps what each of them says.

    In `raw` a member's scalar is under its name, such as `judge`, and its own raw figures
    are under `judge.` and theirs. The ensemble's scalar is the weighted mean of the
    scalars there are; it only stands in until the calibration has combined the members.

    Args:
        members: the reward models by name.
        weights: what each counts, in their order.
        closing: closes them.
    """

    def __init__(
        self,
        members: Mapping[str, RewardModel],
        weights: Sequence[float],
        closing: AsyncExitStack,
    ) -> None:
        self._members = members
        self._weights = dict(zip(members, weights, strict=True))
        self._closing = closing
        self._closed = False
        self._warned: dict[str, float] = {}

    @property
    def queue_depth(self) -> int:
        """Candidates that wait for a member or are with one; once for each member."""
        return sum(member.queue_depth for member in self._members.values())

    async def score(
        self, prompt: Prompt, candidates: Sequence[Candidate]
    ) -> Sequence[Score | None]:
        """Scores by all members at once; None for a candidate of which none has an opinion.

        A member that fails has no opinion: the others decide, and the log says so once a
        minute.

        Raises:
            RewardError: it is closed, or no member could score.
        """
        if self._closed:
            raise RewardError("reward 'ensemble' is closed; open it again to score")
        failed: dict[str, RewardError] = {}

        async def ask(name: str, member: RewardModel) -> Sequence[Score | None]:
            try:
                return await member.score(prompt, candidates)
            except RewardError as error:
                failed[name] = error
                return [None] * len(candidates)

        async with asyncio.TaskGroup() as group:
            asked = {n: group.create_task(ask(n, m)) for n, m in self._members.items()}
        if len(failed) == len(self._members):
            reasons = "; ".join(f"{name}: {error}" for name, error in failed.items())
            first = next(iter(failed.values()))
            raise RewardError(f"no member of the ensemble could score ({reasons})") from first
        self._warn(failed)
        opinions = {name: task.result() for name, task in asked.items()}
        return [
            self._together({name: scores[i] for name, scores in opinions.items()})
            for i in range(len(candidates))
        ]

    async def close(self) -> None:
        """Closes the members, the last one first."""
        self._closed = True
        await self._closing.aclose()

    def _together(self, opinions: Mapping[str, Score | None]) -> Score | None:
        """One candidate's score, of the members that have a usable opinion of it."""
        scores = {name: s for name, s in opinions.items() if s and usable(s.reward)}
        if not scores:
            return None
        raw: dict[str, float] = {}
        for name, score in scores.items():
            raw[name] = score.reward
            raw |= {f"{name}.{part}": v for part, v in score.raw.items() if math.isfinite(v)}
        weight = sum(self._weights[name] for name in scores)
        mean = sum(self._weights[name] * score.reward for name, score in scores.items()) / weight
        return Score(mean, raw)

    def _warn(self, failed: Mapping[str, RewardError]) -> None:
        now = asyncio.get_running_loop().time()
        for name, error in failed.items():
            if now - self._warned.get(name, -math.inf) >= _SECONDS_BETWEEN_WARNINGS:
                self._warned[name] = now
                _log.warning("reward member %s could not score; the others decide: %s", name, error)
