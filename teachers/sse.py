"""Server-sent events: the frames in which a streamed answer comes.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html. Only
the data is of interest here; names, ids, comments and retry times are dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventReader:
    r"""Puts events together from bytes that are cut anywhere, even within a letter.

    >>> reader = EventReader()
    >>> list(reader.feed(b": hello\r\ndata: one\r\n\r\nda"))
    [b'one']
    >>> list(reader.feed(b"ta: two\ndata: lines\n\n"))
    [b'two\nlines']
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._begun = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Takes the next bytes, and yields the data of each event that they complete."""
        self._rest += chunk
        if b"\n" not in chunk and b"\r" not in chunk:
            return
        lines = self._rest.splitlines(keepends=True)
        # the last line may go on; a CR at the very end may be the first half of a CRLF
        self._rest = lines.pop() if not lines[-1].endswith(b"\n") else bytearray()
        for line in lines:
            yield from self._take(bytes(line.rstrip(b"\r\n")))

    def finish(self) -> Iterator[bytes]:
        """Yields the last event where the server left out the blank line behind it."""
        for line in (*self._rest.splitlines(), bytearray()):
            yield from self._take(bytes(line))

    def _take(self, line: bytes) -> Iterator[bytes]:
        if not self._begun:
            self._begun = True
            line = line.removeprefix(_BYTE_ORDER_MARK)
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
        elif not line and self._data:
            yield b"\n".join(self._data)
            self._data.clear()
