"""Traces of prompts, as a collector of OpenTelemetry's own protocol gets them."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
from collections import defaultdict
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as collected
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as collecting
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from arbitrage import config
from arbitrage.errors import ConfigError, NoWinner
from arbitrage.events import Accepted, Left, Routed
from arbitrage.types import Decision, Prompt
from arbitrage.v1 import arbitrage_pb2 as pb
from arbitrage.v1.arbitrage_pb2_grpc import ArbitrageServiceStub
from service import otlp
from service.traces import Traces, sent
from tests import chat_server
from tests.processes import free_port, served, write_config
from tests.service import channel_to, refused, scripted, serving, settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from service.traces import Step

MARK = "Kolibri-4711"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_STOPS_WITHIN_SECONDS = 15.0
_BOB = '[[teachers]]\nname = "bob"\nkind = "scripted"\n'
_FAILS = _BOB + "failure_rate = 1.0\nmax_attempts = 1\n"


class Collector(collecting.TraceServiceServicer):
    """What the service has sent.

    Attributes:
        raw: each message, as it came.
        hangs: whether it never answers.
    """

    def __init__(self) -> None:
        self.raw = b""
        self.hangs = False
        self.asked = asyncio.Event()
        self.resources: list[dict[str, Any]] = []
        self.spans: list[Span] = []

    async def Export(  # noqa: N802 - gRPC names it
        self, request: collected.ExportTraceServiceRequest, context: Any
    ) -> collected.ExportTraceServiceResponse:
        del context
        self.asked.set()
        if self.hangs:
            await asyncio.Event().wait()
        self.raw += request.SerializeToString()
        for part in request.resource_spans:
            self.resources.append(told(part.resource))
            self.spans += [span for scope in part.scope_spans for span in scope.spans]
        return collected.ExportTraceServiceResponse()

    @property
    def traces(self) -> list[Trace]:
        """What came, by trace."""
        of: dict[bytes, list[Span]] = defaultdict(list)
        for span in self.spans:
            of[span.trace_id].append(span)
        return [Trace(spans) for spans in of.values()]


class Trace:
    """The spans of one trace."""

    def __init__(self, spans: list[Span]) -> None:
        self.spans = spans
        ids = {span.span_id for span in spans}
        (self.root,) = (span for span in spans if span.parent_span_id not in ids)

    def under(self, parent: Span) -> list[Span]:
        """Its parts, in order of their beginning."""
        parts = [span for span in self.spans if span.parent_span_id == parent.span_id]
        for part in parts:
            assert parent.start_time_unix_nano <= part.start_time_unix_nano
            assert part.start_time_unix_nano <= part.end_time_unix_nano
            assert part.end_time_unix_nano <= parent.end_time_unix_nano
        return sorted(parts, key=lambda part: part.start_time_unix_nano)


def told(tagged: Any) -> dict[str, Any]:
    """Attributes as plain values."""

    def plain(value: Any) -> Any:
        kind = value.WhichOneof("value")
        if kind == "array_value":
            return [plain(one) for one in value.array_value.values]
        return getattr(value, kind)

    return {pair.key: plain(pair.value) for pair in tagged.attributes}


@asynccontextmanager
async def collector() -> AsyncIterator[tuple[Collector, str]]:
    """A collector, and its URL."""
    server, collects = grpc.aio.server(), Collector()
    collecting.add_TraceServiceServicer_to_server(collects, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield collects, f"http://127.0.0.1:{port}"
    finally:
        await server.stop(None)


def traced(folder: Path, url: str, old: str = _BOB, new: str = _BOB) -> Path:
    """The configuration of a server that sends its traces there."""
    path = write_config(folder, old, new)
    ours = f'[service]\ntraces = "{url}"\njobs = "{folder / "jobs"}"\nopenai = "127.0.0.1:0"'
    path.write_text(path.read_text("utf-8").replace("[service]", ours, 1), "utf-8")
    return path


def to(folder: Path, url: str, *teachers: config.AnyTeacher, **sections: Any) -> config.Config:
    """The same, in the test's own loop."""
    places = config.Service("127.0.0.1:0", "127.0.0.1:0", jobs=folder / "jobs", traces=url)
    return settings(folder, *teachers, service=places, **sections)


def asks(text: str = f"{MARK}: Was ist das?") -> pb.CompleteRequest:
    return pb.CompleteRequest(prompt=pb.Prompt(text=text, language="de"))


