"""The gRPC service and its metrics port: decode, call the engine, encode."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

import assembly
from arbitrage import config, errors
from arbitrage.garbage import collect_seldom
from arbitrage.metrics import Metrics
from arbitrage.registry import FILE, Registry
from arbitrage.v1 import arbitrage_pb2_grpc as pb_grpc
from reward.language import languages as detectable
from service.arbitrage_service import ArbitrageService
from service.guard import SERVICES, Guard
from service.job_service import JobService
from service.jobs import Jobs
from service.ports import cannot_listen, metrics_port, place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from arbitrage.engine import Engine

_log = logging.getLogger(__name__)
_GRACE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers.

    Attributes:
        address: `host:port` of the gRPC service.
        metrics_url: where Prometheus scrapes.
    """

    engine: Engine
    address: str
    metrics_url: str


@asynccontextmanager
async def running(settings: config.Config) -> AsyncIterator[Running]:
    """Runs the whole service; on leaving it answers what is in flight, then closes.

    Raises:
        ConfigError: a port is taken, or something in the configuration cannot be opened.
    """
    metrics = Metrics(detectable(), settings.sink.format)
    async with AsyncExitStack() as stack:
        metrics_url = await stack.enter_async_context(
            metrics_port(settings.service.metrics, metrics)
        )
        address, server = _bind(settings.service.listen, metrics)
        try:
            registry = await Registry.open(settings.service.jobs / FILE)
            stack.push_async_callback(registry.close)
            engine = await stack.enter_async_context(assembly.open(settings, observers=[metrics]))
            jobs = await Jobs.open(engine, settings, registry)
        except BaseException:
            await server.start()  # one that never ran keeps its port
            await server.stop(None)
            raise
        metrics.watch_pool(engine.pool)
        pool = assembly.pool_of(engine)
        metrics.watch(
            "budget_remaining_usd",
            "What may still be spent on teachers; NaN without a budget",
            lambda: math.nan if (left := pool.budget.remaining_usd) is None else left,
        )
        metrics.watch(
            "reward_queue_depth",
            "Candidates that wait to be scored, or are being scored",
            lambda: engine.reward.queue_depth,
        )
        metrics.watch(
            "sink_pending_samples", "Durable samples not yet published", lambda: engine.sink.pending
        )
        service = ArbitrageService(engine, settings.job.max_in_flight)
        pb_grpc.add_ArbitrageServiceServicer_to_server(service, server)
        pb_grpc.add_JobServiceServicer_to_server(
            JobService(jobs, settings.job.max_in_flight), server
        )
        liveness = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(liveness, server)
        reflection.enable_server_reflection(
            [*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME], server
        )
        await server.start()
        stack.push_async_callback(_stop, server, jobs)
        jobs.start()
        for name in ("", *SERVICES):
            await liveness.set(name, health_pb2.HealthCheckResponse.SERVING)
        stack.push_async_callback(liveness.enter_graceful_shutdown)
        yield Running(engine, address, metrics_url)


async def serve(
    settings: config.Config,
    ready: Callable[[Running], None],
    read_again: Callable[[], config.Config],
) -> signal.Signals:
    """Runs the service until SIGINT or SIGTERM; returns which. SIGHUP reloads its teachers.

    Args:
        settings: the configuration.
        ready: called once, when the service answers.
        read_again: gives the configuration as it is now.
    """
    async with running(settings) as server:
        loop = asyncio.get_running_loop()
        stopped: asyncio.Future[signal.Signals] = loop.create_future()
        turn = asyncio.Lock()
        reloads: set[asyncio.Task[None]] = set()

        async def reload() -> None:
            nonlocal settings
            async with turn:
                try:
                    after = read_again()
                    told = await assembly.reload(server.engine, settings, after)
                except errors.ArbitrageError as error:
                    _log.error("not reloaded: %s", error)
                except Exception:  # noqa: BLE001 - a bug, which must not end the service
                    _log.exception("not reloaded")
                else:
                    settings = after
                    _log.warning("reloaded: %s", told)

        def hang_up() -> None:
            task = loop.create_task(reload())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        def stop(number: signal.Signals) -> None:
            if not stopped.done():
                stopped.set_result(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        loop.add_signal_handler(signal.SIGHUP, hang_up)
        collect_seldom()
        ready(server)
        try:
            return await stopped
        finally:
            loop.remove_signal_handler(signal.SIGHUP)
            # one under way would open teachers that nobody closes
            async with turn:
                for task in reloads:
                    task.cancel()


async def _stop(server: grpc.aio.Server, jobs: Jobs) -> None:
    """Answers what is in flight, of clients and of jobs, within one grace."""
    await asyncio.gather(server.stop(_GRACE_SECONDS), jobs.stop(_GRACE_SECONDS))


def _bind(listen: str, metrics: Metrics) -> tuple[str, grpc.aio.Server]:
    host, port = place("service.listen", listen)
    # without this a second server would silently share the port
    options = [("grpc.so_reuseport", 0)]
    server = grpc.aio.server(interceptors=[Guard(metrics)], options=options)
    try:
        port = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise cannot_listen("service.listen", listen) from error
    return f"{host}:{port}", server
