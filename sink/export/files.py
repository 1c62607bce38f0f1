"""How an export gets where it goes: all of it or nothing, and over nothing but an export."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, Any, Self

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from arbitrage.disk import sync_folder
from arbitrage.errors import ConfigError, SinkError
from sink.layout import folder
from sink.schema import readable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

_BUFFERED_ROWS = 256
_FILES = (".jsonl", ".parquet")
_NO_FOLDERS = (".json", ".csv", ".tsv", ".txt", ".gz", ".arrow")


class Target:
    """Where an export goes: a folder, or one file whose name ends in `.jsonl` or `.parquet`.

    A folder has `data/<language>/part-00000.parquet`, its card `README.md`, and
    `export.json` with what was done and which files it wrote. A file has the same two
    beside it, `NAME.md` and `NAME.json`.

    Raises:
        ConfigError: the name ends like a file of another kind.
        SinkError: something is there that no export has written, or that has changed.
    """

    def __init__(self, to: Path) -> None:
        # "." and ".." have no name that one beside it could be made of
        self.to = to if to.name.strip(".") else to.resolve()
        self.one_file = to.suffix in _FILES
        self.suffix = to.suffix.removeprefix(".") if self.one_file else "parquet"
        if to.suffix in _NO_FOLDERS:
            raise ConfigError(
                f"{to}: cannot be written; name a folder, or a file that ends in {_FILES[0]} or "
                f"{_FILES[1]}"
            )
        self.card = f"{to.name}.md" if self.one_file else "README.md"
        self.record = f"{to.name}.json" if self.one_file else "export.json"
        try:
            self._check()
        except OSError as error:
            raise self._failure(error) from error

    def part(self, language: str) -> str:
        """The file of a language, from the folder on."""
        return self.to.name if self.one_file else f"data/{folder(language)}/part-00000.parquet"

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """A folder to write into, whose files are put in their places at the end.

        What a killed export has left of it is removed by the next.

        Raises:
            SinkError: another export writes there, or it cannot be written.
        """
        stage = self.to.with_name(f".{self.to.name}.tmp")
        try:
            stage.mkdir(parents=True, exist_ok=True)
            lock = _lock(stage)
            try:
                _empty(stage)
                yield stage
                self._check()
                self._put(stage)
            except BaseException:
                shutil.rmtree(stage, ignore_errors=True)
                raise
            finally:
                os.close(lock)
        except OSError as error:
            raise self._failure(error) from error

    def _put(self, stage: Path) -> None:
        parent = self.to.parent
        if self.one_file:
            for name in (self.to.name, self.card, self.record):
                (stage / name).replace(parent / name)
            stage.rmdir()
        else:
            old = self.to.with_name(f".{self.to.name}.old")
            shutil.rmtree(old, ignore_errors=True)  # an export was killed between these lines
            if self.to.exists():
                self.to.rename(old)
            stage.rename(self.to)
            shutil.rmtree(old, ignore_errors=True)
        sync_folder(parent)

    def _check(self) -> None:
        """Refuses to overwrite what no export has written."""
        home = self.to.parent if self.one_file else self.to
        if not home.exists():
            return
        if not home.is_dir():
            raise SinkError(f"{home}: is no folder; choose another --to")
        sizes = _recorded(home / self.record)
        for name in self._there(home, known=bool(sizes)):
            written = (
                sizes
                if name == self.record
                else name in sizes and _size(home / name) == sizes[name]
            )
            if not written:
                raise SinkError(
                    f"{home / name}: is not as an export has written it, and would be "
                    "overwritten; move it away or choose another --to"
                )

    def _there(self, home: Path, *, known: bool) -> Iterator[str]:
        """What would be overwritten; of a folder that no export has written, its first names."""
        if self.one_file:
            names = (self.to.name, self.card, self.record)
            yield from (name for name in names if (home / name).exists())
        elif known:
            yield from (str(p.relative_to(home)) for p in home.rglob("*") if not p.is_dir())
        else:
            yield from (path.name for path in home.iterdir())

    def _failure(self, error: OSError) -> SinkError:
        reason = error.strerror or str(error)
        return SinkError(f"{self.to}: cannot be written: {reason}; nothing there was changed")


class Writer:
    """Writes lines into the files of their languages, durable when it is left without error.

    Holds at most 256 lines of each.
    """

    def __init__(self, stage: Path, target: Target, schema: Any) -> None:
        self._stage = stage
        self._target = target
        self._schema = schema
        self._files: dict[str, _File] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with ExitStack() as stack:
            for file in self._files.values():
                stack.callback(file.abandon)
            if kind is None:
                for file in self._files.values():
                    file.finish()

    def add(self, language: str, row: Mapping[str, Any]) -> None:
        """Takes a line."""
        name = self._target.part(language)
        if name not in self._files:
            path = self._stage / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._files[name] = _File(path, self._schema)
        self._files[name].add(row)

    def describe(self, *, card: str, record: Mapping[str, Any]) -> None:
        """Writes the card and the record beside the files, which are closed."""
        texts = {self._target.card: card}
        sizes = {name: (self._stage / name).stat().st_size for name in self._files}
        sizes |= {name: len(text.encode()) for name, text in texts.items()}
        told = {**record, "files": sizes}
        texts[self._target.record] = json.dumps(told, ensure_ascii=False, indent=2, default=str)
        for name, text in texts.items():
            with (self._stage / name).open("wb") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
        for path in [*self._stage.rglob("*"), self._stage]:
            if path.is_dir():
                sync_folder(path)


class _File:
    """One file under way."""

    def __init__(self, path: Path, schema: Any) -> None:
        self._file: IO[bytes] = path.open("wb")
        self._schema = schema
        self._rows: list[Mapping[str, Any]] = []
        self._parquet = (
            pq.ParquetWriter(self._file, schema, compression="zstd")
            if path.suffix == ".parquet"
            else None
        )

    def add(self, row: Mapping[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) >= _BUFFERED_ROWS:
            self._flush()

    def finish(self) -> None:
        self._flush()
        if self._parquet:
            self._parquet.close()
        self._file.flush()
        os.fsync(self._file.fileno())

    def abandon(self) -> None:
        self._file.close()

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if not rows:
            return
        try:
            self._write(rows)
        except (UnicodeEncodeError, orjson.JSONEncodeError):
            self._write([readable(row) for row in rows])

    def _write(self, rows: list[Mapping[str, Any]]) -> None:
        if self._parquet:
            self._parquet.write_batch(pa.RecordBatch.from_pylist(rows, schema=self._schema))
        else:
            self._file.write(b"".join([orjson.dumps(row) + b"\n" for row in rows]))


def _recorded(path: Path) -> Mapping[str, int]:
    """The files that an export has written, with their sizes; empty if none has."""
    try:
        files = json.loads(path.read_bytes())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return files if isinstance(files, dict) else {}


def _size(path: Path) -> int:
    return path.stat().st_size


def _lock(stage: Path) -> int:
    """Keeps other exports from the same target.

    Raises:
        SinkError: one is under way.
    """
    lock = os.open(stage, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # another export may have put the folder in its place since it was opened
        free = stage.exists() and stage.stat().st_ino == os.fstat(lock).st_ino
    except BlockingIOError:
        free = False
    if not free:
        os.close(lock)
        raise SinkError(f"{stage}: another export writes there; wait for it")
    return lock


def _empty(stage: Path) -> None:
    for path in stage.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
