"""Where prompts come from: which files a folder holds, what kind each is, and its bytes."""

from __future__ import annotations

import gzip
import io
import json
import sys
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from arbitrage.config.mistakes import nearest
from arbitrage.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

STDIN = "-"
"""The source that is JSON Lines on standard input."""

_KINDS = ("jsonl", "ndjson", "json", "csv", "tsv", "parquet")
_SAME = {"ndjson": "jsonl"}
_PACKINGS = ("gz", "zst")
_NAMES = ".jsonl, .ndjson, .json, .csv, .tsv (also with .gz or .zst) or .parquet"
_BUFFER_BYTES = 2**17
_FEW_COLUMNS = 12  # that a message lists

_MAGIC: Mapping[bytes, str] = {
    b"\x1f\x8b": "gz",
    b"\x28\xb5\x2f\xfd": "zst",
    b"PAR1": "parquet",
}
_FOREIGN: Mapping[bytes, str] = {
    b"\xff\xfe": "UTF-16; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
    b"PK\x03\x04": "a ZIP archive; unpack it",
    b"\xfd7zXZ\x00": "compressed by xz; unpack it",
    b"BZh91AY": "compressed by bzip2; unpack it",
}
_LONGEST_MAGIC = 8


@dataclass(frozen=True, slots=True)
class Source:
    """One file.

    Attributes:
        name: as people know it: its path, or `-`.
        path: None for standard input.
        kind: `jsonl`, `json`, `csv`, `tsv`, `parquet` or `arrow`.
        packing: `gz`, `zst`, or nothing.
        stdin: the bytes of standard input.
    """

    name: str
    path: Path | None
    kind: str
    packing: str = ""
    stdin: BinaryIO | None = None

    def wrong(self, what: str) -> ConfigError:
        """The error that says what is wrong with it."""
        return ConfigError(f"{self.name}: {what}")

    def require_content(self, names: Sequence[str]) -> None:
        """Refuses columns of which none holds prompts.

        Raises:
            ConfigError: none does.
        """
        if not {"prompt", "messages"} & set(names):
            found = ", ".join(names[:_FEW_COLUMNS]) or "none"
            raise self.wrong(f"has no column 'prompt' or 'messages'; it has {found}; rename one")


def located(sources: Sequence[str | Path], *, stdin: BinaryIO | None = None) -> list[Source]:
    """The files that the sources name; those of a folder in alphabetical order.

    Raises:
        ConfigError: a source is missing, of no known kind, or an empty folder.
    """
    files: list[Source] = []
    for source in sources:
        if str(source) == STDIN:
            files.append(Source(STDIN, None, "jsonl", stdin=stdin or sys.stdin.buffer))
            continue
        path = Path(source)
        try:
            found = _in_folder(path) if path.is_dir() else [_of_name(path)]
        except OSError as error:
            raise ConfigError(f"{error.filename}: cannot be read: {error.strerror}") from error
        if not found:
            raise ConfigError(f"{path}: holds no file of a known kind: {_NAMES}")
        files += found
    return files


def check_kind(source: Source) -> None:
    """Looks at a file's first bytes.

    Raises:
        ConfigError: they cannot be read, or are of another kind than its name says.
    """
    if source.path is None or source.kind == "arrow":
        return
    with reading(source):
        with source.path.open("rb") as file:
            head = file.read(_LONGEST_MAGIC)
        _check_head(source, head, source.packing or source.kind)
        if source.packing:
            with opened(source) as stream:
                _check_head(source, stream.read(_LONGEST_MAGIC), source.kind)


@contextmanager
def opened(source: Source) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked.

    Raises:
        ConfigError: it cannot be opened.
    """
    if source.path is None:
        yield cast("BinaryIO", source.stdin)
        return
    with reading(source):
        stream = _unpacked(source.path, source.packing)
    with stream:
        yield stream


@contextmanager
def reading(source: Source, where: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Turns what goes wrong with a file's bytes into an error that names it.

    Args:
        source: the file.
        where: how far it was read, for the message.

    Raises:
        ConfigError: it could not be read or unpacked.
    """
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise source.wrong(_damage(source, error, where())) from error
    except OSError as error:
        # pyarrow tells of damage with an error that has no number
        reason = error.strerror and f"cannot be read{where()}: {error.strerror}"
        raise source.wrong(reason or _damage(source, error, where())) from error


