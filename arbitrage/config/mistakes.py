"""What is wrong with a configuration, in a line that a person can act on."""

from __future__ import annotations

import dataclasses
import difflib
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Mapping


class Explainer:
    """Tells of a mistake in one line, with the key and what would be right.

    Args:
        root: the dataclass of the whole configuration.
        kinds: by the name of a field that a `kind` decides on, the dataclasses by kind.
    """

    def __init__(self, root: type, kinds: Mapping[str, Mapping[str, type]]) -> None:
        self._root = root
        self._kinds = kinds

    def explain(self, error: Any) -> str:
        """One line for an error of pydantic."""
        location = error["loc"]
        match error["type"]:
            case "extra_forbidden" | "unexpected_keyword_argument":
                keys = _keys_of(self._table_at(location[:-1])[0])
                return f"{self._dotted(location)}: unknown key{nearest(str(location[-1]), keys)}"
            case "missing" | "missing_argument":
                return f"{self._dotted(location)}: is required"
            case "union_tag_not_found":
                choice = ", ".join(self._table_at(location)[1])
                return f"{self._dotted(location)}.kind: is required; one of {choice}"
            case "union_tag_invalid":
                kind, kinds = error["ctx"]["tag"], list(self._table_at(location)[1])
                return f"{self._dotted(location)}.kind: unknown {kind!r}{nearest(kind, kinds)}"
            case "literal_error":
                options = error["ctx"]["expected"]
                return f"{self._dotted(location)}: unknown {error['input']!r}; use {options}"
            case _:
                message = str(error["msg"])
                return f"{self._dotted(location)}: {message[0].lower()}{message[1:]}"

    def _table_at(self, location: tuple[int | str, ...]) -> tuple[Any, Mapping[str, type]]:
        """What type is at a location, and the types that its `kind` may choose from."""
        table: Any = self._root
        kinds: Mapping[str, type] = {}
        for step in location:
            if step in kinds:
                table, kinds = kinds[str(step)], {}
            elif isinstance(step, str) and dataclasses.is_dataclass(table):
                table, kinds = get_type_hints(table).get(step), self._kinds.get(step, {})
        return table, kinds

    def _dotted(self, location: tuple[int | str, ...]) -> str:
        """`('teachers', 0, 'openai', 'model')` as a person would write it."""
        path = ""
        for index, step in enumerate(location):
            if isinstance(step, int):
                path += f"[{step}]"
            elif step not in self._table_at(location[:index])[1]:
                path += f".{step}" if path else step
        return path or "config"


def _keys_of(table: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(table)] if dataclasses.is_dataclass(table) else []


def nearest(word: str, valid: list[str]) -> str:
    """A hint at the valid word that may have been meant, or at all of them."""
    close = difflib.get_close_matches(word, valid, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; valid are {', '.join(sorted(valid))}" if valid else ""


def by_kind(union: Any) -> Mapping[str, type]:
    """The dataclasses of a union by their `kind`."""
    return {get_args(get_type_hints(kind)["kind"])[0]: kind for kind in get_args(union)}
