"""What finished runs have published, read back in the order in which it was made."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from arbitrage.errors import SinkError
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
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

_PARTS = ("data/*/part-*.parquet", "unanswered/*/part-*.parquet")
_ORDER = [("created_at", "ascending"), ("sample_id", "ascending")]
_CHUNK_ROWS = 64


@dataclass(frozen=True, slots=True)
class _Part:
    """A file, and when the first of its samples was made."""

    begins: datetime
    path: Path
    rows: int


class Log:
    """The samples of runs, one after another as they were made, whoever answered.

    Samples without a winner are among them: a log without its failures would
    flatter whoever failed. Of the files, only those are held that overlap in
    time, which of one run is the part under way, in all its languages.

    Attributes:
        teachers: who was asked in it, in alphabetical order.

    Args:
        roots: output folders of runs, as `[sink] path` names them; one named twice is
            read once.

    Raises:
        SinkError: a folder is missing or holds no samples, or a file is no part of a
            run; also while the samples are read.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self._parts: list[_Part] = []
        teachers: set[str] = set()
        for root in dict.fromkeys(root.resolve() for root in roots):
            for path in _paths(root):
                table = _read(path, ["created_at", "decision"])
                if table.num_rows:
                    begins = pc.min(table["created_at"]).as_py()
                    self._parts.append(_Part(begins, path, table.num_rows))
                for chunk in table["decision"].chunks:
                    asked = pc.unique(pc.list_flatten(pc.struct_field(chunk, "arms")))
                    teachers.update(asked.to_pylist())
        self._parts.sort(key=lambda part: (part.begins, part.path))
        self.teachers = tuple(sorted(teachers))

    def __len__(self) -> int:
        return sum(part.rows for part in self._parts)

    def __iter__(self) -> Iterator[Sample]:
        heads: list[tuple[datetime, str, int, Sample]] = []
        bodies: list[Iterator[Sample]] = []

        def advance(number: int) -> None:
            for sample in bodies[number]:
                heapq.heappush(heads, (sample.created_at, sample.sample_id, number, sample))
                return

        for part in self._parts:
            while heads and heads[0][0] < part.begins:
                *_, number, sample = heapq.heappop(heads)
                yield sample
                advance(number)
            bodies.append(_samples(part.path))
            advance(len(bodies) - 1)
        while heads:
            *_, number, sample = heapq.heappop(heads)
            yield sample
            advance(number)


def _paths(root: Path) -> list[Path]:
    """The files of a run.

    Raises:
        SinkError: there are none.
    """
    if not root.is_dir():
        raise SinkError(f"{root}: is no folder; name the output folder of a run")
    paths = [path for pattern in _PARTS for path in root.glob(pattern)]
    if not paths:
        raise SinkError(
            f"{root}: holds no samples (data/*/part-*.parquet); name the output folder of a "
            "finished run"
        )
    return paths


def _read(path: Path, columns: Sequence[str] | None = None) -> Any:
    """A file's table, with some or all of its columns.

    Raises:
        SinkError: it cannot be read, or lacks one of them.
    """
    try:
        table = pq.ParquetFile(path).read(columns=columns)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise SinkError(f"{path}: cannot be read: {reason}; restore or remove it") from None
    missing = {"created_at", "decision", *(columns or ())} - set(table.column_names)
    if missing:
        raise SinkError(f"{path}: is no part of a run: it has no column {min(missing)!r}")
    return table


def _samples(path: Path) -> Iterator[Sample]:
    """The samples of one file, in their order."""
    table = _read(path).sort_by(_ORDER)
    for start in range(0, table.num_rows, _CHUNK_ROWS):
        for row in table.slice(start, _CHUNK_ROWS).to_pylist():
            yield _sample(row)


def _sample(row: Mapping[str, Any]) -> Sample:
    """What `sink.schema.row` was given."""
    candidates = tuple(_candidate(fields) for fields in row["candidates"])
    scored = [candidate for candidate in candidates if candidate.score]
    decision = row["decision"]
    return Sample(
        sample_id=row["sample_id"],
        prompt=Prompt(
            prompt_id=row["prompt_id"],
            messages=tuple(Message(**message) for message in row["messages"]),
            language=row["language"],
            domain=row["domain"],
            metadata={entry["key"]: entry["value"] for entry in row["metadata"]},
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
        margin=row["margin"],
        created_at=row["created_at"],
    )


def _candidate(fields: Mapping[str, Any]) -> Candidate:
    reward = fields["reward"]
    raw = {score["name"]: score["value"] for score in fields["scores"]}
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