async def test_a_prompt_is_a_trace_of_waves_calls_scoring_and_writing(tmp_path: Path) -> None:
    async with collector() as (collects, url):
        with served(traced(tmp_path, url, new=_FAILS), "-v") as process:
            async with channel_to(process.address.partition(",")[0]) as channel:
                call = ArbitrageServiceStub(channel).Complete(asks())
                sample = (await call).sample
                named = str(dict(await call.trailing_metadata())["x-request-id"])
            ended = await asyncio.to_thread(process.stop, signal.SIGTERM)
    assert ended.code == 0
    (trace,) = collects.traces
    root = trace.root
    assert (root.name, root.kind, root.parent_span_id) == ("arbitrate", Span.SPAN_KIND_SERVER, b"")
    attributes = told(root)
    assert attributes.pop("arbitrage.reward") == pytest.approx(sample.winner.reward)
    assert attributes == {
        "arbitrage.language": "de",
        "arbitrage.request_id": named,
        "arbitrage.outcome": "ok",
        "arbitrage.policy": "best_of",
        "arbitrage.sample_id": sample.sample_id,
        "arbitrage.winner": "ada",
        "rpc.method": "Complete",
    }
    wave, write = trace.under(root)
    assert (wave.name, write.name) == ("wave", "write")
    assert told(wave)["arbitrage.arms"] == ["ada", "bob"]
    assert told(wave)["arbitrage.wave"] == 0
    assert trace.under(write) == []
    parts = trace.under(wave)
    assert sorted(part.name for part in parts) == ["chat scripted", "chat scripted", "score"]
    calls = {told(part)["arbitrage.teacher"]: part for part in parts if part.name != "score"}
    well, failed = told(calls["ada"]), told(calls["bob"])
    assert calls["ada"].kind == Span.SPAN_KIND_CLIENT
    assert well["gen_ai.operation.name"] == "chat"
    assert (well["gen_ai.provider.name"], well["gen_ai.request.model"]) == ("scripted", "scripted")
    assert well["gen_ai.usage.output_tokens"] > 0
    assert well["gen_ai.response.finish_reasons"] == ["stop"]
    assert (well["arbitrage.propensity"], well["arbitrage.outcome"]) == (1.0, "ok")
    assert well["arbitrage.reward"] == pytest.approx(sample.winner.reward)
    assert calls["ada"].status.code == Status.STATUS_CODE_UNSET
    assert calls["bob"].status.code == Status.STATUS_CODE_ERROR
    assert failed["arbitrage.outcome"] == failed["error.type"] == "unavailable"
    assert collects.resources[0]["service.name"] == "data-arbitrage"
    for text in (MARK, sample.winner.completion):
        assert text
        assert text.encode() not in collects.raw
    assert f"trace_id={root.trace_id.hex()}" in ended.err
    assert f"request_id={named}" in ended.err


async def test_a_clients_own_span_is_the_parent_unless_it_is_not_traced(tmp_path: Path) -> None:
    async with collector() as (collects, url):
        with served(traced(tmp_path, url)) as process:
            address, _, openai = process.address.partition(", OpenAI's API at ")
            if not openai:  # it is told behind the metrics
                openai = process.metrics.partition(", OpenAI's API at ")[2]
            async with channel_to(address) as channel:
                asking = ArbitrageServiceStub(channel)
                await asking.Complete(asks("Was ist das?"), metadata=(("traceparent", PARENT),))
                for ignored in (PARENT[:-1] + "0", "00-nonsense"):
                    await asking.Complete(asks("Wer?"), metadata=(("traceparent", ignored),))
            body = {"model": "arbitrage", "messages": [{"role": "user", "content": "Wo ist das?"}]}
            headers = {"traceparent": PARENT, "x-request-id": "mine"}
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"{openai}/chat/completions", json=body, headers=headers) as response,
            ):
                assert response.status == 200
                assert response.headers["x-request-id"] == "mine"
            await asyncio.to_thread(process.stop, signal.SIGTERM)
    roots = [span for span in collects.spans if span.name == "arbitrate"]
    children = [span for span in roots if span.trace_id.hex() == PARENT.split("-")[1]]
    assert {span.parent_span_id.hex() for span in children} == {PARENT.split("-")[2]}
    assert {told(span)["rpc.method"] for span in children} == {"Complete", "ChatCompletions"}
    assert len(children) == 2
    (other,) = (span for span in roots if span not in children)  # of the nonsense
    assert other.parent_span_id == b""


async def test_each_prompt_of_a_job_and_of_a_stream_has_a_trace_of_its_own(tmp_path: Path) -> None:
    prompts = [pb.Prompt(text=f"Was ist {number}?", language="de") for number in range(3)]
    async with collector() as (collects, url):
        async with serving(to(tmp_path, url)) as client:
            spec = pb.JobSpec(prompts=pb.PromptList(prompts=prompts))
            created = pb.CreateJobRequest(job_id="night", spec=spec)
            named = (("traceparent", PARENT), ("x-request-id", "create"))
            await client.jobs.CreateJob(created, metadata=named)
            async for _ in client.jobs.WatchJob(pb.WatchJobRequest(job_id="night")):
                pass
            many = (
                pb.ArbitrateRequest(request_id=one.text, prompt=pb.Prompt(text=f"{one.text}!"))
                for one in prompts
            )
            assert len([one async for one in client.arbitrate_many(many)]) == 3
        assert len(collects.traces) == 6
        of = defaultdict(list)
        for trace in collects.traces:
            of[told(trace.root).get("arbitrage.job")].append(trace.root)
            assert [part.name for part in trace.under(trace.root)] == ["wave", "write"]
        assert {span.kind for span in of["night"]} == {Span.SPAN_KIND_INTERNAL}
        assert {span.parent_span_id for span in of["night"]} == {b""}
        assert all("arbitrage.request_id" not in told(span) for span in of["night"])
        assert {told(span)["rpc.method"] for span in of[None]} == {"Arbitrate"}
        assert [len(spans) for spans in of.values()] == [3, 3]


