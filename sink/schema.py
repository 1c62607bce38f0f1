"""The columns of a published sample, a sample as one row of them, and back.

Maps are lists of name and value: that is what every reader takes as it is.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from arbitrage.types import (
    Candidate,
    Completion,
    Decision,
    Failure,
    Message,
    Prompt,
    Sample,
    Score,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
_DECISION = pa.struct(
    [
        ("policy", pa.string()),
        ("version", pa.int64()),
        ("arms", pa.list_(pa.string())),
        ("propensities", pa.list_(pa.float64())),
        ("waves", pa.list_(pa.int32())),
    ]
)
_GATE = pa.struct([("gate", pa.string()), ("reason", pa.string())])
_SCORE = pa.struct([("name", pa.string()), ("value", pa.float64())])
_CANDIDATE = pa.struct(
    [
        ("teacher", pa.string()),
        ("completion", pa.string()),
        ("error", pa.string()),
        ("finish_reason", pa.string()),
        ("gates", pa.list_(_GATE)),
        ("scores", pa.list_(_SCORE)),
        ("reward", pa.float64()),
        ("advantage", pa.float64()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("latency_seconds", pa.float64()),
        ("cost_usd", pa.float64()),
        ("cached", pa.bool_()),
        ("reasoning", pa.string()),
    ]
)
_ENTRY = pa.struct([("key", pa.string()), ("value", pa.string())])

SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("prompt_id", pa.string()),
        ("language", pa.string()),
        ("domain", pa.string()),
        ("messages", pa.list_(_MESSAGE)),
        ("completion", pa.string()),
        ("teacher", pa.string()),
        ("reward", pa.float64()),
        ("margin", pa.float64()),
        ("decision", _DECISION),
        ("candidates", pa.list_(_CANDIDATE)),
        ("metadata", pa.list_(_ENTRY)),
        ("created_at", pa.timestamp("us", tz="UTC")),
    ]
)
_CHUNK_ROWS = 64


def table(samples: Sequence[Sample]) -> Any:
    """An Arrow table of `SCHEMA`, one row a sample, in their order."""
    # Arrow holds the interpreter's lock while it converts: in one go, the event loop would stall.
    chunks = [samples[i : i + _CHUNK_ROWS] for i in range(0, len(samples), _CHUNK_ROWS)]
    batches = [_batch([row(sample) for sample in chunk]) for chunk in chunks]
    return pa.Table.from_batches(batches, schema=SCHEMA)


def row(sample: Sample) -> Mapping[str, Any]:
    """A sample as plain values, named as in `SCHEMA`; without a winner, its columns are None."""
    prompt, decision, winner = sample.prompt, sample.decision, sample.winner
    return {
        "sample_id": sample.sample_id,
        "prompt_id": prompt.prompt_id,
        "language": prompt.language,
        "domain": prompt.domain,
        "messages": [{"role": m.role, "content": m.content} for m in prompt.messages],
        "completion": winner.completion.text if winner and winner.completion else None,
        "teacher": winner.teacher if winner else None,
        "reward": winner.reward if winner else None,
        "margin": sample.margin,
        "decision": {
            "policy": decision.policy,
            "version": decision.version,
            "arms": decision.arms,
            "propensities": decision.propensities,
            "waves": decision.waves,
        },
        "candidates": [_candidate_row(candidate) for candidate in sample.candidates],
        "metadata": [{"key": k, "value": v} for k, v in prompt.metadata.items()],
        "created_at": sample.created_at,
    }


def sample(fields: Mapping[str, Any]) -> Sample:
    """What `row` was given, as far as a row tells."""
    candidates = tuple(_candidate(part) for part in fields["candidates"])
    scored = [candidate for candidate in candidates if candidate.score]
    decision = fields["decision"]
    return Sample(
        sample_id=fields["sample_id"],
        prompt=Prompt(
            prompt_id=fields["prompt_id"],
            messages=tuple(Message(**message) for message in fields["messages"]),
            language=fields["language"],
            domain=fields["domain"],
            metadata={entry["key"]: entry["value"] for entry in fields["metadata"]},
        ),
        decision=Decision(
            policy=decision["policy"],
            version=decision["version"],
            arms=tuple(decision["arms"]),
            propensities=tuple(decision["propensities"]),
            waves=tuple(decision["waves"]),
        ),
        candidates=candidates,
        # of several with the same reward the first has won, as in `Sample.of`
        winner=max(scored, key=lambda one: one.reward or 0.0, default=None),
        margin=fields["margin"],
        created_at=fields["created_at"],
    )


def features() -> str:
    """The columns as Hugging Face `datasets` calls them, in one line of JSON, and so of YAML."""
    return json.dumps([_feature(field) for field in SCHEMA])


def _feature(field: Any) -> dict[str, Any]:
    feature = _feature_type(field.type)
    return {"name": field.name, **(feature if isinstance(feature, dict) else {"dtype": feature})}


def _feature_type(kind: Any) -> Any:
    if pa.types.is_list(kind):
        value = _feature_type(kind.value_type)
        return {"list": value["struct"] if isinstance(value, dict) else value}
    if pa.types.is_struct(kind):
        return {"struct": [_feature(field) for field in kind]}
    return "float64" if kind == pa.float64() else str(kind)


def _batch(rows: Sequence[Mapping[str, Any]]) -> Any:
    try:
        return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
    except UnicodeEncodeError:
        return pa.RecordBatch.from_pylist(readable(rows), schema=SCHEMA)


def readable(value: Any) -> Any:
    """The same value with U+FFFD for lone surrogates, which no UTF-8 can hold."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {name: readable(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [readable(part) for part in value]
    return value


