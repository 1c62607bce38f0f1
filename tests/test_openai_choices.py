"""Several answers of one call: who has which tokens, and what if some are missing."""

from __future__ import annotations

from typing import Any

from arbitrage import config
from arbitrage.types import Completion
from tests.chat_server import MESSAGES, ask, body, in_turn, sends, serve


def several(*contents: object) -> dict[str, Any]:
    """One answer with a choice for each content, and 10 completion tokens in all."""
    choices = [body(content)["choices"][0] for content in contents]
    return {"choices": choices, "usage": {"prompt_tokens": 7, "completion_tokens": 10}}


async def test_every_choice_is_an_answer_with_its_share_of_the_tokens() -> None:
    async with serve(sends(several("a" * 30, "b" * 30, "", "c" * 31))) as server:
        answers = await ask(server, sampling=config.Sampling(n=4))
    assert server.bodies == [{"model": "m", "messages": MESSAGES, "n": 4}]
    assert [answer.text[:1] for answer in answers] == ["a", "b", "", "c"]
    assert [answer.prompt_tokens for answer in answers] == [7, 0, 0, 0]
    assert [answer.completion_tokens for answer in answers] == [3, 3, 0, 4]


async def test_of_several_choices_those_without_a_text_are_left_out() -> None:
    async with serve(sends(several(None, "Hi.", "Hi."))) as server:
        answers = await ask(server, sampling=config.Sampling(n=3))
    assert len(server.bodies) == 1
    assert [a.prompt_tokens for a in answers] == [7, 0]
    assert [a.completion_tokens for a in answers] == [5, 5]


async def test_choices_beyond_those_asked_for_are_dropped() -> None:
    async with serve(sends(several("One.", "Two.", "Six."))) as server:
        answers = await ask(server, sampling=config.Sampling(n=2))
    assert [answer.text for answer in answers] == ["One.", "Two."]
    assert [answer.completion_tokens for answer in answers] == [5, 5]


async def test_an_endpoint_that_knows_no_n_is_asked_once_for_each_missing_answer() -> None:
    async with serve(sends()) as server:
        answers = await ask(server, sampling=config.Sampling(n=4, seed=10))
    assert list(answers) == [Completion("Hello.", "stop", 7, 2)] * 4
    first, *others = server.bodies
    assert (first["n"], first["seed"]) == (4, 10)
    assert sorted((each["n"], each["seed"]) for each in others) == [(1, 11), (1, 12), (1, 13)]


async def test_missing_answers_without_a_seed_are_drawn_without_one() -> None:
    async with serve(in_turn(sends(several("One.", "Two.")), sends())) as server:
        answers = await ask(server, sampling=config.Sampling(n=3))
    assert [answer.text for answer in answers] == ["One.", "Two.", "Hello."]
    assert server.bodies[1:] == [{"model": "m", "messages": MESSAGES, "n": 1}]


async def test_missing_answers_that_fail_are_left_out() -> None:
    async with serve(in_turn(sends(), sends(status=503), sends(), sends(status=429))) as server:
        answers = await ask(server, sampling=config.Sampling(n=4))
    assert [answer.text for answer in answers] == ["Hello.", "Hello."]
    assert len(server.bodies) == 4
