"""Protobuf at the edge: requests into the core's values, and values into responses."""

from __future__ import annotations

import hashlib
import math
import re
import sys
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from arbitrage.errors import InvalidPrompt
from arbitrage.registry import STATES
from arbitrage.spec import Spec
from arbitrage.types import (
    Candidate,
    Decision,
    Estimate,
    Feedback,
    Message,
    Priority,
    Prompt,
    Routing,
    Sample,
    TeacherInfo,
)
from arbitrage.v1 import arbitrage_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from google.rpc import status_pb2

    from arbitrage.registry import Record, State

_MAX_UINT32 = 2**32 - 1
_MOST = 1000  # messages, names, paths, ...: a request of many small ones would keep others waiting
_LONGEST_NAME = 1000
_QUOTED = 100  # characters of a name that is not known
_JOB_ID = re.compile(r"[a-z][a-z0-9-]{0,62}")
_NUMBER = re.compile(r"[0-9]{1,18}")
_SOURCES: dict[int, Literal["person", "verifier"]] = {
    pb.FEEDBACK_SOURCE_PERSON: "person",
    pb.FEEDBACK_SOURCE_VERIFIER: "verifier",
}
_STATE_TO = {state: pb.JobState.Value(f"JOB_STATE_{state.upper()}") for state in STATES}
_STATE_FROM = {number: state for state, number in _STATE_TO.items()}


def prompt_from(
    request: pb.CompleteRequest | pb.StreamCompleteRequest | pb.ArbitrateRequest,
) -> Prompt:
    """The prompt of a request.

    Raises:
        InvalidPrompt: something in it is wrong; the field is its path from the request.
    """
    if not request.HasField("prompt"):
        raise InvalidPrompt("prompt", "is required")
    return _prompt_from(request.prompt, "prompt")


def _prompt_from(prompt: pb.Prompt, at: str) -> Prompt:
    """The prompt that stands at a path of a request."""
    if prompt.text and prompt.messages:
        raise InvalidPrompt(f"{at}.text", "set exactly one of text and messages")
    few(prompt.messages, f"{at}.messages")
    few(prompt.metadata, f"{at}.metadata")
    short(prompt.id, f"{at}.id")
    short(prompt.domain, f"{at}.domain")
    content: str | Sequence[Message] = prompt.text
    if prompt.messages:
        content = [
            Message(m.role, m.content)  # type: ignore[arg-type] # Prompt.of checks roles
            for m in prompt.messages
        ]
    try:
        return Prompt.of(
            content,
            prompt_id=prompt.id or None,
            language=prompt.language or None,
            domain=prompt.domain or None,
            metadata=prompt.metadata,
        )
    except InvalidPrompt as error:
        path = f"{at}.text" if error.field == "prompt" else f"{at}.{error.field}"
        raise InvalidPrompt(path, error.reason) from None


_PRIORITIES: Mapping[int, Priority] = {
    pb.PRIORITY_INTERACTIVE: "interactive",
    pb.PRIORITY_BATCH: "batch",
}


def priority_from(options: pb.RoutingOptions, default: Priority = "interactive") -> Priority:
    """Whether somebody waits for a request's answer, where the request tells."""
    return _PRIORITIES.get(options.priority, default)


