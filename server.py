"""The gRPC service and its metrics port: decode, call the engine, encode."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn, cast

import grpc
from aiohttp import web
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status
from prometheus_client.exposition import choose_encoder

import assembly
from arbitrage import config, errors, wire
from arbitrage.garbage import collect_seldom
from arbitrage.language import normalise
from arbitrage.metrics import Metrics
from arbitrage.registry import FILE, Registry
from arbitrage.status import CODES, status_of
from arbitrage.v1 import arbitrage_pb2 as pb
from arbitrage.v1 import arbitrage_pb2_grpc as pb_grpc
from reward.language import languages as detectable
from router.explain import explain, languages
from router.snapshots.snapshot import Snapshot
from service.jobs import Jobs
from service.rpc import JobService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from arbitrage.engine import Engine
    from router.explain import Explicable

_log = logging.getLogger(__name__)
_GRACE_SECONDS = 10.0
_LAST_PORT = 65_535
_SCRAPE_SECONDS = 1.0
_CLOSE_SECONDS = 0.2
_SERVICES = [service.full_name for service in pb.DESCRIPTOR.services_by_name.values()]
Context = grpc.aio.ServicerContext[Any, Any]


class ArbitrageService(pb_grpc.ArbitrageServiceServicer):
    """`arbitrage.v1.ArbitrageService` over one engine."""

    def __init__(self, engine: Engine, max_in_flight: int) -> None:
        self._engine = engine
        self._max_in_flight = max_in_flight
        self._in_flight = 0

    async def Complete(self, request: pb.CompleteRequest, context: Context) -> pb.CompleteResponse:
        """Answers one prompt with the winner."""
        wire.require_no_options(request)
        prompt = wire.prompt_from(request)
        with self._admitted():
            sample = await self._engine.arbitrate(prompt)
        return pb.CompleteResponse(
            sample=wire.sample_to(sample, include_candidates=request.include_candidates)
        )

    async def ListTeachers(
        self, request: pb.ListTeachersRequest, context: Context
    ) -> pb.ListTeachersResponse:
        """Lists the pool."""
        teachers = self._engine.pool.describe()
        return pb.ListTeachersResponse(teachers=[wire.teacher_to(t) for t in teachers])

    async def GetPolicy(
        self, request: pb.GetPolicyRequest, context: Context
    ) -> pb.GetPolicyResponse:
        """Shows what was learned."""
        policy = cast("Explicable", self._engine.policy)
        wanted = [normalise(request.language)] if request.language else languages(policy)
        arms = [teacher.name for teacher in self._engine.pool.describe()]
        response = pb.GetPolicyResponse(
            policy=policy.kind,
            version=policy.version,
            price=policy.price,
            usd_per_prompt=policy.spend_per_prompt,
        )
        if request.include_state:
            response.state = await asyncio.to_thread(Snapshot.of(policy).encode)
        for language in wanted:
            response.languages.extend(wire.languages_to(explain(policy, language, arms)))
            await asyncio.sleep(0)  # a thousand languages take a second: others get their turn
        return response

    async def RecordFeedback(self, request: pb.RecordFeedbackRequest, context: Context) -> NoReturn:
        """Not offered by this version."""
        raise errors.NotBuilt("RecordFeedback: this server learns from its reward model alone")

    def StreamComplete(
        self, request: pb.StreamCompleteRequest, context: Context
    ) -> AsyncIterator[pb.StreamCompleteResponse]:
        """Not offered by this version."""
        return _refused("StreamComplete: this server does not stream; call Complete")

    def Arbitrate(
        self, request_iterator: AsyncIterator[pb.ArbitrateRequest], context: Context
    ) -> AsyncIterator[pb.ArbitrateResponse]:
        """Not offered by this version."""
        return _refused("Arbitrate: this server takes no streams; call Complete per prompt")

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        if self._in_flight >= self._max_in_flight:
            raise errors.Overloaded(
                f"{self._in_flight} prompts are in flight, which is the limit; try again later"
            )
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1


async def _refused(reason: str) -> AsyncIterator[Any]:
    for _ in ():
        yield
    raise errors.NotBuilt(reason)


class Guard(grpc.aio.ServerInterceptor):
    """Turns errors into statuses with their details, and counts RPCs, in one place."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        handler_call_details: Any,
    ) -> Any:
        """Wraps the handlers of our own services."""
        handler = await continuation(handler_call_details)
        service, _, method = handler_call_details.method.lstrip("/").partition("/")
        if handler is None or service not in _SERVICES:
            return handler
        kind = "_".join(
            ("stream" if streams else "unary")
            for streams in (handler.request_streaming, handler.response_streaming)
        )
        behaviour = getattr(handler, kind)

        async def answer(request: Any, context: Context) -> Any:
            async with self._answering(method, context):
                return await behaviour(request, context)

        async def answers(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._answering(method, context):
                async for response in behaviour(request, context):
                    yield response

        return getattr(grpc, f"{kind}_rpc_method_handler")(
            answers if handler.response_streaming else answer,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    @asynccontextmanager
    async def _answering(self, method: str, context: Context) -> AsyncIterator[None]:
        started = perf_counter()
        code = grpc.StatusCode.OK
        try:
            yield
        except asyncio.CancelledError:
            # by its own clock a client leaves a moment before the deadline reaches ours
            left = cast("float | None", context.time_remaining())
            late = left is not None and left < _CLOSE_SECONDS
            code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            raise
        except errors.ArbitrageError as error:
            status = status_of(error)
            code = CODES[status.code]
            await context.abort_with_status(rpc_status.to_status(status))
        except Exception:  # a bug: the client hears of it, the log says where
            code = grpc.StatusCode.INTERNAL
            _log.exception("%s failed", method)
            await context.abort(code, "internal error; see the server's log")
        finally:
            self._metrics.requests.labels(method, code.name).inc()
            self._metrics.request_seconds.labels(method).observe(perf_counter() - started)


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
            _metrics_port(settings.service.metrics, metrics)
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
            [*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME], server
        )
        await server.start()
        stack.push_async_callback(_stop, server, jobs)
        jobs.start()
        for name in ("", *_SERVICES):
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
                except Exception:
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
    host, port = _place("service.listen", listen)
    # without this a second server would silently share the port
    options = [("grpc.so_reuseport", 0)]
    server = grpc.aio.server(interceptors=[Guard(metrics)], options=options)
    try:
        port = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise _cannot_listen("service.listen", listen) from error
    return f"{host}:{port}", server


@asynccontextmanager
async def _metrics_port(listen: str, metrics: Metrics) -> AsyncIterator[str]:
    host, port = _place("service.metrics", listen)

    async def scrape(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(metrics.registry), headers={"Content-Type": content_type})

    app = web.Application()
    app.router.add_get("/metrics", scrape)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SCRAPE_SECONDS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host.strip("[]"), port).start()
        except (OSError, UnicodeError) as error:
            raise _cannot_listen("service.metrics", listen) from error
        yield f"http://{host}:{runner.addresses[0][1]}/metrics"
    finally:
        await runner.cleanup()


def _place(key: str, listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    # gRPC would take port 65537 for port 1
    if not host or not port.isdecimal() or int(port) > _LAST_PORT:
        raise errors.ConfigError(f"{key}: {listen!r} is not host:port, such as 127.0.0.1:50051")
    return host, int(port)


def _cannot_listen(key: str, listen: str) -> errors.ConfigError:
    return errors.ConfigError(
        f"{key}: cannot listen on {listen}: is it taken, or not this machine's?"
    )
