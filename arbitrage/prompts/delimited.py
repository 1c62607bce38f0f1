"""Rows of CSV and TSV: a header that names the fields, and a record for each prompt."""

from __future__ import annotations

from collections import deque
from importlib.util import find_spec, module_from_spec
from typing import TYPE_CHECKING, Any

from arbitrage.prompts.fields import KNOWN
from arbitrage.prompts.lines import not_utf8, numbered
from arbitrage.prompts.rows import LARGEST, TOO_LARGE, Broken
from arbitrage.prompts.sources import opened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

    from arbitrage.prompts.rows import Row
    from arbitrage.prompts.sources import Source

_DELIMITERS = {"csv": ",", "tsv": "\t"}
_UNDONE_LINES = 1000  # of a broken record that are read again, each as if a record began there


def _module_of_our_own() -> Any:
    """The standard library's `csv`, whose limit of a field is not the process's.

    The limit belongs to the module, and an extension module may be there more than once
    (PEP 630); where it may not, this is the process's after all.
    """
    spec = find_spec("_csv")
    if spec is None or spec.loader is None:
        raise ImportError("_csv: this Python has no csv")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.field_size_limit(max(module.field_size_limit(), 2 * LARGEST))  # ours is below
    return module


_csv = _module_of_our_own()


def check(source: Source) -> None:
    """Looks at the header.

    Raises:
        ConfigError: it names no field that holds prompts, or one twice.
    """
    with opened(source) as stream:
        _Records(source, stream).header()


def rows(source: Source) -> Iterator[Row]:
    """A record a row; its number is that of its first line."""
    with opened(source) as stream:
        records = _Records(source, stream)
        header = records.header()
        for number, raw, cells in records.rows():
            if isinstance(cells, Broken):
                yield number, raw, cells
            elif len(cells) != len(header):
                yield number, raw, Broken(f"has {len(cells)} fields; the header has {len(header)}")
            else:
                yield number, raw, dict(zip(header, cells, strict=True))


class _TooLarge(Exception):
    """A record that goes on and on: a quote was opened that nothing closes."""


class _Records:
    """Records, as RFC 4180 has them; the lines that the reader of the standard library takes.

    Of a record that is broken only the first line is lost: one quote too many may have
    swallowed good ones.
    """

    def __init__(self, source: Source, stream: BinaryIO) -> None:
        self._source = source
        self._lines = numbered(source, stream)
        self._again: deque[tuple[int, bytes]] = deque()
        self._taken: list[tuple[int, bytes]] = []
        self._bytes = 0
        self._broken: Broken | None = None
        self._reader = _csv.reader(self, delimiter=_DELIMITERS[source.kind], strict=True)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self._taken.append(line)
        self._bytes += len(line[1])
        if self._bytes > LARGEST:
            raise _TooLarge
        try:
            return line[1].decode()
        except UnicodeDecodeError as error:
            self._broken = not_utf8(error)
            return line[1].decode(errors="replace")

    def header(self) -> Sequence[str]:
        """The names of the fields.

        Raises:
            ConfigError: there are none that hold prompts.
        """
        for _, _, cells in self.rows():
            if isinstance(cells, Broken):
                raise self._source.wrong(f"the header {cells.reason}")
            names = [cell.strip() for cell in cells]
            for name in names:
                if name in KNOWN and names.count(name) > 1:
                    raise self._source.wrong(f"has two columns {name!r}; rename one")
            self._source.require_content(names)
            return names
        raise self._source.wrong("is empty; give it a header with the column 'prompt'")

    def rows(self) -> Iterator[tuple[int, bytes, Broken | Sequence[str]]]:
        """Each record with the number of its first line, and as it is written."""
        while True:
            self._begin()
            cells: Sequence[str] | Broken
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except (_csv.Error, _TooLarge) as error:
                cells = self._undone(error)
            if cells:  # there are none in an empty line
                raw = b"".join(line for _, line in self._taken)
                yield self._taken[0][0], raw, self._broken or cells

    def _begin(self) -> None:
        self._taken, self._bytes, self._broken = [], 0, None

    def _undone(self, error: Exception) -> Broken:
        """Gives the lines behind the first one back."""
        lines = len(self._taken)
        lost = ""
        if lines <= _UNDONE_LINES:
            self._again.extendleft(reversed(self._taken[1:]))
            self._taken = self._taken[:1]
        else:
            lost = f"; so are the {lines - 1:,} lines behind it"
        what = TOO_LARGE if isinstance(error, _TooLarge) else f"is not CSV: {_reason(error)}"
        return Broken(f"{what}{', a quote in it is never closed' if lines > 1 else ''}{lost}")


def _reason(error: Exception) -> str:
    """What the standard library says, without its advice on Python."""
    return str(error).partition(" - ")[0]
