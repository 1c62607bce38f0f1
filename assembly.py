"""The composition root: a configuration in, an engine out, closed in reverse order.

Example:
    async with assembly.open("config.toml") as engine:
        sample = await engine.arbitrate(Prompt.of("Wo liegt Lima?"))
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import fields, replace
from decimal import Decimal
from typing import TYPE_CHECKING, cast

import reward
import router
import sink
import teachers
from arbitrage import config, errors
from arbitrage.cache import CachedPool
from arbitrage.engine import Engine
from arbitrage.journal import Journal
from reward.gates import open_gates
from reward.judge import judge_teachers
from reward.language import Detector
from router.encoders import open_encoder
from router.snapshots import keeper, warm_start
from sink.layout import Layout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from arbitrage.events import Event
    from arbitrage.ports import Calibration, Encoder, Observer, Policy
    from arbitrage.types import Sample


_LOG = logging.getLogger(__name__)
_RELEARNED = 256  # samples read at a time
_MANY = 5_000  # of which somebody who waits should hear


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
        SnapshotError: what the policy has learned in that folder cannot be read; on
            closing, it could not be written.
    """
    settings = source if isinstance(source, config.Config) else config.load(source)
    async with AsyncExitStack() as stack:
        # mistakes first, models after: loading them can take minutes
        policy = router.build(settings.policy)
        detector = await asyncio.to_thread(Detector)
        gates = open_gates(settings.reward.gates, detector)
        stack.push_async_callback(gates.close)
        budget = teachers.Budget(settings.policy.budget_usd)
        pool = await teachers.open_pool(
            settings.teachers,
            budget=budget,
            only_trainable=settings.sink.only_trainable,
            hear=_broadcast(observers),
        )
        stack.push_async_callback(pool.close)
        samples = await sink.open(settings.sink, teachers=pool.describe)
        stack.push_async_callback(samples.close)
        journal = samples.journal
        completions = journal
        if settings.job.cache:
            completions = await Journal.open(settings.job.cache, shared=True)
            stack.push_async_callback(completions.close)
        encoder = await open_encoder(settings.policy.features)
        if encoder:
            stack.push_async_callback(encoder.close)
        calibration = reward.open_calibration(settings.reward, _broadcast(observers))
        learned, of_jobs = await _begin(policy, calibration, settings, encoder)
        learning = keeper.Keeper(
            settings.sink.path / keeper.FILE, policy, calibration, learned=learned, jobs=of_jobs
        )
        # before the folder is another's to have
        stack.push_async_callback(learning.close)
        # a run that goes on goes on spending
        budget.spent += Decimal(str(journal.cost_usd))
        budget.hear = lambda usd: journal.charge(float(usd))
        judges = None
        if asked := judge_teachers(settings.reward):
            judges = await teachers.open_pool(asked, budget=budget, hear=_broadcast(observers))
            stack.push_async_callback(judges.close)
        run = reward.Run(settings.teachers, pool.describe, judges, _broadcast(observers))
        model = await reward.open_reward(settings.reward, run)
        stack.push_async_callback(model.close)
        engine = Engine(
            pool=CachedPool(pool, completions, pool.asked),
            policy=policy,
            detector=detector,
            gates=gates,
            reward=model,
            calibration=calibration,
            sink=samples,
            encoder=encoder,
            observers=[*observers, learning],
            deadline_seconds=settings.job.deadline_seconds,
        )
        await _catch_up(engine, learning, journal)
        await _catch_up_with_feedback(engine, learning, journal)
        yield engine


@asynccontextmanager
async def for_job(
    engine: Engine,
    settings: config.Config,
    name: str,
    output: Path,
) -> AsyncIterator[Engine]:
    """Opens an engine for a job beside another: with a folder of its own, and all else shared.

    What the job learns, both know; what it pays is taken off the one budget.

    Args:
        engine: as `open` has made it.
        settings: what it was made from.
        name: the job's, in the ids of its samples.
        output: the folder of its dataset.

    Raises:
        SinkError: the folder cannot be written or is in use; on closing, something could
            not be published.
    """
    pool, learning = pool_of(engine), keeper_of(engine)
    folder = replace(settings.sink, path=output, table=None)
    samples = await sink.open(folder, teachers=pool.describe)
    try:
        cached = CachedPool(pool, samples.journal, pool.asked)
        others = [observer for observer in engine.observers if observer is not learning]
        its = replace(
            engine,
            job=name,
            sink=samples,
            pool=engine.pool if settings.job.cache else cached,
            observers=[*others, learning.of_job(name)],
        )
        await _catch_up(its, learning, samples.journal, name)
        yield its
    finally:
        await samples.close()


