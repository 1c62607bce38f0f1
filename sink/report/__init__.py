"""One self-contained HTML file that tells what a run has brought.

Everything is in it: figures as inline SVG, some of the samples as data, style and
script; it loads nothing, and runs nothing but its own script.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from arbitrage.errors import SinkError
from sink.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from arbitrage.types import Estimate

__all__ = ["FILE", "write"]

FILE = "report.html"
"""Name of the report in a run's folder, if no other is given."""


async def write(root: Path, to: Path | None = None, learned: Sequence[Estimate] = ()) -> Path:
    """Writes the report of a run; its samples are read once, and their memory stays flat.

    Args:
        root: the run's output folder.
        to: the file; by default `report.html` in that folder. It is replaced whole.
        learned: what the run's policy believes by now, if anything.

    Returns:
        The file that was written.

    Raises:
        SinkError: the folder is no run's, a part of it cannot be read, or the file cannot
            be written.
    """
    path = to or root / FILE
    abandoned = threading.Event()
    try:
        text = await asyncio.to_thread(_read, root, learned, abandoned)
    finally:
        abandoned.set()
    try:
        await asyncio.to_thread(Layout(path.parent).put, path, lambda file: file.write(text))
    except SinkError as error:
        # not a sample is at stake
        reason = getattr(error.__cause__, "strerror", None) or error.__cause__
        raise SinkError(f"{path}: cannot be written: {reason}; name another file") from error
    return path


def _read(root: Path, learned: Sequence[Estimate], abandoned: threading.Event) -> bytes:
    """The page of a run; nothing, as soon as nobody waits for it."""
    # pyarrow and numpy, which most starts do without
    from sink.log import Log  # noqa: PLC0415
    from sink.report.extracts import pack  # noqa: PLC0415
    from sink.report.figures import Figures  # noqa: PLC0415
    from sink.report.page import render  # noqa: PLC0415
    from sink.report.picks import Picks  # noqa: PLC0415

    log = () if _empty(root) else Log([root])
    figures, picks = Figures(len(log)), Picks()
    for sample in log:
        figures.add(sample)
        picks.add(sample)
        if abandoned.is_set():
            return b""
    page = render(root.resolve().name, figures, pack(picks.chosen()), learned)
    return page.encode("utf-8", "replace")


def _empty(root: Path) -> bool:
    """Whether it is the folder of a run that has published nothing yet."""
    layout = Layout(root)
    return layout.journal.exists() and not layout.formats
