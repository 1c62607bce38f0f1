"""A policy's state as a file: JSON that a person can read, with its own checksum, replaced whole.

    {
    "format": "data-arbitrage policy",
    "format_version": 1,
    "sha256": "...",
    "kind": "thompson",
    "version": 1234,
    "state": {...}
    }

The SHA-256 is that of every byte behind its line: `tail -n +5 FILE | sha256sum` tells it, too.
A file whose name ends in `.gz` holds the same, compressed by gzip. How values are written, see
`router.snapshots.state`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from arbitrage.disk import sync_folder
from arbitrage.errors import SnapshotError
from router.snapshots.state import restored, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from arbitrage import ports

FORMAT_VERSION = 1

_HEAD = re.compile(
    rb'\{\n"format": "data-arbitrage policy",\n"format_version": ([0-9]{1,9}),\n'
    rb'(?:"sha256": "([0-9a-f]{64})",\n)?'
)
_GZIP = b"\x1f\x8b"
_OF_ITS_KIND = ("own", "rng")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a policy has learned, and how it would go on.

    Attributes:
        kind: the policy's name in a configuration.
        version: how many updates it had learned from.
        state: as `Policy.state` gives it.
        learned: number of the last of its run's samples that is in it; 0 for none.
        calibration: what the rewards' calibration had learned from the same samples, as
            `Calibration.state` gives it; empty where nobody has told.
        jobs: `learned` of each job that had samples of its own.
    """

    kind: str
    version: int
    state: Mapping[str, Any]
    learned: int = 0
    calibration: Mapping[str, Any] = field(default_factory=dict)
    jobs: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, policy: ports.Policy) -> Self:
        """Takes one of a policy as it is now."""
        return cls(policy.kind, policy.version, policy.state())

    def restore(self, policy: ports.Policy) -> None:
        """Lets a policy go on from here; one of another kind takes over what was learned.

        Raises:
            SnapshotError: the policy cannot make anything of it.
        """
        state = self.state
        if policy.kind != self.kind:
            own = policy.state()
            state = {**state, **{key: own[key] for key in _OF_ITS_KIND}}
        try:
            policy.restore(state)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise SnapshotError(f"holds no state of a policy: {error!r}") from error

    def encode(self) -> bytes:
        """The contents of a file. In a thread of its own it lets the others run.

        Raises:
            SnapshotError: the state holds something that is neither plain nor an array.
        """
        body = {
            "kind": self.kind,
            "version": self.version,
            "learned": self.learned,
            **({"jobs": self.jobs} if self.jobs else {}),
            "state": self.state,
            "calibration": self.calibration,
        }
        behind = f"{text_of(body)[2:]}\n".encode()
        head = (
            f'{{\n"format": "data-arbitrage policy",\n"format_version": {FORMAT_VERSION},\n'
            f'"sha256": "{hashlib.sha256(behind).hexdigest()}",\n'
        )
        return head.encode() + behind

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Reads what `encode` has written.

        Raises:
            SnapshotError: it is something else, has changed, or is of a newer version.
        """
        head = _HEAD.match(data)
        if not head:
            raise SnapshotError("is not the snapshot of a policy, or its first lines were changed")
        if int(head[1]) > FORMAT_VERSION:
            raise SnapshotError(
                f"is of format {int(head[1])}, newer than {FORMAT_VERSION}, the last one known "
                "here; upgrade data-arbitrage"
            )
        if hashlib.sha256(data[head.end() :]).hexdigest().encode() != head[2]:
            raise SnapshotError("is damaged or was edited: its SHA-256 is not the one it names")
        try:
            body = json.loads(data, object_hook=restored)
            return cls(
                body["kind"],
                body["version"],
                body["state"],
                body.get("learned", 0),  # files of before there was such a thing do without
                body.get("calibration", {}),
                body.get("jobs", {}),
            )
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise SnapshotError(f"is not the snapshot of a policy: {error!r}") from error


def save(path: Path, snapshot: Snapshot) -> None:
    """Writes a file durably, all of it or nothing. Blocks.

    The temporary file's name depends on `path` alone: what a crash leaves of it is
    overwritten by the next try.

    Raises:
        SnapshotError: it could not be written; what was there before is as it was.
    """
    data = snapshot.encode()
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise SnapshotError(f"{path}: cannot be written: {error.strerror or error}") from error


def load(path: Path) -> Snapshot:
    """Reads a file, compressed or not. Blocks.

    Raises:
        SnapshotError: it cannot be read, is something else, has changed, or is of a
            newer version.
    """
    try:
        data = path.read_bytes()
        return Snapshot.decode(gzip.decompress(data) if data.startswith(_GZIP) else data)
    except (SnapshotError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        what = str(error) if isinstance(error, SnapshotError) else f"is damaged: {error}"
        raise SnapshotError(f"{path}: {what}") from error
    except OSError as error:
        raise SnapshotError(f"{path}: cannot be read: {error.strerror or error}") from error


def restore(path: Path, policy: ports.Policy) -> Snapshot:
    """Lets a policy go on from a file, and returns what it holds. Blocks.

    Raises:
        SnapshotError: the file cannot be read, or the policy can make nothing of it.
    """
    snapshot = load(path)
    try:
        snapshot.restore(policy)
    except SnapshotError as error:
        raise SnapshotError(f"{path}: {error}") from error
    return snapshot
