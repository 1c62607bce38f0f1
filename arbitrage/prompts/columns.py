"""Rows of Parquet and Arrow, read a few at a time."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from arbitrage.prompts.fields import KNOWN
from arbitrage.prompts.lines import not_utf8
from arbitrage.prompts.sources import reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arbitrage.prompts.rows import Row
    from arbitrage.prompts.sources import Source

_AT_ONCE = 256  # rows that are made into values together


def check(source: Source) -> None:
    """Looks at the columns.

    Raises:
        ConfigError: it cannot be read, or no column holds prompts.
    """
    with _batches(source):
        pass


def rows(source: Source) -> Iterator[Row]:
    """A row for each prompt, numbered from 1.

    Raises:
        ConfigError: it cannot be read to its end.
    """
    number = 0
    with _batches(source) as batches, _arrow(source, lambda: f" behind row {number:,}"):
        for batch in batches:
            for start in range(0, batch.num_rows, _AT_ONCE):
                for fields in _values(batch.slice(start, _AT_ONCE)):
                    number += 1
                    yield number, fields, fields


@contextmanager
def _batches(source: Source) -> Iterator[Iterator[Any]]:
    """The parts of a file, with those columns that say something of a prompt."""
    import pyarrow as pa  # noqa: PLC0415 - a heavy import, which most kinds do without
    import pyarrow.parquet as pq  # noqa: PLC0415 - as above

    if source.kind == "parquet":
        with _arrow(source):
            file = pq.ParquetFile(source.path)
        with file:
            wanted = _wanted(source, file.schema_arrow)
            yield file.iter_batches(batch_size=_AT_ONCE, columns=wanted)
        return
    with _arrow(source):
        bytes_ = pa.memory_map(str(source.path))
    with bytes_:
        with _arrow(source):
            stream = pa.ipc.open_stream(bytes_)
        wanted = _wanted(source, stream.schema)
        yield (batch.select(wanted) for batch in stream)


@contextmanager
def _arrow(source: Source, where: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Turns what Arrow says of a file into an error that names it."""
    import pyarrow as pa  # noqa: PLC0415 - as above

    try:
        with reading(source, where):
            yield
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())
        raise source.wrong(f"cannot be read{where()}: {reason}; fetch or write it anew") from error


def _wanted(source: Source, schema: Any) -> list[str]:
    """The columns that the contract names, and the others that hold scalars."""
    import pyarrow as pa  # noqa: PLC0415 - as above

    types = pa.types
    plain = (
        *(types.is_string, types.is_large_string, types.is_string_view, types.is_boolean),
        *(types.is_integer, types.is_floating, types.is_decimal, types.is_temporal),
    )

    def is_plain(kind: Any) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return any(is_(kind) for is_ in plain)

    source.require_content(schema.names)
    return [column.name for column in schema if column.name in KNOWN or is_plain(column.type)]


def _values(batch: Any) -> list[Any]:
    try:
        values: list[Any] = batch.to_pylist()
    except UnicodeDecodeError:
        return [_value(batch.slice(place, 1)) for place in range(batch.num_rows)]
    return values


def _value(row: Any) -> Any:
    try:
        return row.to_pylist()[0]
    except UnicodeDecodeError as error:
        return not_utf8(error)
