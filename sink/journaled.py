"""The sink of a run: an accepted sample is in the journal, a full part goes to the format."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Protocol

from arbitrage.errors import SinkError
from sink import card
from sink.room import Room

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arbitrage.journal import Journal
    from arbitrage.types import Sample, TeacherInfo
    from sink.layout import Layout

_LOG = logging.getLogger(__name__)
_PARTS_BEHIND = 4
_PARTS_A_MERGE = 16
_ROW_BYTES = 1 << 16
_ALL_PARTS = 1 << 62


class Format(card.Form, Protocol):
    """How a part is stored for its readers. Blocking: called on a thread of its own."""

    def recover(self) -> None:
        """Finishes or undoes what a crash interrupted.

        Raises:
            SinkError: what lies here cannot be written to.
        """

    def write(self, number: int, samples: Sequence[Sample]) -> None:
        """Stores a part durably; the same part stored again replaces itself.

        Raises:
            SinkError: it was not stored, or not all of it.
        """

    def compact(self, through: int) -> None:
        """Makes few large files of many small ones, of the parts up to a number.

        Raises:
            SinkError: not now; nothing has changed for readers.
        """


class JournaledSink:
    """A `Sink` whose samples are durable at once and published, each exactly once, in parts.

    Publishing runs beside the writing. When it fails, the samples are safe in
    the journal: it is logged, tried again when another part is due, and
    raised by `close`. When it falls behind, writers wait for it. On a full
    disk, all of it waits until there is room.
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
        self._room = Room(layout.root)
        self._unmerged = 0
        self._publishing: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._parts_failed = 0.0

    @property
    def pending(self) -> int:
        """Samples that are durable and not published yet."""
        return self._journal.pending

    @property
    def stalled(self) -> bool:
        """Whether samples wait for room on the disk."""
        return self._room.waited_for

    @property
    def published(self) -> int:
        """Samples that readers find, in this run and in those before it."""
        return self._journal.published

    @property
    def journal(self) -> Journal:
        """Where samples are durable before they are published, and what else is."""
        return self._journal

    @property
    def cost_usd(self) -> float:
        """What the runs before this one have paid for the samples that are here."""
        return self._journal.cost_usd

    async def recover(self) -> None:
        """Publishes the parts that a crash interrupted, each under the name it had.

        Raises:
            SinkError: one of them cannot be written, or what lies in the folder.
        """
        await asyncio.to_thread(self._layout.clean)
        await asyncio.to_thread(self._format.recover)
        for number in await self._journal.unfinished():
            await self._publish_part(number)

    async def write(self, sample: Sample) -> int | None:
        """Stores a sample; its return means durable. Writing one twice stores one.

        Waits for a publisher that has fallen behind, and for room on a full disk. Samples
        come back in the order of their numbers, with nothing between the storing of one
        and its return.

        Returns:
            Its number in the journal, from 1; None if it was stored before.

        Raises:
            SinkError: the sample was not stored.
        """
        if self._publishing and self._parts_due() >= _PARTS_BEHIND:
            await asyncio.wait({self._publishing})
        if sample.winner and sample.winner.teacher not in self._known:
            self._meet()
        append = partial(self._journal.append, sample)
        number = await self._room.within(append, needed=_ROW_BYTES)
        if self._publishing is None and self._parts_due() - self._parts_failed >= 1:
            self._publishing = asyncio.create_task(self._publish(until=1))
            self._publishing.add_done_callback(self._published)
        return number

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
            await self._compact()
        finally:
            await self._journal.close()

    async def _publish(self, *, until: float) -> None:
        """Publishes parts while more than nothing, and at least `until` parts, is pending."""
        for unfinished in await self._journal.unfinished():
            await self._publish_in_time(unfinished)
        assign = partial(self._journal.assign, max_rows=self._part_rows, max_bytes=self._part_bytes)
        while self._journal.pending and self._parts_due() >= until:
            number = await self._room.within(assign, needed=_ROW_BYTES)
            if number is None:
                break
            await self._publish_in_time(number)
            if self._unmerged >= _PARTS_A_MERGE:
                await self._compact()

    async def _publish_in_time(self, number: int) -> None:
        """Publishes a part, if need be when there is room."""
        needed = min(self._part_bytes, self._journal.pending_bytes)
        await self._room.within(partial(self._publish_part, number), needed=needed)

    async def _publish_part(self, number: int) -> None:
        samples = await self._journal.samples(number)
        await asyncio.to_thread(self._format.write, number, samples)
        # Before the part is marked: a crash in between publishes it again, card and all.
        tallies = await self._journal.tallies()
        self._meet()
        teachers = list(self._known.values())
        text = card.render(tallies, teachers, self._format).encode()
        put = self._layout.put
        await asyncio.to_thread(put, self._layout.card, lambda file: file.write(text))
        await self._journal.mark_published(number)
        self._unmerged += 1

    async def _compact(self) -> None:
        """Merges small files; where that cannot be, they are as good as they were."""
        self._unmerged = 0
        unfinished = await self._journal.unfinished()
        # A part that may still be written again must stay a file of its own.
        through = min(unfinished, default=_ALL_PARTS) - 1
        try:
            await asyncio.to_thread(self._format.compact, through)
        except SinkError as error:
            _LOG.warning("%s", error)
