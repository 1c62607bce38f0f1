"""The engine's promises, with small parts that do exactly what a test says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from arbitrage.engine import Engine
from arbitrage.errors import NoTeacherAvailable, NoWinner, RewardError, SinkError
from arbitrage.events import Accepted, Answered, Event, Judged, Left, Routed, Stored
from arbitrage.types import (
    Candidate,
    Completion,
    Context,
    Decision,
    Failure,
    Prompt,
    Sample,
    Score,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arbitrage.types import Estimate, TeacherInfo

PROMPT = Prompt.of("Why is the sky blue?", language="en")


@dataclass
class Script:
    """Every port of the engine in one: answers, verdicts and rewards are given by arm."""

    answers: Mapping[str, str | None]
    rewards: Mapping[str, float] = field(default_factory=dict)
    stopped: frozenset[str] = frozenset()
    waves: Sequence[Sequence[str]] = ()
    kind: str = "script"
    version: int = 0
    pending: int = 0
    learned: list[Sequence[Candidate]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    contexts: list[Context] = field(default_factory=list)
    broken: Exception | None = None
    together: asyncio.Barrier | None = None

    def engine(self) -> Engine:
        return Engine(self, self, self, self, self, self, observers=[self])

    def available(self, prompt: Prompt) -> list[str]:
        del prompt
        return list(self.answers)

    def describe(self) -> Sequence[TeacherInfo]:
        return ()

    async def ask(self, arm: str, prompt: Prompt) -> Candidate:
        del prompt
        if self.together:
            await self.together.wait()
        answer = self.answers[arm]
        if answer is None:
            return Candidate(arm, failure=Failure("timeout", "no answer"))
        return Candidate(arm, Completion(answer))

    def detect(self, text: str) -> str:
        return "ja" if "空" in text else "und"

    async def inspect(
        self, prompt: Prompt, candidates: Sequence[Candidate]
    ) -> list[tuple[Verdict, ...]]:
        del prompt
        return [
            (Verdict("empty", "because"),) if c.teacher in self.stopped else () for c in candidates
        ]

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        del prompt
        if isinstance(self.broken, RewardError):
            raise self.broken
        assert candidates
        assert all(c.passed for c in candidates)
        return [Score(self.rewards[c.teacher], {"script": 1.0}) for c in candidates]

    def select(
        self, context: Context, arms: Sequence[str], seen: Sequence[Candidate]
    ) -> Decision | None:
        self.contexts.append(context)
        asked = {c.teacher for c in seen}
        assert asked.isdisjoint(arms)
        for wave in self.waves or [list(self.answers)]:
            if not asked.issuperset(wave):
                return Decision("script", 7, tuple(wave), (0.5,) * len(wave), (0,) * len(wave))
        return None

    def update(self, context: Context, candidates: Sequence[Candidate]) -> None:
        del context
        self.learned.append(candidates)

    def estimates(self, arms: Sequence[str]) -> Sequence[Estimate]:
        del arms
        return ()

    async def write(self, sample: Sample) -> None:
        if isinstance(self.broken, SinkError):
            raise self.broken
        assert not self.learned  # what is not durable is not learned from
        self.samples.append(sample)

    def observe(self, event: Event) -> None:
        self.events.append(event)

    async def close(self) -> None:
        """Nothing to free."""


async def test_the_highest_reward_wins_and_everyone_is_learned_from() -> None:
    script = Script({"a": "A", "b": "B", "c": None}, rewards={"a": 1.0, "b": 3.0})
    sample = await script.engine().arbitrate(PROMPT)
    assert sample.winner
    assert sample.winner.teacher == "b"
    assert sample.margin == 2.0
    assert [c.advantage for c in sample.candidates] == [-1.0, 1.0, None]
    assert script.learned == [sample.candidates]
    assert script.samples == [sample]


async def test_teachers_of_a_wave_are_asked_side_by_side() -> None:
    script = Script({arm: arm for arm in "abcd"}, rewards=dict.fromkeys("abcd", 0.0))
    script.together = asyncio.Barrier(4)
    async with asyncio.timeout(10):
        sample = await script.engine().arbitrate(PROMPT)
    assert len(sample.candidates) == 4


async def test_waves_follow_one_another_and_are_numbered() -> None:
    script = Script(
        {"a": "A", "b": "B", "c": "C"}, rewards=dict.fromkeys("abc", 0.0), waves=["a", "bc"]
    )
    decision = (await script.engine().arbitrate(PROMPT)).decision
    assert decision.arms == ("a", "b", "c")
    assert decision.waves == (0, 1, 1)
    assert decision.version == 7


async def test_a_stopped_answer_is_neither_scored_nor_wins() -> None:
    script = Script({"a": "A", "b": "B"}, rewards={"b": -9.0}, stopped=frozenset("a"))
    sample = await script.engine().arbitrate(PROMPT)
    assert sample.winner
    assert sample.winner.teacher == "b"
    assert sample.margin is None
    assert sample.candidates[0].gates == (Verdict("empty", "because"),)
    assert sample.candidates[0].reward is None


async def test_nobody_wins_is_stored_and_learned_before_it_is_raised() -> None:
    script = Script({"a": "A", "b": None}, stopped=frozenset("a"))
    with pytest.raises(NoWinner, match=r"a stopped by empty; b timeout") as caught:
        await script.engine().arbitrate(PROMPT)
    assert script.samples == [caught.value.sample]
    assert script.samples[0].winner is None
    assert len(script.learned) == 1


async def test_nobody_to_ask_spends_and_stores_nothing() -> None:
    script = Script({})
    with pytest.raises(NoTeacherAvailable):
        await script.engine().arbitrate(PROMPT)
    assert not script.samples


@pytest.mark.parametrize("error", [RewardError("no"), SinkError("no")])
async def test_what_was_not_stored_is_not_learned(error: Exception) -> None:
    script = Script({"a": "A"}, rewards={"a": 0.0}, broken=error)
    with pytest.raises(type(error)):
        await script.engine().arbitrate(PROMPT)
    assert not script.learned
    assert isinstance(script.events[-1], Left)


async def test_a_language_is_detected_only_where_it_is_not_given() -> None:
    script = Script({"a": "A"}, rewards={"a": 0.0})
    sample = await script.engine().arbitrate(Prompt.of("空はなぜ青い？"))
    assert sample.prompt.language == "ja"
    await_given = Script({"a": "A"}, rewards={"a": 0.0})
    sample = await await_given.engine().arbitrate(Prompt.of("空はなぜ青い？", language="en-GB"))
    assert sample.prompt.language == "en"
    assert await_given.contexts[0] == Context("en", None, "空はなぜ青い？")


async def test_observers_hear_it_in_the_order_in_which_it_happens() -> None:
    script = Script({"a": "A", "b": None}, rewards={"a": 0.0}, waves=["a", "b"])
    heard = Script({})
    await script.engine().arbitrate(PROMPT, listener=heard)
    kinds = [Accepted, Routed, Answered, Judged, Routed, Answered, Judged, Stored, Left]
    assert [type(event) for event in script.events] == kinds
    assert heard.events == script.events


async def test_cancelling_a_prompt_cancels_its_calls_and_tells_the_observers() -> None:
    script = Script({"a": "A", "b": "B"})
    script.together = asyncio.Barrier(3)
    task = asyncio.create_task(script.engine().arbitrate(PROMPT))
    while script.together.n_waiting < 2:  # noqa: ASYNC110 - a barrier has no such event
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert script.together.n_waiting == 0
    assert isinstance(script.events[-1], Left)


async def sample_id(prompt: Prompt, answer: str = "A") -> str:
    script = Script({"a": answer}, rewards={"a": 0.0})
    return (await script.engine().arbitrate(prompt)).sample_id


async def test_a_sample_is_named_by_its_prompt_and_its_job_alone() -> None:
    assert await sample_id(PROMPT) == await sample_id(PROMPT, answer="another")
    others = [
        Prompt.of("Why is the sky blue?", language="en", prompt_id="other"),
        Prompt.of("Why is the sea blue?", language="en", prompt_id=PROMPT.prompt_id),
        Prompt.of("Why is the sky blue?", language="fr"),
        Prompt.of("Why is the sky blue?", language="en", domain="science"),
    ]
    names = {await sample_id(prompt) for prompt in (PROMPT, *others)}
    assert len(names) == 1 + len(others)
