"""Rows of JSON: an object a line, or the objects of one list."""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING

from arbitrage.prompts.lines import decoded, numbered
from arbitrage.prompts.rows import DECODER, LARGEST, TOO_LARGE, Broken, parsed
from arbitrage.prompts.sources import opened, reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from arbitrage.errors import ConfigError
    from arbitrage.prompts.rows import Row
    from arbitrage.prompts.sources import Source

_CHUNK_BYTES = 2**16
_SPACE = re.compile(r"[ \t\r\n]*")
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what decoding puts in place of such bytes


def line_rows(source: Source) -> Iterator[Row]:
    """An object a line; empty lines are left out, and counted."""
    with opened(source) as stream:
        for number, raw in numbered(source, stream):
            if not raw or raw.isspace():
                continue
            text = decoded(raw)
            yield number, raw, parsed(text) if isinstance(text, str) else text


def list_rows(source: Source) -> Iterator[Row]:
    """The elements of a list; or an object a line, as many files are under this name.

    Raises:
        ConfigError: it is neither, or the list is broken, so that nobody can tell where
            the next element begins.
    """
    with opened(source) as stream:
        elements = _Elements(source, stream)
        begin = elements.peek()
        if begin == "[":
            yield from elements.rows()
            return
    if begin != "{":
        raise source.wrong("is no JSON list of objects; write one, or an object a line")
    for place, (number, raw, fields) in enumerate(line_rows(source)):
        if not place and isinstance(fields, Broken):
            raise source.wrong("is one object; give a list of objects, or an object a line")
        yield number, raw, fields


class _Elements:
    """The elements of a list in a stream of text, of which little more than one is held."""

    def __init__(self, source: Source, stream: BinaryIO) -> None:
        self._source = source
        self._stream = stream
        # what is no UTF-8 spoils its element alone
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._text, self._at = "", 0
        self._ended = False
        self._number = 0

    def rows(self) -> Iterator[Row]:
        """Each element with its number, from 1."""
        self._at += 1
        mark = self.peek()
        while mark != "]":
            self._number += 1
            raw, value = self._element()
            yield self._number, raw, Broken("is not UTF-8") if _NOT_UTF8.search(raw) else value
            mark = self.peek()
            if mark not in {",", "]"}:
                raise self._wrong("neither a comma nor the list's end follows it")
            self._at += mark == ","
        self._at += 1
        if self.peek():
            raise self._source.wrong("has something behind its list; give one list")

    def peek(self) -> str:
        """The next character that is no space; nothing at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._fill(_CHUNK_BYTES)

    def _element(self) -> tuple[str, object]:
        """The next element, as it is written and as a value."""
        self.peek()
        size = _CHUNK_BYTES
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._ended:
                    raise self._wrong(error.msg) from None
            except RecursionError:
                raise self._wrong("it is nested too deeply") from None
            else:
                # behind a number that ends with the text there may be more of it
                if end < len(self._text) or self._ended:
                    raw, self._at = self._text[self._at : end], end
                    return raw, value
            if len(self._text) - self._at > LARGEST:
                raise self._wrong(f"it does not end, or {TOO_LARGE}")
            self._fill(size)
            size *= 2  # so that long ones are not parsed again and again

    def _fill(self, size: int) -> None:
        with reading(self._source, lambda: f" behind element {self._number:,}"):
            data = self._stream.read(size)
        self._ended = not data
        self._text = self._text[self._at :] + self._decoder.decode(data, final=self._ended)
        self._at = 0

    def _wrong(self, what: str) -> ConfigError:
        return self._source.wrong(
            f"is not JSON at element {self._number:,}: {what[0].lower()}{what[1:]}; an object a "
            "line, as in .jsonl, would lose only that one"
        )
