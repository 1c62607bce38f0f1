"""The gRPC service and its metrics port: decode, call the engine, encode."""

from __future__ import annotations

import asyncio
import logging
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
from service import gauges, grpc_port, noise, readiness
from service.admission import Admission
from service.arbitrage_service import ArbitrageService
from service.door import AdmissionDoor
from service.guard import SERVICES
from service.health import Health
from service.job_service import JobService
from service.jobs import Jobs
from service.openai_api import OpenAIAPI
from service.ports import metrics_port
from service.quota import Quota
from service.reloads import Reloads
from service.strain import lateness
from service.tls import require_private
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


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers.

    Attributes:
        address: `host:port` of the gRPC service.
        metrics_url: where Prometheus scrapes; empty where that port is closed.
        openai_url: what clients of OpenAI's API call their base URL; empty likewise.
        closed: is done when the gRPC port is closed, by whatever.
    """

    engine: Engine
    address: str
    metrics_url: str
    openai_url: str = ""
    closed: asyncio.Task[bool] | None = None


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
        address, server = grpc_port.bind(
            settings.service, metrics, tokens, AdmissionDoor(admission, metrics)
        )
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
        gauges.watch(metrics, engine, jobs, admission)
        if traces:
            traces.follow_pool(engine.pool)
        pb_grpc.add_ArbitrageServiceServicer_to_server(ArbitrageService(engine, admission), server)
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
        closed = asyncio.create_task(server.wait_for_termination())
        yield Running(engine, address, metrics_url, openai_url, closed)


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

    Raises:
        Unavailable: the gRPC port has closed by itself; what was in flight has ended.
    """
    async with running(settings) as server:
        loop = asyncio.get_running_loop()
        stopped: asyncio.Future[signal.Signals] = loop.create_future()
        reloads = Reloads(server.engine, settings, read_again)

        def stop(number: signal.Signals) -> None:
            if not stopped.done():
                stopped.set_result(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        loop.add_signal_handler(signal.SIGHUP, reloads.begin)
        collect_seldom()
        ready(server)
        closed = server.closed or stopped
        try:
            await asyncio.wait({stopped, closed}, return_when=asyncio.FIRST_COMPLETED)
            if not stopped.done():
                raise errors.Unavailable(
                    f"{server.address}: the gRPC port has closed by itself; see the log, and start "
                    "the service again"
                )
            return stopped.result()
        finally:
            loop.remove_signal_handler(signal.SIGHUP)
            await reloads.close()


async def _stop(
    server: grpc.aio.Server, jobs: Jobs, admission: Admission, others: Sequence[web.AppRunner]
) -> None:
    """Answers what is in flight, of clients and of jobs, within one grace."""
    admission.close()
    ends = [server.stop(_GRACE_SECONDS), jobs.stop(_GRACE_SECONDS)]
    await asyncio.gather(*ends, *(other.cleanup() for other in others))


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
