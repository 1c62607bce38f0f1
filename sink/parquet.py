"""Parquet: a file for each part and language, zstd, in the contract's columns."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from sink import schema
from sink.layout import folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage.types import Sample
    from sink.layout import Layout


class Parquet:
    """Writes `data/<language>/part-NNNNN.parquet`, and `unanswered/` alike."""

    suffix = "parquet"

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def write(self, number: int, samples: Sequence[Sample]) -> None:
        """Stores a part durably; the same part stored again replaces itself. Blocks.

        Raises:
            SinkError: it was not stored, or not all of it.
        """
        files: defaultdict[tuple[str, bool], list[Sample]] = defaultdict(list)
        for sample in samples:
            files[folder(sample.prompt.language), sample.winner is not None].append(sample)
        for (language, answered), rows in files.items():
            path = self._layout.part(language, number, self.suffix, answered=answered)
            table = schema.table(rows)
            self._layout.put(path, partial(pq.write_table, table, compression="zstd"))
