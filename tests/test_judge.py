"""The judge: real calls to a loopback provider, within the pool, its limits and its budget."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

import assembly
import reward
import teachers
from arbitrage import config
from arbitrage.errors import ConfigError, RewardError
from arbitrage.metrics import Metrics
from arbitrage.types import Prompt, TeacherInfo
from reward.judge import judge_teacher, judge_teachers
from reward.judge.rubrics import WORDINGS
from teachers import Budget
from tests.chat_server import Reply, hangs, in_turn, sends, serve
from tests.judge_server import (
    PROMPT,
    Asked,
    answers,
    counts_words,
    judge,
    judging,
    prefers_the_longer,
    replying,
    rewards,
    says,
)
from tests.service import scripted, settings

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp import web

    from arbitrage.events import Called


async def test_each_answer_has_the_grade_that_the_judge_gives_it() -> None:
    async with serve(says(counts_words)) as server, judge(server) as model:
        scores = await model.score(PROMPT, answers("one two three", "one", "one two"))
    assert rewards(scores) == [3.0, 1.0, 2.0]
    assert [score and score.raw for score in scores] == [
        {"judge": grade, "judge.votes": 1} for grade in (3.0, 1.0, 2.0)
    ]


@pytest.mark.parametrize(
    ("fields", "sampling", "sent"),
    [
        ({}, {}, {"temperature": 0.0}),
        ({"votes": 3}, {}, {"temperature": 0.7, "n": 3}),
        ({"votes": 3}, {"temperature": 0.2}, {"temperature": 0.2, "n": 3}),
        ({}, {"temperature": 1.0, "max_tokens": 9}, {"temperature": 1.0, "max_tokens": 9}),
    ],
)
async def test_the_judge_s_sampling_is_what_judging_needs(
    fields: dict[str, Any], sampling: dict[str, Any], sent: dict[str, Any]
) -> None:
    teacher = {"sampling": config.Sampling(**sampling)}
    async with serve(says(counts_words)) as server:
        async with judge(server, teacher=teacher, **fields) as model:
            await model.score(PROMPT, answers("Yes."))
        (body,) = server.bodies
    asked = body["response_format"]["json_schema"]["schema"]
    assert asked["properties"] == {"score": {"type": "integer", "minimum": 1, "maximum": 10}}
    assert {
        key: body[key] for key in body.keys() - {"model", "messages", "response_format"}
    } == sent


def test_a_schema_of_one_s_own_is_kept_and_an_empty_one_is_none() -> None:
    own = {"type": "object"}
    for asked, sent in [(own, own), ({}, None)]:
        sampling = config.Sampling(json_schema=asked)
        chosen = config.JudgeReward(teacher=scripted("judge", sampling=sampling))
        assert judge_teacher(chosen).sampling.json_schema == sent


def test_an_ensemble_s_judges_are_prepared_one_by_one() -> None:
    grading = config.JudgeReward(teacher=scripted("one"))
    comparing = config.JudgeReward(teacher=scripted("two"), pairwise=True, votes=2)
    ensemble = config.EnsembleReward(members=(config.RulesReward(), grading, comparing))
    prepared = judge_teachers(ensemble)
    assert [each.name for each in prepared] == ["one", "two"]
    assert [each.sampling.n for each in prepared] == [1, 2]
    schemas = [each.sampling.json_schema or {} for each in prepared]
    assert [list(schema["properties"]) for schema in schemas] == [["score"], ["better"]]
    assert judge_teachers(config.RulesReward()) == []


async def test_the_score_is_the_mean_of_the_votes() -> None:
    texts = [f'{{"score": {grade}}}' for grade in (4, 5, 9)]
    async with serve(replying(*texts)) as server:
        async with judge(server, votes=3) as model:
            (score,) = await model.score(PROMPT, answers("Yes."))
        assert len(server.bodies) == 1
    assert score
    assert score.raw == {"judge": 6.0, "judge.votes": 3}


async def test_votes_that_cannot_be_read_are_asked_for_once_more() -> None:
    first, second = ('{"score": 2}', "Good!", "11"), ('{"score": 8}', "Good!", '{"score": 1}')
    async with serve(in_turn(replying(*first), replying(*second))) as server:
        async with judge(server, votes=3) as model:
            (score,) = await model.score(PROMPT, answers("Yes."))
        question, again = (body["messages"][0]["content"] for body in server.bodies)
    assert score
    assert score.raw == {"judge": 5.0, "judge.votes": 2}
    assert again == f"{question}\n{WORDINGS['en'].reminder}"


async def test_a_judge_that_thinks_aloud_is_read_by_its_conclusion() -> None:
    thinking = '<think>A 10? No: {"score": 10} is too much.</think>\n{"score": 4}'
    async with serve(replying(thinking)) as server, judge(server) as model:
        assert rewards(await model.score(PROMPT, answers("Yes."))) == [4.0]


async def test_an_answer_without_a_grade_has_no_score_and_the_others_have(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def verdict(asked: Asked) -> str:
        return "Well..." if asked.parts["answer"] == "Bad." else '{"score": 6}'

    async with serve(says(verdict)) as server:
        async with judge(server) as model:
            scores = await model.score(PROMPT, answers("Good.", "Bad.", "Nice."))
        assert len(server.bodies) == 4
    assert rewards(scores) == [6.0, None, 6.0]
    (record,) = caplog.records
    assert record.message == (
        "judge 'judge' has no verdict on the answer of t1 to prompt 'sky': its reply cannot be read"
    )


@pytest.mark.parametrize("pairwise", [False, True])
@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (replying("No idea.\nReally."), "its reply cannot be read"),
        (replying("1", finish_reason="length"), "its reply was cut off; raise its sampling.max_"),
        (sends({"error": {"message": "on fire"}}, status=500), "unavailable: 127.0.0.1"),
        (sends({"error": {"message": "bad key"}}, status=401), "rejected: 127.0.0.1"),
    ],
    ids=["prose", "cut off", "500", "401"],
)
async def test_a_judge_without_any_verdict_is_an_error_of_one_line(
    reply: Reply, reason: str, *, pairwise: bool
) -> None:
    async with serve(reply) as server, judge(server, pairwise=pairwise) as model:
        with pytest.raises(RewardError) as caught:
            await model.score(PROMPT, answers("Yes.", "No."))
        assert model.queue_depth == 0
    assert str(caught.value).startswith(
        f"judge 'judge' has no verdict on any of 2 answers to prompt 'sky': {reason}"
    )
    assert "\n" not in str(caught.value)


async def test_a_judge_that_does_not_reply_in_time_is_an_error() -> None:
    async with serve(hangs) as server, judge(server, teacher={"timeout_seconds": 0.1}) as model:
        with pytest.raises(RewardError, match="timeout: no answer"):
            await model.score(PROMPT, answers("Yes."))


async def test_a_failure_that_passes_is_the_pool_s_to_retry() -> None:
    broken = sends({"error": {"message": "on fire"}}, status=500)
    async with (
        serve(in_turn(broken, says(counts_words))) as server,
        judge(server, teacher={"max_attempts": 2}) as model,
    ):
        assert rewards(await model.score(PROMPT, answers("Yes."))) == [1.0]


async def test_a_busy_judge_is_waited_for_even_beside_another() -> None:
    refused = sends({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "0"})
    idle = scripted("idle")
    async with (
        serve(in_turn(refused, says(counts_words))) as server,
        judge(server, beside=[idle]) as model,
    ):
        assert rewards(await model.score(PROMPT, answers("Yes."))) == [1.0]


def info(name: str, model: str = "small", kind: str = "openai") -> TeacherInfo:
    return TeacherInfo(name, kind, model, available=True)


POOL = (info("t0"), info("t1", "big"), info("t2"), info("t3", "big", "litellm"))


async def test_a_judge_does_not_grade_answers_of_its_own_model() -> None:
    async with serve(says(counts_words)) as server:
        async with judge(server, pool=POOL) as model:
            scores = await model.score(PROMPT, answers("a", "a b", "a b c", "a b c d"))
        assert len(server.bodies) == 3
    assert rewards(scores) == [1.0, None, 3.0, 4.0]


async def test_a_judge_does_not_compare_answers_of_its_own_model() -> None:
    async with serve(says(prefers_the_longer)) as server:
        async with judge(server, pool=POOL, pairwise=True) as model:
            scores = await model.score(PROMPT, answers("a", "the longest of all", "ccc"))
            alone = await model.score(PROMPT, answers("a", "the longest of all"))
        assert len(server.bodies) == 2
    assert rewards(scores) == [0.0, None, 1.0]
    assert rewards(alone) == [0.5, None]


async def test_a_judge_that_may_grades_its_own_answers_too() -> None:
    async with (
        serve(says(counts_words)) as server,
        judge(server, pool=POOL, judges_own=True) as model,
    ):
        scores = await model.score(PROMPT, answers("a", "a b"))
    assert rewards(scores) == [1.0, 2.0]


async def test_a_judge_of_its_own_answers_alone_has_no_opinion_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = (info("t0", "big"), info("t1", "big"))
    async with serve(hangs) as server, judge(server, pool=pool) as model:
        for _ in range(3):
            assert await model.score(PROMPT, answers("a", "b")) == [None, None]
        assert not server.bodies
    (record,) = caplog.records
    assert record.message == (
        "judge 'judge' is the same model as every teacher, so no answer gets a score; name "
        "another judge, or set reward.judges_own"
    )


async def test_calls_go_through_the_pool_and_its_budget() -> None:
    heard: list[Called] = []
    budget = Budget(0.005)
    price = config.Price(prompt=10.0, completion=100.0)  # a call costs 0.001 + 0.001 US dollars
    teacher = {"price_per_million": price, "sampling": config.Sampling(max_tokens=10)}
    async with (
        serve(says(counts_words)) as server,
        judge(server, budget=budget, hear=heard.append, teacher=teacher) as model,
    ):
        for _ in range(2):
            await model.score(PROMPT, answers("Yes."))
        assert str(budget.spent.normalize()) == "0.004"
        with pytest.raises(RewardError, match="over_budget: not called, since the budget"):
            await model.score(PROMPT, answers("Yes."))
    assert [(call.teacher, call.outcome) for call in heard] == [("judge", "ok")] * 2


async def test_answers_wait_for_a_judge_as_long_as_the_others_take() -> None:
    async def reply(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.1)
        return await says(counts_words)(request)

    # five calls of 0.1 s, one after the other, are longer than a call may take
    teacher = {"max_concurrency": 1, "timeout_seconds": 0.4}
    async with serve(reply) as server, judge(server, teacher=teacher) as model:
        assert rewards(await model.score(PROMPT, answers(*["Yes."] * 5))) == [1.0] * 5


async def test_cancelling_ends_the_calls_and_empties_the_queue() -> None:
    async with serve(hangs) as server, judge(server) as model:
        scoring = asyncio.create_task(model.score(PROMPT, answers("Yes.", "No.")))
        await server.busy.wait()
        assert model.queue_depth == 2
        scoring.cancel()
        with pytest.raises(asyncio.CancelledError):
            await scoring
        await server.dropped.wait()
        assert model.queue_depth == 0


async def test_a_judge_that_nobody_has_opened_is_one_line() -> None:
    chosen = config.JudgeReward(teacher=scripted("judge"))
    with pytest.raises(ConfigError, match="nobody has opened the judge 'judge'"):
        await reward.open_reward(chosen)


async def test_the_engine_s_winner_is_the_judge_s_and_is_paid_from_one_budget(
    tmp_path: Path,
) -> None:
    def verdict(asked: Asked) -> str:
        number = re.search(r"\d+", asked.parts["answer"])
        return json.dumps({"score": 1 + int(number[0]) % 10 if number else 1})

    price = config.Price(prompt=1.0, completion=1.0)
    async with serve(says(verdict)) as server:
        chosen = judging(server, {"price_per_million": price}, calibration=config.UNCALIBRATED)
        policy = config.Policy(kind="best_of", budget_usd=1.0)
        run = settings(
            tmp_path, scripted("ada", 1.0), scripted("bob"), reward=chosen, policy=policy
        )
        metrics = Metrics(["de"], "parquet")
        async with assembly.open(run, [metrics]) as engine:
            sample = await engine.arbitrate(Prompt.of("Warum?", language="de"))
            assert engine.reward.queue_depth == 0
            spent = assembly.pool_of(engine).budget.spent
        grades = [json.loads(verdict(Asked.of(body)))["score"] for body in server.bodies]
    assert sample.winner
    assert sample.winner.reward == max(grades)
    assert sorted(c.score.raw["judge"] for c in sample.candidates if c.score) == sorted(grades)
    assert len(grades) == 2
    assert float(spent) == pytest.approx(2 * 110 / 1e6)
    cost = metrics.registry.get_sample_value(
        "arbitrage_teacher_cost_usd_total", {"teacher": "judge"}
    )
    assert cost == pytest.approx(2 * 110 / 1e6)
    assert all(body["response_format"]["type"] == "json_schema" for body in server.bodies)


@pytest.mark.parametrize("pairwise", [False, True])
async def test_a_small_real_model_judges_every_answer_in_the_form_asked_for(
    *, pairwise: bool
) -> None:
    teacher = config.LlamaCppTeacher(
        name="judge",
        kind="llama_cpp",
        model="smollm2-135m-instruct",
        context_length=1024,
        max_concurrency=2,
        sampling=config.Sampling(max_tokens=32),
    )
    chosen = config.JudgeReward(teacher=teacher, pairwise=pairwise)
    judges = await teachers.open_pool(judge_teachers(chosen))
    model = await reward.open_reward(chosen, reward.Run(judges=judges))
    texts = ("Rayleigh scattering.", "I do not know.", "Because of the sea.")
    scores = rewards(await model.score(PROMPT, answers(*texts[: 2 if pairwise else 3])))
    await model.close()
    await judges.close()
    assert set(scores) <= ({0.0, 0.25, 0.5, 0.75, 1.0} if pairwise else set(range(1, 11)))
