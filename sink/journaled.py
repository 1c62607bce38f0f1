"""The sink of a run: an accepted sample is in the journal, a full part goes to the format."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from sink import card

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arbitrage.journal import Journal
    from arbitrage.types import Sample, TeacherInfo
    from sink.layout import Layout

_LOG = logging.getLogger(__name__)
_PARTS_BEHIND = 4


class Format(Protocol):
    """How a part is stored for its readers. Blocking: called on a thread of its own."""

    @property
    def suffix(self) -> str:
        """How the names of its files end."""

    def write(self, number: int, samples: Sequence[Sample]) -> None:
        """Stores a part durably; the same part stored again replaces itself.

        Raises:
            SinkError: it was not stored, or not all of it.
        """


class JournaledSink:
    """A `Sink` whose samples are durable at once and published, each exactly once, in parts.

    Publishing runs beside the writing. When it fails, the samples are safe in
    the journal: it is logged, tried again when another part is due, and
    raised by `close`. When it falls behind, writers wait for it.
    """

    def __init__(
        self,
        layout: Layout,
        journal: Journal,
        format_: Format,
        *,
        teachers: Callable[[], Sequence[TeacherInfo]],
        part_rows: int,
        part_bytes: int,
    ) -> None:
        self._layout = layout
        self._journal = journal
        self._format = format_
        self._teachers = teachers
        self._known: dict[str, TeacherInfo] = {}
        self._part_rows = part_rows
        self._part_bytes = part_bytes
        self._publishing: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._parts_failed = 0.0

    @property
    def pending(self) -> int:
        """Samples that are durable and not published yet."""
        return self._journal.pending

    @property
    def published(self) -> int:
        """Samples that readers find, in this run and in those before it."""
        return self._journal.published

    @property
    def cost_usd(self) -> float:
        """What the runs before this one have paid for the samples that are here."""
        return self._journal.cost_usd

    async def recover(self) -> None:
        """Publishes the parts that a crash interrupted, each under the name it had.

        Raises:
            SinkError: one of them cannot be written.
        """
        for number in await self._journal.unfinished():
            await self._publish_part(number)

    async def write(self, sample: Sample) -> None:
        """Stores a sample; its return means durable. Writing one twice stores one.

        Raises:
            SinkError: the sample was not stored.
        """
        if sample.winner and sample.winner.teacher not in self._known:
            self._meet()
        await self._journal.append(sample)
        if self._publishing is None and self._parts_due() - self._parts_failed >= 1:
            self._publishing = asyncio.create_task(self._publish(until=1))
            self._publishing.add_done_callback(self._published)
        if self._publishing and self._parts_due() >= _PARTS_BEHIND:
            await asyncio.wait({self._publishing})

    async def close(self) -> None:
        """Publishes what is pending and closes the journal; twice is harmless.

        Raises:
            SinkError: something could not be published; the journal keeps it, and the
                next run on this folder publishes it.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    def _meet(self) -> None:
        """Remembers the teachers: one that leaves the pool is still told of in the card."""
        self._known |= {teacher.name: teacher for teacher in self._teachers()}

    def _parts_due(self) -> float:
        rows = self._journal.pending / self._part_rows
        return max(rows, self._journal.pending_bytes / self._part_bytes)

    def _published(self, task: asyncio.Task[None]) -> None:
        self._publishing = None
        failed = not task.cancelled() and task.exception()
        self._parts_failed = self._parts_due() if failed else 0.0
        if failed:
            _LOG.error("%d samples wait to be published: %s", self.pending, failed)

    async def _close(self) -> None:
        try:
            if self._publishing:
                await asyncio.wait({self._publishing})
            await self._publish(until=0)
        finally:
            await self._journal.close()

    async def _publish(self, *, until: float) -> None:
        """Publishes parts while more than nothing, and at least `until` parts, is pending."""
        await self.recover()
        while self._journal.pending and self._parts_due() >= until:
            number = await self._journal.assign(
                max_rows=self._part_rows, max_bytes=self._part_bytes
            )
            if number is None:
                break
            await self._publish_part(number)

    async def _publish_part(self, number: int) -> None:
        samples = await self._journal.samples(number)
        await asyncio.to_thread(self._format.write, number, samples)
        # Before the part is marked: a crash in between publishes it again, card and all.
        tallies = await self._journal.tallies()
        self._meet()
        teachers = list(self._known.values())
        text = card.render(tallies, teachers, suffix=self._format.suffix).encode()
        put = self._layout.put
        await asyncio.to_thread(put, self._layout.card, lambda file: file.write(text))
        await self._journal.mark_published(number)
