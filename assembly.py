"""The composition root: a configuration in, an engine out, closed in reverse order.

Example:
    async with assembly.open("config.toml") as engine:
        sample = await engine.arbitrate(Prompt.of("Wo liegt Lima?"))
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import reward
import router
import sink
import teachers
from arbitrage import config
from arbitrage.engine import Engine
from reward.gates import open_gates
from reward.language import Detector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from arbitrage.ports import Observer


@asynccontextmanager
async def open(  # noqa: A001 - read as `assembly.open`
    source: config.Config | Path | str, observers: Sequence[Observer] = ()
) -> AsyncIterator[Engine]:
    """Opens everything that a configuration names, and closes it again.

    Args:
        source: a configuration, or the path of its TOML file.
        observers: hear every event of the engine.

    Raises:
        ConfigError: something in the configuration cannot be opened.
        SinkError: the output folder cannot be written or is in use; on closing,
            something could not be published.
    """
    settings = source if isinstance(source, config.Config) else config.load(source)
    async with AsyncExitStack() as stack:
        # mistakes first, models after: loading them can take minutes
        policy = router.build(settings.policy)
        detector = await asyncio.to_thread(Detector)
        gates = open_gates(settings.reward.gates, detector)
        stack.push_async_callback(gates.close)
        pool = await teachers.open_pool(settings.teachers)
        stack.push_async_callback(pool.close)
        samples = await sink.open(settings.sink, teachers=pool.describe())
        stack.push_async_callback(samples.close)
        judge = await reward.open_reward(settings.reward, settings.teachers)
        stack.push_async_callback(judge.close)
        yield Engine(
            pool=pool,
            policy=policy,
            detector=detector,
            gates=gates,
            reward=judge,
            sink=samples,
            observers=observers,
        )
