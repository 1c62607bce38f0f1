"""Traces on their way to a collector (OTLP over gRPC), beside everything else.

Who asks never waits for it: there is room for so many prompts, and what comes beyond that, or is
not taken, is dropped. The environment's variables for OpenTelemetry hold for what the
configuration does not name, such as a collector's headers and certificates, or how many are traced.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from arbitrage.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from service.traces import Step

_LOG = logging.getLogger(__name__)
_MOST_WAITING = 2048  # prompts
_AT_ONCE = 64  # prompts that are sent together
_EVERY_SECONDS = 1.0
_FLUSH_SECONDS = 3.0  # that the last ones have on a server's way down
_PARENT: Final = "traceparent"
_ERROR_TYPE = "error.type"
_READ = TraceContextTextMapPropagator()


class Root:
    """The span of a whole prompt.

    Args:
        span: it.
        put: has it sent, with its steps.
    """

    __slots__ = ("_put", "_span")

    def __init__(self, span: Span, put: Callable[[Span, Step], None]) -> None:
        self._span = span
        self._put = put

    @property
    def trace_id(self) -> str:
        """Of its trace, in hexadecimal digits."""
        return f"{self._span.get_span_context().trace_id:032x}"

    def end(self, whole: Step) -> None:
        """Has it sent, with all its steps; never waits."""
        self._put(self._span, whole)


class _Ended(SpanProcessor):
    """Collects what has ended; all of it in one thread."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


class Sender:
    """Makes spans of what is told of prompts, and sends them, in a thread of its own.

    Args:
        endpoint: of the collector.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._ended = _Ended()
        ours = Resource.create({"service.name": "data-arbitrage"})
        resource = ours.merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(self._ended)
        self._tracer: Tracer = provider.get_tracer("arbitrage")
        self._exporter = OTLPSpanExporter(endpoint)
        if not _LOG.isEnabledFor(logging.DEBUG):  # it would tell of each attempt
            logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="traces")
        self._waiting: list[tuple[Span, Step]] = []
        self._more, self._closing = asyncio.Event(), False
        self._sending = self._dropped = 0
        self._in_a_row = True  # nothing was dropped since a batch was taken

    def begin(self, started: int, parent: str, serves: bool) -> Root | None:
        """Begins a prompt's trace; None where it is not to be traced.

        Args:
            started: in nanoseconds since 1970.
            parent: the client's span, as it has sent it; empty without one.
            serves: whether a client waits for it.
        """
        kind = SpanKind.SERVER if serves else SpanKind.INTERNAL
        context = _READ.extract({_PARENT: parent}) if parent else None
        span = self._tracer.start_span("arbitrate", context, kind, start_time=started)
        return Root(span, self._put) if span.is_recording() else None

    def _put(self, span: Span, whole: Step) -> None:
        if len(self._waiting) >= _MOST_WAITING or self._closing:
            self._drop(1)
            return
        self._waiting.append((span, whole))
        if len(self._waiting) >= _AT_ONCE:
            self._more.set()

    async def run(self) -> None:
        """Sends what comes, until all is sent after `close`."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._closing and len(self._waiting) < _AT_ONCE:
                try:
                    async with asyncio.timeout(_EVERY_SECONDS):
                        await self._more.wait()
                except TimeoutError:
                    pass
            self._more.clear()
            batch, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
            self._sending = len(batch)
            if batch:
                try:
                    taken = await loop.run_in_executor(self._thread, self._send, batch)
                except Exception:  # noqa: BLE001 - a bug there is no reason to stop
                    _LOG.debug("traces", exc_info=True)
                    taken = False
                if taken:
                    self._taken()
                else:
                    self._drop(len(batch))
            elif self._closing:
                return

    async def close(self, running: asyncio.Task[None]) -> None:
        """Sends what waits, within a few seconds, and nothing more."""
        self._closing = True
        self._more.set()
        await asyncio.wait({running}, timeout=_FLUSH_SECONDS)
        if not running.done():
            running.cancel()
            self._drop(self._sending + len(self._waiting))
        self._exporter.shutdown()  # ends what is under way
        await asyncio.wait({running})
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _send(self, batch: list[tuple[Span, Step]]) -> bool:
        """Sends some prompts' spans. In the thread."""
        for span, whole in batch:
            for step in whole.steps:
                self._span(step, span)
            _end(span, whole)
        spans, self._ended.spans = self._ended.spans, []
        return self._exporter.export(spans) is SpanExportResult.SUCCESS

    def _span(self, step: Step, parent: Span) -> None:
        kind = SpanKind.CLIENT if step.calls_out else SpanKind.INTERNAL
        context = set_span_in_context(parent)
        span = self._tracer.start_span(step.name, context, kind, start_time=step.started)
        for one in step.steps:
            self._span(one, span)
        _end(span, step)

    def _taken(self) -> None:
        """Tells that all is well again, once nothing was dropped between two batches."""
        if self._dropped and self._in_a_row:
            _LOG.warning(
                "service.traces: %s takes traces; those of %d prompts were dropped",
                self._endpoint,
                self._dropped,
            )
            self._dropped = 0
        self._in_a_row = True

    def _drop(self, count: int) -> None:
        if count and not self._dropped:
            _LOG.warning(
                "service.traces: %s does not take traces, or not as fast as they come; they are "
                "dropped meanwhile, and everything else goes on",
                self._endpoint,
            )
        self._dropped += count
        self._in_a_row = self._in_a_row and not count


def _end(span: Span, step: Step) -> None:
    span.set_attributes(step.attributes)
    if error := step.attributes.get(_ERROR_TYPE):
        span.set_status(Status(StatusCode.ERROR, error))
    span.end(step.ended)


@asynccontextmanager
async def opened(endpoint: str) -> AsyncIterator[Callable[[int, str, bool], Root | None]]:
    """What begins traces, which are sent for as long as the context lasts.

    Raises:
        ConfigError: the endpoint is none.
    """
    url = urlsplit(endpoint)
    try:
        right = url.scheme in {"http", "https"} and url.hostname and url.port
    except ValueError:
        right = False
    if not right or url.path.strip("/") or url.query or "@" in url.netloc:
        raise ConfigError(
            f"service.traces: {endpoint!r} is not the URL of a collector, such as "
            "http://127.0.0.1:4317"
        )
    sender = Sender(endpoint)
    running = asyncio.create_task(sender.run())
    try:
        yield sender.begin
    finally:
        await sender.close(running)
