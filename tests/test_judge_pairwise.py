"""A judge that compares: both orders, shares of the wins, and a bounded tournament."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward.judge.tournament import Game, pairings, standings
from tests.chat_server import hangs, serve
from tests.judge_server import (
    PROMPT,
    Asked,
    answers,
    choices,
    judge,
    prefers_the_longer,
    replying,
    rewards,
    says,
)

if TYPE_CHECKING:
    from aiohttp import web


async def test_pairs_are_compared_in_both_orders() -> None:
    texts = ("a", "bbb", "cc")
    async with serve(says(prefers_the_longer)) as server:
        async with judge(server, pairwise=True) as model:
            scores = await model.score(PROMPT, answers(*texts))
        asked = [Asked.of(body).parts for body in server.bodies]
        schema = server.bodies[0]["response_format"]["json_schema"]["schema"]
    assert sorted((parts["answer A"], parts["answer B"]) for parts in asked) == sorted(
        (first, second) for first in texts for second in texts if first != second
    )
    assert [score and score.raw for score in scores] == [
        {"judge": share, "judge.consistency": 1.0} for share in (0.0, 1.0, 0.5)
    ]
    assert rewards(scores) == [0.0, 1.0, 0.5]
    assert schema["properties"]["better"]["enum"] == ["A", "B", "tie"]


@pytest.mark.parametrize("place", ["A", "B"])
async def test_a_judge_that_likes_a_place_has_no_favourite(place: str) -> None:
    async with (
        serve(replying(f'{{"better": "{place}"}}')) as server,
        judge(server, pairwise=True) as model,
    ):
        scores = await model.score(PROMPT, answers("a", "bb", "ccc", "dddd"))
    assert [score and score.raw for score in scores] == [
        {"judge": 0.5, "judge.consistency": 0.0}
    ] * 4


async def test_votes_of_a_comparison_are_averaged() -> None:
    async def reply(request: web.Request) -> web.StreamResponse:
        first = Asked.of(await request.json()).parts["answer A"] == "better"
        return choices("A" if first else "B", "A" if first else "B", "tie", "tie")

    async with serve(reply) as server, judge(server, pairwise=True, votes=4) as model:
        scores = await model.score(PROMPT, answers("better", "worse"))
    assert rewards(scores) == [0.75, 0.25]


async def test_a_pair_with_a_verdict_on_one_order_only_does_not_count() -> None:
    def verdict(asked: Asked) -> str:
        return "Hm." if asked.parts["answer A"] == "a" else prefers_the_longer(asked)

    async with serve(says(verdict)) as server, judge(server, pairwise=True) as model:
        assert rewards(await model.score(PROMPT, answers("a", "bb", "ccc"))) == [None, 0.0, 1.0]


async def test_an_answer_alone_in_its_wave_is_compared_with_nothing() -> None:
    async with serve(hangs) as server:
        async with judge(server, pairwise=True) as model:
            (score,) = await model.score(PROMPT, answers("Yes."))
        assert not server.bodies
    assert score
    assert (score.reward, score.raw) == (0.5, {"judge": 0.5})


async def test_many_candidates_meet_only_some_of_one_another() -> None:
    texts = ["x" * number for number in range(1, 13)]
    async with serve(says(prefers_the_longer)) as server:
        async with judge(server, pairwise=True) as model:
            scores = rewards(await model.score(PROMPT, answers(*texts)))
        assert len(server.bodies) == 12 // 2 * 5 * 2
    assert (scores[0], scores[-1]) == (0.0, 1.0)


@given(st.integers(1, 40), st.text())
def test_pairings_are_fair_and_bounded(count: int, seed: str) -> None:
    pairs = [frozenset(pair) for pair in pairings(count, seed)]
    games = [sum(player in pair for pair in pairs) for player in range(count)]
    assert len(set(pairs)) == len(pairs)
    assert all(len(pair) == 2 for pair in pairs)
    assert max(games) <= 5
    assert max(games) - min(games) <= 1
    if count <= 6:
        assert len(pairs) == count * (count - 1) // 2
    assert pairs == [frozenset(pair) for pair in pairings(count, seed)]


@given(st.data(), st.integers(2, 12))
def test_shares_of_the_wins_stay_what_was_won(data: st.DataObject, count: int) -> None:
    share = st.sampled_from([0.0, 0.5, 1.0])
    pairs = list(pairings(count, "p"))
    games = [Game(pair, data.draw(share), data.draw(share)) for pair in pairs]
    reached = standings(count, games)
    played = [sum(player in pair for pair in pairs) for player in range(count)]
    won = sum(s.share * n for s, n in zip(reached, played, strict=True) if s)
    assert won == pytest.approx(len(games))
    assert all(s and 0 <= s.share <= 1 and 0 <= s.consistency <= 1 for s in reached)