async def relearn(engine: Engine, job: str, output: Path) -> None:
    """Learns again what a job has taught and nobody has saved, as `for_job` does, too.

    Raises:
        SinkError: the job's samples cannot be read.
    """
    journal = await Journal.open(Layout(output).journal)
    try:
        await _catch_up(engine, keeper_of(engine), journal, job)
    finally:
        await journal.close()


async def reload(engine: Engine, before: config.Config, after: config.Config) -> str:
    """Changes the teachers and the budget of an engine that runs; no prompt is dropped.

    Args:
        engine: as `open` has made it.
        before: the configuration it has.
        after: the one it is to have.

    Returns:
        One line that tells what has changed.

    Raises:
        ConfigError: a new teacher cannot be opened, or something has changed that
            cannot be while it runs; the engine is as it was.
    """
    fixed = replace(after, teachers=before.teachers)
    if not before.policy.horizon:  # which the budget was divided by
        policy = replace(after.policy, budget_usd=before.policy.budget_usd)
        fixed = replace(fixed, policy=policy)
    for section in fields(config.Config):
        if getattr(fixed, section.name) != getattr(before, section.name):
            raise errors.ConfigError(
                f"{section.name}: has changed, which needs a restart; only teachers and "
                "policy.budget_usd without a horizon can change while the service runs"
            )
    pool = pool_of(engine)
    changes = await teachers.change_pool(pool, after.teachers)
    pool.budget.allow(after.policy.budget_usd)
    return str(changes)


def pool_of(engine: Engine) -> teachers.Pool:
    """The teachers behind an engine that `open` has made."""
    return cast("teachers.Pool", cast("CachedPool", engine.pool).pool)


def journal_of(engine: Engine) -> Journal:
    """The journal of an engine that `open` or `for_job` has made."""
    return cast("sink.JournaledSink", engine.sink).journal


def keeper_of(engine: Engine) -> keeper.Keeper:
    """What saves what an engine has learned that `open` has made."""
    return next(one for one in engine.observers if isinstance(one, keeper.Keeper))


async def _catch_up_with_feedback(
    engine: Engine, learning: keeper.Keeper, journal: Journal
) -> None:
    """The same of rewards that came later."""
    learned = min(learning.last(keeper.FEEDBACK), await journal.last_feedback())
    while batch := await journal.feedback_after(learned, _RELEARNED):
        for learned, feedback in batch:
            if sample := await journal.sample(feedback.sample_id):
                await engine.judge(sample, feedback.teacher, feedback.reward)
            learning.learned(learned, keeper.FEEDBACK)


async def _catch_up(
    engine: Engine, learning: keeper.Keeper, journal: Journal, job: str | None = None
) -> None:
    """Learns what stands in a journal and was not saved, in the order in which it came."""
    learned, last = learning.last(job), await journal.last()
    if last < learned:  # somebody has begun the folder anew
        learning.learned(last, job)
    if (behind := last - learned) > _MANY:
        _LOG.warning("learning again from %d samples, which was not saved", behind)
    while batch := await journal.after(learned, _RELEARNED):
        for learned, sample in batch:
            # one by one: the state is saved beside this, and must not be ahead of its number
            await engine.relearn([sample])
            learning.learned(learned, job)


async def _begin(
    policy: Policy, calibration: Calibration, settings: config.Config, encoder: Encoder | None
) -> tuple[int, Mapping[str, int]]:
    """Lets the policy go on from the folder's file, or start warm.

    Returns:
        Number of the last of the folder's samples that it has learned from, and the same
        by job.
    """
    kept = await keeper.restore(settings.sink.path / keeper.FILE, policy, calibration)
    if kept is None:
        await warm_start.begin(
            policy,
            settings.policy.warm_start,
            arms=[teacher.name for teacher in settings.teachers],
            standardised=_standardised(settings.reward),
            read=_logged,
            encoder=encoder,
        )
        return 0, {}
    return kept.learned, kept.jobs


def _logged(folders: Sequence[Path]) -> Iterable[Sample]:
    from sink.log import Log  # noqa: PLC0415 - pyarrow, which most starts do without

    return Log(folders)


def _standardised(settings: config.AnyReward) -> bool:
    """Whether rewards lie about 0 in every language, as far apart as a standard deviation of 1."""
    if isinstance(settings, config.EnsembleReward):
        return all(_standardised(member) for member in settings.members)
    return settings.calibration.per_language


def _broadcast(observers: Sequence[Observer]) -> Callable[[Event], None]:
    def hear(event: Event) -> None:
        for observer in observers:
            observer.observe(event)

    return hear