def routing_from(
    options: pb.RoutingOptions,
    at: str = "options",
    *,
    teachers: Collection[str] | None = None,
    policy: str | None = None,
) -> Routing:
    """How a request wants its prompt routed.

    Args:
        options: of the request.
        at: their path.
        teachers: names of the pool; None where they have been checked before.
        policy: the configured one; None likewise.

    Raises:
        InvalidPrompt: an option is wrong; the field is its path from the request.
    """
    if policy is not None and options.policy not in {"", policy}:
        raise InvalidPrompt(
            f"{at}.policy",
            f"{_quoted(options.policy)} is not offered; this server decides by {policy!r}",
        )
    few(options.teachers, f"{at}.teachers")
    for index, name in enumerate(options.teachers):
        if teachers is not None and name not in teachers:
            known = ", ".join(teachers)
            raise InvalidPrompt(
                f"{at}.teachers[{index}]", f"no {_quoted(name)} in the pool: {known}"
            )
    max_cost = options.max_cost_usd if options.HasField("max_cost_usd") else None
    if max_cost is not None and not 0.0 <= max_cost < math.inf:
        raise InvalidPrompt(f"{at}.max_cost_usd", f"{max_cost}: must be a number from 0 on")
    budget = None
    if options.HasField("latency_budget"):
        budget = options.latency_budget.seconds + options.latency_budget.nanos / 1e9
        if budget <= 0.0:
            raise InvalidPrompt(f"{at}.latency_budget", f"{budget:g} s: must be above 0")
    return Routing(
        fan_out=options.fan_out or None,
        teachers=frozenset(options.teachers),
        max_cost_usd=max_cost,
        latency_budget_seconds=budget,
        learn=options.learn if options.HasField("learn") else True,
    )


def job_id_from(request: pb.CreateJobRequest) -> str:
    """The id that a new job is to have; empty where the server chooses one.

    Raises:
        InvalidPrompt: it is no such id.
    """
    if request.job_id and not _JOB_ID.fullmatch(request.job_id):
        raise InvalidPrompt(
            "job_id",
            "must be 1 to 63 lower-case letters, digits and hyphens, beginning with a letter",
        )
    return request.job_id


def spec_from(
    spec: pb.JobSpec,
    max_in_flight: int,
    *,
    teachers: Collection[str] | None = None,
    policy: str | None = None,
) -> Spec:
    """What a job is to do.

    Args:
        spec: of a request, or of the registry.
        max_in_flight: prompts that may be worked on at once, at most.
        teachers: names of the pool; None where they have been checked before.
        policy: the configured one; None likewise.

    Raises:
        InvalidPrompt: something in it is wrong; the field is its path from the request.
    """
    match spec.WhichOneof("source"):
        case None:
            raise InvalidPrompt("spec.files", "set exactly one of files and prompts")
        case "files" if not spec.files.paths:
            raise InvalidPrompt("spec.files.paths", "is empty; name a file at least")
        case "prompts" if not spec.prompts.prompts:
            raise InvalidPrompt("spec.prompts.prompts", "is empty; give a prompt at least")
    few(spec.files.paths, "spec.files.paths")
    routing = routing_from(spec.options, "spec.options", teachers=teachers, policy=policy)
    budget = spec.budget_usd if spec.HasField("budget_usd") else None
    if budget is not None and not 0.0 <= budget < math.inf:
        raise InvalidPrompt("spec.budget_usd", f"{budget}: must be a number from 0 on")
    if spec.max_in_flight > max_in_flight:
        raise InvalidPrompt(
            "spec.max_in_flight", f"{spec.max_in_flight}: at most {max_in_flight} are configured"
        )
    return Spec(
        files=tuple(spec.files.paths),
        prompts=tuple(
            _prompt_from(prompt, f"spec.prompts.prompts[{index}]")
            for index, prompt in enumerate(spec.prompts.prompts)
        ),
        output=spec.output,
        routing=routing,
        budget_usd=budget,
        max_in_flight=spec.max_in_flight,
        limit=min(spec.limit, sys.maxsize) if spec.HasField("limit") else None,
    )


def spec_of(raw: bytes) -> Spec:
    """What a job is to do that was created before.

    Raises:
        InvalidPrompt: this version makes nothing of it.
    """
    return spec_from(pb.JobSpec.FromString(raw), _MAX_UINT32)


