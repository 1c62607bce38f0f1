"""The gRPC service and its metrics port: decode, call the engine, encode."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

import assembly
from arbitrage import config, errors
from arbitrage.garbage import collect_seldom
from arbitrage.metrics import Metrics
from arbitrage.registry import FILE, Registry
from arbitrage.v1 import arbitrage_pb2_grpc as pb_grpc
from reward.language import languages as detectable
from service import noise, readiness, sturdy
from service.admission import Admission
from service.arbitrage_service import ArbitrageService
from service.door import AdmissionDoor
from service.guard import SERVICES, Guard
from service.health import Health
from service.job_service import JobService
from service.jobs import Jobs
from service.openai_api import OpenAIAPI
from service.ports import cannot_listen, metrics_port, place
from service.quota import Quota
from service.strain import lateness
from service.tls import credentials, is_loopback, require_private
from service.tokens import Tokens
from service.traces import sent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    import grpc
    from aiohttp import web

    from arbitrage.engine import Engine
    from arbitrage.ports import Observer
    from service.identity import Caller

_log = logging.getLogger(__name__)
_GRACE_SECONDS = 10.0
_PING_MS = 10_000
_HANDSHAKE_MS = 10_000  # who says nothing keeps a connection no longer


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers.

    Attributes:
        address: `host:port` of the gRPC service.
        metrics_url: where Prometheus scrapes; empty where that port is closed.
        openai_url: what clients of OpenAI's API call their base URL; empty likewise.
    """

    engine: Engine
    address: str
    metrics_url: str
    openai_url: str = ""


@asynccontextmanager
async def running(settings: config.Config) -> AsyncIterator[Running]:
    """Runs the whole service; on leaving it answers what is in flight, then closes.

    Raises:
        ConfigError: a port is taken, or something in the configuration cannot be opened.
    """
    noise.hush()
    metrics = Metrics(detectable(), settings.sink.format)
    async with AsyncExitStack() as stack:
        tokens = Tokens(path) if (path := settings.service.auth_tokens) else None
        if settings.service.metrics_auth and tokens is None:
            raise errors.ConfigError("service.metrics_auth: needs tokens; set auth_tokens")
        metrics_url = ""
        if scraped := settings.service.metrics:
            require_private("service.metrics", scraped, settings.service)
            shown = tokens if settings.service.metrics_auth else None
            metrics_url = await stack.enter_async_context(metrics_port(scraped, metrics, shown))
        traces = None
        if collector := settings.service.traces:
            traces = await stack.enter_async_context(sent(collector))
        admission = Admission(
            settings.job.max_in_flight,
            settings.service.max_in_flight_a_client,
            Quota(settings.service.prompts_per_minute_a_client),
        )
        door = AdmissionDoor(admission, metrics)
        address, server = _bind(settings.service, metrics, tokens, door)
        try:
            registry = await Registry.open(settings.service.jobs / FILE)
            stack.push_async_callback(registry.close)
            observers: list[Observer] = [metrics, traces] if traces else [metrics]
            engine = await stack.enter_async_context(assembly.open(settings, observers))
            jobs = await Jobs.open(engine, settings, registry, admission)
        except BaseException:
            await server.start()  # one that never ran keeps its port
            await server.stop(None)
            raise
        _watch(metrics, engine, jobs, admission)
        if traces:
            traces.follow_pool(engine.pool)
        service = ArbitrageService(engine, admission)
        pb_grpc.add_ArbitrageServiceServicer_to_server(service, server)
        pb_grpc.add_JobServiceServicer_to_server(
            JobService(jobs, engine, settings.job.max_in_flight), server
        )
        liveness = Health()
        health_pb2_grpc.add_HealthServicer_to_server(liveness, server)
        if settings.service.reflection:
            reflection.enable_server_reflection(
                [*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME], server
            )
        await server.start()
        others: list[web.AppRunner] = []
        stack.push_async_callback(_stop, server, jobs, admission, others)
        jobs.start()
        await stack.enter_async_context(lateness(admission.bear))
        await stack.enter_async_context(readiness.told(liveness, engine, SERVICES))
        openai_url = ""
        if settings.service.openai:
            api = OpenAIAPI(engine, metrics, admission.at_once, partial(_known, tokens))
            openai_url, runner = await api.listen(settings.service, _GRACE_SECONDS)
            others.append(runner)
        yield Running(engine, address, metrics_url, openai_url)


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


async def _stop(
    server: grpc.aio.Server, jobs: Jobs, admission: Admission, others: Sequence[web.AppRunner]
) -> None:
    """Answers what is in flight, of clients and of jobs, within one grace."""
    admission.close()
    ends = [server.stop(_GRACE_SECONDS), jobs.stop(_GRACE_SECONDS)]
    await asyncio.gather(*ends, *(other.cleanup() for other in others))


def _watch(metrics: Metrics, engine: Engine, jobs: Jobs, admission: Admission) -> None:
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


def _known(tokens: Tokens | None, authorization: str | None) -> Caller | None:
    """Who shows a token that may have prompts answered; None where nobody needs one.

    Raises:
        Unauthenticated, PermissionDenied: they may not come in.
    """
    if tokens is None:
        return None
    bearer = tokens.caller(authorization)
    bearer.require("complete")
    return bearer


def _bind(
    service: config.Service, metrics: Metrics, tokens: Tokens | None, door: sturdy.Door
) -> tuple[str, grpc.aio.Server]:
    host, port = place("service.listen", service.listen)
    proof = credentials(service)
    if proof is None:
        require_private("service.listen", service.listen, service)
    if tokens is None and service.tls_clients is None and not is_loopback(host):
        _log.warning("service.listen: whoever reaches %s may call; set auth_tokens", service.listen)
    metadata_bytes = service.max_metadata_kb << 10
    options = [
        ("grpc.so_reuseport", 0),  # else a second server would silently share the port
        ("grpc.max_receive_message_length", service.max_message_mb << 20),
        # between these two, gRPC would refuse some at random
        ("grpc.max_metadata_size", metadata_bytes),
        ("grpc.absolute_max_metadata_size", metadata_bytes),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        # a client that waits for an answer may ask so often whether anybody is there
        ("grpc.http2.min_ping_interval_without_data_ms", _PING_MS),
    ]
    server = sturdy.server([Guard(metrics, tokens, service.max_prompts)], options, door)
    at = f"{host}:{port}"
    try:
        port = server.add_secure_port(at, proof) if proof else server.add_insecure_port(at)
    except RuntimeError as error:
        raise cannot_listen("service.listen", service.listen) from error
    return f"{host}:{port}", server
