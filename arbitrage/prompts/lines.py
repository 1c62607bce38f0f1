"""Lines of bytes, one at a time, however long the file or one of its lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbitrage.prompts.rows import LARGEST, TOO_LARGE, Broken
from arbitrage.prompts.sources import reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from arbitrage.prompts.sources import Source

_BOM = b"\xef\xbb\xbf"
_CHUNK_BYTES = 2**16


def numbered(source: Source, stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Every line with its number, from 1, and its end.

    Of a line of more than `LARGEST` bytes, one byte more than that.

    Raises:
        ConfigError: the bytes cannot be read, or unpacked, to their end.
    """
    number = 0
    with reading(source, lambda: f" behind line {number:,}"):
        while raw := stream.readline(LARGEST + 1):
            number += 1
            if len(raw) > LARGEST:
                _skip(stream, raw)
            elif number == 1:
                raw = raw.removeprefix(_BOM)
            yield number, raw


def decoded(raw: bytes) -> str | Broken:
    """A line as text."""
    if len(raw) > LARGEST:
        return Broken(TOO_LARGE)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        return not_utf8(error)


def not_utf8(error: UnicodeDecodeError) -> Broken:
    """What is wrong with bytes that are no text."""
    return Broken(f"is not UTF-8: byte 0x{error.object[error.start]:02x} at {error.start + 1}")


def _skip(stream: BinaryIO, read: bytes) -> None:
    """Goes on to the line's end without keeping it."""
    while read and not read.endswith(b"\n"):
        read = stream.readline(_CHUNK_BYTES)