def job_to(record: Record) -> pb.Job:
    """A job, as it stands."""
    progress = record.progress
    message = pb.Job(
        job_id=record.job_id,
        spec=pb.JobSpec.FromString(record.spec),
        state=_STATE_TO[record.state],
        progress=pb.JobProgress(
            total_prompts=progress.total,
            accepted_prompts=progress.accepted,
            rejected_prompts=progress.rejected,
            failed_prompts=progress.failed,
            samples=progress.samples,
            calls=progress.calls,
            cached_completions=progress.cached,
            cost_usd=progress.cost_usd,
            remaining_cost_usd=0.0 if record.state == "succeeded" else progress.remaining_usd,
        ),
    )
    if progress.remaining_seconds is not None:
        message.progress.remaining_time.FromTimedelta(timedelta(seconds=progress.remaining_seconds))
    if record.error:
        message.error.MergeFromString(record.error)
    message.created_at.FromDatetime(record.created)
    if record.started:
        message.started_at.FromDatetime(record.started)
    if record.ended:
        message.ended_at.FromDatetime(record.ended)
    return message


def states_from(request: pb.ListJobsRequest) -> frozenset[State]:
    """The states that are asked for; none for all.

    Raises:
        InvalidPrompt: one is none.
    """
    few(request.states, "states")
    for index, state in enumerate(request.states):
        if state not in _STATE_FROM:
            raise InvalidPrompt(f"states[{index}]", f"{state}: is no state of a job")
    return frozenset(_STATE_FROM[state] for state in request.states)


def page_token(number: int, states: Collection[State]) -> str:
    """What asks for the jobs of these states that were created before one."""
    digest = hashlib.sha256(f"{number} {sorted(states)}".encode()).hexdigest()
    return f"{number}-{digest[:12]}"


def page_from(request: pb.ListJobsRequest) -> int | None:
    """The number that a page token tells; None for the first page.

    Raises:
        InvalidPrompt: it is no token, or one that was given out for other states.
    """
    if not request.page_token:
        return None
    number, _, _ = request.page_token.partition("-")
    told = int(number) if _NUMBER.fullmatch(number) else 0
    if request.page_token != page_token(told, states_from(request)):
        raise InvalidPrompt("page_token", "was not given out for these states; leave it out")
    return told


def feedback_from(request: pb.RecordFeedbackRequest) -> Feedback:
    """Feedback on a sample, whose teacher is empty where the winner is meant.

    Raises:
        InvalidPrompt: a field is missing or wrong.
    """
    for name in ("feedback_id", "sample_id"):
        if not getattr(request, name):
            raise InvalidPrompt(name, "is required")
    if request.HasField("teacher") and not request.teacher:
        raise InvalidPrompt("teacher", "is empty; leave it out for the winner")
    if not request.HasField("reward") or not math.isfinite(request.reward):
        raise InvalidPrompt("reward", "must be a finite number")
    source = _SOURCES.get(request.source)
    if source is None:
        raise InvalidPrompt("source", f"must be one of {', '.join(pb.FeedbackSource.keys()[1:])}")
    return Feedback(
        feedback_id=request.feedback_id,
        sample_id=request.sample_id,
        teacher=request.teacher,
        reward=request.reward,
        source=source,
        comment=request.comment,
    )


def few(entries: Collection[object], at: str) -> None:
    """Lets pass what can be looked through in no time.

    Raises:
        InvalidPrompt: it is longer.
    """
    if len(entries) > _MOST:
        raise InvalidPrompt(at, f"may be {_MOST} at most")


def short(name: str, at: str) -> None:
    """Lets a name pass that may be kept, such as by a policy, as long as there is one.

    Raises:
        InvalidPrompt: it is too long for that.
    """
    if len(name) > _LONGEST_NAME:
        raise InvalidPrompt(at, f"may have {_LONGEST_NAME} characters at most")


def _quoted(name: str) -> str:
    return repr(name) if len(name) <= _QUOTED else f"{name[:_QUOTED]!r}…"


