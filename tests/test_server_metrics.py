"""What Prometheus sees of known traffic: every name of the contract, to the exact figure."""

from __future__ import annotations

import errno
import math
from collections import Counter
from typing import TYPE_CHECKING

import aiohttp
import pytest

from arbitrage import config
from arbitrage.errors import SinkError
from arbitrage.events import Shifted
from arbitrage.journal import Journal
from arbitrage.metrics import Metrics
from arbitrage.v1 import arbitrage_pb2 as pb
from sink import room
from tests.service import Client, Figures, figure, refused, scripted, serving, settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from arbitrage.types import Sample

LABELS = {
    "requests_total": {"method", "code"},
    "request_seconds_count": {"method"},
    "in_flight_prompts": set(),
    "teacher_requests_total": {"teacher", "outcome"},
    "teacher_seconds_count": {"teacher"},
    "teacher_tokens_total": {"teacher", "direction"},
    "teacher_cost_usd_total": {"teacher"},
    "teacher_available": {"teacher"},
    "routes_total": {"language", "teacher"},
    "wins_total": {"language", "teacher"},
    "reward_count": {"language", "teacher"},
    "reward_gained_total": {"language", "teacher"},
    "reward_lost_total": {"language", "teacher"},
    "regret_estimate": {"language"},
    "fan_out_count": {"language"},
    "gate_rejections_total": {"gate", "language"},
    "reward_seconds_count": set(),
    "reward_batch_tokens_count": set(),
    "reward_queue_depth": set(),
    "policy_updates_total": {"policy"},
    "sink_samples_total": {"format"},
    "sink_pending_samples": set(),
    "sink_most_pending_samples": set(),
    "sink_stalled": set(),
    "budget_remaining_usd": set(),
    "budget_usd": set(),
    "process_resident_memory_bytes": set(),
}
TEACHERS = (
    scripted("ada", 1.0, price_per_million=config.Price(prompt=3.0, completion=15.0)),
    scripted("bob", -1.0),
    scripted("dud", failure_rate=1.0, max_attempts=1),
)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    gates = config.ScriptedReward(gates=("wrong_language",))
    async with serving(settings(tmp_path, *TEACHERS, reward=gates)) as opened:
        yield opened


@pytest.fixture
async def samples(client: Client) -> list[pb.Sample]:
    """Four prompts that are answered, in three languages, and one whose answers a gate stops."""
    answered = [
        await client.complete("Was ist das, und warum?", language="de"),
        await client.complete("Wer ist das, und wie viele sind es?", language="de"),
        await client.complete("Pourquoi est-ce que les gens sont ainsi ?", language="fr"),
        await client.complete("tlhIngan Hol Dajatlh'a'", language="tlh"),
    ]
    await refused(client.complete("Was ist das, auf Japanisch?", language="ja"))
    return answered


@pytest.fixture
async def figures(client: Client, samples: list[pb.Sample]) -> Figures:
    assert len(samples) == 4
    await refused(client.complete(""))
    await refused(client.jobs.GetJob(pb.GetJobRequest()))
    return await client.metrics()


async def test_every_name_has_its_labels(figures: Figures) -> None:
    exposed = {(name, frozenset(label for label, _ in labels)) for name, labels in figures}
    wanted = {(f"arbitrage_{name}", frozenset(labels)) for name, labels in LABELS.items()}
    assert wanted <= exposed


async def test_rpcs_are_counted_by_method_and_code(figures: Figures) -> None:
    ended = {
        tuple(sorted(dict(labels).values())): value
        for (name, labels), value in figures.items()
        if name == "arbitrage_requests_total"
    }
    assert ended == {
        ("Complete", "OK"): 4,
        ("Complete", "FAILED_PRECONDITION"): 1,
        ("Complete", "INVALID_ARGUMENT"): 1,
        ("GetJob", "INVALID_ARGUMENT"): 1,
    }
    assert figure(figures, "request_seconds_count", method="Complete") == 6


