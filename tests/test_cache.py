"""No completion is paid for twice."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from arbitrage import config
from arbitrage.cache import CachedPool, key_of
from arbitrage.errors import SinkError, TeacherTimeout
from arbitrage.journal import Journal
from arbitrage.types import Completion, Message, Prompt
from teachers.identity import asked
from tests.stub_teacher import ANSWER, PROMPT, StubTeacher, answers, fails, pool_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = await Journal.open(tmp_path / "journal.sqlite")
    yield opened
    await opened.close()


def cached(teacher: StubTeacher, journal: Journal, **fields: Any) -> CachedPool:
    pool = pool_of(teacher, **fields)
    return CachedPool(pool, journal, pool.asked)


async def test_what_was_paid_for_is_found_and_costs_nothing(journal: Journal) -> None:
    teacher = answers()
    pool = cached(teacher, journal, price_per_million=config.Price(1.0, 2.0))
    (paid,) = await pool.ask("a", PROMPT)
    (found,) = await pool.ask("a", PROMPT)
    assert len(teacher.sent) == 1
    assert paid.cost_usd > 0.0
    assert found.cost_usd == 0.0
    assert found.completion == replace(ANSWER, cached=True)
    assert found.latency_seconds == paid.latency_seconds


async def test_it_is_found_by_the_next_run(tmp_path: Path) -> None:
    for calls in (1, 0):
        journal = await Journal.open(tmp_path / "journal.sqlite")
        teacher = answers(ANSWER, Completion("Since."))
        (first, second) = await cached(teacher, journal).ask("a", PROMPT)
        assert len(teacher.sent) == calls
        assert first.completion
        assert second.completion
        assert (first.completion.text, second.completion.text) == ("Because.", "Since.")
        await journal.close()


async def test_the_same_call_at_the_same_time_is_made_once(journal: Journal) -> None:
    teacher = answers(seconds=0.01)
    pool = cached(teacher, journal)
    found = await asyncio.gather(*(pool.ask("a", PROMPT) for _ in range(20)))
    assert len(teacher.sent) == 1
    assert sum(not one.completion.cached for (one,) in found if one.completion) == 1


async def test_who_waited_asks_for_himself_when_the_first_is_cancelled(journal: Journal) -> None:
    teacher = answers(seconds=0.02)
    pool = cached(teacher, journal)
    first = asyncio.create_task(pool.ask("a", PROMPT))
    second = asyncio.create_task(pool.ask("a", PROMPT))
    await asyncio.sleep(0.01)
    first.cancel()
    (found,) = await second
    assert found.completion == ANSWER
    assert len(teacher.sent) == 2


async def test_nobody_waits_for_another_beyond_his_own_deadline(journal: Journal) -> None:
    teacher = answers(seconds=1000.0)
    pool = cached(teacher, journal, timeout_seconds=2000.0)
    first = asyncio.create_task(pool.ask("a", PROMPT))
    await asyncio.sleep(0.01)
    deadline = asyncio.get_running_loop().time() + 0.05
    (late,) = await asyncio.wait_for(pool.ask("a", PROMPT, deadline=deadline), 5.0)
    assert late.failure
    first.cancel()


async def test_a_failure_is_not_kept(journal: Journal) -> None:
    teacher = fails(TeacherTimeout("no answer"))
    pool = cached(teacher, journal, max_attempts=1)
    for calls in (1, 2):
        (failed,) = await pool.ask("a", PROMPT)
        assert failed.failure
        assert len(teacher.sent) == calls


async def test_a_teacher_without_a_cache_is_asked_each_time(journal: Journal) -> None:
    teacher = answers()
    pool = cached(teacher, journal, cache=False)
    for calls in (1, 2):
        await pool.ask("a", PROMPT)
        assert len(teacher.sent) == calls


async def test_who_streams_hears_what_is_kept(journal: Journal) -> None:
    pool = cached(answers(), journal)
    heard: list[str] = []
    for _ in range(2):
        await pool.ask("a", PROMPT, on_delta=heard.append)
    assert "".join(heard) == "Because.Because."


async def test_where_nothing_can_be_read_the_teacher_is_asked(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_: bytes) -> Sequence[Any]:
        raise SinkError("journal.sqlite: is damaged")

    monkeypatch.setattr(journal, "kept", broken)
    (answered,) = await cached(answers(), journal).ask("a", PROMPT)
    assert answered.completion == ANSWER
    assert "asking the teacher again: journal.sqlite: is damaged" in caplog.text


async def test_runs_that_share_a_file_share_what_was_paid_for(tmp_path: Path) -> None:
    path = tmp_path / "shared" / "completions.sqlite"
    one, other = await Journal.open(path, shared=True), await Journal.open(path, shared=True)
    first, second = answers(), answers()
    await cached(first, one).ask("a", PROMPT)
    await asyncio.gather(
        *(cached(first, one).ask("a", Prompt.of(f"Why {i}?")) for i in range(50)),
        *(cached(second, other).ask("a", Prompt.of(f"Why not {i}?")) for i in range(50)),
    )
    await one.charge(0.0)  # behind all that it keeps
    (found,) = await cached(second, other).ask("a", PROMPT)
    assert found.completion
    assert found.completion.cached
    assert (len(first.sent), len(second.sent)) == (51, 50)
    await one.close()
    await other.close()


OPENAI = config.OpenAITeacher(
    name="a", kind="openai", model="m", base_url="http://127.0.0.1:1/v1", api_key_env="KEY"
)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"price_per_million": config.Price(1.0, 1.0)}, True),
        ({"max_concurrency": 3, "timeout_seconds": 1.0, "languages": ("de",)}, True),
        ({"api_key_env": "OTHER"}, True),
        ({"name": "b"}, False),
        ({"model": "n"}, False),
        ({"base_url": "http://127.0.0.1:2/v1"}, False),
        ({"sampling": config.Sampling(temperature=0.5)}, False),
        ({"sampling": config.Sampling(json_schema={"type": "object"})}, False),
    ],
)
def test_a_key_is_who_is_asked_and_how(changes: dict[str, Any], same: bool) -> None:
    other = replace(OPENAI, **changes)
    assert (key_of(asked(OPENAI), PROMPT) == key_of(asked(other), PROMPT)) is same


def test_a_key_is_what_is_asked_and_not_by_whom() -> None:
    told = asked(OPENAI)
    key = key_of(told, PROMPT)
    assert key == key_of(told, Prompt.of("Why?", prompt_id="7", language="de", domain="chat"))
    assert key != key_of(told, Prompt.of("Why not?"))
    assert key != key_of(told, Prompt.of([Message("system", "Be brief."), Message("user", "Why?")]))