def error_to(status: status_pb2.Status) -> pb.Status:
    """A status as it stands inside a stream."""
    return pb.Status(code=status.code, message=status.message, details=status.details)


def sample_to(sample: Sample, *, include_candidates: bool) -> pb.Sample:
    """A sample with a winner, as a response."""
    waves = dict(zip(sample.decision.arms, sample.decision.waves, strict=True))
    message = pb.Sample(
        sample_id=sample.sample_id,
        prompt_id=sample.prompt.prompt_id,
        language=sample.prompt.language,
        domain=sample.prompt.domain or "",
        margin=sample.margin,
        decision=decision_to(sample.decision),
    )
    message.created_at.FromDatetime(sample.created_at)
    if sample.winner:
        message.winner.CopyFrom(candidate_to(sample.winner, waves[sample.winner.teacher]))
    if include_candidates:
        message.candidates.extend(candidate_to(c, waves[c.teacher]) for c in sample.candidates)
    return message


def decision_to(decision: Decision) -> pb.Decision:
    """A decision, its three sequences as one list of choices."""
    choices = zip(decision.arms, decision.propensities, decision.waves, strict=True)
    return pb.Decision(
        policy=decision.policy,
        version=decision.version,
        choices=[pb.Choice(arm=arm, propensity=p, wave=wave) for arm, p, wave in choices],
    )


def candidate_to(candidate: Candidate, wave: int) -> pb.Candidate:
    """A candidate that was asked in a wave, numbered from 0."""
    message = pb.Candidate(
        teacher=candidate.teacher,
        gates=[pb.GateVerdict(gate=v.gate, reason=unicode(v.reason)) for v in candidate.gates],
        reward=candidate.reward,
        advantage=candidate.advantage,
        cost_usd=candidate.cost_usd,
        wave=wave,
    )
    message.latency.FromTimedelta(timedelta(seconds=candidate.latency_seconds))
    if candidate.failure:
        message.error.code = candidate.failure.outcome
        message.error.message = unicode(candidate.failure.message)
    if completion := candidate.completion:
        message.completion = unicode(completion.text)
        message.finish_reason = unicode(completion.finish_reason)
        message.cached = completion.cached
        message.reasoning = unicode(completion.reasoning or "")
        if completion.prompt_tokens is not None:
            message.prompt_tokens = min(completion.prompt_tokens, _MAX_UINT32)
        if completion.completion_tokens is not None:
            message.completion_tokens = min(completion.completion_tokens, _MAX_UINT32)
    if candidate.score:
        message.scores.update(candidate.score.raw)
    return message


def unicode(text: str) -> str:
    """The text with every lone surrogate, for which protobuf has no bytes, as a question mark."""
    return text.encode("utf-8", "replace").decode()


def teacher_to(info: TeacherInfo) -> pb.Teacher:
    """A teacher of the pool."""
    message = pb.Teacher(
        name=info.name,
        kind=info.kind,
        model=info.model,
        available=info.available,
        languages=info.languages,
        license=info.license or "",
        max_concurrency=info.max_concurrency,
        trainable=info.trainable,
    )
    if info.prompt_price or info.completion_price:
        message.price_per_million.prompt_usd = info.prompt_price
        message.price_per_million.completion_usd = info.completion_price
    return message


def languages_to(estimates: Iterable[Estimate]) -> list[pb.LanguageEstimates]:
    """Estimates, grouped by language; they come sorted by it."""
    return [
        pb.LanguageEstimates(
            language=language,
            arms=[
                pb.ArmEstimate(
                    arm=e.arm,
                    count=e.scored,
                    rejected_count=e.stopped,
                    mean_reward=e.reward,
                    standard_error=e.standard_error,
                    route_share=e.share,
                    cost_usd=e.cost_usd or 0.0,
                    best_probability=e.best or 0.0,
                )
                for e in arms
            ],
        )
        for language, arms in groupby(estimates, key=lambda e: e.language)
    ]
