"""Jobs of a server, as a client sees them, and what they leave on its disk."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import signal
from collections import Counter
from contextlib import closing
from dataclasses import replace
from itertools import chain
from sqlite3 import connect
from typing import TYPE_CHECKING, Any

import duckdb
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo

import assembly
from arbitrage import config
from arbitrage.errors import SinkError
from arbitrage.v1 import arbitrage_pb2 as pb
from arbitrage.v1.arbitrage_pb2_grpc import JobServiceStub
from commands import policies
from router.snapshots import snapshot
from service import jobs as jobs_module
from sink.log import Log
from tests import chat_server
from tests.processes import Served, served, write_config
from tests.service import Client, detail, refused, scripted, serving
from tests.service import settings as service_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from aiohttp import web

    from arbitrage.engine import Engine
    from arbitrage.v1.arbitrage_pb2_grpc import JobServiceAsyncStub

LANGUAGES = ("de", "fr", "ja")
FINAL = {pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED}


def settings(folder: Path, *teachers: config.AnyTeacher, **sections: Any) -> config.Config:
    reward = config.ScriptedReward(gates=())
    return service_settings(folder, *teachers, **{"reward": reward, **sections})


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(settings(tmp_path)) as opened:
        yield opened


def write_prompts(path: Path, count: int, *more: str) -> Path:
    rows = [
        json.dumps({"prompt": f"Question {number}?", "language": LANGUAGES[number % 3]})
        for number in range(count)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*rows, *more]) + "\n", "utf-8")
    return path


def files(*paths: str, **spec: Any) -> pb.JobSpec:
    return pb.JobSpec(files=pb.PromptFiles(paths=paths), **spec)


def prompts(count: int, **spec: Any) -> pb.JobSpec:
    rows = [
        pb.Prompt(text=f"Question {number}?", language=LANGUAGES[number % 3])
        for number in range(count)
    ]
    return pb.JobSpec(prompts=pb.PromptList(prompts=rows), **spec)


async def create(stub: JobServiceAsyncStub, job_id: str, spec: pb.JobSpec) -> pb.Job:
    return (await stub.CreateJob(pb.CreateJobRequest(job_id=job_id, spec=spec))).job


async def watched(stub: JobServiceAsyncStub, job_id: str) -> list[pb.Job]:
    """All that a watcher hears, to the end."""
    stream = stub.WatchJob(pb.WatchJobRequest(job_id=job_id))
    return [response.job async for response in stream]


async def ended(stub: JobServiceAsyncStub, job_id: str) -> pb.Job:
    return (await watched(stub, job_id))[-1]


async def until_samples(stub: JobServiceAsyncStub, job_id: str, count: int) -> pb.Job:
    """The job, once it has stored so many samples."""
    stream = stub.WatchJob(pb.WatchJobRequest(job_id=job_id))
    async for response in stream:
        if response.job.progress.samples >= count:
            stream.cancel()
            return response.job
    raise AssertionError("it ended before")


def stored(folder: Path) -> Counter[str]:
    """How often each prompt is among what readers find."""
    pattern = folder / "data" / "**" / "*.parquet"
    if not list(folder.glob("data/*/*.parquet")):
        return Counter()
    rows = duckdb.read_parquet(str(pattern)).project("messages[1].content").fetchall()
    return Counter(text for (text,) in rows)


def once(count: int) -> Counter[str]:
    return Counter(f"Question {number}?" for number in range(count))


def kept(folder: Path, table: str) -> int:
    """Rows of a table of a job's journal."""
    with closing(connect(folder / "journal.sqlite")) as journal:
        ((count,),) = journal.execute(f"SELECT count(*) FROM {table}").fetchall()  # noqa: S608
    return int(count)


def paid(folder: Path) -> float:
    with closing(connect(folder / "journal.sqlite")) as journal:
        ((usd,),) = journal.execute("SELECT cost_usd FROM ledger").fetchall()
    return float(usd)


def worth(folder: Path) -> float:
    """What the completions have cost that are kept."""
    with closing(connect(folder / "journal.sqlite")) as journal:
        rows = journal.execute("SELECT document FROM completions").fetchall()
    return float(sum(answer["cost_usd"] for (row,) in rows for answer in json.loads(row)))


def priced(name: str, quality: float, **fields: Any) -> config.ScriptedTeacher:
    return scripted(name, quality, price_per_million=config.Price(1000.0, 1000.0), **fields)


