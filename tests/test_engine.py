"""The engine's promises, with small parts that do exactly what a test says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import router
from arbitrage import config
from arbitrage.engine import Engine
from arbitrage.errors import (
    ArbitrageError,
    BudgetSpent,
    NoTeacherAvailable,
    NoWinner,
    RewardError,
    SinkError,
    TeacherRateLimited,
    TeacherRejected,
)
from arbitrage.events import Accepted, Answered, Drafted, Event, Judged, Left, Routed, Stored
from arbitrage.types import (
    Candidate,
    Completion,
    Context,
    Decision,
    Failure,
    Prompt,
    Routing,
    Sample,
    Score,
    TeacherInfo,
    Verdict,
)
from teachers import Pool
from tests.stub_teacher import StubTeacher, fails, settings
from tests.virtual_time import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from arbitrage.types import Estimate

PROMPT = Prompt.of("Why is the sky blue?", language="en")


@dataclass
class Script:
    """Every port of the engine in one: answers, verdicts and rewards are given by arm.

    Attributes:
        answers: an arm's answer, or its answers, or None where it fails.
        rewards: by answer, or else by arm; there is no opinion of the others.
        seconds: what an arm takes for its answer; the others answer at once.
        unwell: arms that may not be asked for so many seconds.
        away: why nobody may be asked.
    """

    answers: Mapping[str, str | tuple[str, ...] | None]
    rewards: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    prices: Mapping[str, float] = field(default_factory=dict)
    unwell: dict[str, float] = field(default_factory=dict)
    away: NoTeacherAvailable = field(default_factory=lambda: NoTeacherAvailable("nobody is here"))
    tried: list[set[str]] = field(default_factory=list)
    deadlines: list[float | None] = field(default_factory=list)
    stopped: frozenset[str] = frozenset()
    waves: Sequence[Sequence[str]] = ()
    kind: str = "script"
    version: int = 0
    pending: int = 0
    stalled: bool = False
    queue_depth: int = 0
    learned: list[Sequence[Candidate]] = field(default_factory=list)
    calibrated: list[Sequence[Candidate]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    contexts: list[Context] = field(default_factory=list)
    judged: list[tuple[Context, str, float]] = field(default_factory=list)
    progress: list[tuple[int, float]] = field(default_factory=list)
    broken: Exception | None = None
    unscorable: str | None = None
    raises: Exception | None = None
    together: asyncio.Barrier | None = None

    def engine(self, deadline_seconds: float = 600.0) -> Engine:
        return Engine(
            self, self, self, self, self, self, self,
            observers=[self], deadline_seconds=deadline_seconds,
        )  # fmt: skip

    def available(self, prompt: Prompt) -> list[str]:
        del prompt
        return [arm for arm in self.answers if arm not in self.unwell]

    async def another(self, prompt: Prompt, asked: Collection[str], deadline: float) -> bool:
        del prompt
        left = {arm: seconds for arm, seconds in self.unwell.items() if arm not in asked}
        if not left:
            return False
        arm = min(left, key=left.__getitem__)
        if asyncio.get_running_loop().time() + left[arm] > deadline:
            return False
        await asyncio.sleep(self.unwell.pop(arm))
        return True

    def expected_cost(self, arm: str, prompt: Prompt) -> float:
        del prompt
        return self.prices.get(arm, 0.0)

    def refusal(self, prompt: Prompt) -> NoTeacherAvailable:
        del prompt
        return self.away

    def describe(self) -> Sequence[TeacherInfo]:
        return [TeacherInfo(arm, "script", "m", available=True) for arm in self.answers]

    def calibrate(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Candidate]:
        del prompt
        return list(candidates)

    def learn(self, prompt: Prompt, candidates: Sequence[Candidate]) -> None:
        del prompt
        self.calibrated.append(candidates)

    async def ask(
        self,
        arm: str,
        prompt: Prompt,
        *,
        tried: Collection[str] = (),
        deadline: float | None = None,
        on_delta: Callable[[str], None] | None = None,
    ) -> list[Candidate]:
        del prompt
        self.tried.append(set(tried))
        self.deadlines.append(deadline)
        if self.together:
            await self.together.wait()
        answers = self.answers[arm]
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.sleep(self.seconds.get(arm, 0.0))
        except TimeoutError:
            answers = None
        if answers is None:
            return [Candidate(arm, failure=Failure("timeout", "no answer"))]
        answers = (answers,) if isinstance(answers, str) else answers
        if on_delta:
            for letter in answers[0]:
                on_delta(letter)
        return [Candidate(arm, Completion(answer)) for answer in answers]

    def detect(self, text: str) -> str:
        return "ja" if "空" in text else "und"

    async def inspect(
        self, prompt: Prompt, candidates: Sequence[Candidate]
    ) -> list[tuple[Verdict, ...]]:
        del prompt
        return [
            (Verdict("empty", "because"),)
            if c.teacher in self.stopped or (c.completion and c.completion.text in self.stopped)
            else ()
            for c in candidates
        ]

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score | None]:
        del prompt
        if isinstance(self.broken, RewardError):
            raise self.broken
        if self.raises:
            raise self.raises
        assert candidates
        assert all(c.passed for c in candidates)
        if any(c.teacher == self.unscorable for c in candidates):
            raise RewardError("cannot be scored")
        rewards = [self._reward(c) for c in candidates]
        return [None if reward is None else Score(reward, {"script": 1.0}) for reward in rewards]

    def _reward(self, candidate: Candidate) -> float | None:
        assert candidate.completion
        text = candidate.completion.text
        return self.rewards.get(text, self.rewards.get(candidate.teacher))

    def select(
        self,
        context: Context,
        arms: Sequence[str],
        seen: Sequence[Candidate],
        *,
        wave: int = 0,
        elapsed: float = 0.0,
        most: int | None = None,
    ) -> Decision | None:
        self.contexts.append(context)
        self.progress.append((wave, elapsed))
        asked = {c.teacher for c in seen}
        assert asked.isdisjoint(arms)
        for following in self.waves or [list(self.answers)]:
            if not asked.issuperset(following):
                room = None if most is None else most - len(asked)
                chosen = tuple(arm for arm in following if arm in arms)[:room]
                return Decision("script", 7, chosen, (0.5,) * len(chosen), (0,) * len(chosen))
        return None

    def update(self, context: Context, candidates: Sequence[Candidate]) -> None:
        del context
        self.learned.append(candidates)

    def estimates(
        self, arms: Sequence[str], languages: Collection[str] | None = None
    ) -> Sequence[Estimate]:
        del arms, languages
        return ()

    def shares(self, context: Context, arms: Sequence[str]) -> Sequence[float]:
        del context
        return [0.5 for _ in arms]

    def judge(self, context: Context, arm: str, reward: float) -> None:
        self.judged.append((context, arm, reward))

    def state(self) -> Mapping[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        assert not state

    def merge(self, state: Mapping[str, Any]) -> None:
        assert not state

    async def write(self, sample: Sample) -> int | None:
        if isinstance(self.broken, SinkError):
            raise self.broken
        assert not self.learned  # what is not durable is not learned from
        self.samples.append(sample)
        return len(self.samples)

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
    assert [type(event) for event in script.events] == [Accepted, Left]


@pytest.mark.parametrize(
    "away",
    [NoTeacherAvailable("all are ill", retry_after_seconds=7.0), BudgetSpent("all is spent")],
)
async def test_nobody_to_ask_is_told_with_the_pools_reason(away: NoTeacherAvailable) -> None:
    with pytest.raises(NoTeacherAvailable) as caught:
        await Script({}, away=away).engine().arbitrate(PROMPT)
    assert caught.value is away


async def test_what_was_not_stored_is_not_learned() -> None:
    script = Script({"a": "A"}, rewards={"a": 0.0}, broken=SinkError("no"))
    with pytest.raises(SinkError):
        await script.engine().arbitrate(PROMPT)
    assert not script.learned
    assert isinstance(script.events[-1], Left)


async def test_answers_that_cannot_be_scored_are_stored_before_the_caller_hears_of_it() -> None:
    script = Script({"a": "A", "b": "B"}, broken=RewardError("out of memory"))
    with pytest.raises(RewardError, match="out of memory"):
        await script.engine().arbitrate(PROMPT)
    (sample,) = script.samples
    assert [c.completion.text for c in sample.candidates if c.completion] == ["A", "B"]
    assert sample.winner is None
    assert isinstance(script.events[-2], Stored)


@pytest.mark.parametrize("broken", [TypeError("a bug"), ExceptionGroup("", [OSError("two")])])
async def test_not_even_a_bug_of_the_reward_loses_what_was_paid_for(broken: Exception) -> None:
    script = Script({"a": "A"})
    script.raises = broken
    with pytest.raises(type(broken)):
        await script.engine().arbitrate(PROMPT)
    assert [c.teacher for c in script.samples[0].candidates] == ["a"]
    (judged,) = (event for event in script.events if isinstance(event, Judged))
    assert [c.score for c in judged.candidates] == [None]


async def test_others_are_asked_while_there_is_no_opinion_of_an_answer() -> None:
    script = Script({"a": "A", "b": "B"}, rewards={"b": 0.5})
    policy = router.build(config.Policy(kind="fixed", fan_out=1, audit_rate=0.0, experts=EXPERTS))
    engine = replace(script.engine(), policy=policy)
    sample = await engine.arbitrate(PROMPT)
    assert sample.winner
    assert sample.winner.teacher == "b"
    assert sample.decision.arms == ("a", "b")


async def test_an_earlier_wave_may_win_where_a_later_one_cannot_be_scored() -> None:
    script = Script({"a": "A", "b": "B"}, rewards={"a": 0.5}, waves=[["a"], ["b"]])
    script.unscorable = "b"
    sample = await script.engine().arbitrate(PROMPT)
    assert sample.winner
    assert sample.winner.teacher == "a"
    assert [c.teacher for c in sample.candidates] == ["a", "b"]


async def test_an_answer_without_an_opinion_on_it_does_not_win() -> None:
    script = Script({"a": "A", "b": "B"}, rewards={"a": 0.5})
    sample = await script.engine().arbitrate(PROMPT)
    assert sample.winner
    assert [(c.teacher, c.reward) for c in sample.candidates] == [("a", 0.5), ("b", None)]
    nobody = Script({"a": "A", "b": "B"})
    with pytest.raises(NoWinner, match=r"no answer has a score \(a not scored; b not scored\)"):
        await nobody.engine().arbitrate(PROMPT)


async def test_the_calibration_learns_from_every_sample_stored() -> None:
    script = Script({"a": "A", "b": "B"}, rewards={"a": 0.5, "b": 0.2}, waves=[["a"], ["b"]])
    sample = await script.engine().arbitrate(PROMPT)
    assert script.calibrated == [sample.candidates]


async def test_a_language_is_detected_only_where_it_is_not_given() -> None:
    script = Script({"a": "A"}, rewards={"a": 0.0})
    sample = await script.engine().arbitrate(Prompt.of("空はなぜ青い？"))
    assert sample.prompt.language == "ja"
    await_given = Script({"a": "A"}, rewards={"a": 0.0})
    sample = await await_given.engine().arbitrate(Prompt.of("空はなぜ青い？", language="en-GB"))
    assert sample.prompt.language == "en"
    assert await_given.contexts[0] == Context("en")


class Embeddings:
    """Features of any text, but of those it cannot read."""

    async def encode(self, text: str) -> Any:
        if "blue" in text:
            raise ArbitrageError("cannot embed it")
        return np.full(3, len(text), dtype=np.float32)

    async def close(self) -> None:
        """Nothing to free."""


@pytest.mark.parametrize(
    ("text", "features"), [("Why is the sea deep?", [20.0] * 3), (PROMPT.text, None)]
)
async def test_the_policy_sees_features_where_the_text_can_be_embedded(
    text: str, features: list[float] | None
) -> None:
    script = Script({"a": "A"}, rewards={"a": 0.0})
    engine = replace(script.engine(), encoder=Embeddings())
    await engine.arbitrate(Prompt.of(text, language="en"))
    seen = script.contexts[0].features
    assert (None if seen is None else seen.tolist()) == features


@in_virtual_time
async def test_the_policy_hears_which_wave_it_is_and_how_long_it_took() -> None:
    script = Script(
        {"a": "A", "b": "B"},
        rewards={"a": 0.0, "b": 0.0},
        waves=[["a"], ["b"]],
        seconds={"a": 3.0, "b": 4.0},
    )
    await script.engine().arbitrate(PROMPT)
    assert script.progress == [(0, 0.0), (1, pytest.approx(3.0))]


async def test_observers_hear_it_in_the_order_in_which_it_happens() -> None:
    script = Script({"a": "A", "b": None}, rewards={"a": 0.0}, waves=["a", "b"])
    heard = Script({})
    await script.engine().arbitrate(PROMPT, listener=heard)
    kinds = [
        Accepted, Routed, Drafted, Answered, Judged, Routed, Answered, Judged, Stored, Left,
    ]  # fmt: skip
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


async def test_each_answer_of_a_teacher_is_a_candidate_of_its_own() -> None:
    script = Script(
        {"a": ("A1", "A2", "A3"), "b": "B", "c": None},
        rewards={"A1": 1.0, "A2": 4.0, "B": 2.0},
        stopped=frozenset({"A3"}),
    )
    sample = await script.engine().arbitrate(PROMPT)
    assert [c.teacher for c in sample.candidates] == ["a", "a", "a", "b", "c"]
    assert [c.reward for c in sample.candidates] == [1.0, 4.0, None, 2.0, None]
    assert sample.winner
    assert sample.winner.completion == Completion("A2")
    assert sample.margin == 2.0
    assert sample.decision.arms == ("a", "b", "c")
    assert script.learned == [sample.candidates]
    answered = [
        event.candidate.completion for event in script.events if isinstance(event, Answered)
    ]
    assert [completion and completion.text for completion in answered] == [
        "A1",
        "A2",
        "A3",
        "B",
        None,
    ]


@in_virtual_time
async def test_a_prompt_over_its_deadline_stores_what_it_has() -> None:
    script = Script(
        {"a": "A", "b": "B", "c": "C"},
        rewards=dict.fromkeys("abc", 1.0),
        seconds={"a": 2.0, "b": 1000.0},
        waves=["ab", "c"],
    )
    begin = asyncio.get_running_loop().time()
    sample = await script.engine(deadline_seconds=10.0).arbitrate(PROMPT)
    assert asyncio.get_running_loop().time() - begin == pytest.approx(10.0, abs=1e-3)
    assert script.deadlines == [pytest.approx(begin + 10.0, abs=1e-6)] * 2
    assert sample.decision.arms == ("a", "b")  # for another wave there is no time
    assert sample.winner
    assert sample.winner.teacher == "a"
    assert sample.candidates[1].failure == Failure("timeout", "no answer")
    assert script.samples == [sample]


@in_virtual_time
async def test_a_prompt_that_nobody_answers_in_time_is_stored_too() -> None:
    script = Script({"a": "A"}, seconds={"a": 1000.0})
    with pytest.raises(NoWinner, match="a timeout"):
        await script.engine(deadline_seconds=10.0).arbitrate(PROMPT)
    assert len(script.samples) == len(script.learned) == 1


@in_virtual_time
async def test_a_prompt_waits_for_a_teacher_that_is_unwell_while_nobody_has_answered() -> None:
    script = Script(
        {"a": "A", "b": "B"}, rewards=dict.fromkeys("ab", 0.0), unwell={"a": 20.0, "b": 5.0}
    )
    script.waves = ["b", "a"]
    begin = asyncio.get_running_loop().time()
    sample = await script.engine().arbitrate(PROMPT)
    assert asyncio.get_running_loop().time() - begin == pytest.approx(5.0, abs=1e-3)
    assert [c.teacher for c in sample.candidates] == ["b"]  # a good answer waits for nobody


@in_virtual_time
async def test_after_failures_a_prompt_waits_for_those_that_are_unwell() -> None:
    script = Script({"a": None, "b": "B"}, rewards={"b": 0.0}, unwell={"b": 30.0}, waves=["a", "b"])
    sample = await script.engine().arbitrate(PROMPT)
    assert sample.winner
    assert sample.winner.teacher == "b"
    assert script.tried == [set(), {"a"}]


@in_virtual_time
async def test_a_teacher_that_is_unwell_beyond_the_deadline_is_not_waited_for() -> None:
    script = Script({"a": "A"}, unwell={"a": 30.0})
    begin = asyncio.get_running_loop().time()
    with pytest.raises(NoTeacherAvailable, match="nobody is here"):
        await script.engine(deadline_seconds=10.0).arbitrate(PROMPT)
    assert asyncio.get_running_loop().time() - begin < 1e-3


@pytest.mark.parametrize(
    ("waves", "drafts"),
    [([["a"]], ["a", "A", "1"]), ([["a", "b"]], []), ([["a", "b"], ["c"]], ["c", "C"])],
)
async def test_the_only_teacher_of_a_wave_is_heard_while_it_writes(
    waves: list[list[str]], drafts: list[str]
) -> None:
    answers = {"a": "A1", "b": "B", "c": "C"}
    script = Script(answers, rewards=dict.fromkeys("abc", 0.0), waves=waves)
    heard = Script({})
    await script.engine().arbitrate(PROMPT, listener=heard)
    told = [event for event in heard.events if isinstance(event, Drafted)]
    assert [*dict.fromkeys(e.teacher for e in told), *(e.text for e in told)] == drafts
    if told:
        places = [type(event) for event in heard.events]
        assert places.index(Drafted) > places.index(Routed)
        last_draft = len(places) - 1 - places[::-1].index(Drafted)
        assert places[last_draft + 1] is Answered


async def test_without_a_listener_nobody_streams() -> None:
    script = Script({"a": "A"}, rewards={"a": 0.0})
    await script.engine().arbitrate(PROMPT)
    assert not any(isinstance(event, Drafted) for event in script.events)


@pytest.mark.parametrize("fan_out", [1, 2])
@in_virtual_time
async def test_a_call_that_was_left_to_another_is_made_when_that_one_has_failed(
    fan_out: int,
) -> None:
    limited = fails(TeacherRateLimited("slow down", retry_after_seconds=5.0), TeacherRejected("no"))
    refuses = fails(TeacherRejected("too long"))
    limited_once = StubTeacher(lambda number: once(number, limited))
    pool = Pool([(settings("a"), limited_once), (settings("b"), refuses)])
    script = Script({"a": "Because.", "b": None}, {"Because.": 1.0})
    policy = router.build(config.Policy(kind="fixed", fan_out=fan_out, experts=EXPERTS))
    engine = Engine(pool, policy, script, script, script, script, script, deadline_seconds=60.0)
    sample = await engine.arbitrate(PROMPT)
    assert sample.winner
    assert sample.winner.teacher == "a"
    assert sorted(candidate.teacher for candidate in sample.candidates) == ["a", "b"]
    assert sorted(sample.decision.arms) == ["a", "b"]
    first, second = limited_once.sent
    assert second - first >= 5.0


EXPERTS = {"default": ("a", "b")}


async def once(number: int, limited: StubTeacher) -> Sequence[Completion]:
    return (Completion("Because."),) if number else await limited.complete(PROMPT.messages)


async def test_only_the_teachers_of_a_request_are_asked() -> None:
    script = Script({"a": "A", "b": "B", "c": "C"}, rewards={"a": 3.0, "b": 1.0, "c": 2.0})
    routing = Routing(teachers=frozenset({"b", "c"}))
    sample = await script.engine().arbitrate(PROMPT, routing=routing)
    assert set(sample.decision.arms) == {"b", "c"}
    script.unwell = {"b": 1.0, "c": 1.0}
    nobody = Routing(teachers=frozenset({"b"}), latency_budget_seconds=0.01)
    with pytest.raises(NoTeacherAvailable, match="that the request allows"):
        await script.engine().arbitrate(replace(PROMPT, prompt_id="2"), routing=nobody)


@pytest.mark.parametrize(
    ("most", "asked"), [(0.0, {"free"}), (2.0, {"free", "cheap"}), (9.0, {"free", "cheap", "dear"})]
)
async def test_whoever_is_chosen_costs_no_more_together_than_a_prompt_may(
    most: float, asked: set[str]
) -> None:
    answers = dict.fromkeys(("free", "cheap", "dear"), "A")
    script = Script(answers, rewards={"A": 1.0}, prices={"cheap": 2.0, "dear": 7.0})
    sample = await script.engine().arbitrate(PROMPT, routing=Routing(max_cost_usd=most))
    assert set(sample.decision.arms) <= asked
    assert sum(script.prices.get(arm, 0.0) for arm in sample.decision.arms) <= most


async def test_a_sample_may_be_stored_and_not_learned_from() -> None:
    script = Script({"a": "A"}, rewards={"a": 1.0})
    sample = await script.engine().arbitrate(PROMPT, routing=Routing(learn=False))
    assert not sample.learned
    assert script.samples == [sample]
    assert not script.learned
    await script.engine().relearn([sample])
    assert not script.learned
