"""Protobuf at the edge: requests into the core's values, and values into responses."""

from __future__ import annotations

from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING

from arbitrage.errors import InvalidPrompt, NotBuilt
from arbitrage.types import Candidate, Decision, Estimate, Message, Prompt, Sample, TeacherInfo
from arbitrage.v1 import arbitrage_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MAX_UINT32 = 2**32 - 1


def prompt_from(request: pb.CompleteRequest) -> Prompt:
    """The prompt of a request.

    Raises:
        InvalidPrompt: something in it is wrong; the field is its path from the request.
    """
    if not request.HasField("prompt"):
        raise InvalidPrompt("prompt", "is required")
    prompt = request.prompt
    if prompt.text and prompt.messages:
        raise InvalidPrompt("prompt.text", "set exactly one of text and messages")
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
        path = "prompt.text" if error.field == "prompt" else f"prompt.{error.field}"
        raise InvalidPrompt(path, error.reason) from None


def require_no_options(request: pb.CompleteRequest) -> None:
    """Refuses per-request routing, rather than ignoring it.

    Raises:
        NotBuilt: the request sets an option.
    """
    for field, _ in request.options.ListFields():
        raise NotBuilt(f"options.{field.name}: this server routes every prompt as it is configured")


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
        message.winner.CopyFrom(_candidate_to(sample.winner, waves[sample.winner.teacher]))
    if include_candidates:
        message.candidates.extend(_candidate_to(c, waves[c.teacher]) for c in sample.candidates)
    return message


def decision_to(decision: Decision) -> pb.Decision:
    """A decision, its three sequences as one list of choices."""
    choices = zip(decision.arms, decision.propensities, decision.waves, strict=True)
    return pb.Decision(
        policy=decision.policy,
        version=decision.version,
        choices=[pb.Choice(arm=arm, propensity=p, wave=wave) for arm, p, wave in choices],
    )


def _candidate_to(candidate: Candidate, wave: int) -> pb.Candidate:
    message = pb.Candidate(
        teacher=candidate.teacher,
        gates=[pb.GateVerdict(gate=v.gate, reason=_unicode(v.reason)) for v in candidate.gates],
        reward=candidate.reward,
        advantage=candidate.advantage,
        cost_usd=candidate.cost_usd,
        wave=wave,
    )
    message.latency.FromTimedelta(timedelta(seconds=candidate.latency_seconds))
    if candidate.failure:
        message.error.code = candidate.failure.outcome
        message.error.message = _unicode(candidate.failure.message)
    if completion := candidate.completion:
        message.completion = _unicode(completion.text)
        message.finish_reason = _unicode(completion.finish_reason)
        message.cached = completion.cached
        message.reasoning = _unicode(completion.reasoning or "")
        if completion.prompt_tokens is not None:
            message.prompt_tokens = min(completion.prompt_tokens, _MAX_UINT32)
        if completion.completion_tokens is not None:
            message.completion_tokens = min(completion.completion_tokens, _MAX_UINT32)
    if candidate.score:
        message.scores.update(candidate.score.raw)
    return message


def _unicode(text: str) -> str:
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
