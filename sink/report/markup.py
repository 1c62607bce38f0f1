"""HTML whose escaping nobody can forget: what is not `Html` is text, and is escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_VOID = frozenset({"br", "input", "meta"})


class Html(str):
    """Markup: put into a page as it is."""

    __slots__ = ()


def tag(name: str, /, *children: str | Iterable[str] | None, **attributes: object) -> Html:
    """An element with its children, of which plain strings are escaped.

    Args:
        name: of the element, HTML or SVG.
        children: markup, texts or iterables of these; None is nothing.
        attributes: by name, with `_` for `-` and one at the end for Python's own words;
            None and False leave one out, True has it without a value.

    >>> tag("p", "1 < 2 ", tag("b", "is so"), class_="fact", hidden=True, id=None)
    '<p class="fact" hidden>1 &lt; 2 <b>is so</b></p>'
    """
    opening = name + "".join(_attribute(key, value) for key, value in attributes.items())
    return Html(f"<{opening}>" if name in _VOID else f"<{opening}>{join(*children)}</{name}>")


def join(*children: str | Iterable[str] | None) -> Html:
    """Children one after another, without an element around them."""
    return Html("".join(_text(child) for child in children))


def _text(child: str | Iterable[str] | None) -> str:
    match child:
        case None:
            return ""
        case Html():
            return child
        case str():
            return escape(child)
        case _:
            return "".join(map(_text, child))


def _attribute(key: str, value: object) -> str:
    name = key.removesuffix("_").replace("_", "-")
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    return f' {name}="{escape(f"{value:.6g}" if isinstance(value, float) else str(value))}"'
