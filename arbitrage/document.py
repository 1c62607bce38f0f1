"""Samples, and their parts, as JSON documents: what the journal keeps."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from math import isfinite
from typing import Any

import orjson

from arbitrage import types

_OPTIONAL = {"completion": types.Completion, "failure": types.Failure, "score": types.Score}


def encode(sample: types.Sample) -> bytes:
    """A sample as a JSON document; `decode` gives back an equal one.

    Raises:
        ValueError: the winner is not among the candidates.
    """
    fields = _fields(sample)
    if sample.winner:
        fields["winner"] = sample.candidates.index(sample.winner)
    return _bytes(fields, finite=_finite(sample.candidates) and isfinite(sample.margin or 0.0))


def decode(document: bytes) -> types.Sample:
    """The sample that `encode` was given."""
    fields = _plain(document)
    candidates = tuple(_candidate(candidate) for candidate in fields["candidates"])
    decision, winner = fields["decision"], fields["winner"]
    for sequence in ("arms", "propensities", "waves"):
        decision[sequence] = tuple(decision[sequence])
    return types.Sample(
        sample_id=fields["sample_id"],
        prompt=_prompt(fields["prompt"]),
        decision=types.Decision(**decision),
        candidates=candidates,
        winner=None if winner is None else candidates[winner],
        margin=fields["margin"],
        created_at=datetime.fromisoformat(fields["created_at"]),
        learned=fields.get("learned", True),  # older journals do not say
    )


def encode_prompt(prompt: types.Prompt) -> bytes:
    """A prompt as a JSON document, for `decode_prompt`."""
    return _bytes(prompt)


def decode_prompt(document: bytes) -> types.Prompt:
    """The prompt that `encode_prompt` was given."""
    return _prompt(_plain(document))


def encode_answers(answers: Sequence[types.Candidate]) -> bytes:
    """Candidates as a JSON document, for `decode_answers`."""
    return _bytes(answers, finite=_finite(answers))


def decode_answers(document: bytes) -> list[types.Candidate]:
    """The candidates that `encode_answers` was given."""
    return [_candidate(fields) for fields in _plain(document)]


def _prompt(fields: dict[str, Any]) -> types.Prompt:
    fields["messages"] = tuple(types.Message(**message) for message in fields["messages"])
    return types.Prompt(**fields)


def _bytes(value: Any, *, finite: bool = True) -> bytes:
    if finite:
        with suppress(TypeError):  # such as for lone surrogates, which UTF-8 has no bytes for
            return orjson.dumps(value, default=_fields)
    text = json.dumps(value, default=_fields, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def _plain(document: bytes) -> Any:
    try:
        return orjson.loads(document)
    except orjson.JSONDecodeError:
        return json.loads(document.decode("utf-8", "surrogatepass"))


def _finite(candidates: Sequence[types.Candidate]) -> bool:
    """Whether JSON proper, which knows neither NaN nor infinity, can say all their figures."""
    total = 0.0  # which is finite only if they are
    for one in candidates:
        total += one.cost_usd + one.latency_seconds + (one.advantage or 0.0)
        if one.score:
            total += one.score.reward + sum(one.score.raw.values())
    return isfinite(total)


def _candidate(fields: dict[str, Any]) -> types.Candidate:
    for name, kind in _OPTIONAL.items():
        fields[name] = kind(**fields[name]) if fields[name] else None
    fields["gates"] = tuple(types.Verdict(**verdict) for verdict in fields["gates"])
    return types.Candidate(**fields)


def _fields(value: Any) -> Any:
    """What JSON can say of a value that it does not know."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
