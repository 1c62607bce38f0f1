"""Where samples go: durable in a journal at once, published in parts that people load as they are.

`open` is all that the rest of the product needs. A format is chosen by its
name and imported only then.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING

from arbitrage.journal import Journal
from sink.journaled import JournaledSink
from sink.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from arbitrage import config
    from arbitrage.types import TeacherInfo

__all__ = ["FORMATS", "JournaledSink", "open"]

FORMATS: Mapping[str, str] = {
    "delta": "sink.delta:Delta",
    "jsonl": "sink.jsonl:Jsonl",
    "parquet": "sink.parquet:Parquet",
}
"""Name of a format to where it is: `module:class`, made from a `Layout` and a file's size."""


async def open(  # noqa: A001 - read as sink.open, as in io.open or gzip.open
    settings: config.Sink,
    *,
    teachers: Callable[[], Sequence[TeacherInfo]] = tuple,
    part_rows: int = 2_000,
    part_bytes: int = 64 << 20,
    file_bytes: int | None = None,
) -> JournaledSink:
    """Opens the folder of a run, new or not, and finishes what a crash interrupted.

    Args:
        settings: the folder and the format.
        teachers: gives those to be told of in the dataset card, with their licences.
        part_rows: samples that are published together.
        part_bytes: size of their documents at which fewer are.
        file_bytes: size up to which a language's small files are merged; by default the
            configuration's.

    Raises:
        SinkError: the folder cannot be written, is another process's or holds
            something else, or its journal is damaged or of a newer version.
    """
    layout = Layout(settings.path, settings.table)
    if file_bytes is None:
        file_bytes = settings.file_mb << 20
    await asyncio.to_thread(layout.check, settings.format)
    module, name = FORMATS[settings.format].split(":")
    make = getattr(await asyncio.to_thread(import_module, module), name)
    journal = await Journal.open(layout.journal)
    sink = JournaledSink(
        layout,
        journal,
        make(layout, file_bytes),
        teachers=teachers,
        part_rows=part_rows,
        part_bytes=part_bytes,
    )
    try:
        await sink.recover()
    except BaseException:
        await journal.close()
        raise
    return sink
