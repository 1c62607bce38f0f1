"""A judge on a loopback provider that grades what it reads, opened as a run opens it."""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

import reward
import teachers
from arbitrage import config
from arbitrage.types import Candidate, Completion, Prompt, TeacherInfo
from reward.judge import judge_teachers
from teachers import Budget

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from arbitrage.events import Called
    from arbitrage.ports import RewardModel
    from arbitrage.types import Score
    from tests.chat_server import ChatServer, Reply

PROMPT = Prompt.of("Why is the sky blue?", prompt_id="sky", language="en")
TAGGED = re.compile(r"<([a-z]+(?: [AB])?) ([0-9a-f]{16})>\n(.*?)\n</\1 \2>", re.DOTALL)


@dataclass(frozen=True)
class Asked:
    """What a judge was asked: the parts between tags with one code, and the text around them."""

    parts: dict[str, str]
    around: str

    @classmethod
    def of(cls, body: dict[str, Any]) -> Asked:
        (message,) = body["messages"]
        text = message["content"]
        return cls({what: part for what, _, part in TAGGED.findall(text)}, TAGGED.sub("", text))


def says(verdict: Callable[[Asked], str]) -> Reply:
    """A provider that replies what the verdict is, as often as it is asked for."""

    async def reply(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        return choices(*[verdict(Asked.of(body))] * body.get("n", 1))

    return reply


def choices(*texts: str, finish_reason: str = "stop") -> web.Response:
    found = [
        {"index": i, "message": {"role": "assistant", "content": text}}
        | {"finish_reason": finish_reason}
        for i, text in enumerate(texts)
    ]
    return web.json_response(
        {"choices": found, "usage": {"prompt_tokens": 100, "completion_tokens": 10}}
    )


def replying(*texts: str, **choice: str) -> Reply:
    """A provider whose every call brings these replies."""

    async def reply(_: web.Request) -> web.StreamResponse:
        return choices(*texts, **choice)

    return reply


def counts_words(asked: Asked) -> str:
    return json.dumps({"score": min(10, len(asked.parts["answer"].split()))})


def prefers_the_longer(asked: Asked) -> str:
    first, second = (len(asked.parts[f"answer {which}"]) for which in "AB")
    return json.dumps({"better": "A" if first > second else "B" if first < second else "tie"})


def answers(*texts: str, teachers: Sequence[str] = ()) -> list[Candidate]:
    names = teachers or [f"t{number}" for number in range(len(texts))]
    return [Candidate(name, Completion(text)) for name, text in zip(names, texts, strict=True)]


def judging(server: ChatServer, teacher: dict[str, Any], **fields: Any) -> config.JudgeReward:
    usual: dict[str, Any] = {"name": "judge", "model": "big", "max_attempts": 1}
    return config.JudgeReward(teacher=server.settings(**usual | teacher), **fields)


@asynccontextmanager
async def judge(
    server: ChatServer,
    *,
    pool: Sequence[TeacherInfo] = (),
    hear: Callable[[Called], None] = lambda _: None,
    budget: Budget | None = None,
    beside: Sequence[config.AnyTeacher] = (),
    teacher: dict[str, Any] | None = None,
    **fields: Any,
) -> AsyncIterator[RewardModel]:
    """A judge on a server, opened as the composition root does."""
    chosen = judging(server, teacher or {}, **fields)
    judges = await teachers.open_pool([*judge_teachers(chosen), *beside], budget=budget, hear=hear)
    run = reward.Run(describe=lambda: pool, judges=judges)
    model = await reward.open_reward(chosen, run)
    try:
        yield model
    finally:
        await model.close()
        await judges.close()


def rewards(scores: Sequence[Score | None]) -> list[float | None]:
    return [score.reward if score else None for score in scores]
