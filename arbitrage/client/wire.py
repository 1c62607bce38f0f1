"""Protobuf at a client's edge: values into requests, and responses into values.

`arbitrage.wire` is the same at the service's edge.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, cast

from google.rpc import status_pb2

from arbitrage.client.replies import (
    CandidateArrived,
    CandidatesScored,
    Decided,
    Event,
    Job,
    Learned,
    Outcome,
    Request,
    Result,
    TokenDelta,
)
from arbitrage.errors import InvalidPrompt
from arbitrage.language import UNDETERMINED
from arbitrage.registry import Progress
from arbitrage.status import error_of
from arbitrage.types import (
    Candidate,
    Completion,
    Decision,
    Estimate,
    Failure,
    Prompt,
    Routing,
    Sample,
    Score,
    TeacherInfo,
    Verdict,
)
from arbitrage.v1 import arbitrage_pb2 as pb
from arbitrage.wire import spec_from

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from arbitrage.registry import State
    from arbitrage.spec import Spec

Source = Literal["person", "verifier"]
_ANY_NUMBER = 2**32 - 1
_STATE = "JOB_STATE_"


def prompt_to(prompt: Prompt, at: str = "prompt") -> pb.Prompt:
    """A prompt.

    Args:
        prompt: as `Prompt.of` makes it.
        at: its path in the request.

    Raises:
        InvalidPrompt: it has what cannot be sent, such as half a surrogate pair.
    """
    try:
        return pb.Prompt(
            id=prompt.prompt_id,
            messages=[pb.Message(role=m.role, content=m.content) for m in prompt.messages],
            language="" if prompt.language == UNDETERMINED else prompt.language,
            domain=prompt.domain or "",
            metadata=prompt.metadata,
        )
    except (TypeError, ValueError) as error:
        raise InvalidPrompt(at, f"cannot be sent: {error}") from None


def routing_to(routing: Routing) -> pb.RoutingOptions:
    """How a prompt is routed."""
    options = pb.RoutingOptions(
        fan_out=routing.fan_out or 0,
        teachers=sorted(routing.teachers),
        max_cost_usd=routing.max_cost_usd,
        learn=None if routing.learn else False,
    )
    if routing.latency_budget_seconds is not None:
        options.latency_budget.FromTimedelta(timedelta(seconds=routing.latency_budget_seconds))
    return options


def request_to(request: Request, *, include_candidates: bool) -> pb.ArbitrateRequest:
    """One prompt of a batch."""
    return pb.ArbitrateRequest(
        request_id=request.request_id,
        prompt=prompt_to(request.prompt),
        options=routing_to(request.routing),
        include_candidates=include_candidates,
    )


def spec_to(spec: Spec) -> pb.JobSpec:
    """What a job is to do."""
    message = pb.JobSpec(
        output=spec.output,
        options=routing_to(spec.routing),
        budget_usd=spec.budget_usd,
        max_in_flight=spec.max_in_flight,
        limit=spec.limit,
    )
    if spec.files:
        message.files.paths.extend(spec.files)
    elif spec.prompts:
        message.prompts.prompts.extend(
            prompt_to(prompt, f"spec.prompts.prompts[{index}]")
            for index, prompt in enumerate(spec.prompts)
        )
    return message


def sample_from(message: pb.Sample, prompt: Prompt) -> Sample:
    """A sample of a prompt that was sent."""
    candidates = tuple(map(candidate_from, message.candidates))
    winner = candidate_from(message.winner) if message.HasField("winner") else None
    return Sample(
        sample_id=message.sample_id,
        prompt=replace(
            prompt,
            prompt_id=message.prompt_id,
            language=message.language,
            domain=message.domain or None,
        ),
        decision=decision_from(message.decision),
        candidates=candidates,
        winner=next((one for one in candidates if one == winner), winner),
        margin=message.margin if message.HasField("margin") else None,
        created_at=_time(message.created_at),
    )


def decision_from(message: pb.Decision) -> Decision:
    """Whom a policy chose."""
    return Decision(
        policy=message.policy,
        version=message.version,
        arms=tuple(choice.arm for choice in message.choices),
        propensities=tuple(choice.propensity for choice in message.choices),
        waves=tuple(choice.wave for choice in message.choices),
    )


def candidate_from(message: pb.Candidate) -> Candidate:
    """A teacher's answer, or its failure."""
    completion = failure = score = None
    if message.HasField("error"):
        failure = Failure(message.error.code, message.error.message)
    else:
        completion = Completion(
            text=message.completion,
            finish_reason=message.finish_reason,
            prompt_tokens=message.prompt_tokens if message.HasField("prompt_tokens") else None,
            completion_tokens=(
                message.completion_tokens if message.HasField("completion_tokens") else None
            ),
            cached=message.cached,
            reasoning=message.reasoning or None,
        )
    if message.HasField("reward"):
        score = Score(message.reward, dict(message.scores))
    return Candidate(
        teacher=message.teacher,
        completion=completion,
        failure=failure,
        gates=tuple(Verdict(verdict.gate, verdict.reason) for verdict in message.gates),
        score=score,
        advantage=message.advantage if message.HasField("advantage") else None,
        latency_seconds=message.latency.ToTimedelta().total_seconds(),
        cost_usd=message.cost_usd,
    )