async def test_a_prompt_that_fails_says_of_what(tmp_path: Path) -> None:
    async with collector() as (collects, url), chat_server.serve(chat_server.hangs) as chat:
        teachers = chat.settings(languages=("fr",)), scripted("ada", failure_rate=1.0)
        brief = config.Job(deadline_seconds=1.0)
        async with serving(to(tmp_path, url, *teachers, job=brief)) as client:
            await refused(client.arbitrage.Complete(asks()))
            hanging = pb.CompleteRequest(prompt=pb.Prompt(text=MARK, language="fr"))
            await refused(client.arbitrage.Complete(hanging, timeout=0.3))
            await client.until("in_flight_prompts", 0)
        of = {told(trace.root)["error.type"]: trace for trace in collects.traces}
    failed, cancelled = of["no_winner"], of["cancelled"]
    assert failed.root.status.code == Status.STATUS_CODE_ERROR
    assert told(cancelled.root)["arbitrage.outcome"] == "cancelled"
    (wave,) = cancelled.under(cancelled.root)
    outcomes = {
        told(span)["arbitrage.teacher"]: told(span)["arbitrage.outcome"]
        for span in cancelled.under(wave)
    }
    assert outcomes["t"] == "cancelled"
    assert MARK.encode() not in collects.raw


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_collector_that_is_away_or_hangs_is_nobodys_trouble(
    tmp_path: Path, hangs: bool
) -> None:
    async with collector() as (collects, its):
        collects.hangs = hangs
        url = its if hangs else f"http://127.0.0.1:{free_port()}"
        with served(traced(tmp_path, url)) as process:
            async with channel_to(process.address) as channel:
                asking = ArbitrageServiceStub(channel)
                for number in range(20):
                    answer = await asking.Complete(asks(f"Was ist {number}?"))
                    assert answer.sample.winner.completion
                if hangs:
                    await collects.asked.wait()
                async with asyncio.timeout(_STOPS_WITHIN_SECONDS):
                    ended = await asyncio.to_thread(process.stop, signal.SIGTERM)
    assert ended.code == 0
    assert ended.err.count("\n") == 1, ended.err
    assert f"service.traces: {url} does not take traces" in ended.err


async def test_what_has_no_room_is_dropped_and_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "_MOST_WAITING", 3)
    async with collector() as (collects, url):
        async with sent(url) as traces:
            for number in range(10):
                prompt = Prompt.of(f"Was ist {number}?", language="de")
                traces.observe(Accepted(prompt))
                traces.observe(Routed(prompt, Decision("fixed", 0, ("a",), (1.0,), (0,))))
                traces.observe(Left(prompt))
        assert len(collects.traces) == 3
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.message.count("does not take traces") for record in warned] == [1]


async def test_what_a_prompt_leaves_with_is_told_by_its_kind_alone() -> None:
    ended: list[Step] = []

    class Root:
        trace_id = "1"

        def end(self, whole: Step) -> None:
            ended.append(whole)

    traces = Traces(lambda *_: Root())
    prompt = Prompt.of(MARK, language="de")
    traces.observe(Accepted(prompt))
    with suppress(NoWinner), ExitStack() as leaving:
        leaving.callback(traces.observe, Left(prompt))
        raise NoWinner(MARK, None)
    traces.observe(Left(prompt))  # nobody knows it any more
    (whole,) = ended
    assert whole.attributes["error.type"] == "NoWinner"
    assert MARK not in str(whole)


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:4317", "http://127.0.0.1", "ftp://a:1", "http://a:99999", "http://u:p@a:1", "x"],
)
async def test_what_is_no_url_of_a_collector_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"service\.traces: .* is not the URL of a collector"):
        async with sent(url):
            pass


async def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "service.otlp")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigError) as caught:
        async with sent("http://127.0.0.1:4317"):
            pass
    assert str(caught.value).startswith("service.traces: needs opentelemetry")
    assert str(caught.value).endswith("run: pip install 'data-arbitrage[traces]'")


def test_without_traces_nothing_of_them_is_imported() -> None:
    code = "import server, sys; sys.exit(any('opentelemetry' in name for name in sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True)
