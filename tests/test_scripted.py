"""The shipped fakes: seeded, true to their rates, and agreed on what an answer is worth."""

from __future__ import annotations

import asyncio
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pytest

from arbitrage import config
from arbitrage.errors import ConfigError, TeacherError, TeacherUnavailable
from arbitrage.types import Candidate, Completion, Message, Prompt
from reward import Run
from reward.scripted import ScriptedReward, open_reward
from teachers.phrases import PHRASES, language_of
from teachers.scripted import DRIFTED, ScriptedTeacher

if TYPE_CHECKING:
    from collections.abc import Sequence

CALLS = 2000
ASK = (Message("user", "Why?"),)


def settings(name: str = "a", **fields: Any) -> config.ScriptedTeacher:
    return config.ScriptedTeacher(name=name, kind="scripted", **fields)


async def answer(teacher: ScriptedTeacher, text: str) -> str:
    (completion,) = await teacher.complete((Message("user", text),))
    return completion.text


async def rewards(
    teacher: ScriptedTeacher,
    reward: ScriptedReward,
    language: str | None,
    questions: Sequence[str],
) -> list[float]:
    found = []
    for question in questions:
        prompt = Prompt.of(question, language=language)
        (completion,) = await teacher.complete(prompt.messages)
        candidate = Candidate(teacher.name, completion=completion)
        found.append((await reward.score(prompt, [candidate]))[0].reward)
    return found


def questions(number: int) -> list[str]:
    return [f"Why is it {n}?" for n in range(number)]


async def test_an_answer_depends_on_seed_teacher_and_conversation_alone() -> None:
    first, again = ScriptedTeacher(settings()), ScriptedTeacher(settings())
    await again.complete(ASK)
    one = await answer(first, "Why?")
    assert one == await answer(again, "Why?") == await answer(first, "Why?")
    others = {
        one,
        await answer(first, "Why not?"),
        await answer(ScriptedTeacher(settings(seed=1)), "Why?"),
        await answer(ScriptedTeacher(settings("b")), "Why?"),
        (await first.complete((Message("system", "Be brief."), *ASK)))[0].text,
    }
    assert len(others) == 5


async def test_answers_to_different_prompts_differ() -> None:
    teacher = ScriptedTeacher(settings())
    answers = {await answer(teacher, question) for question in questions(CALLS)}
    assert len(answers) >= CALLS - 5


@pytest.mark.parametrize("language", PHRASES)
async def test_it_answers_in_the_language_it_is_asked_in(language: str) -> None:
    question = PHRASES[language].others[0]
    text = await answer(ScriptedTeacher(settings()), question)
    assert language_of(text) == language
    assert question not in text or len(text) > 2 * len(question)


async def test_it_answers_an_unknown_language_in_english() -> None:
    assert language_of(await answer(ScriptedTeacher(settings()), "Γιατί;")) == "en"