async def test_routes_wins_and_rewards_are_counted_by_language_and_teacher(
    figures: Figures, samples: list[pb.Sample]
) -> None:
    asked = Counter({"de": 2, "fr": 1, "other": 1, "ja": 1})
    for language, prompts in asked.items():
        for teacher in ("ada", "bob", "dud"):
            labels = {"language": language, "teacher": teacher}
            assert figure(figures, "routes_total", **labels) == prompts
        assert figure(figures, "fan_out_count", language=language) == prompts
        assert figure(figures, "fan_out_sum", language=language) == 3 * prompts
        assert figure(figures, "fan_out_bucket", language=language, le="2.0") == 0
    for language in ("de", "fr"):
        labels = {"language": language, "teacher": "ada"}
        assert figure(figures, "wins_total", **labels) == asked[language]
        assert figure(figures, "reward_count", **labels) == asked[language]
        rewards = [sample.winner.reward for sample in samples if sample.language == language]
        for bound in ("0.5", "1.0", "2.0"):
            below = sum(reward <= float(bound) for reward in rewards)
            assert figure(figures, "reward_bucket", **labels, le=bound) == below
    assert figure(figures, "wins_total", language="de", teacher="bob") is None
    assert figure(figures, "reward_seconds_count") == 4


async def test_what_is_gained_and_lost_gives_the_mean_reward(
    figures: Figures, samples: list[pb.Sample]
) -> None:
    for teacher in ("ada", "bob"):
        labels = {"language": "de", "teacher": teacher}
        gained, lost, count = (
            figure(figures, name, **labels) or 0.0
            for name in ("reward_gained_total", "reward_lost_total", "reward_count")
        )
        rewards = [
            candidate.reward
            for sample in samples
            for candidate in sample.candidates
            if sample.language == "de" and candidate.teacher == teacher
        ]
        assert math.isclose((gained - lost) / count, sum(rewards) / len(rewards))
        assert math.isclose(gained, sum(max(reward, 0.0) for reward in rewards))


def test_a_shift_of_the_scores_is_told_with_its_time() -> None:
    metrics = Metrics({"de"}, "parquet", now=lambda: 1_700_000_000.0)
    metrics.observe(Shifted("de-AT", -0.4))
    told = metrics.registry.get_sample_value
    assert told("arbitrage_reward_shift", {"language": "de"}) == -0.4
    at = told("arbitrage_reward_shift_timestamp_seconds", {"language": "de"})
    assert at == 1_700_000_000.0


async def test_the_budget_is_told_with_what_is_left_of_it(tmp_path: Path) -> None:
    policy = config.Policy(kind="best_of", budget_usd=2.5)
    async with serving(settings(tmp_path, *TEACHERS, policy=policy)) as client:
        sample = await client.complete()
        figures = await client.metrics()
    assert figure(figures, "budget_usd") == 2.5
    left = figure(figures, "budget_remaining_usd") or 0.0
    assert math.isclose(2.5 - left, sum(candidate.cost_usd for candidate in sample.candidates))


async def test_without_a_budget_there_is_no_figure_of_it(figures: Figures) -> None:
    for name in ("budget_usd", "budget_remaining_usd"):
        assert math.isnan(figure(figures, name) or 0.0)


async def test_teachers_are_counted_by_how_they_answer(
    figures: Figures, samples: list[pb.Sample]
) -> None:
    for teacher, outcome in (("ada", "ok"), ("bob", "ok"), ("dud", "unavailable")):
        assert figure(figures, "teacher_requests_total", teacher=teacher, outcome=outcome) == 5
        assert figure(figures, "teacher_seconds_count", teacher=teacher) == 5
        # five failures in a row have opened the circuit of the one that fails
        available = figure(figures, "teacher_available", teacher=teacher)
        assert available == (outcome == "ok")
    tokens = figure(figures, "teacher_tokens_total", teacher="ada", direction="prompt") or 0
    words = figure(figures, "teacher_tokens_total", teacher="ada", direction="completion") or 0
    told = [sample.winner for sample in samples]
    assert tokens > sum(candidate.prompt_tokens for candidate in told)  # the stopped one, too
    assert words > sum(candidate.completion_tokens for candidate in told)
    cost = figure(figures, "teacher_cost_usd_total", teacher="ada") or 0.0
    assert math.isclose(cost, (3.0 * tokens + 15.0 * words) / 1e6)
    assert figure(figures, "teacher_cost_usd_total", teacher="bob") == 0


async def test_tokens_and_cost_are_those_of_the_answers(client: Client) -> None:
    sample = await client.complete()
    figures = await client.metrics()
    tokens = {"prompt": sample.winner.prompt_tokens, "completion": sample.winner.completion_tokens}
    for direction, count in tokens.items():
        labels = {"teacher": "ada", "direction": direction}
        assert figure(figures, "teacher_tokens_total", **labels) == count
    assert figure(figures, "teacher_cost_usd_total", teacher="ada") == sample.winner.cost_usd