def event_from(message: pb.StreamCompleteResponse, prompt: Prompt) -> Event | None:
    """One event of a stream; None for one that this version does not know."""
    match message.WhichOneof("event"):
        case "decision":
            return Decided(decision_from(message.decision))
        case "token_delta":
            delta = message.token_delta
            return TokenDelta(delta.teacher, delta.text, delta.wave)
        case "candidate_arrived":
            arrived = message.candidate_arrived
            return CandidateArrived(candidate_from(arrived), arrived.wave)
        case "candidates_scored":
            scored = message.candidates_scored
            return CandidatesScored(tuple(map(candidate_from, scored.candidates)), scored.wave)
        case "result":
            return Result(sample_from(message.result, prompt))
    return None


def outcome_from(message: pb.ArbitrateResponse, request: Request) -> Outcome:
    """What became of one prompt of a batch."""
    if message.WhichOneof("outcome") == "sample":
        return Outcome(request, sample=sample_from(message.sample, request.prompt))
    return Outcome(request, error=error_of(_status(message.error)))


def teacher_from(message: pb.Teacher) -> TeacherInfo:
    """A teacher of the pool."""
    return TeacherInfo(
        name=message.name,
        kind=message.kind,
        model=message.model,
        available=message.available,
        languages=tuple(message.languages),
        license=message.license or None,
        prompt_price=message.price_per_million.prompt_usd,
        completion_price=message.price_per_million.completion_usd,
        max_concurrency=message.max_concurrency,
        trainable=message.trainable if message.HasField("trainable") else None,
    )


def learned_from(message: pb.GetPolicyResponse) -> Learned:
    """What a policy has learned."""
    estimates = tuple(
        Estimate(
            language=entry.language,
            arm=arm.arm,
            scored=arm.count,
            stopped=arm.rejected_count,
            reward=arm.mean_reward if arm.HasField("mean_reward") else math.nan,
            standard_error=arm.standard_error if arm.HasField("standard_error") else math.nan,
            share=arm.route_share,
            cost_usd=arm.cost_usd or None,
            best=arm.best_probability,
        )
        for entry in message.languages
        for arm in entry.arms
    )
    return Learned(
        message.policy,
        message.version,
        message.price,
        message.usd_per_prompt,
        estimates,
        message.state,
    )


def job_from(message: pb.Job) -> Job:
    """A job, as it stands."""
    progress = message.progress
    seconds = None
    if progress.HasField("remaining_time"):
        seconds = progress.remaining_time.ToTimedelta().total_seconds()
    return Job(
        job_id=message.job_id,
        spec=spec_from(message.spec, _ANY_NUMBER),
        state=cast("State", pb.JobState.Name(message.state).removeprefix(_STATE).lower()),
        progress=Progress(
            total=progress.total_prompts if progress.HasField("total_prompts") else None,
            accepted=progress.accepted_prompts,
            rejected=progress.rejected_prompts,
            failed=progress.failed_prompts,
            samples=progress.samples,
            calls=progress.calls,
            cached=progress.cached_completions,
            cost_usd=progress.cost_usd,
            remaining_usd=(
                progress.remaining_cost_usd if progress.HasField("remaining_cost_usd") else None
            ),
            remaining_seconds=seconds,
        ),
        created=_time(message.created_at),
        started=_time(message.started_at) if message.HasField("started_at") else None,
        ended=_time(message.ended_at) if message.HasField("ended_at") else None,
        error=error_of(_status(message.error)) if message.HasField("error") else None,
    )


def state_to(state: State) -> pb.JobState.ValueType:
    """Where a job stands.

    Raises:
        InvalidPrompt: there is no such state.
    """
    try:
        return pb.JobState.Value(f"{_STATE}{state.upper()}")
    except ValueError:
        raise InvalidPrompt("states", f"{state!r}: is no state of a job") from None


def source_to(source: Source) -> pb.FeedbackSource.ValueType:
    """Who gives feedback.

    Raises:
        InvalidPrompt: there is no such source.
    """
    try:
        return pb.FeedbackSource.Value(f"FEEDBACK_SOURCE_{source.upper()}")
    except ValueError:
        raise InvalidPrompt("source", f"{source!r}: must be person or verifier") from None


def _status(message: pb.Status) -> status_pb2.Status:
    """The same fields under the same numbers."""
    return status_pb2.Status.FromString(message.SerializeToString())


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(UTC)
