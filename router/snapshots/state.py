"""A policy's state as text: JSON that gives every value back exactly as it was.

What JSON has no word for is a table with a key that begins with a dollar sign; any other key
that does begins with two:

    {"$array": "float64", "shape": [1, 3], "values": [[0.5, null, "inf"]]}    null is NaN
    {"$array": "float32", "shape": [4096, 16], "base64": ["...", "..."]}      little-endian, by rows
    {"$float": "nan"}
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from arbitrage.errors import SnapshotError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

_DTYPES = frozenset(
    {
        "bool",
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64"),
    }
)
_READABLE = {"float16": 256, "float32": 256}  # values; nobody reads features ...
_READABLE_BY_DEFAULT = 250_000  # ... or so many figures: more are written as bytes
_LINE = 32  # values; a longer line chokes an editor, and holds up other threads when written
_WORD = 80  # characters; a list with a longer word has a line for each
_CHUNK = 49_152  # bytes, for the same reasons


def text_of(state: Mapping[str, Any]) -> str:
    """The state as JSON; a tuple becomes a list, a scalar of numpy a plain one.

    >>> print(text_of({"arms": ["ada", "bob"], "sums": np.eye(2), "noise": math.inf}))
    {
    "arms": ["ada", "bob"],
    "sums": {
    "$array": "float64",
    "shape": [2, 2],
    "values": [
    [1.0, 0.0],
    [0.0, 1.0]]
    },
    "noise": {
    "$float": "inf"
    }
    }

    Raises:
        SnapshotError: it holds something that is neither plain nor an array of numbers.
    """
    return "".join(_written(_plain(state)))


def restored(table: dict[str, Any]) -> Any:
    """What a table of the JSON stands for, its parts restored: the hook of `json.loads`.

    Raises:
        ValueError, TypeError, KeyError: nothing that `text_of` writes.
    """
    if "$float" in table:
        return float(table["$float"])
    if "$array" in table:
        return _array(table)
    return {key.removeprefix("$"): part for key, part in table.items()}


def _plain(value: Any) -> Any:
    """The value in JSON's own types."""
    match value:
        case None | bool() | int() | str():
            return value
        case np.ndarray():
            return _table(value)
        case np.generic():
            return _plain(_known(value).item())
        case float():
            return value if math.isfinite(value) else {"$float": str(value)}
        case Mapping():
            return {_escaped(key): _plain(part) for key, part in value.items()}
        case list() | tuple():
            return [_plain(part) for part in value]
    raise SnapshotError(f"a {type(value).__name__} cannot be saved in a snapshot")


def _escaped(key: object) -> str:
    if not isinstance(key, str):
        raise SnapshotError(f"a table with the key {key!r} cannot be saved in a snapshot")
    return f"${key}" if key.startswith("$") else key


def _known(value: Any) -> Any:
    if value.dtype.name not in _DTYPES:
        raise SnapshotError(f"numpy's {value.dtype.name} cannot be saved in a snapshot")
    return value


def _table(array: npt.NDArray[Any]) -> dict[str, Any]:
    name = _known(array).dtype.name
    table: dict[str, Any] = {"$array": name, "shape": list(array.shape)}
    if array.size > _READABLE.get(name, _READABLE_BY_DEFAULT):
        raw = array.astype(array.dtype.newbyteorder("<")).tobytes()
        chunks = (raw[start : start + _CHUNK] for start in range(0, len(raw), _CHUNK))
        return table | {"base64": [base64.b64encode(chunk).decode() for chunk in chunks]}
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        words = array.astype(object)
        for word, found in ((None, np.isnan), ("inf", np.isposinf), ("-inf", np.isneginf)):
            words[found(array)] = word
        return table | {"values": words.tolist()}
    return table | {"values": array.tolist()}


def _array(table: Mapping[str, Any]) -> npt.NDArray[Any]:
    name, shape = table["$array"], tuple(table["shape"])
    if name not in _DTYPES:
        raise ValueError(f"unknown array of {name!r}")
    dtype = np.dtype(name)
    if "base64" in table:
        raw = b"".join(base64.b64decode(chunk, validate=True) for chunk in table["base64"])
        # a copy, since numpy does not write into bytes
        return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype).reshape(shape)
    return np.array(table["values"], dtype).reshape(shape)


def _written(value: Any) -> Iterator[str]:
    """JSON piece by piece, with a line for each part of what has parts within parts."""
    match value:
        case dict() if value:
            start = "{\n"
            for key, part in value.items():
                yield f"{start}{_word(key)}: "
                yield from _written(part)
                start = ",\n"
            yield "\n}"
        case list() if any(isinstance(part, (list, dict)) for part in value):
            start = "[\n"
            for part in value:
                yield start
                yield from _written(part)
                start = ",\n"
            yield "]"
        case list():
            size = 1 if any(isinstance(v, str) and len(v) > _WORD for v in value) else _LINE
            lines = [_line(value[i : i + size]) for i in range(0, len(value), size)]
            yield "[" + ",\n".join(lines) + "]"
        case _:
            yield _word(value)


def _line(values: Sequence[Any]) -> str:
    if any(isinstance(value, str) for value in values):
        return ", ".join(map(_word, values))
    return json.dumps(values, allow_nan=False)[1:-1]


def _word(value: Any) -> str:
    """One value, text as it is in whatever script, unless UTF-8 has no bytes for it."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text
