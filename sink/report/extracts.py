"""Samples as the page's script reads them: JSON that no HTML parser takes for markup."""

from __future__ import annotations

import base64
import gzip
import json
import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from arbitrage.types import Candidate, Sample

LONGEST = 6_000
"""Characters of a text that are shown; the whole of it is in the data."""
_PLAIN_BYTES = 256 << 10
_PACKED_BYTES = 5 << 20  # a third more in base64
_INERT = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


@dataclass(frozen=True, slots=True)
class Extracts:
    """What goes into the page.

    Attributes:
        plain: JSON of the first samples, which every browser can read.
        packed: JSON of the others: gzip in base64; empty if there are none.
        shown: how many samples these are.
    """

    plain: str
    packed: str
    shown: int


def pack(picked: Iterable[tuple[Sample, Sequence[str]]]) -> Extracts:
    """As many samples as a page should hold, the first ones first.

    Args:
        picked: samples, each with why it was picked.
    """
    plain: list[str] = []
    packed: list[str] = []
    room_plain, room_packed = _PLAIN_BYTES, _PACKED_BYTES
    for sample, kinds in picked:
        text = json.dumps(_sample(sample, kinds), ensure_ascii=False, allow_nan=False)
        size = len(text.encode("utf-8", "replace"))
        if not packed and size <= room_plain:
            plain.append(text)
            room_plain -= size
            continue
        # apart they compress worse than together: this errs on the small side
        size = len(zlib.compress(text.encode("utf-8", "replace"), 1))
        if size > room_packed:
            break
        packed.append(text)
        room_packed -= size
    return Extracts(
        plain=f"[{','.join(plain)}]".translate(_INERT),
        packed=_gzip(f"[{','.join(packed)}]") if packed else "",
        shown=len(plain) + len(packed),
    )


def dumps(value: Any) -> str:
    """JSON for a script element."""
    return json.dumps(value, ensure_ascii=False).translate(_INERT)


def _gzip(text: str) -> str:
    # without a time in it, the same samples are the same bytes
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), mtime=0)).decode()


def _sample(sample: Sample, kinds: Sequence[str]) -> Mapping[str, Any]:
    prompt, decision = sample.prompt, sample.decision
    chosen = {
        arm: (propensity, wave)
        for arm, propensity, wave in zip(
            decision.arms, decision.propensities, decision.waves, strict=True
        )
    }
    # the winner as it was read back is one of the candidates
    winner = next((n for n, c in enumerate(sample.candidates) if c is sample.winner), None)
    if winner is None and sample.winner is not None:
        winner = sample.candidates.index(sample.winner)
    return {
        "id": sample.sample_id,
        "prompt": prompt.prompt_id,
        "language": prompt.language,
        "domain": prompt.domain,
        "at": f"{sample.created_at:%Y-%m-%d %H:%M:%S}",
        "messages": [[message.role, _cut(message.content)] for message in prompt.messages],
        "policy": decision.policy,
        "version": decision.version,
        "margin": _finite(sample.margin),
        "winner": winner,
        "kinds": list(kinds),
        "candidates": [
            _candidate(candidate, *chosen.get(candidate.teacher, (None, None)))
            for candidate in sample.candidates
        ],
    }


def _candidate(
    candidate: Candidate, propensity: float | None, wave: int | None
) -> Mapping[str, Any]:
    completion, failure = candidate.completion, candidate.failure
    return {
        "teacher": candidate.teacher,
        "text": _cut(completion.text) if completion else None,
        "reasoning": _cut(completion.reasoning) if completion and completion.reasoning else None,
        "error": [failure.outcome, _cut(failure.message)] if failure else None,
        "finish": completion.finish_reason if completion else None,
        "gates": [[verdict.gate, verdict.reason] for verdict in candidate.gates],
        "reward": _finite(candidate.reward),
        "advantage": _finite(candidate.advantage),
        "scores": {n: _finite(v) for n, v in candidate.score.raw.items()}
        if candidate.score
        else {},
        "tokens": completion.completion_tokens if completion else None,
        "cached": completion.cached if completion else False,
        "seconds": round(candidate.latency_seconds, 3),
        "usd": candidate.cost_usd,
        "propensity": propensity,
        "wave": wave,
    }


def _finite(value: float | None) -> float | None:
    return round(value, 4) if value is not None and math.isfinite(value) else None


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}\n[… {len(text) - LONGEST:,} more characters in the data]"