async def test_a_job_answers_the_prompts_of_files_and_leaves_a_dataset(
    client: Client, tmp_path: Path
) -> None:
    write_prompts(tmp_path / "jobs" / "in" / "a.jsonl", 40)
    (tmp_path / "jobs" / "b.csv").write_text("prompt,language\nQuestion 40?,de\n", "utf-8")
    spec = files("in/a.jsonl", "b.csv", output="sets/first")
    made = await create(client.jobs, "first", spec)
    assert (made.job_id, made.spec, made.state) == ("first", spec, pb.JOB_STATE_PENDING)
    assert made.HasField("created_at")
    assert made.HasField("progress")
    assert not made.HasField("started_at")
    seen = await watched(client.jobs, "first")
    assert {job.state for job in seen[:-1]} <= {pb.JOB_STATE_PENDING, pb.JOB_STATE_RUNNING}
    done = seen[-1]
    assert done.state == pb.JOB_STATE_SUCCEEDED
    assert done.HasField("started_at")
    assert done.HasField("ended_at")
    assert not done.HasField("error")
    assert done.progress == pb.JobProgress(
        total_prompts=41,
        accepted_prompts=41,
        samples=41,
        calls=82,
        remaining_cost_usd=0.0,
    )
    assert stored(tmp_path / "jobs" / "sets" / "first") == once(41)
    assert (tmp_path / "jobs" / "sets" / "first" / "README.md").exists()
    assert client.running.engine.policy.version == 41
    assert (await client.jobs.GetJob(pb.GetJobRequest(job_id="first"))).job == done


async def test_a_job_answers_the_prompts_of_its_request(client: Client, tmp_path: Path) -> None:
    made = await create(client.jobs, "", prompts(10, limit=7, max_in_flight=2))
    assert made.job_id.startswith("job-")
    done = await ended(client.jobs, made.job_id)
    assert (done.progress.total_prompts, done.progress.samples) == (7, 7)
    assert stored(tmp_path / "jobs" / made.job_id) == once(7)
    other = await create(client.jobs, "", prompts(10, limit=7, max_in_flight=2))
    assert other.job_id != made.job_id


