"""Many prompts, each answered once, however often a job is begun again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from arbitrage.errors import BudgetSpent, NoTeacherAvailable, NoWinner, RewardError, SinkError
from arbitrage.job import Job
from arbitrage.prompts import Rejected
from arbitrage.types import Candidate, Failure, Prompt
from tests.samples import sample

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence

    from arbitrage.types import Sample


class Ledger:
    """Remembers what is answered and accepted, as a journal does."""

    def __init__(self, *known: str) -> None:
        self.answered = set(known)
        self.accepted: list[str] = []

    async def known(self, sample_ids: Collection[str]) -> set[str]:
        return self.answered & set(sample_ids)

    def accept(self, sample_id: str, prompt: Prompt) -> asyncio.Future[int | None]:
        assert prompt.sample_id("job") == sample_id
        self.accepted.append(sample_id)
        return asyncio.get_running_loop().create_future()


def prompts(count: int, start: int = 0) -> list[Prompt]:
    return [Prompt.of(f"Why {number}?", language="en") for number in range(start, start + count)]


def job_of(rows: Sequence[Prompt | Rejected], **more: Any) -> Job:
    settings: dict[str, Any] = {"name": "job", "max_in_flight": 8, "pause_seconds": 0.01, **more}
    return Job(iter(rows), **settings)


def answering(ledger: Ledger, seconds: float = 0.0) -> Callable[[Prompt], Awaitable[Sample]]:
    async def arbitrate(prompt: Prompt) -> Sample:
        await asyncio.sleep(seconds)
        ledger.answered.add(prompt.sample_id("job"))
        return sample()

    return arbitrate


async def test_every_prompt_is_answered_once_and_known_ones_are_not_asked() -> None:
    rows = prompts(700)
    ledger = Ledger(*(prompt.sample_id("job") for prompt in rows[100:300]))
    asked: list[Prompt] = []

    async def arbitrate(prompt: Prompt) -> Sample:
        asked.append(prompt)
        return await answering(ledger)(prompt)

    counts = await job_of([*rows, *rows[:50]]).run(arbitrate, ledger)
    assert asked == rows[:100] + rows[300:]
    assert (counts.read, counts.known, counts.answered) == (750, 250, 500)
    assert counts.done == counts.read
    assert ledger.accepted == [prompt.sample_id("job") for prompt in asked]


async def test_lines_that_are_no_prompt_are_told_of_and_the_rest_goes_on() -> None:
    rejected: list[Rejected] = []
    bad = Rejected("p.jsonl", 2, "is not JSON", "{")
    first, second = prompts(2)
    ledger = Ledger()
    job = job_of([first, bad, second], reject=rejected.append)
    counts = await job.run(answering(ledger), ledger)
    assert rejected == [bad]
    assert (counts.rejected, counts.answered) == (1, 2)


async def test_a_slow_prompt_holds_up_no_other_and_no_more_run_than_may() -> None:
    running = most = 0
    finished: list[str] = []

    async def arbitrate(prompt: Prompt) -> Sample:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.3 if prompt.text == "Why 0?" else 0.001)
        running -= 1
        finished.append(prompt.text)
        return sample()

    counts = await job_of(prompts(200), max_in_flight=4).run(arbitrate, Ledger())
    assert counts.answered == 200
    assert most == 4
    assert finished[-1] == "Why 0?"


async def test_prompts_are_read_only_a_little_ahead_of_need() -> None:
    read = 0

    def rows() -> Iterator[Prompt]:
        nonlocal read
        for prompt in prompts(100_000):
            read += 1
            yield prompt

    job = Job(rows(), name="job", max_in_flight=8)
    full, gate = asyncio.Event(), asyncio.Event()

    async def arbitrate(_: Prompt) -> Sample:
        if job.in_flight == 8:
            full.set()
        await gate.wait()
        return sample()

    running = asyncio.create_task(job.run(arbitrate, Ledger()))
    await full.wait()
    assert read <= 1000
    job.stop()
    gate.set()
    assert (await running).answered == 8


async def test_whether_there_is_more_is_known_before_anything_is_opened() -> None:
    rows = prompts(600)
    ledger = Ledger(*(prompt.sample_id("job") for prompt in rows))
    job = job_of(rows)
    assert not await job.has_more(ledger)
    assert job.counts.known == 600
    job = job_of([*rows, *prompts(3, start=600)])
    assert await job.has_more(ledger)
    assert (await job.run(answering(ledger), ledger)).answered == 3


def nobody_won(*failures: str) -> NoWinner:
    one = sample(won=False)
    object.__setattr__(
        one, "candidates", tuple(Candidate("a", failure=Failure(f, f)) for f in failures)
    )
    return NoWinner("no answer passed the gates", one)


@pytest.mark.parametrize(
    ("errors", "tries", "outcome"),
    [
        ([nobody_won("timeout")], 2, "answered"),
        ([nobody_won("timeout")] * 5, 3, "no winner"),
        ([nobody_won()], 1, "no winner"),
        ([RewardError("out of memory")], 2, "answered"),
        ([RewardError("out of memory")] * 5, 3, "not scored"),
        ([NoTeacherAvailable("resting", retry_after_seconds=0.0)], 2, "answered"),
        ([NoTeacherAvailable("nobody for 'xx'")], 1, "no teacher"),
        ([ValueError("a bug")], 1, "bug"),
    ],
    ids=lambda value: f"{value}"[:40],
)
async def test_what_may_pass_is_tried_again(
    errors: list[Exception], tries: int, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    left = list(errors)

    async def arbitrate(_: Prompt) -> Sample:
        nonlocal asked
        asked += 1
        if left:
            raise left.pop(0)
        return sample()

    async def at_once(_: Job, seconds: float) -> None:
        assert seconds >= 0.01

    monkeypatch.setattr(Job, "_rest", at_once)
    counts = await job_of(prompts(1)).run(arbitrate, Ledger())
    assert asked == tries
    ended = "answered" if counts.answered else next(iter(counts.unanswered))
    assert ended == outcome


@pytest.mark.parametrize("error", [BudgetSpent("spent"), SinkError("the disk is gone")])
async def test_where_there_is_no_going_on_what_is_under_way_ends_first(error: Exception) -> None:
    ledger = Ledger()
    ended = 0

    async def arbitrate(prompt: Prompt) -> Sample:
        nonlocal ended
        if prompt.text == "Why 3?":
            raise error
        await asyncio.sleep(0.02)
        ended += 1
        return sample()

    job = job_of(prompts(1000))
    with pytest.raises(type(error)):
        await job.run(arbitrate, ledger)
    assert ended == job.counts.answered
    assert 3 <= ended <= 8
    assert job.in_flight == 0


async def test_a_job_that_is_stopped_finishes_what_it_has_begun() -> None:
    job = job_of(prompts(1000))

    async def arbitrate(_: Prompt) -> Sample:
        if job.in_flight == 8:
            job.stop()
        await asyncio.sleep(0.01)
        return sample()

    counts = await job.run(arbitrate, Ledger())
    assert counts.answered == 8
    assert job.stopping


async def test_a_job_that_is_abandoned_ends_at_once() -> None:
    job = job_of(prompts(1000))
    full = asyncio.Event()

    async def arbitrate(_: Prompt) -> Sample:
        if job.in_flight == 8:
            full.set()
        await asyncio.sleep(1000.0)
        return sample()

    running = asyncio.create_task(job.run(arbitrate, Ledger()))
    await full.wait()
    job.abandon()
    counts = await asyncio.wait_for(running, 5.0)
    assert (counts.answered, job.in_flight) == (0, 0)


async def test_a_job_that_is_cancelled_from_outside_abandons_what_is_under_way() -> None:
    job = job_of(prompts(1000))
    full = asyncio.Event()

    async def arbitrate(_: Prompt) -> Sample:
        if job.in_flight == 8:
            full.set()
        await asyncio.sleep(1000.0)
        return sample()

    running = asyncio.create_task(job.run(arbitrate, Ledger()))
    await full.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 5.0)
    assert job.in_flight == 0


async def test_a_job_that_is_abandoned_reads_no_further() -> None:
    rows = prompts(2000)
    ledger = Ledger(*(prompt.sample_id("job") for prompt in rows))
    job = job_of(rows)
    job.abandon()
    assert not await job.has_more(ledger)
    assert (job.counts.read, job.exhausted) == (0, False)


async def test_a_job_knows_when_it_has_read_everything() -> None:
    job = job_of(prompts(300))
    await job.run(answering(Ledger()), Ledger())
    assert job.exhausted


async def test_who_waits_for_a_teacher_does_not_hold_up_the_end() -> None:
    job = job_of(prompts(1))
    asked = asyncio.Event()

    async def arbitrate(_: Prompt) -> Sample:
        asked.set()
        raise NoTeacherAvailable("resting", retry_after_seconds=1000.0)

    running = asyncio.create_task(job.run(arbitrate, Ledger()))
    await asked.wait()
    job.stop()
    counts = await asyncio.wait_for(running, 5.0)
    assert (counts.answered, counts.unanswered.total(), job.in_flight) == (0, 0, 0)
