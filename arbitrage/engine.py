"""The product on one screen: route, fan out, gate, score, choose, learn, store.

For each prompt the policy chooses a wave of teachers, they are asked side by
side, cheap gates stop unusable answers, a reward model scores the rest, and
the policy may ask for another wave. The best answer wins, the policy learns
from all of them, and the sample is durable before anyone hears of it.
(Multilingual Arbitrage, arXiv 2408.14960.)
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from arbitrage.allowance import Allowance
from arbitrage.errors import PUT_OFF, ArbitrageError, NoWinner
from arbitrage.events import Accepted, Answered, Drafted, Event, Judged, Left, Routed, Stored
from arbitrage.language import UNDETERMINED
from arbitrage.types import AS_CONFIGURED, Candidate, Context, Decision, Prompt, Routing, Sample

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence

    from arbitrage.ports import (
        Calibration,
        Encoder,
        Gates,
        LanguageDetector,
        Observer,
        Policy,
        Pool,
        RewardModel,
        Sink,
    )


_log = logging.getLogger(__name__)
_STORING_SECONDS = 5.0  # that who gives up waits at most for what is on its way to the disk

JOB = "service"
"""What names a run by default, and so the ids of its samples."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Answers prompts by arbitrage between teachers. One engine serves a whole process.

    Attributes:
        encoder: makes features of a prompt's text for the policy; None where it routes
            by language and domain alone.
        job: names the run; `sample_id` depends on it and on the prompt alone.
        deadline_seconds: time that asking teachers may take for one prompt.
    """

    pool: Pool
    policy: Policy
    detector: LanguageDetector
    gates: Gates
    reward: RewardModel
    calibration: Calibration
    sink: Sink
    encoder: Encoder | None = None
    observers: Sequence[Observer] = ()
    job: str = JOB
    deadline_seconds: float = 600.0
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    async def arbitrate(
        self,
        prompt: Prompt,
        listener: Observer | None = None,
        routing: Routing = AS_CONFIGURED,
    ) -> Sample:
        """Answers one prompt; returns when its sample is durable and learned from.

        Args:
            prompt: what to answer.
            listener: hears this prompt's events alone, beside the engine's observers.
            routing: how this prompt is routed.

        Raises:
            NoTeacherAvailable: nobody may be asked; nothing was spent. A `BudgetSpent`
                where that is because nothing is left to spend.
            NoWinner: no answer passed the gates and has a score; what was paid for is stored.
            RewardError: the answers could not be scored; what was paid for is stored.
            SinkError: storing failed.
        """
        sample_id = prompt.sample_id(self.job)
        prompt = await self._with_language(prompt)
        context = await self._context(prompt)
        decision: Decision | None = None
        candidates: list[Candidate] = []
        allowance = Allowance(self.pool, prompt, routing)
        asked = allowance.barred
        put_off: set[str] = set()
        unscored: Exception | None = None
        loop = asyncio.get_running_loop()
        started, waves = loop.time(), 0
        deadline = started + min(
            self.deadline_seconds, routing.latency_budget_seconds or self.deadline_seconds
        )
        with self._in_flight(prompt, listener) as emit:
            while arms := await self._next_arms(allowance, asked, candidates, deadline):
                wave = self.policy.select(
                    context,
                    arms,
                    candidates,
                    wave=waves,
                    elapsed=loop.time() - started,
                    most=allowance.most(arms, candidates),
                )
                if wave is None:
                    break
                # what was put off is as if it had not been chosen
                decision = decision.without(wave.arms).then(wave) if decision else wave
                waves += 1
                tried = {c.teacher for c in candidates}
                candidates = [c for c in candidates if c.teacher not in wave.arms]
                emit(Routed(prompt, wave))
                ask = partial(
                    self.pool.ask,
                    prompt=prompt,
                    tried=tried,
                    deadline=deadline,
                )
                streams = listener is not None and len(wave.arms) == 1
                answered = await self._fan_out(prompt, wave, ask, emit, streams=streams)
                try:
                    answered = await self._inspected(prompt, answered)
                    candidates = await self._scored(prompt, candidates, answered, emit)
                except Exception as error:  # noqa: BLE001 - not even a bug may lose what was paid
                    # stored first, and then the caller hears of it
                    emit(Judged(prompt, answered, 0.0))
                    candidates += answered
                    unscored = error
                    break
                # a call that was left to others was not made; when they have failed, it may be
                asked |= set(wave.arms)
                left = {c.teacher for c in answered if c.failure and c.failure.outcome in PUT_OFF}
                asked -= left - put_off
                put_off |= left
            if decision is None:
                raise allowance.refusal()
            sample = Sample.of(
                prompt,
                decision,
                candidates,
                job=self.job,
                created_at=self.now(),
                sample_id=sample_id,
                learned=routing.learn,
            )
            await self._store(context, sample, emit)
        if sample.winner is None:
            if unscored:
                raise unscored
            raise NoWinner(_why_nobody_won(sample), sample)
        return sample

    async def _store(self, context: Context, sample: Sample, emit: Callable[[Event], None]) -> None:
        """Stores a sample and learns from it: both, even if the caller gives up meanwhile."""

        async def store() -> None:
            number = await self.sink.write(sample)
            if number is not None:  # what was stored before was learned from before
                if sample.learned:
                    self.learn(context, sample)
                emit(Stored(sample, number))

        storing = asyncio.ensure_future(store())
        try:
            await asyncio.shield(storing)
        except asyncio.CancelledError:
            # a matter of moments, unless the disk is full
            await asyncio.wait({storing}, timeout=_STORING_SECONDS)
            raise

    def learn(self, context: Context, sample: Sample) -> None:
        """Lets policy and calibration learn from a sample."""
        self.policy.update(context, sample.candidates)
        self.calibration.learn(sample.prompt, sample.candidates)

    async def relearn(self, samples: Sequence[Sample]) -> None:
        """Learns from stored samples what was not saved, in their order, as if they came now."""
        for sample in samples:
            if sample.learned:
                self.learn(await self._context(sample.prompt), sample)

    async def judge(self, sample: Sample, arm: str, reward: float) -> None:
        """Lets the policy learn from a reward that came later for an arm's answer."""
        self.policy.judge(await self._context(sample.prompt), arm, reward)

    async def _with_language(self, prompt: Prompt) -> Prompt:
        if prompt.language != UNDETERMINED:
            return prompt
        language = await asyncio.to_thread(self.detector.detect, prompt.text)
        return replace(prompt, language=language)

    async def _context(self, prompt: Prompt) -> Context:
        features = None
        if self.encoder:
            try:
                features = await self.encoder.encode(prompt.text)
            except ArbitrageError as error:
                # a prompt that cannot be embedded can still be answered
                _log.warning("routing by language alone: %s", error)
        return Context(prompt.language, prompt.domain, features)

    async def _next_arms(
        self,
        allowance: Allowance,
        asked: Collection[str],
        candidates: Sequence[Candidate],
        deadline: float,
    ) -> list[str]:
        """Arms not yet asked; while no answer may win, waits for those that are unwell."""
        while asyncio.get_running_loop().time() < deadline:
            if arms := [arm for arm in self.pool.available(allowance.prompt) if arm not in asked]:
                return allowance.affordable(arms, candidates)
            answered = any(candidate.may_win for candidate in candidates)
            if answered or not await self.pool.another(allowance.prompt, asked, deadline):
                break
        return []

    async def _fan_out(
        self,
        prompt: Prompt,
        wave: Decision,
        pool_ask: Callable[..., Awaitable[Sequence[Candidate]]],
        emit: Callable[[Event], None],
        *,
        streams: bool,
    ) -> list[Candidate]:
        async def ask(arm: str) -> Sequence[Candidate]:
            on_delta = (lambda text: emit(Drafted(prompt, arm, text))) if streams else None
            candidates = await pool_ask(arm, on_delta=on_delta)
            for candidate in candidates:
                emit(Answered(prompt, candidate))
            return candidates

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(arm)) for arm in wave.arms]
        return [candidate for task in tasks for candidate in task.result()]

    async def _inspected(self, prompt: Prompt, answered: Sequence[Candidate]) -> list[Candidate]:
        verdicts = await self.gates.inspect(prompt, answered)
        return [
            replace(c, gates=v) if v or c.gates else c
            for c, v in zip(answered, verdicts, strict=True)
        ]

    async def _scored(
        self,
        prompt: Prompt,
        candidates: Sequence[Candidate],
        wave: Sequence[Candidate],
        emit: Callable[[Event], None],
    ) -> list[Candidate]:
        """All candidates so far on one scale, after the last wave's have been scored."""
        passed = [c for c in wave if c.passed]
        started = perf_counter()
        scores = await self.reward.score(prompt, passed) if passed else ()
        seconds = perf_counter() - started if passed else 0.0
        score_of = dict(zip(map(id, passed), scores, strict=True))
        judged = [replace(c, score=s) if (s := score_of.get(id(c))) else c for c in wave]
        together = self.calibration.calibrate(prompt, [*candidates, *judged])
        emit(Judged(prompt, together[len(candidates) :], seconds))
        return together

    @contextmanager
    def _in_flight(
        self, prompt: Prompt, listener: Observer | None
    ) -> Iterator[Callable[[Event], None]]:
        observers = (*self.observers, listener) if listener else self.observers

        def emit(event: Event) -> None:
            for observer in observers:
                observer.observe(event)

        emit(Accepted(prompt))
        try:
            yield emit
        finally:
            emit(Left(prompt))


def _why_nobody_won(sample: Sample) -> str:
    """One line: how each teacher's answer ended."""
    ends = [
        f"{c.teacher} {c.failure.outcome}" if c.failure
        else f"{c.teacher} stopped by {', '.join(v.gate for v in c.gates)}" if c.gates
        else f"{c.teacher} not scored"
        for c in sample.candidates
    ]  # fmt: skip
    passed = any(candidate.passed for candidate in sample.candidates)
    what = "no answer has a score" if passed else "no answer passed the gates"
    return f"{what} ({'; '.join(ends)}); stored without a winner"
