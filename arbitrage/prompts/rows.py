"""What every kind of file is taken apart into, before anyone asks whether it is a prompt."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypeAlias

LARGEST = 16 * 2**20
"""Bytes of a row at most: 16 MiB; of what is larger only the beginning is looked at."""
TOO_LARGE = f"is longer than {LARGEST // 2**20} MiB"


@dataclass(frozen=True, slots=True)
class Broken:
    """Why there is nothing to be made of a row."""

    reason: str


@dataclass(frozen=True, slots=True, repr=False)
class Number:
    """A number as it was written, of any size and precision: it is never reckoned with."""

    text: str

    def __repr__(self) -> str:
        return self.text


Row: TypeAlias = tuple[int, object, object]
"""Its number in its file, from 1; what stood there, for an excerpt; its fields, or a `Broken`."""

DECODER = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=Number)
"""Of the standard library: it takes lone surrogates, which prompts cut by other programs hold."""


def parsed(text: str) -> object:
    """A JSON text as plain values, or a `Broken`."""
    try:
        value: object = DECODER.decode(text)
    except json.JSONDecodeError as error:
        return Broken(
            f"is not JSON: {error.msg[0].lower()}{error.msg[1:]} at column {error.pos + 1}"
        )
    except RecursionError:
        return Broken("is not JSON that can be read: it is nested too deeply")
    return value
