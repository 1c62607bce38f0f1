"""Files that are there for good, and whose they are."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from arbitrage.errors import SinkError

if TYPE_CHECKING:
    from pathlib import Path


def take_lock(path: Path, *, advice: str = "wait for it or choose another output folder") -> int:
    """Keeps every other process from a journal, and so from the folder of its run.

    Returns:
        A descriptor; closing it, or the end of the process, lets the journal go.

    Raises:
        SinkError: another live process has it; the message ends in the advice.
        OSError: the folder cannot be written.
    """
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.write(lock, f"process {os.getpid()} on {os.uname().nodename}".encode())
    except BlockingIOError:
        owner = os.read(lock, 256).decode(errors="replace") or "another process"
        os.close(lock)
        raise SinkError(f"{path}: is in use by {owner}; {advice}") from None
    except OSError:  # the disk is full
        os.close(lock)  # else nobody could try again before this process has ended
        raise
    return lock


def sync_folder(folder: Path) -> None:
    """Makes the names of a folder's files as durable as their contents.

    Raises:
        OSError: the folder cannot be opened or synced.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
