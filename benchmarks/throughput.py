"""Measure what the product costs on top of what it calls, stage by stage, a line a figure.

    python benchmarks/throughput.py --stage teachers             # under a minute
    python benchmarks/throughput.py --seconds 5 --in-flight 256  # longer turns, one level
    python benchmarks/throughput.py --stage run --in-flight 256  # some two minutes

Stage `teachers`: the same question to a mock teacher in its own process, by aiohttp alone (post,
and read the JSON), by our `openai` teacher, by that teacher through the pool, and by the `litellm`
teacher where LiteLLM is installed. The sides take turns; each line says calls a second, CPU
milliseconds of this process a call, and the rate compared with aiohttp alone.

Stage `run`: `arbitrage run` from end to end, see `end_to_end.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import end_to_end
from turns import Side, describe, mock_teacher, take_turns, where

from arbitrage import config
from arbitrage.errors import ConfigError
from arbitrage.types import Prompt
from teachers import open_pool
from teachers.openai import OpenAITeacher

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

PROMPT = Prompt.of("Why does ice float on water, and what would be if it did not?", language="en")
SAMPLING = config.Sampling(temperature=0.7, max_tokens=512)
KEY_VARIABLE = "MOCK_TEACHER_KEY"


@dataclass(frozen=True, slots=True)
class Scale:
    """How long and how hard to try.

    Attributes:
        in_flight: levels of calls side by side.
        seconds: length of one turn.
        rounds: turns of each side at each level.
        prompts: of a turn of a job.
    """

    in_flight: Sequence[int]
    seconds: float
    rounds: int
    prompts: int
    latency_seconds: float
    answer_characters: int


async def measure_teachers(scale: Scale) -> None:
    """Prints what the teachers cost beside aiohttp alone."""
    os.environ[KEY_VARIABLE] = "of-no-use-to-anyone"
    with mock_teacher(scale.latency_seconds, scale.answer_characters) as base_url:
        most = max(scale.in_flight)
        sides = [
            await open_aiohttp(base_url, most),
            await open_adapter(base_url, most),
            await open_pooled(base_url, most),
        ]
        try:
            sides.append(await open_litellm(base_url, most))
        except ConfigError as error:
            print(f"teachers | litellm | skipped: {error}")
        for in_flight in scale.in_flight:
            await take_turns(sides, in_flight=in_flight, seconds=scale.seconds, rounds=scale.rounds)
            for side in sides:
                print(f"teachers | {in_flight} in flight | {describe(side, sides[0])}")
        for side in sides:
            await side.close()


async def measure_run(scale: Scale) -> None:
    """Prints what a whole job does beside aiohttp alone."""
    with mock_teacher(scale.latency_seconds, scale.answer_characters) as base_url:
        for in_flight in scale.in_flight:
            await asyncio.to_thread(
                end_to_end.measure,
                base_url,
                prompts=scale.prompts,
                in_flight=in_flight,
                rounds=scale.rounds,
            )


async def open_aiohttp(base_url: str, in_flight: int) -> Side:
    """The least that a program does without us."""
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight))
    request = {
        "model": "m",
        "messages": [{"role": "user", "content": PROMPT.text}],
        "temperature": SAMPLING.temperature,
        "max_tokens": SAMPLING.max_tokens,
    }

    async def call() -> None:
        async with session.post(f"{base_url}/chat/completions", json=request) as response:
            answer = await response.json()
        _require(answer["choices"][0]["message"]["content"])

    return Side("aiohttp alone", call, session.close)


async def open_adapter(base_url: str, in_flight: int) -> Side:
    """Our teacher, called as the pool calls it."""
    teacher = OpenAITeacher(_openai(base_url, in_flight))

    async def call() -> None:
        (completion,) = await teacher.complete(PROMPT.messages)
        _require(completion.text)

    return Side("openai teacher", call, teacher.close)


async def open_pooled(base_url: str, in_flight: int) -> Side:
    """Our teacher within its limits, with retries and its health kept."""
    return await _pooled("openai through the pool", _openai(base_url, in_flight))


async def open_litellm(base_url: str, in_flight: int) -> Side:
    """The same endpoint by way of LiteLLM, through the pool.

    Raises:
        ConfigError: LiteLLM is not installed.
    """
    settings = config.LiteLLMTeacher(
        name="t",
        kind="litellm",
        model="openai/m",
        base_url=base_url,
        api_key_env=KEY_VARIABLE,
        sampling=SAMPLING,
        max_concurrency=in_flight,
    )
    return await _pooled("litellm through the pool", settings)


async def _pooled(name: str, settings: config.AnyTeacher) -> Side:
    pool = await open_pool([settings])

    async def call() -> None:
        (candidate,) = await pool.ask("t", PROMPT)
        _require(candidate.completion.text if candidate.completion else None)

    return Side(name, call, pool.close)


def _openai(base_url: str, in_flight: int) -> config.OpenAITeacher:
    return config.OpenAITeacher(
        name="t",
        kind="openai",
        model="m",
        base_url=base_url,
        sampling=SAMPLING,
        max_concurrency=in_flight,
    )


def _require(text: str | None) -> None:
    if not text:
        raise ValueError("a call brought no answer")


STAGES: Mapping[str, Callable[[Scale], Coroutine[Any, Any, None]]] = {
    "teachers": measure_teachers,
    "run": measure_run,
}


def main() -> None:
    """Parses the arguments and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stage", choices=STAGES, help="default: every stage")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[64, 256], metavar="N")
    parser.add_argument("--seconds", type=float, default=1.0, help="of one turn; default: 1")
    parser.add_argument("--rounds", type=int, default=4, help="turns of each side; default: 4")
    parser.add_argument("--prompts", type=int, default=10_000, help="of a job; default: 10000")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds; default: 0.05")
    parser.add_argument("--answer-characters", type=int, default=800, help="default: 800")
    arguments = parser.parse_args()
    scale = Scale(
        arguments.in_flight,
        arguments.seconds,
        arguments.rounds,
        arguments.prompts,
        arguments.latency,
        arguments.answer_characters,
    )
    for stage in [arguments.stage] if arguments.stage else STAGES:
        print(f"{stage} | {where()}")
        asyncio.run(STAGES[stage](scale))


if __name__ == "__main__":
    main()
