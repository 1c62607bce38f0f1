"""Coverage-guided: whatever bytes come, decoding gives a value or an error of ours.

Atheris mutates bytes for the code that reads them: messages of every method into the core's
values, job specifications with their paths, page tokens, JSON bodies of the chat port, and the
errors of all these into statuses. Anything else that is raised ends it with the input that did it.

    pip install -e '.[bench]'                       # has Atheris, for Linux
    python benchmarks/fuzz_decoding.py              # 500,000 executions, a minute
    python benchmarks/fuzz_decoding.py --runs=50000 --seed=7
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import atheris
import fuzz_requests as hostile
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

with atheris.instrument_imports(include=["arbitrage", "service"]):
    from arbitrage import wire
    from arbitrage.errors import ArbitrageError
    from arbitrage.status import error_of, status_of, trailers_of
    from arbitrage.v1 import arbitrage_pb2 as pb
    from service import chat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_TEACHERS = ("ada", "bob")
_SEEDS = 40  # of each kind, for it to begin with
_LONGEST = 4096


def _asked(request: Any) -> None:
    wire.routing_from(request.options, teachers=_TEACHERS, policy="thompson")
    wire.prompt_from(request).sample_id("service")


def _job(request: pb.CreateJobRequest, root: Path) -> None:
    wire.job_id_from(request)
    spec = wire.spec_from(request.spec, 256, teachers=_TEACHERS, policy="thompson")
    wire.spec_of(request.spec.SerializeToString(deterministic=True))
    for _ in spec.rows(spec.located(root)):
        pass


def _readers(root: Path) -> Sequence[Callable[[bytes], object]]:
    """What reads a message of each kind, and, last, what reads a body of the chat port."""
    reads: Mapping[str, Callable[[Any], object]] = {
        "CompleteRequest": _asked,
        "StreamCompleteRequest": _asked,
        "ArbitrateRequest": _asked,
        "RecordFeedbackRequest": wire.feedback_from,
        "ListJobsRequest": wire.page_from,
        "CreateJobRequest": lambda request: _job(request, root),
    }

    def decoding(name: str, read: Callable[[Any], object]) -> Callable[[bytes], object]:
        kind = GetMessageClass(pb.DESCRIPTOR.message_types_by_name[name])
        return lambda data: read(kind.FromString(data))

    return [*(decoding(name, read) for name, read in reads.items()), _chat]


def _chat(data: bytes) -> None:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return
    try:
        chat.Asked.of(body, {}).prompt.sample_id("service")
    except ArbitrageError as error:
        refusal = chat.Refusal.of(error)
        json.dumps(refusal.body, ensure_ascii=False).encode()
        str(refusal.headers).encode("latin-1")


def _seed(folder: Path, number: int) -> None:
    """Writes inputs that are nearly right, from which it goes on."""
    kinds = pb.DESCRIPTOR.message_types_by_name
    names = (
        *("CompleteRequest", "StreamCompleteRequest", "ArbitrateRequest", "RecordFeedbackRequest"),
        *("ListJobsRequest", "CreateJobRequest"),
    )
    drawn = [hostile.drawn(hostile.messages(kinds[name]), _SEEDS, number) for name in names]
    inputs = [[message.SerializeToString() for message in some] for some in drawn]
    inputs.append(hostile.drawn(hostile.bodies(), 4 * _SEEDS, number))
    for reader, some in enumerate(inputs):
        for index, data in enumerate(some):
            if len(data) < _LONGEST:
                (folder / f"{reader}-{index}").write_bytes(bytes((reader,)) + data)


def main() -> None:
    """Ends with a status other than 0 at the first input that is not refused as it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=500_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        root, corpus = Path(folder) / "jobs", Path(folder) / "corpus"
        root.mkdir()
        corpus.mkdir()
        (root / "ok.jsonl").write_text('{"prompt": "Was ist das?"}\n')
        _seed(corpus, options.seed)
        readers, ran, refused = _readers(root), 0, 0

        def read(data: bytes) -> None:
            nonlocal ran, refused
            ran += 1
            try:
                readers[data[0] % len(readers) if data else 0](data[1:])
            except DecodeError:
                refused += 1
            except ArbitrageError as error:
                refused += 1
                status = status_of(error)
                trailers_of(status)
                error_of(status)
            if ran == options.runs:
                print(f"ok   decoding | {ran} executions, {refused} refused, no other error")

        flags = (
            f"-runs={options.runs}", f"-seed={options.seed or 1}", f"-max_len={_LONGEST}",
            "-timeout=5", "-rss_limit_mb=4096", "-verbosity=0", f"-artifact_prefix={folder}/",
        )  # fmt: skip
        atheris.Setup([sys.argv[0], *flags, str(corpus)], read)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
