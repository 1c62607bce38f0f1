"""A sample as one JSON document: what the journal keeps."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

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
    text = json.dumps(fields, default=_fields, ensure_ascii=False, separators=(",", ":"))
    # A teacher may answer with a lone surrogate, which plain UTF-8 has no bytes for.
    return text.encode("utf-8", "surrogatepass")


def decode(document: bytes) -> types.Sample:
    """The sample that `encode` was given."""
    fields = json.loads(document.decode("utf-8", "surrogatepass"))
    candidates = tuple(_candidate(candidate) for candidate in fields["candidates"])
    prompt, decision, winner = fields["prompt"], fields["decision"], fields["winner"]
    prompt["messages"] = tuple(types.Message(**message) for message in prompt["messages"])
    for sequence in ("arms", "propensities", "waves"):
        decision[sequence] = tuple(decision[sequence])
    return types.Sample(
        sample_id=fields["sample_id"],
        prompt=types.Prompt(**prompt),
        decision=types.Decision(**decision),
        candidates=candidates,
        winner=None if winner is None else candidates[winner],
        margin=fields["margin"],
        created_at=datetime.fromisoformat(fields["created_at"]),
    )


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
