"""One Delta Lake table of samples, on this machine or in an object store."""

from __future__ import annotations

import json
import os
import re
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction, RemoveAction
from pyarrow import fs

from arbitrage.disk import sync_folder
from arbitrage.errors import SinkError
from sink import bounds, parquet, schema
from sink.compaction import Piece, plan
from sink.layout import Layout, folder, kept, part_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from arbitrage.types import Sample

_PARTITION = "language"
_COMMIT_RETRIES = 100
_COLUMNS = schema.SCHEMA.remove(schema.SCHEMA.get_field_index(_PARTITION))
_COLOUR = re.compile("\x1b\\[[0-9;]*m")
_FAILURES = (DeltaError, OSError, pa.ArrowException, ValueError)


class Table:
    """A table, which the first part that has rows for it makes.

    Args:
        place: URL or path of the folder that it lies in.
        name: of the table's own folder.
    """

    def __init__(self, place: str, name: str) -> None:
        self.uri = f"{place.rstrip('/')}/{name}"
        # Where the files are this machine's own, they are made durable as all others are.
        self._own = None if "://" in place else Layout(Path(place))
        self._opened: DeltaTable | None = None

    def check(self) -> None:
        """Holds the table, if there is one, against the columns of a sample.

        Raises:
            SinkError: it has others, or cannot be read.
        """
        try:
            if table := self._open():
                self._compare(table)
            else:
                self._remote()  # refuses an address that it does not know how to reach
        except _FAILURES as error:
            raise SinkError(
                f"{self.uri}: cannot be read: {_reason(error)}; check the address and the"
                " credentials in the environment, or choose another sink.table"
            ) from error

    def append(self, run: str, number: int, samples: Sequence[Sample]) -> None:
        """Adds a part of a run in one commit, unless it is in the table already.

        Raises:
            SinkError: it was not added.
        """
        try:
            table = self._open() or self._make()
            self._compare(table)
            if (table.transaction_version(run) or 0) >= number:
                return
            languages: defaultdict[str, list[Sample]] = defaultdict(list)
            for sample in samples:
                languages[folder(sample.prompt.language)].append(sample)
            adds = []
            for language, rows in languages.items():
                write = partial(parquet.encode, schema.table(rows).select(_COLUMNS.names))
                path = _path(run, language, number)
                adds.append(self._put(path, language, write, bounds.of(rows), new=True))
            transaction = Transaction(run, number, _now())
            self._commit(table, adds, transactions=[transaction], retries=_COMMIT_RETRIES)
        except _FAILURES as error:
            raise kept(self.uri, _reason(error)) from error

    def compact(self, run: str, through: int, target: int) -> None:
        """Merges a run's small files of the parts up to a number, and vacuums.

        Each merged file comes in the place of its sources in one commit. The files of other
        runs are left to these: two merges of one file at once would both succeed.

        Raises:
            SinkError: it was not possible; nothing has changed for readers.
        """
        try:
            if not (table := self._open()):
                return
            adds = _adds(table)
            own: defaultdict[str, list[Piece]] = defaultdict(list)
            for path, add in adds.items():
                match = re.fullmatch(rf"part-{run}-(\d+)(?:-(\d+))?.parquet", path.name)
                if match and int(match[2] or match[1]) <= through:
                    first, last = int(match[1]), int(match[2] or match[1])
                    language = add[f"partition.{_PARTITION}"]
                    own[language].append(Piece(first, last, add["size_bytes"], path))
            for language, pieces in own.items():
                for group in plan(sorted(pieces, key=lambda piece: piece.first), target):
                    merged = _path(run, language, group[0].first, group[-1].last)
                    self._merge(table, merged, {piece.path: adds[piece.path] for piece in group})
            table.vacuum(dry_run=False, full=True)
        except _FAILURES as error:
            raise SinkError(
                f"{self.uri}: small files stay unmerged: {_reason(error)}; they are read as they"
                " are, and the next run merges them"
            ) from error

    def row_groups(self) -> Iterator[parquet.RowGroup]:
        """The row groups of the files that are in the table now.

        Raises:
            SinkError: one cannot be read.
        """
        self.check()
        for path, add in _adds(self._opened).items() if self._opened else ():
            yield from self._row_groups(path, language=add[f"partition.{_PARTITION}"])

    def _row_groups(self, path: Path, *, language: str | None = None) -> Iterator[parquet.RowGroup]:
        where = path if self._own is None else Path(self.uri, path)
        return parquet.row_groups(str(where), files=self._remote(), language=language)

    def _open(self) -> DeltaTable | None:
        if self._opened is None:
            try:
                self._opened = DeltaTable(self.uri)
            except TableNotFoundError:
                return None
        else:
            self._opened.update_incremental()
        return self._opened

    def _make(self) -> DeltaTable:
        try:
            DeltaTable.create(self.uri, schema.SCHEMA, mode="ignore", partition_by=[_PARTITION])
        except DeltaError:
            if not DeltaTable.is_deltatable(self.uri):  # else another run was faster
                raise
        self._opened = DeltaTable(self.uri)
        self._sync(self._opened, -1)
        return self._opened

    def _compare(self, table: DeltaTable) -> None:
        found = {field.name: field.type for field in pa.schema(table.schema())}
        wanted = {field.name: field.type for field in schema.SCHEMA}
        differing = [
            f"its column {name!r} is {found.get(name, 'missing')}, not {kind}"
            for name, kind in wanted.items()
            if found.get(name) != kind
        ]
        differing += [
            f"it has a column {name!r}, which samples have not" for name in found.keys() - wanted
        ]
        partitions = table.metadata().partition_columns
        if partitions != [_PARTITION]:
            differing.append(f"it is partitioned by {partitions}, not by {_PARTITION}")
        if differing:
            raise SinkError(f"{self.uri}: {differing[0]}; choose another sink.table")

    def _merge(
        self, table: DeltaTable, target: str, sources: Mapping[Path, Mapping[str, Any]]
    ) -> None:
        """Puts one file in the place of others, if all of them are in the table still."""
        groups = [group for path in sources for group in self._row_groups(path)]
        write = partial(parquet.merge, groups, columns=_COLUMNS)
        (language,) = {add[f"partition.{_PARTITION}"] for add in sources.values()}
        whole = self._put(target, language, write, bounds.joint([*sources.values()]), new=False)
        actions = [whole, *(RemoveAction(str(path), False, _now()) for path in sources)]
        for _ in range(_COMMIT_RETRIES):
            table.update_incremental()
            if not sources.keys() <= _adds(table).keys():
                return  # somebody has merged them by other means
            try:
                # Another commit in between might be such a merge, so it must be looked at.
                self._commit(table, actions, transactions=[], retries=0)
            except CommitFailedError:
                continue
            return

    def _put(
        self,
        path: str,
        language: str,
        write: Callable[[IO[bytes]], None],
        statistics: Mapping[str, Any],
        *,
        new: bool,
    ) -> AddAction:
        """Writes a file, in place of the same that an earlier try has left."""
        if self._own is None:
            with self._remote().open_output_stream(path) as file:
                write(file)
            size = self._remote().get_file_info(path).size
        else:
            self._own.put(Path(self.uri, path), write)
            size = Path(self.uri, path).stat().st_size
        return AddAction(
            path=path,
            size=size,
            partition_values={_PARTITION: language},
            modification_time=_now(),
            data_change=new,
            stats=json.dumps(statistics),
        )

    def _commit(
        self,
        table: DeltaTable,
        actions: list[Any],
        *,
        transactions: list[Transaction],
        retries: int,
    ) -> None:
        version = table.version()
        properties = CommitProperties(app_transactions=transactions, max_commit_retries=retries)
        table.create_write_transaction(
            actions, "append", table.schema(), [_PARTITION], commit_properties=properties
        )
        self._sync(table, version)

    def _remote(self) -> Any:
        return None if self._own else fs.PyFileSystem(DeltaStorageHandler(self.uri))

    def _sync(self, table: DeltaTable, version: int) -> None:
        """Makes durable what was committed after a version, which Delta leaves to the system."""
        table.update_incremental()
        if self._own is None:
            return
        log = Path(self.uri, "_delta_log")
        for number in range(version + 1, table.version() + 1):
            with (log / f"{number:020}.json").open("rb") as commit:
                os.fsync(commit.fileno())
        for level in (log, *log.parents[:3]):
            sync_folder(level)


def _adds(table: DeltaTable) -> dict[Path, Mapping[str, Any]]:
    """What the table says of each of its files."""
    adds = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    return {Path(add["path"]): add for add in adds}


def _path(run: str, language: str, number: int, through: int | None = None) -> str:
    name = part_name(number, "parquet", through=through).replace("part-", f"part-{run}-")
    return f"{_PARTITION}={language}/{name}"


def _now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def _reason(error: BaseException) -> str:
    """What an error says, in one line and without the colours that come in from Rust."""
    return " ".join(_COLOUR.sub("", str(error)).split())