def _candidate_row(candidate: Candidate) -> Mapping[str, Any]:
    completion, failure, score = candidate.completion, candidate.failure, candidate.score
    return {
        "teacher": candidate.teacher,
        "completion": completion.text if completion else None,
        "error": f"{failure.outcome}: {failure.message}" if failure else None,
        "finish_reason": completion.finish_reason if completion else None,
        "gates": [{"gate": v.gate, "reason": v.reason} for v in candidate.gates],
        "scores": [{"name": k, "value": v} for k, v in score.raw.items()] if score else [],
        "reward": candidate.reward,
        "advantage": candidate.advantage,
        "prompt_tokens": completion.prompt_tokens if completion else None,
        "completion_tokens": completion.completion_tokens if completion else None,
        "latency_seconds": candidate.latency_seconds,
        "cost_usd": candidate.cost_usd,
        "cached": completion.cached if completion else None,
        "reasoning": completion.reasoning if completion else None,
    }


def _candidate(fields: Mapping[str, Any]) -> Candidate:
    reward = fields["reward"]
    scores = {score["name"]: score["value"] for score in fields["scores"]}
    # JSON has no NaN, and says null
    raw = {name: value for name, value in scores.items() if value is not None}
    return Candidate(
        teacher=fields["teacher"],
        completion=_completion(fields),
        failure=_failure(fields["error"]),
        gates=tuple(Verdict(**verdict) for verdict in fields["gates"]),
        score=None if reward is None else Score(reward, raw),
        advantage=fields["advantage"],
        latency_seconds=fields["latency_seconds"],
        cost_usd=fields["cost_usd"],
    )


def _completion(fields: Mapping[str, Any]) -> Completion | None:
    if fields["completion"] is None:
        return None
    return Completion(
        text=fields["completion"],
        finish_reason=fields["finish_reason"],
        prompt_tokens=fields["prompt_tokens"],
        completion_tokens=fields["completion_tokens"],
        cached=fields["cached"],
        # files of before there was such a column do without
        reasoning=fields.get("reasoning"),
    )


def _failure(error: str | None) -> Failure | None:
    if error is None:
        return None
    outcome, _, message = error.partition(": ")
    return Failure(outcome, message)
