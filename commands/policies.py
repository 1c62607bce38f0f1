"""`arbitrage policy show | snapshot | reset`: what was learned, by a service or in a folder."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import router
from arbitrage import config, errors
from arbitrage.client import AsyncClient, Learned, environment
from arbitrage.disk import take_lock
from arbitrage.display.policy import learned
from arbitrage.journal import Journal
from arbitrage.language import normalise
from router.explain import explain, languages
from router.snapshots import keeper, snapshot
from service import learning
from sink.layout import Layout

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from router.explain import Explicable


async def show(source: config.Config | str, language: str | None) -> Table:
    """Tells what was learned.

    Args:
        source: the address of a running service, or a configuration, of whose folder
            the saved state is read.
        language: this one alone; None for all.

    Raises:
        ArbitrageError: nobody answers, or nothing is saved.
    """
    if isinstance(source, str):
        async with AsyncClient(source, **environment(attempts=1)) as client:
            return learned(await client.policy(language))
    policy = cast("Explicable", router.build(source.policy))
    snapshot.restore(_saved(source), policy)
    arms = [teacher.name for teacher in source.teachers]
    wanted = [normalise(language)] if language else languages(policy)
    estimates = tuple(estimate for tag in wanted for estimate in explain(policy, tag, arms))
    return learned(
        Learned(policy.kind, policy.version, policy.price, policy.spend_per_prompt, estimates)
    )


async def save(source: config.Config | str, path: Path) -> str:
    """Writes a snapshot; returns what was done.

    Args:
        source: the address of a running service, or a configuration, of whose folder
            the saved state is taken.
        path: the file; it is compressed where its name ends in `.gz`.

    Raises:
        ArbitrageError: nobody answers, nothing is saved, or it cannot be written.
    """
    if isinstance(source, str):
        async with AsyncClient(source, **environment(attempts=1)) as client:
            told = await client.policy(include_state=True)
        if not told.state:
            raise errors.NotBuilt(f"{source}: this service gives no snapshots; upgrade it")
        taken = snapshot.Snapshot.decode(told.state)
    else:
        taken = snapshot.load(_saved(source))
    # what its run has made of which samples is nothing to another's
    snapshot.save(path, replace(taken, learned=0, calibration={}, jobs={}))
    return f"{path}: policy {taken.kind!r}, {taken.version} prompts learned from"


async def reset(source: config.Config) -> str:
    """Lets a folder's policy begin anew; returns what was done.

    What its samples say is not learned again, and those to come are.

    Raises:
        SinkError: a service runs on the folder.
    """
    path = _file(source)
    if not path.exists():
        return f"{path}: no such file; nothing to forget"
    file = Layout(source.sink.path).journal
    os.close(take_lock(file, advice="stop it, and reset again"))
    journal = await Journal.open(file)
    try:
        fresh = snapshot.Snapshot.of(router.build(source.policy))
        others = dict(await learning.last_samples(source))
        others[keeper.FEEDBACK] = await journal.last_feedback()
        snapshot.save(path, replace(fresh, learned=await journal.last(), jobs=others))
    finally:
        await journal.close()
    return f"{path}: forgotten; the next run on this folder begins to learn anew"


def _file(settings: config.Config) -> Path:
    return settings.sink.path / keeper.FILE


def _saved(settings: config.Config) -> Path:
    """The file of a folder's saved state.

    Raises:
        SnapshotError: there is none.
    """
    path = _file(settings)
    if not path.exists():
        raise errors.SnapshotError(
            f"{path}: no such file: nobody has learned anything in this folder yet; a service "
            "saves it there within a minute, and when it stops"
        )
    return path
