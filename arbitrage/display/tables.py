"""The look of a table."""

from __future__ import annotations

from typing import Literal

from rich.table import Table

_NAMES = frozenset({"language", "arm", "favourite", "runner-up", "wins"})  # not figures


def titled(title: str, *columns: str) -> Table:
    """An empty table: figures to the right, names to the left, and only `wins` broken."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in columns:
        justify: Literal["left", "right"] = "left" if name in _NAMES else "right"
        table.add_column(name, justify=justify, no_wrap=name != "wins")
    return table
