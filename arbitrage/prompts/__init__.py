"""Prompts in: files, folders and standard input, one prompt at a time.

JSON Lines, lists in JSON, CSV and TSV, each also compressed by gzip or Zstandard; Parquet;
datasets that Hugging Face's `save_to_disk` has written; folders of these. Whatever the file,
a row has the same fields (`arbitrage.prompts.fields`).

A row that is no prompt is one `Rejected`, and reading goes on; a file that cannot be read is
an error: before the first prompt, as far as its beginning tells.

Example:
    with Rejections(folder) as rejections:
        for read in prompts.read(["prompts.jsonl", "more/"]):
            if isinstance(read, Rejected):
                rejections.add(read)
            else:
                ask(read)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbitrage.errors import InvalidPrompt
from arbitrage.prompts import columns, delimited, jsons
from arbitrage.prompts.fields import prompt_of
from arbitrage.prompts.fingerprints import differences, fingerprint
from arbitrage.prompts.rejections import Rejected, Rejections
from arbitrage.prompts.rows import Broken
from arbitrage.prompts.sources import STDIN, check_kind, located

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from arbitrage.prompts.rows import Row
    from arbitrage.prompts.sources import Source
    from arbitrage.types import Prompt

__all__ = ["STDIN", "Rejected", "Rejections", "differences", "fingerprint", "read"]

_ROWS: Mapping[str, Callable[[Source], Iterator[Row]]] = {
    "arrow": columns.rows,
    "csv": delimited.rows,
    "json": jsons.list_rows,
    "jsonl": jsons.line_rows,
    "parquet": columns.rows,
    "tsv": delimited.rows,
}
_CHECKS: Mapping[str, Callable[[Source], None]] = {
    "arrow": columns.check,
    "csv": delimited.check,
    "parquet": columns.check,
    "tsv": delimited.check,
}


def read(
    sources: Sequence[str | Path], *, stdin: BinaryIO | None = None
) -> Iterator[Prompt | Rejected]:
    """Reads prompts in the order of their sources, holding no more than a few of them.

    Args:
        sources: files and folders; `-` is JSON Lines on standard input.
        stdin: what `-` reads; by default the process's standard input, as bytes.

    Returns:
        Everything that is not an empty line: a prompt, or why it is none.

    Raises:
        ConfigError: a source is missing, is not what its name says, or cannot be
            decompressed; at once, or while reading where it breaks off later.
    """
    files = located(sources, stdin=stdin)
    for file in files:
        check_kind(file)
        _CHECKS.get(file.kind, _nothing)(file)
    return _read(files)


def _nothing(_: Source) -> None:
    """Lines of JSON are each for itself."""


def _read(files: Sequence[Source]) -> Iterator[Prompt | Rejected]:
    for file in files:
        for number, raw, fields in _ROWS[file.kind](file):
            if isinstance(fields, Broken):
                yield Rejected.of(file.name, number, fields.reason, raw)
                continue
            try:
                prompt = prompt_of(fields)
            except InvalidPrompt as error:
                yield Rejected.of(file.name, number, str(error), raw)
            else:
                yield prompt
