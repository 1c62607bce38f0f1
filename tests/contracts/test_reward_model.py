"""What every reward model owes the engine, whatever it is made of."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from arbitrage import config
from arbitrage.errors import RewardError
from arbitrage.types import Candidate, Completion, Prompt, Score
from reward import Run, open_reward
from reward.embedded import EmbeddedReward
from reward.scripted import ScriptedReward
from reward.transformers import TransformersReward
from tests.reward_models import answers, make_classifier, packaged_reward

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from arbitrage.ports import RewardModel

PROMPT = Prompt.of("Warum schwimmt Eis auf Wasser?", language="de", metadata={"pattern": "Eis"})
CANDIDATES = answers(
    "Weil Eis eine geringere Dichte hat als flüssiges Wasser.",
    "Der Zug fährt um neun Uhr ab.",
    "Ja.",
    "น้ำแข็งมีความหนาแน่นน้อยกว่าน้ำ",
    "لأن الجليد أقل كثافة من الماء.",
    "🧊🌊👍🏽",
)
TEN_MINUTES = 600.0  # the packaged weights may still have to be converted


@dataclass
class Subject:
    """A reward model under test.

    Attributes:
        computes: whether it has a device, and may therefore be closed under a caller's feet.
        tolerance: by how much a batch's shape may change a score.
    """

    model: RewardModel
    computes: bool
    tolerance: float


async def embedded(_folder: Path) -> Subject:
    return Subject(packaged_reward(), computes=True, tolerance=5e-2)


async def transformers(folder: Path) -> Subject:
    settings = config.TransformersReward(
        model=make_classifier(folder), dtype="float32", device="cpu"
    )
    return Subject(await open_reward(settings), computes=True, tolerance=1e-4)


async def rules(_folder: Path) -> Subject:
    return Subject(await open_reward(config.RulesReward()), computes=True, tolerance=0.0)


async def scripted(_folder: Path) -> Subject:
    settings = config.ScriptedReward()
    teacher = config.ScriptedTeacher(name="1", kind="scripted", quality={"de": 0.5})
    return Subject(
        await open_reward(settings, Run(teachers=[teacher])), computes=False, tolerance=0.0
    )


async def ensemble(folder: Path) -> Subject:
    classifier = config.TransformersReward(
        model=make_classifier(folder), dtype="float32", device="cpu"
    )
    settings = config.EnsembleReward(members=(classifier, config.ScriptedReward()))
    teacher = config.ScriptedTeacher(name="1", kind="scripted", quality={"de": 0.5})
    model = await open_reward(settings, Run(teachers=[teacher]))
    return Subject(model, computes=True, tolerance=1e-4)


Implementation = Callable[["Path"], Awaitable[Subject]]
IMPLEMENTATIONS: list[Implementation] = [embedded, transformers, rules, ensemble, scripted]


@pytest.fixture(params=IMPLEMENTATIONS, ids=lambda implementation: implementation.__name__)
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    implementation: Implementation = request.param
    async with asyncio.timeout(TEN_MINUTES):
        subject = await implementation(tmp_path)
        yield subject
        await subject.model.close()


def rewards(scores: Sequence[Score | None]) -> list[float]:
    return [score.reward for score in scores if score]


async def test_it_gives_one_finite_score_a_candidate(subject: Subject) -> None:
    scores = await subject.model.score(PROMPT, CANDIDATES)
    assert len(scores) == len(CANDIDATES)
    for score in scores:
        assert score
        assert math.isfinite(score.reward)
        assert score.raw
        assert all(name and math.isfinite(value) for name, value in score.raw.items())


async def test_scores_come_in_the_order_of_the_candidates(subject: Subject) -> None:
    forwards = await subject.model.score(PROMPT, CANDIDATES)
    backwards = await subject.model.score(PROMPT, CANDIDATES[::-1])
    assert rewards(backwards)[::-1] == pytest.approx(rewards(forwards), abs=subject.tolerance)
    assert len({round(reward, 3) for reward in rewards(forwards)}) > 1


async def test_a_candidate_is_scored_alike_alone_and_in_company(subject: Subject) -> None:
    together = await subject.model.score(PROMPT, CANDIDATES[:3])
    alone = [rewards(await subject.model.score(PROMPT, [c]))[0] for c in CANDIDATES[:3]]
    assert alone == pytest.approx(rewards(together), abs=subject.tolerance)


async def test_scoring_twice_gives_the_same_scores(subject: Subject) -> None:
    once = await subject.model.score(PROMPT, CANDIDATES)
    again = await subject.model.score(PROMPT, CANDIDATES)
    assert list(once) == list(again)


async def test_it_scores_answers_of_any_length_and_script(subject: Subject) -> None:
    odd = answers("", " \n", "x" * 20_000, "half a pair \ud83d", "\x00\u200f\u0301", "<s></s><eos>")
    scores = await subject.model.score(PROMPT, [*odd, Candidate("none")])
    assert len(scores) == len(odd) + 1
    assert all(math.isfinite(reward) for reward in rewards(scores))


async def test_it_scores_a_long_conversation_with_a_system_prompt(subject: Subject) -> None:
    prompt = Prompt.of(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Wieso? " * 2_000},
            {"role": "assistant", "content": "Darum."},
            {"role": "user", "content": "Und was ist mit \ud83d Eis?"},
        ],
        metadata={"pattern": "Eis"},
    )
    (reward,) = rewards(await subject.model.score(prompt, CANDIDATES[:1]))
    assert math.isfinite(reward)


async def test_it_scores_no_candidates(subject: Subject) -> None:
    assert not await subject.model.score(PROMPT, [])


async def test_the_loop_turns_while_it_works(subject: Subject) -> None:
    if not subject.computes:
        pytest.skip("it computes nothing that could block the loop")
    call = asyncio.create_task(_score(subject, CANDIDATES))
    turns = 0
    while not call.done():
        await asyncio.sleep(0)
        turns += 1
    assert len(await call) == len(CANDIDATES)
    assert turns > 10


async def test_calls_side_by_side_are_all_answered(subject: Subject) -> None:
    expected = rewards(await subject.model.score(PROMPT, CANDIDATES))
    calls = [_score(subject, [candidate]) for candidate in CANDIDATES * 4]
    alone = [rewards(await call)[0] for call in asyncio.as_completed(calls)]
    assert len(alone) == len(CANDIDATES) * 4
    assert sorted(alone) == pytest.approx(sorted(expected * 4), abs=subject.tolerance)


async def test_a_cancelled_call_does_not_disturb_the_others(subject: Subject) -> None:
    expected = rewards(await subject.model.score(PROMPT, CANDIDATES[:2]))
    calls = [asyncio.create_task(_score(subject, CANDIDATES[:2])) for _ in range(6)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    done = await asyncio.gather(*calls, return_exceptions=True)
    for scores in done[1::2]:
        assert not isinstance(scores, BaseException)
        assert rewards(scores) == pytest.approx(expected, abs=subject.tolerance)


async def test_closing_twice_is_closing_once(subject: Subject) -> None:
    await subject.model.score(PROMPT, CANDIDATES[:1])
    await subject.model.close()
    await subject.model.close()
    assert subject.model.queue_depth == 0


async def test_closing_answers_or_fails_every_call(subject: Subject) -> None:
    calls = [asyncio.create_task(_score(subject, CANDIDATES[:2])) for _ in range(6)]
    await asyncio.sleep(0)
    await subject.model.close()
    for end in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(end, RewardError) or len(end) == 2  # type: ignore[arg-type]


async def test_a_closed_model_fails_its_calls_on_one_line(subject: Subject) -> None:
    if not subject.computes:
        pytest.skip("it holds nothing that could be closed")
    await subject.model.close()
    with pytest.raises(RewardError) as caught:
        await subject.model.score(PROMPT, CANDIDATES[:1])
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("settings", [config.EmbeddedReward(), config.ScriptedReward()])
async def test_a_configuration_opens_it(settings: config.AnyReward) -> None:
    model = await open_reward(settings)
    try:
        assert isinstance(model, EmbeddedReward | ScriptedReward | TransformersReward)
        assert len(await model.score(PROMPT, [Candidate("1", Completion("Ja."))])) == 1
    finally:
        await model.close()


async def _score(subject: Subject, candidates: Sequence[Candidate]) -> Sequence[Score | None]:
    return await subject.model.score(PROMPT, candidates)
