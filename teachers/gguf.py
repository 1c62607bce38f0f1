"""The few facts of a GGUF file that decide how to serve it.

Reads the header alone and skips arrays, so that a vocabulary of 262,144
tokens costs a few hundredths of a second; the `gguf` package, which decodes
every value, takes eight seconds. Format: version 2 and 3 of
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arbitrage.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SCALARS = dict(enumerate(("B", "b", "H", "h", "I", "i", "f", "?")))
_SCALARS |= {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a GGUF file says of itself.

    Attributes:
        context_length: tokens the model was trained on.
        chat_template: its Jinja template; None for a base model.
    """

    architecture: str
    context_length: int | None
    chat_template: str | None


def read_metadata(path: Path) -> Metadata:
    """Reads the header of a GGUF file.

    Raises:
        ConfigError: the file is not GGUF, or its header is cut short.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            values = dict(_key_values(data))
    except struct.error as error:
        raise ConfigError(f"{path}: is not a whole GGUF file: its header is cut short") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: is not a readable GGUF file: {error}") from error
    architecture = str(values.get("general.architecture", ""))
    context_length = values.get(f"{architecture}.context_length")
    template = values.get("tokenizer.chat_template")
    return Metadata(
        architecture=architecture,
        context_length=int(context_length) if isinstance(context_length, int) else None,
        chat_template=str(template) if template else None,
    )


def _key_values(data: mmap.mmap) -> Iterator[tuple[str, object]]:
    if data[:4] != b"GGUF":
        raise ValueError("it does not begin with the magic GGUF")
    version, _tensors, count = struct.unpack_from("<IQQ", data, 4)
    if version not in _VERSIONS:
        raise ValueError(f"version {version} is not one of {_VERSIONS}")
    at = 24
    for _ in range(count):
        key, at = _string(data, at)
        (kind,) = struct.unpack_from("<I", data, at)
        value, at = _value(data, at + 4, kind)
        yield key, value


def _value(data: mmap.mmap, at: int, kind: int) -> tuple[object, int]:
    if kind == _STRING:
        return _string(data, at)
    if kind == _ARRAY:
        return None, _after_array(data, at)
    if kind not in _SCALARS:
        raise ValueError(f"unknown value type {kind}")
    layout = f"<{_SCALARS[kind]}"
    (value,) = struct.unpack_from(layout, data, at)
    return value, at + struct.calcsize(layout)


def _after_array(data: mmap.mmap, at: int) -> int:
    kind, count = struct.unpack_from("<IQ", data, at)
    at += 12
    if kind in _SCALARS:
        return int(at + count * struct.calcsize(f"<{_SCALARS[kind]}"))
    length_at = struct.Struct("<Q").unpack_from
    for _ in range(count):
        if kind == _STRING:
            at += 8 + length_at(data, at)[0]
        elif kind == _ARRAY:
            at = _after_array(data, at)
        else:
            raise ValueError(f"unknown array type {kind}")
    return at


def _string(data: mmap.mmap, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", data, at)
    end = at + 8 + length
    if end > len(data):
        raise struct.error
    return data[at + 8 : end].decode("utf-8"), end
