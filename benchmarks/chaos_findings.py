"""What `chaos.py` finds: what clients were told, what is on disk, and what a process holds."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from sqlite3 import connect
from typing import TYPE_CHECKING, cast

import duckdb
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterable

TYPED = frozenset({
    "OK", "left", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "FAILED_PRECONDITION",
    "INVALID_ARGUMENT",
    "OpenAI rate_limit_error, rate_limit_exceeded", "OpenAI server_error, unavailable",
    "OpenAI invalid_request_error, no_winner",
})  # fmt: skip
"""How a request may end."""
_MORE_FILES, _MORE_THREADS, _MORE_TASKS = 8, 16, 4  # than before: gRPC's threads come and go
_ESTABLISHED = "01"
# the environment's proxy has no way to loopback
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass
class Told:
    """What clients noted.

    Attributes:
        fates: how often requests ended in each way.
        samples: ids of those samples that somebody was told of.
        unheard: requests of clients that were killed before these heard of them.
        faults: what should not have happened, by what it is.
    """

    fates: Counter[str] = field(default_factory=Counter)
    samples: set[str] = field(default_factory=set)
    unheard: int = 0
    faults: list[str] = field(default_factory=list)

    def read(self, path: Path, *, killed: bool) -> None:
        """Takes the notes of one client."""
        ended: Counter[str] = Counter()
        asked = set()
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else ()
        for note in (json.loads(line) for line in lines if line.endswith(b"\n")):
            if "asked" in note:
                asked.add(note["asked"])
            if "ended" in note:
                ended[note["ended"]] += 1
                self.fates[note["fate"]] += 1
                self.samples |= {note["sample"]} - {""}
                if note["fate"] not in TYPED:
                    self.faults.append(f"{note['ended']}: {note['fate']}")
        self.faults += [f"{one} ended {times} times" for one, times in ended.items() if times > 1]
        unheard = asked - set(ended)
        self.unheard += len(unheard)
        if not killed:
            self.faults += [f"{one}: never ended" for one in unheard]


@dataclass(frozen=True)
class Dataset:
    """A run's folder, after the run.

    Attributes:
        won, lost: how often each sample is in the files, of those with a winner and without.
        journal: how often each is in the journal, with whether somebody won it.
        prompts: texts of the prompts of those that are in the files.
    """

    won: Counter[str]
    lost: Counter[str]
    journal: Counter[tuple[str, bool]]
    prompts: set[str]

    @classmethod
    def of(cls, out: Path) -> Dataset:
        """Reads it; a job that was cancelled, or failed, before it began has none."""
        if not (out / "journal.sqlite").exists():
            return cls(Counter(), Counter(), Counter(), set())
        won, lost = (_rows(out / kind) for kind in ("data", "unanswered"))
        with closing(connect(f"file:{out / 'journal.sqlite'}?mode=ro", uri=True)) as journal:
            rows = journal.execute("SELECT sample_id, teacher IS NOT NULL FROM samples").fetchall()
        return cls(
            Counter(one for one, _ in won),
            Counter(one for one, _ in lost),
            Counter((one, bool(winner)) for one, winner in rows),
            {text for _, text in won + lost},
        )

    @property
    def twice(self) -> int:
        """Samples that are there more than once."""
        counts = (self.won, self.lost, self.journal)
        return sum(times > 1 for count in counts for times in count.values())

    @property
    def apart(self) -> int:
        """Samples that are in the journal and in no file, or the other way round."""
        files = {(one, True) for one in self.won} | {(one, False) for one in self.lost}
        return len(files ^ set(self.journal))


def _rows(folder: Path) -> list[tuple[str, str]]:
    """Id and prompt of each sample in a folder's files."""
    files = [str(file) for file in folder.glob("*/*.parquet")]
    if not files:
        return []
    query = "SELECT sample_id, messages[1].content FROM read_parquet($files)"
    return cast("list[tuple[str, str]]", duckdb.execute(query, {"files": files}).fetchall())


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds.

    Attributes:
        clients: connections to its ports.
        tasks: of its event loop.
    """

    files: int
    clients: int
    threads: int
    tasks: int
    megabytes: float

    @classmethod
    def by(cls, process: int, ports: Iterable[int], metrics: str) -> Held:
        """Looks at a service that runs."""
        folder = Path(f"/proc/{process}")
        status = dict(
            line.split(":", 1) for line in (folder / "status").read_text("utf-8").splitlines()
        )
        return cls(
            files=sum(1 for _ in (folder / "fd").iterdir()),
            clients=_connections(set(ports)),
            threads=int(status["Threads"]),
            tasks=int(scrape(metrics)["arbitrage_tasks"]),
            megabytes=int(status["VmRSS"].split()[0]) / 1024,
        )

    def within(self, other: Held) -> bool:
        """Whether it is about as much as another, whatever the memory."""
        return (
            self.files <= other.files + _MORE_FILES
            and self.clients <= other.clients
            and self.threads <= other.threads + _MORE_THREADS
            and self.tasks <= other.tasks + _MORE_TASKS
        )

    def __str__(self) -> str:
        return (
            f"{self.files} open files, {self.clients} connections of clients, {self.threads} "
            f"threads, {self.tasks} tasks, {self.megabytes:.0f} MB"
        )


def _connections(ports: set[int]) -> int:
    """Established connections to ports of this machine."""
    found = 0
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text("utf-8").splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            found += state == _ESTABLISHED and int(local.rpartition(":")[2], 16) in ports
    return found


def scrape(url: str) -> Counter[str]:
    """The service's metrics, summed over their labels; RPCs by their codes, too."""
    with _OPENER.open(url, timeout=10) as response:
        text = response.read().decode()
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] += sample.value  # type: ignore[assignment] # a sum, if not of whole numbers
            if code := sample.labels.get("code"):
                found[f"{sample.name} {code}"] += sample.value  # type: ignore[assignment]
    return found
