"""Measure the vLLM teacher: tokens a second, and what the prefix cache saves.

The first figure is of calls side by side, each answered with at most 128 tokens. The others are
of long prompts answered with one token, so that reading the prompt is all the work: first each
prompt begins otherwise, then all begin alike and differ in the question at their end.

    python benchmarks/vllm_teacher.py                 # SmolLM2 135M: two minutes on two cores
    python benchmarks/vllm_teacher.py --model FOLDER  # any model that vLLM loads
"""

import argparse
import asyncio
from collections.abc import Sequence
from importlib.util import find_spec
from time import perf_counter
from typing import NamedTuple

from arbitrage import config
from arbitrage.ports import Teacher
from arbitrage.types import Message

CALLS = 32
ROUNDS = 3
VISIT = "Visitor {n} asked for directions, waited for a while, thanked us and left. "
VISITS = 50


class Figures(NamedTuple):
    """Tokens of all calls, and tokens a second."""

    prompt_tokens: int
    completion_tokens: int
    seconds: float


def arm(model: str, max_tokens: int) -> config.VLLMTeacher:
    """An arm; all of one model share its engine."""
    sampling = config.Sampling(temperature=1.0, max_tokens=max_tokens, seed=1)
    return config.VLLMTeacher(
        name=f"at most {max_tokens}", kind="vllm", model=model, sampling=sampling
    )


def question(number: int) -> str:
    """One of many short ones."""
    return f"What do you know about the number {number}?"


def long_prompt(number: int, first: int) -> str:
    """A question behind a long text, which begins with a visitor's number."""
    text = "".join(VISIT.format(n=first + n) for n in range(VISITS))
    return text + question(number)


async def ask(teacher: Teacher, prompts: Sequence[str]) -> Figures:
    """Asks everything at once."""
    started = perf_counter()
    calls = await asyncio.gather(*(teacher.complete([Message("user", p)]) for p in prompts))
    seconds = perf_counter() - started
    answers = [answer for call in calls for answer in call]
    return Figures(
        sum(answer.prompt_tokens or 0 for answer in answers),
        sum(answer.completion_tokens or 0 for answer in answers),
        seconds,
    )


async def main(model: str) -> None:
    """Prints the figures."""
    from teachers.vllm import open_teachers  # noqa: PLC0415 - only where vLLM is installed

    talks, reads = await open_teachers([arm(model, 128), arm(model, 1)])
    try:
        await ask(talks, [question(0)])
        prompts = [question(n) for n in range(CALLS)]
        rounds = [await ask(talks, prompts) for _ in range(ROUNDS)]
        best = max(r.completion_tokens / r.seconds for r in rounds)
        print(f"tokens/s at {CALLS} requests: {best:.0f}")
        apart = await ask(reads, [long_prompt(n, first=1000 * (n + 1)) for n in range(CALLS)])
        await ask(reads, [long_prompt(CALLS, first=0)])
        alike = await ask(reads, [long_prompt(n, first=0) for n in range(CALLS)])
        print(
            f"prompt tokens/s at {CALLS} requests of {apart.prompt_tokens // CALLS}: "
            f"{apart.prompt_tokens / apart.seconds:.0f} that begin apart, "
            f"{alike.prompt_tokens / alike.seconds:.0f} that begin alike"
        )
    finally:
        for teacher in (talks, reads):
            await teacher.close()


def packaged_model() -> str:
    """The folder of the packaged model, converted once."""
    from reward.packaged import folder_of  # noqa: PLC0415 - imports torch

    return str(folder_of("smollm2-135m-instruct"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", help="folder or hub name of the weights")
    options = parser.parse_args()
    if find_spec("vllm") is None:
        print("skipped: vLLM has an environment of its own; run: make install-vllm")
    else:
        asyncio.run(main(options.model or packaged_model()))
