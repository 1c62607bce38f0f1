"""Candidates scored a second by vLLM's pooling runner; `reward_scoring.py --vllm` calls it.

.venv-vllm/bin/python benchmarks/reward_vllm.py FOLDER [PROMPTS]
"""

from __future__ import annotations

import asyncio
import sys
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from reward_scoring import Ours, Pairs, pairs

from arbitrage import config
from reward import open_reward

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROUNDS = 3


async def vllm_rate(model: str, prompts: Sequence[Pairs], dtype: str = "float32") -> list[float]:
    """Candidates a second over each mix of prompts, all prompts in flight: the median round.

    The prefix cache is emptied before each round: what it saves is saved within one.
    """
    reward = await open_reward(config.VLLMReward(model=model, dtype=dtype))
    vllm: Any = reward
    side, rates = Ours(reward), []
    try:
        await side.score(Pairs("warm-up", prompts[0].prompts[:4]))
        for over in prompts:
            seconds = []
            for _ in range(_ROUNDS):
                await vllm._engine._llm.reset_prefix_cache()  # noqa: SLF001
                started = perf_counter()
                await side.score(over)
                seconds.append(perf_counter() - started)
            rates.append(over.candidates / median(seconds))
    finally:
        await reward.close()
    return rates


def main() -> None:
    """Prints a line a mix of prompts."""
    count = int((*sys.argv, "28")[2])
    mixes = [pairs(count, conversations=conversations) for conversations in (False, True)]
    for over, rate in zip(mixes, asyncio.run(vllm_rate(sys.argv[1], mixes)), strict=True):
        print(f"vLLM, pooling runner | {over.name} | {rate:.2f} candidates/s")


if __name__ == "__main__":
    main()
