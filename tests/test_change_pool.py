"""Another configuration for a pool that is at work: nobody notices but those it is about."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from arbitrage import config
from arbitrage.errors import ConfigError, TeacherUnavailable
from teachers import Changes, Pool, change_pool, open_pool
from tests.stub_teacher import ANSWER, PROMPT, StubTeacher
from tests.stub_teacher import settings as arm
from tests.virtual_time import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage.types import Completion

SECONDS = 1.0
PRICE = config.Price(prompt=1.0, completion=2.0)


class Slow(StubTeacher):
    """Takes a second for its answer."""

    def __init__(self, settings: config.ScriptedTeacher) -> None:
        async def script(_: int) -> Sequence[Completion]:
            await asyncio.sleep(SECONDS)
            return (ANSWER,)

        super().__init__(script)
        self.settings = settings


async def open_slow(configs: Sequence[config.ScriptedTeacher]) -> list[Slow]:
    if any(settings.model == "missing" for settings in configs):
        raise ConfigError("no such model")
    return [Slow(settings) for settings in configs]


@pytest.fixture(autouse=True)
def _adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("teachers.scripted.open_teachers", open_slow)


def teacher(pool: Pool, name: str) -> Slow:
    (found,) = (teacher for settings, teacher in pool.entries if settings.name == name)
    assert isinstance(found, Slow)
    return found


def names(pool: Pool) -> list[str]:
    return [info.name for info in pool.describe()]


@in_virtual_time
async def test_teachers_are_added_and_removed_in_the_new_order() -> None:
    pool = await open_pool([arm("a"), arm("b"), arm("c")])
    kept = teacher(pool, "b")
    changes = await change_pool(pool, [arm("d"), arm("b"), arm("e")])
    assert names(pool) == pool.available(PROMPT) == ["d", "b", "e"]
    assert teacher(pool, "b") is kept
    assert changes == Changes(added=("d", "e"), removed=("a", "c"))
    assert str(changes) == "added d, e; removed a, c"
    (candidate,) = await pool.ask("e", PROMPT)
    assert candidate.completion == ANSWER


@in_virtual_time
async def test_the_same_configuration_changes_nothing() -> None:
    configs = [arm("a", sampling=config.Sampling(stop=("x",))), arm("b", requests_per_minute=1)]
    pool = await open_pool(configs)
    before = pool.entries
    await pool.ask("b", PROMPT)
    assert pool.available(PROMPT) == ["a"]
    assert str(await change_pool(pool, [replace(settings) for settings in configs])) == (
        "nothing changed"
    )
    assert pool.entries == before
    assert pool.available(PROMPT) == ["a"]  # the minute's request is still used


@in_virtual_time
async def test_calls_under_way_end_well_before_a_removed_teacher_is_closed() -> None:
    pool = await open_pool([arm("a", max_concurrency=2), arm("b")])
    removed = teacher(pool, "a")
    asks = [asyncio.create_task(pool.ask("a", PROMPT)) for _ in range(6)]
    await asyncio.sleep(0.5)
    await change_pool(pool, [arm("b")])
    assert pool.available(PROMPT) == ["b"]
    candidates = [candidate for (candidate,) in await asyncio.gather(*asks)]
    assert all(candidate.completion == ANSWER for candidate in candidates)
    assert removed.closed == 0
    await asyncio.sleep(1.0)
    assert (removed.closed, removed.closed_on) == (1, 0)
    with pytest.raises(KeyError):
        await pool.ask("a", PROMPT)


@in_virtual_time
async def test_a_call_between_two_attempts_ends_well_too() -> None:
    async def script(number: int) -> Sequence[Completion]:
        if number < 2:
            raise TeacherUnavailable("down")
        assert flaky.closed == 0
        return (ANSWER,)

    flaky = StubTeacher(script)
    pool = Pool([(arm("a"), flaky)])
    ask = asyncio.create_task(pool.ask("a", PROMPT))
    await asyncio.sleep(0)
    pool.replace([])
    (candidate,) = await ask
    assert candidate.completion == ANSWER
    await asyncio.sleep(1.0)
    assert flaky.closed == 1


@in_virtual_time
async def test_a_prompt_that_has_just_chosen_a_removed_teacher_is_answered() -> None:
    pool = await open_pool([arm("a"), arm("b")])
    removed = teacher(pool, "a")
    (chosen, _) = pool.available(PROMPT)
    await change_pool(pool, [arm("b")])
    (candidate,) = await pool.ask(chosen, PROMPT)
    assert candidate.completion == ANSWER
    await asyncio.sleep(1.0)
    assert (removed.closed, removed.closed_on) == (1, 0)


@in_virtual_time
async def test_what_the_pool_alone_is_held_to_changes_without_opening_anew() -> None:
    pool = await open_pool([arm("a")])
    before = teacher(pool, "a")
    ask = asyncio.create_task(pool.ask("a", PROMPT))
    await asyncio.sleep(0.5)
    changes = await change_pool(
        pool,
        [
            arm(
                "a",
                max_concurrency=2,
                requests_per_minute=1,
                tokens_per_minute=1000,
                when_limited="wait",
                timeout_seconds=5.0,
                max_attempts=1,
                hedge_percentile=0.9,
                price_per_million=PRICE,
                languages=("en", "de"),
                license="MIT",
                trainable=True,
            )
        ],
    )
    assert changes == Changes(changed=("a",))
    assert teacher(pool, "a") is before
    (candidate,) = await ask
    assert candidate.completion == ANSWER
    (info,) = pool.describe()
    assert (info.max_concurrency, info.license, info.trainable) == (2, "MIT", True)
    assert (info.prompt_price, info.completion_price) == (1.0, 2.0)
    assert info.languages == ("en", "de")
    (candidate,) = await pool.ask("a", PROMPT)
    assert candidate.cost_usd == 0.000007
    await asyncio.sleep(1.0)
    assert before.closed == 0


@in_virtual_time
async def test_a_higher_limit_lets_those_in_who_wait() -> None:
    pool = await open_pool([arm("a", max_concurrency=1)])
    asks = [asyncio.create_task(pool.ask("a", PROMPT)) for _ in range(5)]
    await asyncio.sleep(0.5)
    await change_pool(pool, [arm("a", max_concurrency=4)])
    await asyncio.sleep(0.1)
    assert teacher(pool, "a").under_way == 4
    await asyncio.gather(*asks)


@pytest.mark.parametrize(
    "after",
    [
        arm("a", sampling=config.Sampling(temperature=0.5)),
        arm("a", model="another"),
        arm("a", seed=7),
    ],
    ids=["sampling", "model", "seed"],
)
@in_virtual_time
async def test_what_the_adapter_is_opened_with_opens_it_anew(
    after: config.ScriptedTeacher,
) -> None:
    pool = await open_pool([arm("a")])
    before = teacher(pool, "a")
    ask = asyncio.create_task(pool.ask("a", PROMPT))
    await asyncio.sleep(0.5)
    assert await change_pool(pool, [after]) == Changes(changed=("a",))
    opened = teacher(pool, "a")
    assert opened is not before
    assert opened.settings == after
    (candidate,) = await ask
    assert candidate.completion == ANSWER
    assert (len(before.sent), len(opened.sent)) == (1, 0)
    await pool.ask("a", PROMPT)
    assert (len(before.sent), len(opened.sent)) == (1, 1)
    assert (before.closed, before.closed_on, opened.closed) == (1, 0, 0)


@in_virtual_time
async def test_a_name_can_be_used_again_at_once() -> None:
    pool = await open_pool([arm("a"), arm("b")])
    before = teacher(pool, "a")
    ask = asyncio.create_task(pool.ask("a", PROMPT))
    await asyncio.sleep(0.5)
    await change_pool(pool, [arm("b")])
    await change_pool(pool, [arm("a"), arm("b")])
    opened = teacher(pool, "a")
    assert opened is not before
    assert (await pool.ask("a", PROMPT))[0].completion == ANSWER
    assert (await ask)[0].completion == ANSWER
    await asyncio.sleep(1.0)
    assert (before.closed, opened.closed) == (1, 0)


@in_virtual_time
async def test_a_teacher_that_cannot_be_opened_leaves_the_pool_as_it_was() -> None:
    hosted = config.OpenAITeacher(name="h", kind="openai", model="m", base_url="nowhere")
    pool = await open_pool([arm("a"), arm("b")])
    before = pool.entries
    for wrong in (arm("c", model="missing"), hosted):
        with pytest.raises(ConfigError):
            await change_pool(pool, [arm("b", license="MIT"), arm("new"), wrong])
        assert pool.entries == before
        assert pool.available(PROMPT) == ["a", "b"]
    await asyncio.sleep(1.0)
    assert teacher(pool, "a").closed == 0


@in_virtual_time
async def test_a_removed_teacher_that_does_not_close_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def close(_: Slow) -> None:
        raise OSError("stuck")

    pool = await open_pool([arm("a"), arm("b")])
    monkeypatch.setattr(Slow, "close", close)
    await change_pool(pool, [arm("b")])
    await asyncio.sleep(1.0)
    assert "teacher 'a' did not close" in caplog.text
    assert pool.available(PROMPT) == ["b"]


@in_virtual_time
async def test_closing_the_pool_closes_those_that_are_leaving() -> None:
    pool = await open_pool([arm("a"), arm("b")])
    leaving, staying = teacher(pool, "a"), teacher(pool, "b")
    ask = asyncio.create_task(pool.ask("a", PROMPT))
    await asyncio.sleep(0.5)
    await change_pool(pool, [arm("b")])
    await pool.close()
    assert (leaving.closed, staying.closed) == (1, 1)
    await ask
    await asyncio.sleep(1.0)
    assert (leaving.closed, staying.closed) == (1, 1)
