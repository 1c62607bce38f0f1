"""What a service knows of itself whenever somebody asks: read at each scrape."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import assembly

if TYPE_CHECKING:
    from arbitrage.engine import Engine
    from arbitrage.metrics import Metrics
    from service.admission import Admission
    from service.jobs import Jobs


def watch(metrics: Metrics, engine: Engine, jobs: Jobs, admission: Admission) -> None:
    """Exposes what is read at each scrape."""
    metrics.watch_pool(engine.pool)
    pool = assembly.pool_of(engine)
    metrics.watch(
        "budget_remaining_usd",
        "What may still be spent on teachers; NaN without a budget",
        lambda: math.nan if (left := pool.budget.remaining_usd) is None else left,
    )
    metrics.watch(
        "budget_usd",
        "What may be spent on teachers in all; NaN without a budget",
        lambda: math.nan if (limit := pool.budget.limit) is None else float(limit),
    )
    metrics.watch(
        "reward_queue_depth",
        "Candidates that wait to be scored, or are being scored",
        lambda: engine.reward.queue_depth,
    )
    metrics.watch(
        "admission_limit",
        "Prompts that may be worked on at once, as far as this process keeps up",
        lambda: admission.limit,
    )
    metrics.watch(
        "admission_waiting",
        "Prompts of streams and jobs that wait for room",
        lambda: admission.waiting,
    )
    metrics.watch(
        "event_loop_late_seconds",
        "How late the event loop is at least",
        lambda: admission.strain.late_seconds,
    )
    loop = asyncio.get_running_loop()
    metrics.watch("tasks", "Tasks of the event loop", lambda: len(asyncio.all_tasks(loop)))
    metrics.watch(
        "sink_pending_samples",
        "Durable samples not yet published, those of jobs too",
        lambda: sum(sink.pending for sink in (engine.sink, *jobs.sinks)),
    )
    metrics.watch(
        "sink_most_pending_samples",
        "Durable samples not yet published, in the folder that has most of them",
        lambda: max(sink.pending for sink in (engine.sink, *jobs.sinks)),
    )
    metrics.watch(
        "sink_stalled",
        "Whether samples wait for room on the disk (1) or not (0)",
        lambda: any(sink.stalled for sink in (engine.sink, *jobs.sinks)),
    )