async def test_nothing_is_made_on_disk_before_the_first_job(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as client:
        await client.complete()
        assert not (await client.jobs.ListJobs(pb.ListJobsRequest())).jobs
        assert not (tmp_path / "jobs").exists()
        await create(client.jobs, "a", prompts(1))
    assert (tmp_path / "jobs" / "jobs.sqlite").exists()


async def test_creating_twice_is_creating_once(client: Client) -> None:
    spec = prompts(3)
    await create(client.jobs, "a", spec)
    done = await ended(client.jobs, "a")
    assert await create(client.jobs, "a", spec) == done
    assert len((await client.jobs.ListJobs(pb.ListJobsRequest())).jobs) == 1


async def test_two_that_create_at_once_create_once(client: Client, tmp_path: Path) -> None:
    made = await asyncio.gather(*(create(client.jobs, "a", prompts(20)) for _ in range(8)))
    assert {job.job_id for job in made} == {"a"}
    assert (await ended(client.jobs, "a")).progress.samples == 20
    assert stored(tmp_path / "jobs" / "a") == once(20)


async def test_another_job_of_the_same_name_is_refused(client: Client) -> None:
    await create(client.jobs, "a", prompts(3))
    error = await refused(create(client.jobs, "a", prompts(4)))
    assert error.code() is grpc.StatusCode.ALREADY_EXISTS


def nan() -> float:
    return float("nan")


WRONG: Sequence[tuple[pb.CreateJobRequest, str]] = [
    *(
        (pb.CreateJobRequest(job_id=name, spec=prompts(1)), "job_id")
        for name in ("A", "1a", "-a", "a_b", "a" * 64, "a\n", "ä", "a/b", "..")
    ),
    (pb.CreateJobRequest(job_id="a"), "spec"),
    *(
        (pb.CreateJobRequest(spec=spec), field)
        for spec, field in (
            (pb.JobSpec(), "spec.files"),
            (files(), "spec.files.paths"),
            (prompts(0), "spec.prompts.prompts"),
            (
                pb.JobSpec(prompts=pb.PromptList(prompts=[pb.Prompt(text="x"), pb.Prompt()])),
                "spec.prompts.prompts[1].text",
            ),
            (
                pb.JobSpec(prompts=pb.PromptList(prompts=[pb.Prompt(text="x", language="?")])),
                "spec.prompts.prompts[0].language",
            ),
            (files("good.jsonl", "missing.jsonl"), "spec.files.paths[1]"),
            (files("/etc/passwd"), "spec.files.paths[0]"),
            (files("../outside.jsonl"), "spec.files.paths[0]"),
            (files("in/../../outside.jsonl"), "spec.files.paths[0]"),
            (files("link.jsonl"), "spec.files.paths[0]"),
            (files("folder/outside.jsonl"), "spec.files.paths[0]"),
            (files("circle.jsonl"), "spec.files.paths[0]"),
            (files("in"), "spec.files.paths[0]"),
            (files(""), "spec.files.paths[0]"),
            (files("-"), "spec.files.paths[0]"),
            (files("nul\0.jsonl"), "spec.files.paths[0]"),
            (files("x" * 300 + ".jsonl"), "spec.files.paths[0]"),
            (files("notes.txt"), "spec.files.paths[0]"),
            (files("packed.parquet"), "spec.files.paths[0]"),
            (files("columns.csv"), "spec.files.paths[0]"),
            (prompts(1, output="/tmp/out"), "spec.output"),  # noqa: S108 - it is refused
            (prompts(1, output="../out"), "spec.output"),
            (prompts(1, output="a/../.."), "spec.output"),
            (prompts(1, output="."), "spec.output"),
            (prompts(1, output="folder/out"), "spec.output"),
            (prompts(1, output="nul\0"), "spec.output"),
            (prompts(1, output="y" * 300), "spec.output"),
            (prompts(1, output="good.jsonl"), "spec.output"),
            (prompts(1, output="good.jsonl/out"), "spec.output"),
            (prompts(1, output="jobs.sqlite"), "spec.output"),
            (prompts(1, output="jobs.sqlite-wal/x"), "spec.output"),
            (prompts(1, output="foreign"), "spec.output"),
            (prompts(1, budget_usd=-0.5), "spec.budget_usd"),
            (prompts(1, budget_usd=float("inf")), "spec.budget_usd"),
            (prompts(1, budget_usd=nan()), "spec.budget_usd"),
            (prompts(1, max_in_flight=257), "spec.max_in_flight"),
        )
    ),
]


async def test_what_is_wrong_is_told_by_its_field(tmp_path: Path) -> None:
    root = tmp_path / "jobs"
    write_prompts(root / "good.jsonl", 1)
    (root / "in").mkdir()
    outside = write_prompts(tmp_path / "outside.jsonl", 1)
    (root / "link.jsonl").symlink_to(outside)
    (root / "folder").symlink_to(tmp_path)
    (root / "circle.jsonl").symlink_to(root / "circle.jsonl")
    (root / "notes.txt").write_text("x")
    (root / "packed.parquet").write_text("x")
    (root / "columns.csv").write_text("question\nWhy?\n")
    (root / "foreign" / "data").mkdir(parents=True)
    async with serving(settings(tmp_path)) as client:
        for request, field in WRONG:
            error = await refused(client.jobs.CreateJob(request))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, (request, error.details())
            (violation,) = detail(error, BadRequest).field_violations
            assert violation.field == field, request
            assert str(tmp_path) not in (error.details() or "")
        assert not (await client.jobs.ListJobs(pb.ListJobsRequest())).jobs
    assert not (root / "jobs.sqlite").exists()


async def test_an_output_in_use_is_refused(tmp_path: Path) -> None:
    own = config.Sink(path=tmp_path / "jobs" / "own")
    async with serving(settings(tmp_path, sink=own)) as client:
        await create(client.jobs, "a", prompts(1, output="sets/x"))
        await create(client.jobs, "b", prompts(1))
        for output in ("sets/x", "sets", "sets/x/y", "sets/../b", "own", "own/x", "own/../sets/x"):
            error = await refused(create(client.jobs, "c", prompts(1, output=output)))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert detail(error, BadRequest).field_violations[0].field == "spec.output"
        error = await refused(create(client.jobs, "sets", prompts(1)))
        assert detail(error, BadRequest).field_violations[0].field == "spec.output"
        await create(client.jobs, "c", prompts(1, output="sets/x2"))


async def test_an_option_that_is_wrong_is_refused_by_its_path(client: Client) -> None:
    for options, name in (
        (pb.RoutingOptions(teachers=["eve"]), "teachers[0]"),
        (pb.RoutingOptions(latency_budget=Duration()), "latency_budget"),
    ):
        error = await refused(create(client.jobs, "a", prompts(1, options=options)))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        (violation,) = detail(error, BadRequest).field_violations
        assert violation.field == f"spec.options.{name}"


async def test_a_job_is_routed_as_it_says(client: Client, tmp_path: Path) -> None:
    options = pb.RoutingOptions(teachers=["bob"])
    await create(client.jobs, "a", prompts(3, options=options))
    assert (await ended(client.jobs, "a")).state == pb.JOB_STATE_SUCCEEDED
    asked = {arm for sample in Log([tmp_path / "jobs" / "a"]) for arm in sample.decision.arms}
    assert asked == {"bob"}
    assert stored(tmp_path / "jobs" / "a").total() == 3


async def test_a_job_that_is_not_there_is_not_found(client: Client) -> None:
    for job_id, code in (("", grpc.StatusCode.INVALID_ARGUMENT), ("x", grpc.StatusCode.NOT_FOUND)):
        stream = client.jobs.WatchJob(pb.WatchJobRequest(job_id=job_id))
        for call in (
            client.jobs.GetJob(pb.GetJobRequest(job_id=job_id)),
            client.jobs.CancelJob(pb.CancelJobRequest(job_id=job_id)),
            anext(aiter(stream)),
        ):
            error = await refused(call)
            assert error.code() is code
            if not job_id:
                assert detail(error, BadRequest).field_violations[0].field == "job_id"


async def test_jobs_are_listed_page_by_page_the_newest_first(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"job{number}" for number in range(120)]
    monkeypatch.setattr(jobs_module, "_WAITING", 1000)
    for name in names:
        await create(client.jobs, name, prompts(1, limit=0))
    for name in names:
        await ended(client.jobs, name)
    await create(client.jobs, "bad", prompts(1, budget_usd=0.0))
    await ended(client.jobs, "bad")

    async def listed(size: int, *states: pb.JobState.ValueType) -> list[list[str]]:
        pages, token = [], ""
        while True:
            request = pb.ListJobsRequest(page_size=size, page_token=token, states=states)
            response = await client.jobs.ListJobs(request)
            pages.append([job.job_id for job in response.jobs])
            token = response.next_page_token
            if not token:
                return pages

    newest = ["bad", *names[::-1]]
    assert await listed(0) == [newest[:50], newest[50:100], newest[100:]]
    assert await listed(4_000_000_000) == [newest]
    assert await listed(121) == [newest]
    assert list(chain(*await listed(7))) == newest
    assert await listed(0, pb.JOB_STATE_FAILED) == [["bad"]]
    assert await listed(0, pb.JOB_STATE_PENDING) == [[]]
    ends = pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_FAILED
    assert list(chain(*await listed(20, *ends))) == newest


async def test_a_page_of_large_jobs_still_fits_into_a_message(client: Client) -> None:
    large = pb.JobSpec(prompts=pb.PromptList(prompts=[pb.Prompt(text="x" * 1_500_000)]), limit=0)
    for name in ("a", "b", "c"):
        await create(client.jobs, name, large)
    names, token = [], ""
    while True:
        response = await client.jobs.ListJobs(pb.ListJobsRequest(page_token=token))
        names += [job.job_id for job in response.jobs]
        if not (token := response.next_page_token):
            break
    assert names == ["c", "b", "a"]


async def test_a_page_token_of_something_else_is_refused(client: Client) -> None:
    for name in ("a", "b"):
        await create(client.jobs, name, prompts(1))
    token = (await client.jobs.ListJobs(pb.ListJobsRequest(page_size=1))).next_page_token
    assert token
    done = [pb.JOB_STATE_SUCCEEDED]
    for request, field in (
        (pb.ListJobsRequest(page_token=token, states=done), "page_token"),
        (pb.ListJobsRequest(page_token=str(7)), "page_token"),
        (pb.ListJobsRequest(page_token=f"9{token}"), "page_token"),
        (pb.ListJobsRequest(page_token=f"{token} "), "page_token"),
        (pb.ListJobsRequest(states=[*done, pb.JOB_STATE_UNSPECIFIED]), "states[1]"),
        (pb.ListJobsRequest(states=[77]), "states[0]"),  # type: ignore[list-item] # unknown
    ):
        error = await refused(client.jobs.ListJobs(request))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert detail(error, BadRequest).field_violations[0].field == field


async def test_bad_lines_are_told_of_beside_the_dataset(client: Client, tmp_path: Path) -> None:
    write_prompts(tmp_path / "jobs" / "p.jsonl", 5, "{bad", "", '{"prompt": " "}')
    await create(client.jobs, "a", files("p.jsonl"))
    done = await ended(client.jobs, "a")
    assert done.state == pb.JOB_STATE_SUCCEEDED
    progress = done.progress
    assert (progress.total_prompts, progress.accepted_prompts, progress.rejected_prompts) == (
        7,
        5,
        2,
    )
    lines = (tmp_path / "jobs" / "a" / "rejected.jsonl").read_text().splitlines()
    rejected = [json.loads(line) for line in lines]
    assert [(one["source"], one["line"]) for one in rejected] == [("p.jsonl", 6), ("p.jsonl", 8)]


async def test_prompts_that_say_the_same_are_answered_once_where_that_is_configured(
    tmp_path: Path,
) -> None:
    rows = [pb.Prompt(id=str(number), text="Why is ice light?") for number in range(3)]
    async with serving(settings(tmp_path, job=config.Job(dedupe=0.8))) as client:
        await create(client.jobs, "a", pb.JobSpec(prompts=pb.PromptList(prompts=rows)))
        progress = (await ended(client.jobs, "a")).progress
    assert (progress.samples, progress.rejected_prompts) == (1, 2)


SLOW = {"latency_seconds": 0.05}


async def test_a_running_job_that_is_cancelled_keeps_what_it_has(tmp_path: Path) -> None:
    slow = settings(tmp_path, scripted("ada", 1.0, **SLOW), job=config.Job(max_in_flight=4))
    async with serving(slow) as client:
        spec = prompts(2000)
        await create(client.jobs, "a", spec)
        running = await until_samples(client.jobs, "a", 5)
        assert running.state == pb.JOB_STATE_RUNNING
        assert running.progress.HasField("remaining_time")
        cancelled = (await client.jobs.CancelJob(pb.CancelJobRequest(job_id="a"))).job
        assert cancelled.state == pb.JOB_STATE_CANCELLED
        assert cancelled.HasField("ended_at")
        samples = cancelled.progress.samples
        assert 5 <= samples < 2000
        assert stored(tmp_path / "jobs" / "a").total() == samples, "it is published"
        again = (await client.jobs.CancelJob(pb.CancelJobRequest(job_id="a"))).job
        assert again == cancelled
        assert client.running.engine.policy.version == samples


async def test_a_cancelled_job_that_is_created_again_goes_on_and_pays_for_nothing_twice(
    tmp_path: Path,
) -> None:
    slow = settings(tmp_path, priced("ada", 1.0, **SLOW), job=config.Job(max_in_flight=8))
    async with serving(slow) as client:
        spec = prompts(60)
        await create(client.jobs, "a", spec)
        await until_samples(client.jobs, "a", 10)
        before = (await client.jobs.CancelJob(pb.CancelJobRequest(job_id="a"))).job
        assert before.state == pb.JOB_STATE_CANCELLED
        resumed = await create(client.jobs, "a", spec)
        assert resumed.state == pb.JOB_STATE_PENDING
        assert not resumed.HasField("ended_at")
        assert resumed.created_at == before.created_at
        done = await ended(client.jobs, "a")
        assert done.state == pb.JOB_STATE_SUCCEEDED
        assert done.started_at == before.started_at
        assert client.running.engine.policy.version == 60
    folder = tmp_path / "jobs" / "a"
    assert stored(folder) == once(60)
    assert kept(folder, "completions") == 60
    progress = done.progress
    assert (progress.accepted_prompts, progress.samples) == (60, 60)
    assert progress.calls + progress.cached_completions >= 60
    assert progress.calls <= 60
    assert progress.cost_usd == pytest.approx(paid(folder))


async def test_jobs_wait_for_their_turn_and_may_be_cancelled_there(tmp_path: Path) -> None:
    slow = settings(tmp_path, scripted("ada", latency_seconds=1000.0))
    async with serving(slow) as client:
        for number in range(6):
            await create(client.jobs, f"j{number}", prompts(1))
        async with asyncio.timeout(30):
            while True:
                request = pb.ListJobsRequest(states=[pb.JOB_STATE_RUNNING])
                running = (await client.jobs.ListJobs(request)).jobs
                if len(running) == 4:
                    break
        assert [job.job_id for job in running] == ["j3", "j2", "j1", "j0"]
        watching = asyncio.create_task(watched(client.jobs, "j5"))
        cancelled = (await client.jobs.CancelJob(pb.CancelJobRequest(job_id="j5"))).job
        assert cancelled.state == pb.JOB_STATE_CANCELLED
        assert not cancelled.HasField("started_at")
        assert (await watching)[-1] == cancelled
        assert not (tmp_path / "jobs" / "j5").exists()
        await client.jobs.CancelJob(pb.CancelJobRequest(job_id="j0"))
        async for response in client.jobs.WatchJob(pb.WatchJobRequest(job_id="j4")):
            if response.job.state == pb.JOB_STATE_RUNNING:
                break
        for number in range(1, 5):
            await client.jobs.CancelJob(pb.CancelJobRequest(job_id=f"j{number}"))


async def test_too_many_jobs_are_told_when_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "_AT_ONCE", 0)
    async with serving(settings(tmp_path)) as client:
        for number in range(100):
            await create(client.jobs, f"j{number}", prompts(1))
        error = await refused(create(client.jobs, "more", prompts(1)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert detail(error, RetryInfo).retry_delay.seconds > 0
        assert (await create(client.jobs, "j7", prompts(1))).job_id == "j7"


async def test_a_budget_that_is_spent_ends_the_job_and_nothing_begins_any_more(
    tmp_path: Path,
) -> None:
    chosen = settings(tmp_path, priced("ada", 1.0), job=config.Job(max_in_flight=2))
    async with serving(chosen) as client:
        await create(client.jobs, "a", prompts(500, budget_usd=1.0))
        failed = await ended(client.jobs, "a")
        assert failed.state == pb.JOB_STATE_FAILED
        assert failed.error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
        info = ErrorInfo()
        assert failed.error.details[0].Unpack(info)
        assert info.reason == "BUDGET_SPENT"
        assert "budget_usd" in failed.error.message
        cost, samples = failed.progress.cost_usd, failed.progress.samples
        one = cost / samples
        assert 1.0 <= cost < 1.0 + 3 * one
        assert stored(tmp_path / "jobs" / "a").total() == samples < 500
        assert cost == pytest.approx(paid(tmp_path / "jobs" / "a"))
        await create(client.jobs, "a", prompts(500, budget_usd=1.0))
        again = await ended(client.jobs, "a")
        assert (again.state, again.progress.cost_usd) == (pb.JOB_STATE_FAILED, cost)
        assert (await client.complete()).winner.teacher == "ada"


async def test_a_job_whose_budget_is_spent_may_still_be_cancelled(tmp_path: Path) -> None:
    calls = 0

    async def reply(request: web.Request) -> web.StreamResponse:
        nonlocal calls
        calls += 1
        return await (chat_server.sends() if calls == 1 else chat_server.hangs)(request)

    price = config.Price(1000.0, 1000.0)
    async with chat_server.serve(reply) as chat:
        one = settings(tmp_path, chat.settings(price_per_million=price))
        async with serving(one) as client:
            await create(client.jobs, "a", prompts(50, max_in_flight=3, budget_usd=1e-6))
            await until_samples(client.jobs, "a", 1)
            cancelled = (await client.jobs.CancelJob(pb.CancelJobRequest(job_id="a"))).job
    assert cancelled.state == pb.JOB_STATE_CANCELLED
    assert cancelled.progress.accepted_prompts == 3


async def test_a_budget_that_lasts_just_so_long_is_no_failure(tmp_path: Path) -> None:
    async with serving(settings(tmp_path, priced("ada", 1.0))) as client:
        await create(client.jobs, "probe", prompts(1))
        cost = (await ended(client.jobs, "probe")).progress.cost_usd
        await create(client.jobs, "a", prompts(1, budget_usd=cost))
        assert (await ended(client.jobs, "a")).state == pb.JOB_STATE_SUCCEEDED
        await create(client.jobs, "b", prompts(1, budget_usd=0.0))
        none = await ended(client.jobs, "b")
        assert (none.state, none.progress.accepted_prompts) == (pb.JOB_STATE_FAILED, 0)


async def test_the_budget_of_the_server_ends_jobs_too(tmp_path: Path) -> None:
    policy = config.Policy(kind="best_of", budget_usd=0.5)
    chosen = settings(tmp_path, priced("ada", 1.0), policy=policy, job=config.Job(max_in_flight=2))
    async with serving(chosen) as client:
        await create(client.jobs, "a", prompts(500))
        failed = await ended(client.jobs, "a")
        assert failed.state == pb.JOB_STATE_FAILED
        assert failed.error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
        assert (await refused(client.complete())).code() is grpc.StatusCode.FAILED_PRECONDITION
    async with serving(chosen) as client:  # it is remembered
        assert (await refused(client.complete())).code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_prompts_that_nobody_wins_are_counted_once_however_often_they_are_tried(
    tmp_path: Path,
) -> None:
    hold = asyncio.Event()

    async def reply(request: web.Request) -> web.StreamResponse:
        asked = (await request.json())["messages"][-1]["content"]
        if asked in {"Question 0?", "Question 1?"}:
            return await chat_server.sends(chat_server.body("  "))(request)
        if asked != "Question 2?":
            await hold.wait()
        return await chat_server.sends()(request)

    reward = config.ScriptedReward(gates=("empty",))
    async with (
        chat_server.serve(reply) as chat,
        serving(settings(tmp_path, chat.settings(), reward=reward)) as client,
    ):
        spec = prompts(6)
        await create(client.jobs, "a", spec)
        await until_samples(client.jobs, "a", 3)
        cancelled = (await client.jobs.CancelJob(pb.CancelJobRequest(job_id="a"))).job.progress
        assert (cancelled.accepted_prompts, cancelled.failed_prompts, cancelled.samples) == (
            6,
            2,
            3,
        )
        hold.set()
        await create(client.jobs, "a", spec)
        done = await ended(client.jobs, "a")
    assert done.state == pb.JOB_STATE_SUCCEEDED
    progress = done.progress
    assert (progress.accepted_prompts, progress.failed_prompts, progress.samples) == (6, 2, 6)
    assert progress.cached_completions == 2
    assert len(list((tmp_path / "jobs" / "a").glob("unanswered/*/*.parquet"))) == 2


async def test_a_file_that_breaks_off_fails_the_job_and_the_server_goes_on(
    client: Client, tmp_path: Path
) -> None:
    path = write_prompts(tmp_path / "jobs" / "p.jsonl", 5)
    blocked = prompts(3)
    (tmp_path / "jobs" / "a").write_text("in the way")
    error = await refused(create(client.jobs, "a", blocked))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    (tmp_path / "jobs" / "a").unlink()
    await create(client.jobs, "a", files(path.name, limit=0))
    await ended(client.jobs, "a")
    whole = gzip.compress(path.read_bytes() * 2000)
    (tmp_path / "jobs" / "p.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    await create(client.jobs, "b", files("p.jsonl.gz"))
    failed = await ended(client.jobs, "b")
    assert failed.state == pb.JOB_STATE_FAILED
    assert failed.error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert failed.error.message.startswith("p.jsonl.gz: cannot be unpacked")
    assert (await client.complete()).winner.teacher == "ada"
    (tmp_path / "jobs" / "p.jsonl.gz").write_bytes(whole)
    await create(client.jobs, "b", files("p.jsonl.gz"))
    done = await ended(client.jobs, "b")
    assert not done.HasField("error")
    assert done.progress.accepted_prompts == 5


async def test_a_bug_fails_the_job_alone(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def break_(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr("service.run.Run.answer", break_)
        await create(client.jobs, "a", prompts(1))
        failed = await ended(client.jobs, "a")
    assert failed.state == pb.JOB_STATE_FAILED
    assert failed.error.code == grpc.StatusCode.INTERNAL.value[0]
    assert "see the server's log" in failed.error.message
    assert "ZeroDivisionError" in caplog.text
    await create(client.jobs, "a", prompts(1))
    assert (await ended(client.jobs, "a")).state == pb.JOB_STATE_SUCCEEDED


async def test_complete_goes_on_beside_jobs_and_both_teach_one_policy(tmp_path: Path) -> None:
    slow = settings(tmp_path, scripted("ada", 1.0, latency_seconds=0.02))
    async with serving(slow) as client:
        for name in ("a", "b"):
            await create(client.jobs, name, prompts(100, max_in_flight=4))
        samples = [await client.complete(f"Und {number}?") for number in range(10)]
        assert len({sample.sample_id for sample in samples}) == 10
        await asyncio.gather(ended(client.jobs, "a"), ended(client.jobs, "b"))
        assert client.running.engine.policy.version == 210
        metrics = await client.metrics()
        assert metrics["arbitrage_sink_samples_total", frozenset({("format", "parquet")})] == 210
    saved = json.loads((tmp_path / "out" / "policy.json").read_text())
    assert (saved["learned"], saved["jobs"]) == (10, {"a": 100, "b": 100})


async def test_one_cache_serves_all_jobs_where_one_is_configured(tmp_path: Path) -> None:
    shared = config.Job(cache=tmp_path / "cache.sqlite")
    async with serving(settings(tmp_path, priced("ada", 1.0), job=shared)) as client:
        await create(client.jobs, "a", prompts(5))
        await ended(client.jobs, "a")
        await create(client.jobs, "b", prompts(5))
        progress = (await ended(client.jobs, "b")).progress
    assert (progress.calls, progress.cached_completions, progress.cost_usd) == (0, 5, 0.0)


async def test_a_call_that_has_several_answers_is_one_call(tmp_path: Path) -> None:
    teacher = priced("ada", 1.0, sampling=config.Sampling(n=3))
    async with serving(settings(tmp_path, teacher, scripted("bob"))) as client:
        await create(client.jobs, "a", prompts(5))
        progress = (await ended(client.jobs, "a")).progress
    assert progress.calls == 10
    assert progress.cost_usd == pytest.approx(paid(tmp_path / "jobs" / "a"))


async def test_only_jobs_that_taught_what_was_not_saved_are_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(settings(tmp_path)) as client:
        for name in ("a", "b"):
            await create(client.jobs, name, prompts(3))
            await ended(client.jobs, name)
    path = tmp_path / "out" / "policy.json"
    taken = snapshot.load(path)
    assert taken.jobs == {"a": 3, "b": 3}
    # as if it had been killed before the last of b's samples was saved
    snapshot.save(path, replace(taken, version=5, state={**taken.state, "version": 5},
                                jobs={"a": 3, "b": 2}))  # fmt: skip
    opened: list[str] = []
    relearn = assembly.relearn

    async def count(engine: Engine, job: str, output: Path) -> None:
        opened.append(job)
        await relearn(engine, job, output)

    monkeypatch.setattr(assembly, "relearn", count)
    async with serving(settings(tmp_path)) as client:
        assert opened == ["b"]
        assert client.running.engine.policy.version == 6
    assert snapshot.load(path).jobs == {"a": 3, "b": 3}


async def test_what_jobs_have_taught_is_forgotten_with_the_rest(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    async with serving(chosen) as client:
        await create(client.jobs, "a", prompts(3))
        await ended(client.jobs, "a")
    await policies.reset(chosen)
    async with serving(chosen) as client:
        assert client.running.engine.policy.version == 0
        await create(client.jobs, "b", prompts(2))
        await ended(client.jobs, "b")
        assert client.running.engine.policy.version == 2


async def test_a_job_does_not_mix_rewards_that_do_not_compare(tmp_path: Path) -> None:
    chosen = settings(tmp_path, scripted("ada", latency_seconds=0.05))
    async with serving(chosen) as client:
        await create(client.jobs, "a", prompts(100, max_in_flight=2))
        await until_samples(client.jobs, "a", 1)
        await client.jobs.CancelJob(pb.CancelJobRequest(job_id="a"))
    other = replace(chosen, reward=config.ScriptedReward(gates=("empty",)))
    async with serving(other) as client:
        await create(client.jobs, "a", prompts(100, max_in_flight=2))
        failed = await ended(client.jobs, "a")
    assert failed.state == pb.JOB_STATE_FAILED
    assert failed.error.message.startswith("reward.gates: has changed since the job began")


async def test_who_stops_watching_leaves_the_job_alone(tmp_path: Path) -> None:
    slow = settings(tmp_path, scripted("ada", 1.0, latency_seconds=0.02))
    async with serving(slow) as client:
        await create(client.jobs, "a", prompts(50, max_in_flight=4))
        stream = client.jobs.WatchJob(pb.WatchJobRequest(job_id="a"))
        await anext(aiter(stream))
        stream.cancel()
        await client.until("requests_total", 1, method="WatchJob", code="CANCELLED")
        assert (await ended(client.jobs, "a")).progress.samples == 50


async def test_another_server_on_the_same_job_folder_is_refused(tmp_path: Path) -> None:
    first = settings(tmp_path)
    second = replace(first, sink=config.Sink(path=tmp_path / "other"))
    async with serving(first) as client:
        await create(client.jobs, "a", prompts(1))
        with pytest.raises(SinkError, match=r"jobs\.sqlite: is in use by process"):
            async with serving(second):
                pass


async def test_a_server_that_stops_ends_its_watchers_and_its_jobs_go_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server._GRACE_SECONDS", 0.3)
    stuck = settings(tmp_path, scripted("ada", latency_seconds=1000.0))
    async with serving(stuck) as client:
        for number in range(5):
            await create(client.jobs, f"j{number}", prompts(3))
        other = grpc.aio.insecure_channel(client.running.address, [("grpc.enable_http_proxy", 0)])
        stub = JobServiceStub(other)
        watching = [asyncio.create_task(refused(watched(stub, name))) for name in ("j0", "j4")]
        async for response in client.jobs.WatchJob(pb.WatchJobRequest(job_id="j0")):
            if response.job.progress.accepted_prompts == 3:
                break
    for error in await asyncio.gather(*watching):
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "goes on when it has begun again" in (error.details() or "")
    await other.close()
    async with serving(settings(tmp_path)) as client:
        for number in range(5):
            done = await ended(client.jobs, f"j{number}")
            assert (done.state, done.progress.samples) == (pb.JOB_STATE_SUCCEEDED, 3)
            assert stored(tmp_path / "jobs" / f"j{number}") == once(3)


async def test_a_folder_that_was_deleted_is_told_once_and_the_server_starts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(settings(tmp_path)) as client:
        for name in ("a", "b"):
            await create(client.jobs, name, prompts(3))
            await ended(client.jobs, name)
        version = client.running.engine.policy.version
    assert version == 6
    (tmp_path / "out" / "policy.json").unlink()
    for name in ("a", "b"):
        shutil.rmtree(tmp_path / "jobs" / name)
    async with serving(settings(tmp_path)) as client:
        (warning,) = caplog.records
        assert "gone" in warning.getMessage()
        assert (await client.jobs.GetJob(pb.GetJobRequest(job_id="a"))).job.progress.samples == 3


# What follows runs servers in processes of their own.


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A configuration of two teachers who take a while, so that there is something to kill."""
    path = write_config(tmp_path)
    text = (
        path.read_text()
        .replace("[service]", f'[service]\njobs = "{tmp_path / "jobs"}"')
        .replace('kind = "scripted"\nquality', 'kind = "scripted"\nlatency_seconds = 0.02\nquality')
        .replace('[reward]\nkind = "scripted"', '[reward]\nkind = "scripted"\ngates = []')
        .replace("1.0 }", "1.0 }\nprice_per_million = { prompt = 10.0, completion = 30.0 }")
    )
    path.write_text(f"{text}\n[job]\nmax_in_flight = 16\n")
    return path


def stub_of(server: Served) -> tuple[grpc.aio.Channel, JobServiceAsyncStub]:
    channel = grpc.aio.insecure_channel(server.address, [("grpc.enable_http_proxy", 0)])
    return channel, JobServiceStub(channel)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_jobs_go_on_after_the_server_was_ended_in_the_middle(
    tmp_path: Path, path: Path, number: signal.Signals
) -> None:
    write_prompts(tmp_path / "jobs" / "p.jsonl", 200)
    with served(path) as server:
        channel, stub = stub_of(server)
        await create(stub, "done", prompts(20))
        await ended(stub, "done")
        await create(stub, "files", files("p.jsonl", max_in_flight=8))
        await create(stub, "list", prompts(150, max_in_flight=8))
        await until_samples(stub, "files", 40)
        await until_samples(stub, "list", 20)
        await channel.close()
        stopped = await asyncio.to_thread(server.stop, number)
        assert stopped.code == (0 if number is signal.SIGTERM else -number), stopped.err
        assert "Traceback" not in stopped.err
    with served(path) as server:
        channel, stub = stub_of(server)
        now = (await stub.GetJob(pb.GetJobRequest(job_id="files"))).job
        assert now.state == pb.JOB_STATE_RUNNING
        assert now.progress.samples >= 40
        first, second = await asyncio.gather(ended(stub, "files"), ended(stub, "list"))
        for job, count in ((first, 200), (second, 150)):
            assert job.state == pb.JOB_STATE_SUCCEEDED
            assert job.progress.total_prompts == count
            assert job.progress.accepted_prompts == count
            assert job.progress.samples == count
            folder = tmp_path / "jobs" / job.job_id
            assert stored(folder) == once(count)
            assert kept(folder, "completions") == job.progress.calls == 2 * count
            assert job.progress.cost_usd == pytest.approx(paid(folder))
            assert paid(folder) == pytest.approx(worth(folder)), "nothing is paid twice"
        await channel.close()
        ended_ = await asyncio.to_thread(server.stop, signal.SIGTERM)
        assert (ended_.code, ended_.err) == (0, "")
    learned = snapshot.load(tmp_path / "out" / "policy.json")
    assert learned.version == 20 + 200 + 150
    assert learned.jobs == {"done": 20, "files": 200, "list": 150}


async def test_a_state_that_was_told_is_durable(path: Path) -> None:
    with served(path) as server:
        channel, stub = stub_of(server)
        for number in range(6):
            await create(stub, f"j{number}", prompts(10))
        cancelled = (await stub.CancelJob(pb.CancelJobRequest(job_id="j5"))).job
        await channel.close()
        await asyncio.to_thread(server.stop, signal.SIGKILL)
    with served(path) as server:
        channel, stub = stub_of(server)
        assert (await stub.GetJob(pb.GetJobRequest(job_id="j5"))).job == cancelled
        for number in range(5):
            assert (await ended(stub, f"j{number}")).progress.samples == 10
        await channel.close()