async def test_a_gate_is_counted_by_language(figures: Figures) -> None:
    assert figure(figures, "gate_rejections_total", gate="wrong_language", language="ja") == 2
    assert figure(figures, "reward_count", language="ja", teacher="ada") is None


async def test_a_language_that_no_detector_tells_is_counted_as_other(
    figures: Figures, samples: list[pb.Sample]
) -> None:
    assert samples[-1].language == "tlh"
    assert figure(figures, "wins_total", language="other", teacher="ada") == 1
    assert not any("tlh" in dict(labels).values() for _, labels in figures)


async def test_regret_is_what_the_arms_asked_fell_short_of_the_best(
    figures: Figures, samples: list[pb.Sample]
) -> None:
    first, second, french, _ = (sample.winner.advantage for sample in samples)
    german = figure(figures, "regret_estimate", language="de") or 0.0
    assert math.isclose(german, first + 0.02 * (second - first))
    assert figure(figures, "regret_estimate", language="fr") == french


async def test_the_end_of_the_pipeline_is_counted(figures: Figures) -> None:
    assert figure(figures, "policy_updates_total", policy="best_of") == 5
    assert figure(figures, "sink_samples_total", format="parquet") == 5
    assert figure(figures, "sink_pending_samples") == 5
    assert figure(figures, "in_flight_prompts") == 0
    assert figure(figures, "sink_stalled") == 0


async def test_what_is_learned_is_counted_and_nothing_else(client: Client) -> None:
    sample = await client.complete("Was ist das, und warum?", language="de")
    prompt = pb.Prompt(text="Wer ist das, und warum?", language="de")
    options = pb.RoutingOptions(learn=False)
    await client.arbitrage.Complete(pb.CompleteRequest(prompt=prompt, options=options))
    for number in (1, 1, 2):  # once again is no other
        later = pb.RecordFeedbackRequest(
            feedback_id=f"f{number}",
            sample_id=sample.sample_id,
            reward=1.0,
            source=pb.FEEDBACK_SOURCE_PERSON,
        )
        await client.arbitrage.RecordFeedback(later)
    counted = await client.metrics()
    assert figure(counted, "sink_samples_total", format="parquet") == 2
    assert figure(counted, "policy_updates_total", policy="best_of") == 3


async def test_the_folders_of_jobs_are_told_of_too(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, full, stored = Journal.append, True, 0

    async def on_a_disk_with_room_for_one(journal: Journal, sample: Sample) -> int | None:
        nonlocal stored
        if stored and full:
            raise SinkError("cannot be written") from OSError(errno.ENOSPC, "full")
        stored += 1
        return await append(journal, sample)

    await client.complete("Was ist das, und warum?", language="de")
    monkeypatch.setattr(room, "_FIRST_SECONDS", 0.01)
    monkeypatch.setattr(Journal, "append", on_a_disk_with_room_for_one)
    prompts = [pb.Prompt(text=f"Was ist {number}, und warum?", language="de") for number in (1, 2)]
    spec = pb.JobSpec(prompts=pb.PromptList(prompts=prompts), max_in_flight=1)
    await client.jobs.CreateJob(pb.CreateJobRequest(job_id="night", spec=spec))
    await client.until("sink_stalled", 1)
    assert figure(await client.metrics(), "sink_pending_samples") == 2
    assert figure(await client.metrics(), "sink_most_pending_samples") == 1
    full = False
    async for _ in client.jobs.WatchJob(pb.WatchJobRequest(job_id="night")):
        pass
    await client.until("sink_pending_samples", 1)  # the job's are published
    counted = await client.metrics()
    assert figure(counted, "sink_stalled") == 0
    assert figure(counted, "sink_samples_total", format="parquet") == 3


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0"])
async def test_both_formats_of_prometheus_are_offered(client: Client, accept: str) -> None:
    async with (
        aiohttp.ClientSession(headers={"Accept": accept}) as session,
        session.get(client.running.metrics_url) as response,
    ):
        assert response.status == 200
        assert response.content_type == accept.partition(";")[0]
        assert "arbitrage_in_flight_prompts 0.0" in await response.text()