def _damage(source: Source, error: Exception, where: str) -> str:
    reason = " ".join(str(error).split()) or "it breaks off"
    verb = "unpacked" if source.packing else "read"
    return f"cannot be {verb}{where}: {reason}; fetch or write it anew"


def _unpacked(path: Path, packing: str) -> BinaryIO:
    if packing == "gz":
        return cast("BinaryIO", io.BufferedReader(gzip.open(path), _BUFFER_BYTES))
    if packing == "zst":
        import pyarrow as pa  # noqa: PLC0415 - a heavy import, which most files do without

        stream: Any = pa.input_stream(str(path), compression="zstd")
        return io.BufferedReader(stream, _BUFFER_BYTES)
    return path.open("rb", buffering=_BUFFER_BYTES)


def _check_head(source: Source, head: bytes, expected: str) -> None:
    for magic, reason in _FOREIGN.items():
        if head.startswith(magic):
            raise source.wrong(f"is {reason}")
    found = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
    if found and found != expected:
        # a name with one suffix more, or another
        plain = source.path.name if source.path else source.name
        right = f"{plain}.{found}" if found in _PACKINGS else f"{plain.split('.')[0]}.{found}"
        raise source.wrong(f"is not what its name says; name it {right}")
    if expected in _MAGIC.values() and not found:
        names = {"gz": "gzip", "zst": "Zstandard", "parquet": "Parquet"}
        what = f"is not {names[expected]}" if head else f"is empty, not {names[expected]}"
        raise source.wrong(f"{what}, as its name says")


def _of_name(path: Path) -> Source:
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = nearest(path.name, siblings) if len(siblings) < _FEW else ""
        hint = hint if "did you mean" in hint else ""
        raise ConfigError(f"{path}: no such file or folder{hint}")
    source = _by_suffix(path)
    if source is None:
        raise ConfigError(f"{path}: of what kind it is cannot be told; name it {_NAMES}")
    return source


_FEW = 1000  # names that are compared with one that is missing


def _by_suffix(path: Path) -> Source | None:
    *_, before, last = ("", "", *path.name.lower().split("."))
    packing = last if last in _PACKINGS else ""
    kind = before if packing else last
    if kind not in _KINDS or (packing and kind == "parquet"):
        return None
    return Source(str(path), path, _SAME.get(kind, kind), packing)


def _in_folder(folder: Path) -> list[Source]:
    """All of a folder and the folders in it; hidden names and links to folders are left out."""
    if (folder / "dataset_dict.json").is_file():
        splits = _described(folder / "dataset_dict.json").get("splits") or []
        raise ConfigError(
            f"{folder}: is a dataset with the splits {', '.join(map(str, splits))}; name one, "
            f"such as {folder / str(next(iter(splits), 'train'))}"
        )
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        return _shards(folder)
    files: list[Source] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            files += [] if path.is_symlink() else _in_folder(path)
        elif source := _by_suffix(path):
            files.append(source)
    return files


def _shards(folder: Path) -> list[Source]:
    """The files of a dataset that Hugging Face's `save_to_disk` has written."""
    state = _described(folder / "state.json")
    try:
        paths = [folder / entry["filename"] for entry in state["_data_files"]]
    except (KeyError, TypeError):
        raise ConfigError(
            f"{folder / 'state.json'}: names no files; save the dataset again, with save_to_disk"
        ) from None
    for path in paths:
        if not path.is_file():
            raise ConfigError(f"{path}: no such file, though state.json names it")
    return [Source(str(path), path, "arrow") for path in paths]


def _described(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: is no JSON object")
    return value
