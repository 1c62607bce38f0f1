"""What finished runs have published, read back in the order in which it was made."""

from __future__ import annotations

import heapq
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow.compute as pc

from arbitrage.errors import SinkError
from sink import schema
from sink.layout import KINDS, Layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from arbitrage.types import Sample


class Stretch(Protocol):
    """Samples that lie together in a file, and are read together."""

    @property
    def begins(self) -> datetime:
        """When the first of them was made."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def source(self) -> str:
        """The file, for people."""

    def table(self, columns: Sequence[str] | None = None) -> Any:
        """An Arrow table of them, with all columns or some."""

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """They as plain values, in the order in which they were made."""


class Log:
    """The samples of runs, one after another as they were made, whoever answered.

    Samples without a winner are among them: a log without its failures would
    flatter whoever failed. Of the files, only those parts are held that overlap in
    time, which of one run is what was under way at once, in all its languages.

    A Delta table is read as a whole, also where several runs write to it.

    Args:
        roots: output folders of runs, as `[sink] path` names them, in any format; one
            named twice is read once.

    Raises:
        SinkError: a folder is missing or holds no samples, or a file is no part of a
            run; also while the samples are read.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        found: dict[Stretch, None] = {}
        for root in dict.fromkeys(root.resolve() for root in roots):
            found |= dict.fromkeys(_stretches(root))
        self._stretches = sorted(found, key=lambda stretch: (stretch.begins, stretch.source))

    @cached_property
    def teachers(self) -> tuple[str, ...]:
        """Who was asked in it, in alphabetical order."""
        names: set[str] = set()
        for table in self.tables(["decision.arms"]):
            for chunk in table["decision"].chunks:
                asked = pc.unique(pc.list_flatten(pc.struct_field(chunk, "arms")))
                names.update(asked.to_pylist())
        return tuple(sorted(names))

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """The samples as Arrow tables, a few thousand at a time, without parsing any.

        In the order of what lies in one file, and not of the samples' making.

        Args:
            columns: names of columns, or of fields of them such as `decision.arms`, of
                which a column may come with more fields than that; None for all.
        """
        for stretch in self._stretches:
            yield stretch.table(columns)

    def __len__(self) -> int:
        return sum(stretch.count for stretch in self._stretches)

    def __iter__(self) -> Iterator[Sample]:
        heads: list[tuple[datetime, str, int, Sample]] = []
        bodies: list[Iterator[Sample]] = []

        def advance(number: int) -> None:
            for sample in bodies[number]:
                heapq.heappush(heads, (sample.created_at, sample.sample_id, number, sample))
                return

        for stretch in self._stretches:
            while heads and heads[0][0] < stretch.begins:
                *_, number, sample = heapq.heappop(heads)
                yield sample
                advance(number)
            bodies.append(_samples(stretch))
            advance(len(bodies) - 1)
        while heads:
            *_, number, sample = heapq.heappop(heads)
            yield sample
            advance(number)


def _stretches(root: Path) -> Iterator[Stretch]:
    """What a run has published, in whichever format.

    Raises:
        SinkError: nothing, or it cannot be read.
    """
    if not root.is_dir():
        raise SinkError(f"{root}: is no folder; name the output folder of a run")
    layout = Layout(root)
    formats = layout.formats
    if not formats:
        raise SinkError(
            f"{root}: holds no samples (data/*/part-*.parquet), nor any in another format; name the"
            " output folder of a finished run"
        )
    for format_ in formats:
        yield from _READERS[format_](layout)


def _parquet(layout: Layout) -> Iterator[Stretch]:
    from sink.parquet import row_groups  # noqa: PLC0415 - each format is imported when it is met

    for path in _parts(layout, "parquet"):
        yield from row_groups(path)


def _jsonl(layout: Layout) -> Iterator[Stretch]:
    from sink.jsonl import lines  # noqa: PLC0415

    for path in _parts(layout, "jsonl"):
        yield from lines(path)


def _delta(layout: Layout) -> Iterator[Stretch]:
    from sink.delta import row_groups  # noqa: PLC0415

    return row_groups(layout)


_READERS = {"parquet": _parquet, "jsonl": _jsonl, "delta": _delta}


def _parts(layout: Layout, suffix: str) -> list[Path]:
    pattern = f"*/part-*.{suffix}"
    return [path for kind in KINDS for path in sorted((layout.root / kind).glob(pattern))]


def _samples(stretch: Stretch) -> Iterator[Sample]:
    """The samples of one stretch, in their order.

    Raises:
        SinkError: they cannot be read.
    """
    for row in stretch.rows():
        try:
            sample = schema.sample(row)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SinkError(f"{stretch.source}: is no part of a run: {error!r}") from None
        yield sample
