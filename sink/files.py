"""Formats that are plain files: one for each part and language, merged as they grow many."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from functools import partial
from typing import IO, TYPE_CHECKING, ClassVar

from sink.compaction import Compaction
from sink.layout import folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from arbitrage.types import Sample
    from sink.layout import Layout


class Files(ABC):
    """Writes `data/<language>/part-NNNNN.<suffix>`, and `unanswered/` alike.

    Rows lie in the order in which the samples were made.

    Args:
        layout: the folder of the run.
        file_bytes: size up to which small files are merged.
    """

    suffix: ClassVar[str]
    features: ClassVar[str | None] = None

    def __init__(self, layout: Layout, file_bytes: int) -> None:
        self._layout = layout
        self._compaction = Compaction(layout, self.suffix, self.merge, file_bytes)

    def recover(self) -> None:
        """Finishes or undoes what a crash interrupted. Blocks.

        Raises:
            SinkError: the folder cannot be written.
        """
        self._compaction.recover()

    def write(self, number: int, samples: Sequence[Sample]) -> None:
        """Stores a part durably; the same part stored again replaces itself. Blocks.

        Raises:
            SinkError: it was not stored, or not all of it.
        """
        files: defaultdict[tuple[str, bool], list[Sample]] = defaultdict(list)
        for sample in sorted(samples, key=lambda sample: (sample.created_at, sample.sample_id)):
            files[folder(sample.prompt.language), sample.winner is not None].append(sample)
        for (language, answered), rows in files.items():
            path = self._layout.part(language, number, self.suffix, answered=answered)
            self._layout.put(path, partial(self.encode, rows))

    def compact(self, through: int) -> None:
        """Merges the small files of the parts up to a number. Blocks.

        Raises:
            SinkError: not now; nothing has changed for readers.
        """
        self._compaction.run(through)

    def data_files(self, language: str) -> str:
        """What `load_dataset` is to read for a language's folder, or for `*`."""
        return f"data/{language}/*.{self.suffix}"

    def loading(self, language: str) -> list[str]:
        """How people load the data, as Markdown."""
        return [
            "```python",
            "from datasets import load_dataset",
            "",
            f'load_dataset("path/of/this/folder", "{language}", split="train")',
            "```",
            "",
            "```sql",
            "-- DuckDB",
            f"FROM 'data/**/*.{self.suffix}' SELECT language, teacher, avg(reward) GROUP BY ALL;",
            "```",
        ]

    @abstractmethod
    def encode(self, samples: Sequence[Sample], file: IO[bytes]) -> None:
        """Writes samples, at least one, in their order, as the whole of a file."""

    @abstractmethod
    def merge(self, sources: Sequence[Path], file: IO[bytes]) -> None:
        """Writes the rows of files as one file, in the order in which they were made."""
