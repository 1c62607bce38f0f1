"""What tells whether files are still those that a run has read before."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, TypeAlias

from arbitrage.prompts.sources import STDIN, located, reading

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from arbitrage.prompts.sources import Source

_WHOLE_BYTES = 2**22  # files up to so many are read whole
_END_BYTES = 2**16  # of larger ones, so many at their beginning and at their end

Fingerprint: TypeAlias = "Mapping[str, Mapping[str, int | str]]"
"""By the name of a file: `bytes`, `mtime_ns`, and the `sha256` of all of it or of its ends."""


def fingerprint(sources: Sequence[str | Path]) -> Fingerprint:
    """What identifies the files of these sources, in plain values that JSON can keep.

    Of a file above 4 MiB the first and the last 64 KiB are hashed: a change between them
    that leaves its size and its time as they were goes unseen. Standard input is left out:
    what comes there is not known before.

    Raises:
        ConfigError: a source is missing, or of no known kind.
    """
    files = located([source for source in sources if str(source) != STDIN])
    return {file.name: _of(file) for file in files}


def differences(before: Fingerprint, now: Fingerprint) -> list[str]:
    """What has changed, a line for a file; none where nothing has.

    A file that was copied or touched, but holds the same, has not changed.

    >>> old = {"a.jsonl": {"bytes": 9, "mtime_ns": 1, "sha256": "d1"}}
    >>> differences(old, {"a.jsonl": {"bytes": 12, "mtime_ns": 2, "sha256": "6f"}})
    ['a.jsonl: has changed: 12 bytes, before 9']
    """
    lines = [f"{name}: is not read any more" for name in before if name not in now]
    for name, new in now.items():
        old = before.get(name)
        if old is None:
            lines.append(f"{name}: is new")
        elif old["bytes"] != new["bytes"]:
            lines.append(f"{name}: has changed: {new['bytes']:,} bytes, before {old['bytes']:,}")
        elif old["sha256"] != new["sha256"]:
            lines.append(f"{name}: has changed: its contents are not what they were")
        elif old["mtime_ns"] != new["mtime_ns"] and int(new["bytes"]) > _WHOLE_BYTES:
            lines.append(f"{name}: may have changed: it was written since, to the same size")
    return lines


def _of(file: Source) -> Mapping[str, int | str]:
    if file.path is None:  # standard input, which `fingerprint` leaves out
        return {}
    with reading(file), file.path.open("rb") as stream:
        status = file.path.stat()
        if status.st_size <= _WHOLE_BYTES:
            digest = hashlib.sha256(stream.read())
        else:
            digest = hashlib.sha256(stream.read(_END_BYTES))
            stream.seek(status.st_size - _END_BYTES)
            digest.update(stream.read(_END_BYTES))
    return {
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "sha256": digest.hexdigest(),
    }