async def test_it_counts_tokens() -> None:
    (completion,) = await ScriptedTeacher(settings()).complete(ASK)
    assert completion.prompt_tokens == 1
    assert completion.completion_tokens == -(-len(completion.text) // 4)


async def test_several_answers_differ_and_share_the_tokens_of_the_prompt() -> None:
    drawn = settings(sampling=config.Sampling(n=3), drift_after=1)
    teacher = ScriptedTeacher(drawn)
    for mark in ("", f"{DRIFTED} "):
        answers = await teacher.complete(ASK)
        first = answers[0].text
        assert [c.text for c in answers] == [first, f"2. {first}", f"3. {first}"]
        assert first.startswith(mark)
        assert [c.prompt_tokens for c in answers] == [1, 0, 0]
        assert all(c.completion_tokens == -(-len(c.text) // 4) for c in answers)


async def test_the_first_answer_is_told_word_by_word() -> None:
    teacher = ScriptedTeacher(settings(sampling=config.Sampling(n=2)))
    pieces: list[str] = []
    first, _ = await teacher.complete(ASK, pieces.append)
    assert "".join(pieces) == first.text
    assert len(pieces) == len(first.text.split())


async def test_a_call_that_fails_tells_nothing() -> None:
    teacher = ScriptedTeacher(settings(failure_rate=1.0))
    pieces: list[str] = []
    with pytest.raises(TeacherUnavailable):
        await teacher.complete(ASK, pieces.append)
    assert not pieces


async def test_faults_come_at_their_rates_and_by_the_seed() -> None:
    async def outcomes(seed: int) -> list[str]:
        teacher = ScriptedTeacher(settings(seed=seed, failure_rate=0.2, rate_limit_rate=0.1))
        ends = await asyncio.gather(
            *(teacher.complete(ASK) for _ in range(CALLS)), return_exceptions=True
        )
        return [end.outcome if isinstance(end, TeacherError) else "answered" for end in ends]

    found = await outcomes(0)
    assert abs(found.count("unavailable") / CALLS - 0.2) < 0.03
    assert abs(found.count("rate_limited") / CALLS - 0.1) < 0.03
    assert found == await outcomes(0)
    assert found != await outcomes(1)


async def test_the_mean_latency_is_the_configured_one(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = ScriptedTeacher(settings(latency_seconds=2.0))
    waits: list[float] = []
    timeout = asyncio.timeout

    def record(delay: float | None) -> asyncio.Timeout:
        waits.append(delay or 0.0)
        return timeout(0)

    monkeypatch.setattr(asyncio, "timeout", record)
    for _ in range(CALLS):
        await teacher.complete(ASK)
    assert abs(fmean(waits) - 2.0) < 0.2
    assert len(set(waits)) == CALLS


async def test_drift_shows_after_its_number_of_calls() -> None:
    drifting = settings(
        quality={"default": 0.8}, drift_after=3, drift_quality={"de": 0.1, "default": 0.3}
    )
    teacher, reward = ScriptedTeacher(drifting), ScriptedReward([drifting], noise=0)
    assert await rewards(teacher, reward, "de", questions(3)) == [0.8] * 3
    assert await rewards(teacher, reward, "de", questions(2)) == [0.1] * 2
    assert await rewards(teacher, reward, "fr", questions(1)) == [0.3]
    assert (await answer(teacher, "Why?")).startswith(DRIFTED)


async def test_what_does_not_drift_keeps_its_quality() -> None:
    drifting = settings(quality={"fr": 0.8}, drift_after=1, drift_quality={"de": 0.1})
    teacher, reward = ScriptedTeacher(drifting), ScriptedReward([drifting], noise=0)
    assert await rewards(teacher, reward, "fr", questions(2)) == [0.8, 0.8]


@pytest.mark.parametrize(
    ("language", "quality"),
    [("de", 0.9), ("de-AT", 0.9), ("nb", 0.4), ("zh-Hant", 0.6), ("zh", 0.7), ("fr", 0.2),
     (None, 0.2)],
)  # fmt: skip
async def test_the_quality_is_the_languages_own(language: str | None, quality: float) -> None:
    table = {"de": 0.9, "no": 0.4, "zh-CN": 0.7, "zh-TW": 0.6, "default": 0.2}
    teacher = settings(quality=table)
    reward = ScriptedReward([teacher], noise=0)
    assert await rewards(ScriptedTeacher(teacher), reward, language, ["Why?"]) == [quality]


async def test_the_reward_recovers_the_order_of_qualities_in_each_language() -> None:
    pool = [
        settings("german", quality={"de": 0.8, "default": 0.5}),
        settings("french", quality={"fr": 0.8, "default": 0.6}),
        settings("other", quality={"default": 0.7}),
    ]
    reward = ScriptedReward(pool)
    for language, order in (
        ("de", ["german", "other", "french"]),
        ("fr", ["french", "other", "german"]),
        ("sw", ["other", "french", "german"]),
    ):
        mean = {
            teacher.name: fmean(
                await rewards(ScriptedTeacher(teacher), reward, language, questions(300))
            )
            for teacher in pool
        }
        assert sorted(mean, key=lambda name: -mean[name]) == order


async def test_the_noise_is_decided_by_the_answer() -> None:
    prompt = Prompt.of("Why?", language="en")
    candidates = [Candidate("a", completion=Completion(text)) for text in ("x", "y", "x")]
    one = await ScriptedReward([]).score(prompt, candidates)
    assert one[0] == one[2]
    assert one[0] != one[1]
    assert one == await (await open_reward(config.ScriptedReward(), Run())).score(
        prompt, candidates
    )
    assert one != await ScriptedReward([], seed=1).score(prompt, candidates)
    assert one[0].raw == {"scripted": one[0].reward}


async def test_teachers_of_other_kinds_count_as_zero() -> None:
    hosted = config.OpenAITeacher(name="a", kind="openai", model="m", base_url="http://h")
    reward = ScriptedReward([hosted], noise=0)
    candidate = Candidate("a", completion=Completion("x"))
    assert [s.reward for s in await reward.score(Prompt.of("Why?"), [candidate])] == [0.0]
    await reward.close()


def test_a_quality_for_no_language_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"teacher 'a': drift_quality: .*'klingonish'"):
        ScriptedReward([settings(drift_quality={"klingonish": 1.0})])
