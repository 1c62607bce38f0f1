"""The body of an HTTP answer: read within limits, whole or event by event."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import aiohttp

from teachers.sse import EventReader

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_A_MOMENT = 0.25


class TooLong(Exception):
    """A body over its limit; the rest of it was not read."""


async def whole(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body.

    Raises:
        TooLong: it is over `most` bytes, decompressed; where it says so itself, none of
            it was read.
    """
    if (response.content_length or 0) > most:
        response.close()
        raise TooLong
    content, cut = await beginning(response, most)
    if cut:
        raise TooLong
    return content


async def beginning(response: aiohttp.ClientResponse, most: int) -> tuple[bytes, bool]:
    """The first bytes of the body, about `most`, and whether there are more."""
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > most:
            return b"".join(chunks), True
    return b"".join(chunks), False


async def events(response: aiohttp.ClientResponse, most: int) -> AsyncGenerator[bytes]:
    """The data of each server-sent event.

    Raises:
        TooLong: the body is over `most` bytes, decompressed.
    """
    reader, size = EventReader(), 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > most:
            raise TooLong
        for data in reader.feed(chunk):
            yield data
    for data in reader.finish():
        yield data


async def run_out(response: aiohttp.ClientResponse) -> None:
    """Reads what is left after the last event, which is the end of the body at best.

    Only a connection that was read to the end is used again. A server that keeps it
    open is not waited for.
    """
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(_A_MOMENT):
            while await response.content.readany():
                pass
