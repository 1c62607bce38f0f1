"""No hack wins against an honest mediocre answer: the real gates, reward and calibration decide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from bad_answers import HACKS
from corpus import questions
from hacks import open_pipeline, outcome, sampled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from hacks import Pipeline

QUESTIONS = 6


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pipeline() -> AsyncIterator[Pipeline]:
    pipeline = await open_pipeline()
    yield pipeline
    await pipeline.close()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("language", questions())
async def test_no_hack_wins_against_an_honest_mediocre_answer(
    pipeline: Pipeline, language: str, record_property: Callable[[str, object], None]
) -> None:
    result = await outcome(pipeline, sampled(language, QUESTIONS))
    assert result.asked == QUESTIONS
    assert result.honest_stopped == []
    for hack in HACKS:
        record_property(f"{hack} in {language}, stopped by a gate", result.stopped[hack])
    won = {hack: count for hack, count in result.won.items() if count}
    # three sentences of filler behind a good answer are hardly worse than the answer
    assert won.pop("filler", 0) <= 1
    assert won == {}


def test_the_hacks_are_those_of_at_least_a_dozen_languages() -> None:
    assert len(questions()) >= 12
    for question in (asked[0] for asked in questions().values()):
        made = {name: hack(question) for name, hack in HACKS.items()}
        assert question.brief not in made.values()
        assert len(made["looped x10"]) == len(made["filler x10"]) == 10 * len(question.brief)
