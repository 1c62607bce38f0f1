"""The fields of a row, as the contract names them, made into a prompt.

| field | what |
| --- | --- |
| `prompt` or `messages` | a text, or a conversation: a list of `{"role": ..., "content": ...}` |
| `id` | text or a number; without it the prompt is named by a hash of its content |
| `language` | a BCP-47 tag; without it somebody detects it |
| `domain` | text |
| `metadata` | texts by name |

What cannot be told in a cell of CSV, `messages` and `metadata`, may be JSON in a text
everywhere. A field that is null or an empty text is absent. Any other field that is a text, a
number, a truth value or a time goes to the metadata, where no entry of `metadata` has its name;
lists and objects in other fields are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from arbitrage.errors import InvalidPrompt
from arbitrage.prompts.rows import Broken, Number, parsed
from arbitrage.types import Prompt

KNOWN = frozenset({"prompt", "messages", "id", "language", "domain", "metadata"})
_PLAIN = (int, float, Decimal, date, datetime, time)
_ENTRY = 2  # a name and a value


def prompt_of(fields: object) -> Prompt:
    """The prompt of a row.

    >>> prompt_of({"prompt": "Wo liegt Lima?", "language": "de-AT", "level": 3}).metadata
    {'level': '3'}

    Raises:
        InvalidPrompt: something in it is wrong; the field is named as it is in the row.
    """
    if not isinstance(fields, Mapping):
        raise InvalidPrompt(
            "row", f'must be an object such as {{"prompt": "..."}}, not {_kind(fields)}'
        )
    text, messages = fields.get("prompt"), fields.get("messages")
    if messages is None or messages == "":
        if text is None:
            raise InvalidPrompt("prompt", "is missing; give prompt or messages")
        if not isinstance(text, str):
            raise InvalidPrompt("prompt", f"must be text, not {_kind(text)}")
        content: str | list[Any] = text
    elif text is None or text == "":
        content = _messages(messages)
    else:
        raise InvalidPrompt("prompt", "is there beside messages; give one of them")
    identity = fields.get("id")
    if isinstance(identity, Number | int) and not isinstance(identity, bool):
        identity = str(identity)
    return Prompt.of(
        content,
        prompt_id=_label("id", identity),
        language=_label("language", fields.get("language")),
        domain=_label("domain", fields.get("domain")),
        metadata=_metadata(fields) if len(fields) > 1 else None,
    )


def _messages(messages: object) -> list[Any]:
    if isinstance(messages, str):
        messages = parsed(messages)
        if isinstance(messages, Broken):
            raise InvalidPrompt("messages", messages.reason)
    if not isinstance(messages, list | tuple):
        raise InvalidPrompt("messages", f"must be a list of messages, not {_kind(messages)}")
    # a column of Parquet has every field that any of its messages has
    return [_without_nulls(m) if isinstance(m, Mapping) else m for m in messages]


def _without_nulls(message: Mapping[Any, Any]) -> Mapping[Any, Any]:
    return {name: value for name, value in message.items() if value is not None}


def _label(name: str, value: object) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise InvalidPrompt(name, f"must be text, not {_kind(value)}")
    return value


def _metadata(fields: Mapping[str, object]) -> dict[str, str]:
    metadata: dict[str, str] = {}
    for name in fields.keys() - KNOWN:
        text = _text(fields[name])
        if text:
            metadata[name] = text
    given = fields.get("metadata")
    if given is None or given == "":
        return metadata
    for name, value in _entries(given):
        text = _text(value)
        if text is not None:
            metadata[name] = text
        elif value is not None:
            raise InvalidPrompt(f"metadata.{name}", f"must be text, not {_kind(value)}")
    return metadata


def _entries(metadata: object) -> list[tuple[str, object]]:
    """Names and values, however a file keeps them."""
    if isinstance(metadata, str):
        metadata = parsed(metadata)
        if isinstance(metadata, Broken):
            raise InvalidPrompt("metadata", metadata.reason)
    if isinstance(metadata, list):  # a map of Arrow, or one made of structures
        pairs = [tuple(e.values()) if isinstance(e, Mapping) else e for e in metadata]
        if all(isinstance(p, tuple) and len(p) == _ENTRY and isinstance(p[0], str) for p in pairs):
            return pairs
    if not isinstance(metadata, Mapping):
        raise InvalidPrompt("metadata", f"must be an object of texts, not {_kind(metadata)}")
    return list(metadata.items())


def _text(value: object) -> str | None:
    """A scalar as text, as JSON writes it; None for what is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, Number):
        return value.text
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, _PLAIN) else None


def _kind(value: object) -> str:
    """What a value is, in JSON's words."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, Number | int | float):
        return "a number"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "null"
    return "text" if isinstance(value, str) else type(value).__name__
