"""Prompts in: real files of each kind, and whatever may be wrong with them."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import string
import tracemalloc
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbitrage import prompts
from arbitrage.errors import ConfigError, SinkError
from arbitrage.prompts import Rejected, Rejections, rows
from arbitrage.types import Message, Prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

ROWS: list[dict[str, Any]] = [
    {"prompt": "Wo liegt Lima?", "language": "de-AT", "id": "a", "domain": "facts"},
    {"messages": [{"role": "system", "content": "Kurz."}, {"role": "user", "content": "你好"}]},
    {"prompt": "Hi 👋\nthere", "metadata": {"expected": "1", "level": "x"}, "language": "zh-CN"},
]
EXPECTED = [
    Prompt.of("Wo liegt Lima?", prompt_id="a", language="de", domain="facts"),
    Prompt.of([Message("system", "Kurz."), Message("user", "你好")]),
    Prompt.of("Hi 👋\nthere", metadata={"expected": "1", "level": "x"}, language="zh"),
]


def jsonl(rows: Sequence[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def delimited(rows: Sequence[Mapping[str, Any]], delimiter: str = ",", end: str = "\r\n") -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    if end == "\r\n":
        writer = csv.DictWriter(text, names, delimiter=delimiter, lineterminator=end)
    else:  # such a writer quotes no carriage return
        writer = csv.DictWriter(
            text, names, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL
        )
    writer.writeheader()
    for row in rows:
        writer.writerow({k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()})
    return text.getvalue().encode()


def parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    names = dict.fromkeys(name for row in rows for name in row)
    whole = [{name: row.get(name) for name in names} for row in rows]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(whole), sink, row_group_size=2)
    return sink.getvalue()


def zst(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)  # type: ignore[no-any-return]


WRITTEN: Mapping[str, Callable[[], bytes]] = {
    "p.jsonl": lambda: jsonl(ROWS),
    "p.ndjson": lambda: jsonl(ROWS).replace(b"\n", b"\r\n\r\n"),
    "bom.jsonl": lambda: b"\xef\xbb\xbf" + jsonl(ROWS),
    "last.jsonl": lambda: jsonl(ROWS).rstrip(),
    "p.json": lambda: json.dumps(ROWS, indent=2).encode(),
    "bom.json": lambda: b"\xef\xbb\xbf\n" + json.dumps(ROWS, ensure_ascii=False).encode(),
    "lines.json": lambda: jsonl(ROWS),
    "p.jsonl.gz": lambda: gzip.compress(jsonl(ROWS)),
    "p.JSON.GZ": lambda: gzip.compress(json.dumps(ROWS).encode()),
    "p.jsonl.zst": lambda: zst(jsonl(ROWS)),
    "two.jsonl.zst": lambda: zst(jsonl(ROWS[:1])) + zst(jsonl(ROWS[1:])),
    "two.jsonl.gz": lambda: gzip.compress(jsonl(ROWS[:1])) + gzip.compress(jsonl(ROWS[1:])),
    "p.csv": lambda: delimited(ROWS),
    "bom.csv": lambda: b"\xef\xbb\xbf" + delimited(ROWS, end="\n"),
    "p.csv.gz": lambda: gzip.compress(delimited(ROWS)),
    "p.tsv": lambda: delimited(ROWS, "\t"),
    "p.tsv.zst": lambda: zst(delimited(ROWS, "\t")),
    "p.parquet": lambda: parquet(ROWS),
}


def read(*sources: Path | str, stdin: bytes | None = None) -> list[Prompt | Rejected]:
    opened = None if stdin is None else io.BytesIO(stdin)
    return list(prompts.read(sources, stdin=opened))


def file(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def reasons(read: Sequence[Prompt | Rejected]) -> list[tuple[int, str]]:
    return [(r.line, r.reason) for r in read if isinstance(r, Rejected)]


@pytest.mark.parametrize("name", WRITTEN)
def test_the_same_prompts_come_out_of_every_kind_of_file(tmp_path: Path, name: str) -> None:
    assert read(file(tmp_path, name, WRITTEN[name]())) == EXPECTED


def test_standard_input_is_json_lines(tmp_path: Path) -> None:
    path = file(tmp_path, "p.jsonl", jsonl(ROWS[1:]))
    assert read("-", str(path), stdin=jsonl(ROWS[:1])) == EXPECTED


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    file(tmp_path, "c.parquet", parquet(ROWS[2:]))
    file(tmp_path, "a.jsonl.gz", gzip.compress(jsonl(ROWS[:1])))
    file(tmp_path, "b/one.json", json.dumps(ROWS[1:2]))
    file(tmp_path, "README.md", "no prompts")
    file(tmp_path, ".hidden.jsonl", "{")
    (tmp_path / "round").symlink_to(tmp_path)
    assert read(tmp_path) == EXPECTED


def test_a_saved_dataset_is_read_shard_by_shard(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    one = datasets.Dataset.from_list([{"prompt": f"Frage {i}", "level": i} for i in range(700)])
    one.save_to_disk(tmp_path / "one", num_shards=3)
    expected = [Prompt.of(f"Frage {i}", metadata={"level": str(i)}) for i in range(700)]
    assert read(tmp_path / "one") == expected
    datasets.DatasetDict({"train": one, "test": one}).save_to_disk(tmp_path / "many")
    with pytest.raises(
        ConfigError, match=r"with the splits train, test; name one, such as .*train"
    ):
        read(tmp_path / "many")
    assert read(tmp_path / "many" / "train") == expected
    (tmp_path / "one" / "data-00001-of-00003.arrow").unlink()
    with pytest.raises(ConfigError, match=r"data-00001.*no such file, though state.json names it"):
        read(tmp_path / "one")


# Fields

TEXTS = st.text(st.characters(exclude_categories=[]), min_size=1).filter(lambda t: t.strip())
WHOLE_TEXTS = TEXTS.filter(lambda t: not any("\ud800" <= c <= "\udfff" for c in t))
LANGUAGES = st.sampled_from(["de", "zh", "zh-Hant", "nb", "sr-Latn", "und"])


def made(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Prompt]:
    turns = st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), texts), max_size=3)
    conversation = st.builds(lambda t, last: [*t, Message("user", last)], turns, texts)
    return st.builds(
        Prompt.of,
        texts | conversation,
        prompt_id=st.none() | texts,
        language=st.none() | LANGUAGES,
        domain=st.none() | texts,
        metadata=st.dictionaries(texts, texts, max_size=3),
    )


def fields(prompt: Prompt) -> dict[str, Any]:
    turns = [{"role": m.role, "content": m.content} for m in prompt.messages]
    return {
        "id": prompt.prompt_id,
        "messages": turns,
        "language": prompt.language,
        "domain": prompt.domain or "",
        "metadata": dict(prompt.metadata),
    }


@settings(max_examples=60, deadline=None)
@given(st.lists(made(TEXTS), max_size=3), st.booleans())
def test_any_prompt_comes_back_from_json(
    tmp_path_factory: pytest.TempPathFactory, given: list[Prompt], ascii_only: bool
) -> None:
    folder = tmp_path_factory.mktemp("json")
    rows = [fields(prompt) for prompt in given]
    as_text = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
    # what has no bytes in UTF-8 can only be escaped
    safe = [
        json.dumps(row) if any("\ud800" <= c <= "\udfff" for c in text) else text
        for row, text in zip(rows, as_text, strict=True)
    ]
    assert read(file(folder, "p.jsonl", "\n".join(safe))) == given
    assert read(file(folder, "p.json", f"[{','.join(safe)}]")) == given


@settings(max_examples=60, deadline=None)
@given(st.lists(made(WHOLE_TEXTS), min_size=1, max_size=3))
def test_any_prompt_comes_back_from_csv_and_parquet(
    tmp_path_factory: pytest.TempPathFactory, given: list[Prompt]
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    rows = [fields(prompt) for prompt in given]
    assert read(file(folder, "p.csv", delimited(rows))) == given
    assert read(file(folder, "p.tsv", delimited(rows, "\t", "\n"))) == given
    # in Parquet a structure has the same fields in every row: a map has not
    entries = pa.array(
        [list(row["metadata"].items()) for row in rows], pa.map_(pa.string(), pa.string())
    )
    table = pa.Table.from_pylist([{**row, "metadata": None} for row in rows])
    pq.write_table(table.set_column(4, "metadata", entries), folder / "p.parquet")
    assert read(folder / "p.parquet") == given


def test_further_scalars_become_metadata_as_they_are_written(tmp_path: Path) -> None:
    line = (
        '{"prompt": "a", "big": 123456789012345678901234567890, "precise": 0.10, "yes": true, '
        '"none": null, "nested": {"a": 1}, "list": [1], "nothing": "", "same": "outer", '
        '"metadata": {"n": 1e400, "off": null, "no": false, "same": "inner"}}'
    )
    [prompt] = read(file(tmp_path, "p.jsonl", line))
    assert isinstance(prompt, Prompt)
    assert prompt.metadata == {
        "big": "123456789012345678901234567890",
        "precise": "0.10",
        "yes": "true",
        "n": "1e400",
        "no": "false",
        "same": "inner",
    }


def test_columns_that_hold_no_scalars_are_not_even_read(tmp_path: Path) -> None:
    table = pa.table(
        {
            "prompt": ["a", "b"],
            "id": [1, 2],
            "when": pa.array([0, 1], pa.timestamp("s")),
            "kind": pa.array(["x", None]).dictionary_encode(),
            "embedding": [[0.5], [0.25]],
            "image": [b"\x00", b"\x01"],
            "metadata": pa.array([{"x": "1", "y": None}, {"x": None, "y": "2"}]),
        }
    )
    pq.write_table(table, tmp_path / "p.parquet")
    assert read(tmp_path / "p.parquet") == [
        Prompt.of(
            "a", prompt_id="1", metadata={"when": "1970-01-01 00:00:00", "kind": "x", "x": "1"}
        ),
        Prompt.of("b", prompt_id="2", metadata={"when": "1970-01-01 00:00:01", "y": "2"}),
    ]


def test_samples_of_a_run_say_what_their_metadata_was(tmp_path: Path) -> None:
    entries = [[{"key": "answer", "value": "4"}]]
    pq.write_table(pa.table({"prompt": ["2+2"], "metadata": entries}), tmp_path / "p.parquet")
    assert read(tmp_path / "p.parquet") == [Prompt.of("2+2", metadata={"answer": "4"})]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "is not JSON: expecting property name enclosed in double quotes at column"),
        ('{"prompt": "a"} {}', "is not JSON: extra data at column 17"),
        ('{"prompt": "a\x00b"}', "is not JSON: invalid control character at at column 14"),
        ("\x00", "is not JSON: expecting value at column 1"),
        ("[" * 100_000, "is not JSON that can be read: it is nested too deeply"),
        ('{"prompt":' + "[" * 5000 + "]" * 5000 + "}", "is not JSON that can be read: it is neste"),
        ("null", 'row: must be an object such as {"prompt": "..."}, not null'),
        ('"text"', 'row: must be an object such as {"prompt": "..."}, not text'),
        ("17", 'row: must be an object such as {"prompt": "..."}, not a number'),
        ("[1]", 'row: must be an object such as {"prompt": "..."}, not a list'),
        ("{}", "prompt: is missing; give prompt or messages"),
        ('{"promt": "a"}', "prompt: is missing; give prompt or messages"),
        ('{"prompt": 5}', "prompt: must be text, not a number"),
        ('{"prompt": ["a"]}', "prompt: must be text, not a list"),
        ('{"prompt": " \\n"}', "prompt: is empty; give a text to answer"),
        ('{"prompt": "a", "messages": [{"role": "user", "content": "b"}]}', "prompt: is there bes"),
        ('{"messages": []}', "messages: is empty; give at least one user message"),
        ('{"messages": {"role": "user"}}', "messages: must be a list of messages, not an object"),
        ('{"messages": "[1"}', "messages: is not JSON: expecting ',' delimiter at column 3"),
        ('{"messages": [5]}', 'messages[0]: must be {"role": "...", "content": "..."}'),
        ('{"messages": [{"role": "user"}]}', 'messages[0]: must be {"role": "...", "content": ".'),
        ('{"messages": [{"role": 1, "content": "a"}]}', "messages[0].role: unknown 1; use system,"),
        ('{"messages": [{"role": ["user"], "content": "a"}]}', "messages[0].role: unknown ['user'"),
        (
            '{"messages": [{"role": "user", "content": 1}]}',
            "messages[0].content: must be text, not",
        ),
        (
            '{"messages": [{"role": "assistant", "content": "a"}]}',
            "messages[0].role: the last mess",
        ),
        (
            '{"prompt": "a", "language": "xx-klingon"}',
            "language: unknown language tag 'xx-klingon'",
        ),
        ('{"prompt": "a", "language": "\\ud800"}', "language: unknown language tag"),
        ('{"prompt": "a", "language": 3}', "language: must be text, not a number"),
        ('{"prompt": "a", "language": {}}', "language: must be text, not an object"),
        ('{"prompt": "a", "domain": true}', "domain: must be text, not true or false"),
        ('{"prompt": "a", "id": true}', "id: must be text, not true or false"),
        ('{"prompt": "a", "metadata": [1]}', "metadata: must be an object of texts, not a list"),
        ('{"prompt": "a", "metadata": 7}', "metadata: must be an object of texts, not a number"),
        ('{"prompt": "a", "metadata": {"k": [1]}}', "metadata.k: must be text, not a list"),
    ],
)
def test_a_bad_line_is_named_with_its_reason_and_the_others_are_read(
    tmp_path: Path, line: str, reason: str
) -> None:
    good = '{"prompt": "ok"}'
    path = file(tmp_path, "p.jsonl", f"{good}\n\n{line}\n{good}\n")
    first, rejected, last = read(path)
    assert first == last == Prompt.of("ok")
    assert isinstance(rejected, Rejected)
    assert (rejected.source, rejected.line) == (str(path), 3)
    assert rejected.reason.startswith(reason)
    assert rejected.raw[:20] == line[:20]
    assert len(rejected.raw) <= 201
    assert len(rejected.reason) <= 401


def test_bytes_that_are_no_text_spoil_their_own_row_alone(tmp_path: Path) -> None:
    lines = b'{"prompt": "a"}\n{"prompt": "\xff\xfe"}\n{"prompt": "b"}\n'
    first, rejected, last = read(file(tmp_path, "p.jsonl", lines))
    assert rejected == Rejected(
        str(tmp_path / "p.jsonl"), 2, "is not UTF-8: byte 0xff at 13", '{"prompt": "\\xff\\xfe"}'
    )
    listed = b'[{"prompt": "a"}, {"prompt": "\xed\xa0\x80"}, {"prompt": "b"}]'
    again = read(file(tmp_path, "p.json", listed))
    assert again[::2] == [first, last]
    assert reasons(again) == [(2, "is not UTF-8")]
    records = b'prompt,x\na,1\n"\xe4\n",2\nb,\n'
    tables = read(file(tmp_path, "p.csv", records))
    assert tables[2:] == [last]
    assert reasons(tables) == [(3, "is not UTF-8: byte 0xe4 at 2")]
    column = pa.array([b"a", b"\xff", b"b"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"prompt": column}), tmp_path / "p.parquet")
    rows = read(tmp_path / "p.parquet")
    assert rows[::2] == [first, last]
    assert reasons(rows) == [(2, "is not UTF-8: byte 0xff at 1")]


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv", "p.jsonl.gz"])
def test_a_line_of_any_length_is_passed_over_without_being_held(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = 100_000
    for module in ("rows", "lines", "delimited"):
        monkeypatch.setattr(f"arbitrage.prompts.{module}.LARGEST", largest)
    head = b"prompt\n" if "csv" in name else b""
    good = b"ok\n" if "csv" in name else b'{"prompt": "ok"}\n'
    data = head + good + b"x" * 50 * largest + b"\n" + good
    path = file(tmp_path, name, gzip.compress(data) if name.endswith("gz") else data)
    tracemalloc.start()
    first, rejected, last = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert first == last == Prompt.of("ok")
    assert reasons([rejected]) == [(3 if head else 2, rows.TOO_LARGE)]
    assert peak < 20 * largest


def test_a_long_field_of_csv_is_read_whatever_the_process_allows(tmp_path: Path) -> None:
    text = "Wörter, " * 50_000
    before = csv.field_size_limit(100)
    try:
        (prompt,) = read(file(tmp_path, "p.csv", delimited([{"prompt": text}])))
        assert csv.field_size_limit() == 100
    finally:
        csv.field_size_limit(before)
    assert prompt == Prompt.of(text)


def test_a_quote_that_is_never_closed_takes_no_other_record_with_it(tmp_path: Path) -> None:
    text = 'id,prompt\n1,a\n2,"b\n3,c\n4,"d "" d"\n5,"e"e\n6,f,f\n7\n\n8,"g\n\ng"\n'
    got = read(file(tmp_path, "p.csv", text))
    assert [p.prompt_id for p in got if isinstance(p, Prompt)] == ["1", "3", "4", "8"]
    assert got[-1] == Prompt.of("g\n\ng", prompt_id="8")
    told = dict(reasons(got))
    assert list(told) == [3, 6, 7, 8]
    assert "a quote in it is never closed" in told[3]
    assert told[6] == "is not CSV: ',' expected after '\"'"
    assert told[7] == "has 3 fields; the header has 2"
    assert told[8] == "has 1 fields; the header has 2"


def test_a_quote_that_swallows_a_long_file_is_said_to_have_done_so(tmp_path: Path) -> None:
    text = 'prompt\n"a\n' + "b\n" * 2000
    got = read(file(tmp_path, "p.csv", text))
    assert [line for line, _ in reasons(got)] == [2]
    assert "so are the 2,000 lines behind it" in reasons(got)[0][1]


LINES = st.one_of(
    st.sampled_from([b"", b" \t\r", b'{"prompt": "a"}', b'{"prompt": ""}', b"{", b"\xff", b"\x00"]),
    st.binary(max_size=30).map(lambda b: b.replace(b"\n", b" ")),
    st.dictionaries(
        st.sampled_from(["prompt", "messages", "id", "language", "domain", "metadata", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(st.sampled_from(["role", "content", "k"]), inner, max_size=2)
            ),
            max_leaves=4,
        ),
    ).map(lambda row: json.dumps(row).encode()),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(LINES, max_size=6))
def test_every_line_that_is_not_empty_is_a_prompt_or_rejected(lines: list[bytes]) -> None:
    got = read("-", stdin=b"\n".join(lines))
    first = [line.removeprefix(b"\xef\xbb\xbf") for line in lines[:1]]
    assert len(got) == sum(bool(line.strip()) for line in [*first, *lines[1:]])
    for rejected in got:
        if isinstance(rejected, Rejected):
            assert rejected.reason
            assert "\n" not in rejected.reason
            rejected.raw.encode()
            rejected.reason.encode()


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=string.ascii_lowercase[:3] + ',"\n\r\x00 ', max_size=40))
def test_any_text_is_read_as_csv_to_its_end(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    folder = tmp_path_factory.mktemp("csv")
    got = read(file(folder, "p.csv", "prompt,x\n" + text))
    assert len(got) <= text.count("\n") + text.count("\r") + 1


# Files that cannot be read

WRONG: Mapping[str, tuple[Callable[[], bytes], str]] = {
    "p.jsonl": (lambda: gzip.compress(b"{}"), r"is not what its name says; name it p.jsonl.gz"),
    "q.jsonl": (lambda: zst(b"{}"), r"is not what its name says; name it q.jsonl.zst"),
    "r.jsonl": (lambda: parquet(ROWS), r"is not what its name says; name it r.parquet"),
    "twice.jsonl.gz": (lambda: gzip.compress(gzip.compress(b"{}")), "is not what its name says"),
    "utf16.jsonl": (lambda: '{"prompt": "a"}'.encode("utf-16"), "is UTF-16; save it as UTF-8"),
    "zip.csv": (lambda: b"PK\x03\x04....", "is a ZIP archive; unpack it"),
    "plain.jsonl.gz": (lambda: jsonl(ROWS), "is not gzip, as its name says"),
    "plain.jsonl.zst": (lambda: jsonl(ROWS), "is not Zstandard, as its name says"),
    "empty.jsonl.gz": (lambda: b"", "is empty, not gzip, as its name says"),
    "plain.parquet": (lambda: jsonl(ROWS), "is not Parquet, as its name says"),
    "cut.parquet": (lambda: parquet(ROWS)[:-20], "cannot be read: .*; fetch or write it anew"),
    "other.parquet": (lambda: parquet([{"question": "a"}]), "has no column 'prompt' or 'messages'"),
    "head.jsonl.gz": (lambda: gzip.compress(b"{}" * 99)[:15], "cannot be unpacked: "),
    "empty.csv": (lambda: b"\n\n", "is empty; give it a header with the column 'prompt'"),
    "other.csv": (lambda: b"id;prompt\n1;a\n", "it has id;prompt; rename one"),
    "twice.csv": (lambda: b"prompt,prompt\n1,a\n", "has two columns 'prompt'; rename one"),
    "torn.csv": (lambda: b'"prompt\n1,a\n', "the header is not CSV"),
    "p.txt": (lambda: b"Hi", r"of what kind it is cannot be told; name it .jsonl"),
    "p.parquet.gz": (lambda: b"", "of what kind it is cannot be told"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_not_what_its_name_says_is_refused_before_anything_is_read(
    tmp_path: Path, name: str
) -> None:
    data, reason = WRONG[name]
    good = file(tmp_path, "a.jsonl", jsonl(ROWS))
    with pytest.raises(ConfigError, match=reason) as caught:
        prompts.read([good, file(tmp_path, name, data())])
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named_with_what_is_like_it(tmp_path: Path) -> None:
    file(tmp_path, "prompts.jsonl", b"")
    with pytest.raises(ConfigError, match=r"no such file or folder; did you mean 'prompts.jsonl'"):
        prompts.read([tmp_path / "promts.jsonl"])
    with pytest.raises(ConfigError, match=r"no such file or folder$"):
        prompts.read([tmp_path / "nowhere" / "p.jsonl"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"holds no file of a known kind: .jsonl"):
        prompts.read([tmp_path / "empty"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is no JSON list of objects"),
        ("17", "is no JSON list of objects"),
        ('{\n"data": [\n{"prompt": "a"}]}', "is one object; give a list of objects"),
        ('[{"prompt": "a"}', "at element 1: neither a comma nor the list's end follows it"),
        ('[{"prompt": "a"} {"prompt"', "at element 1: neither a comma nor the list's end"),
        ('[{"prompt": "a"}, {"prompt', "at element 2: unterminated string"),
        ('[{"prompt": "a"},]', "at element 2: expecting value"),
        ('[{"prompt": "a"}] []', "has something behind its list"),
        ("[" * 100_000, "at element 1: it is nested too deeply"),
    ],
)
def test_a_list_that_breaks_off_is_an_error_where_it_does(
    tmp_path: Path, text: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        read(file(tmp_path, "p.json", text))


def test_elements_of_a_list_may_be_wrong_and_may_be_long(tmp_path: Path) -> None:
    long = {"prompt": "ü" * 300_000}
    listed = [5, None, long, {"prompt": ""}, 12345, {"prompt": "b"}]
    got = read(file(tmp_path, "p.json", json.dumps(listed, ensure_ascii=False)))
    assert [line for line, _ in reasons(got)] == [1, 2, 4, 5]
    assert [p for p in got if isinstance(p, Prompt)] == [Prompt.of("ü" * 300_000), Prompt.of("b")]
    assert read(file(tmp_path, "none.json", " [ ] ")) == []
    assert read(file(tmp_path, "number.json", "[1" + "0" * 70_000 + "]"))[0].raw.startswith("1000")  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["p.jsonl.gz", "p.jsonl.zst", "p.csv.gz", "p.json.zst"])
def test_a_file_that_breaks_off_gives_what_it_held_and_then_says_where(
    tmp_path: Path, name: str
) -> None:
    many = [{"prompt": hashlib.sha256(b"%d" % number).hexdigest()} for number in range(8_000)]
    match name.split(".")[1]:
        case "jsonl":
            whole = jsonl(many)
        case "csv":
            whole = delimited(many)
        case _:
            whole = json.dumps(many).encode()
    packed = gzip.compress(whole) if name.endswith("gz") else zst(whole)
    path = file(tmp_path, name, packed[: len(packed) // 2])
    got: list[Prompt | Rejected] = []
    with pytest.raises(ConfigError, match=r"cannot be unpacked behind (line|element) [1-9]"):
        got += prompts.read([path])
    reader = prompts.read([path])
    assert next(reader) == Prompt.of(many[0]["prompt"])


def test_a_damaged_row_group_is_an_error_where_it_is(tmp_path: Path) -> None:
    data = bytearray(parquet([{"prompt": f"{number}" * 50} for number in range(100)]))
    data[len(data) // 4 : len(data) // 4 + 200] = b"\xaa" * 200
    with pytest.raises(ConfigError, match=r"p.parquet: cannot be read behind row \d+: "):
        read(file(tmp_path, "p.parquet", bytes(data)))


def test_however_long_a_file_is_only_some_of_it_is_held(tmp_path: Path) -> None:
    line = jsonl([{"prompt": "x" * 280}])
    file(tmp_path, "p.jsonl", line * 8_000)
    file(tmp_path, "p.csv", b"prompt\n" + (b"x" * 280 + b"\n") * 8_000)
    file(tmp_path, "p.json", b"[" + b",".join([line] * 8_000) + b"]")
    for name in ("p.jsonl", "p.csv", "p.json"):
        tracemalloc.start()
        count = sum(1 for _ in prompts.read([tmp_path / name]))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == 8_000
        assert peak < 1_500_000, name


# What was rejected

BAD = Rejected("p.jsonl", 3, "prompt: is empty", '{"prompt": ""}')


def test_the_file_of_a_run_is_replaced_by_that_of_the_next(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        with Rejections(out) as rejections:
            rejections.add(BAD)
            rejections.add(Rejected.of("-", 4, "is not JSON", b"\xff\xfe{" + b"x" * 900 + b"\n"))
        assert rejections.count == 2
    assert [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()] == [
        {"source": "p.jsonl", "line": 3, "reason": "prompt: is empty", "raw": '{"prompt": ""}'},
        {"source": "-", "line": 4, "reason": "is not JSON", "raw": "\\xff\\xfe{" + "x" * 191 + "…"},
    ]
    with Rejections(out):
        pass
    assert list(out.iterdir()) == []


def test_a_run_that_is_interrupted_says_what_it_has_read(tmp_path: Path) -> None:
    def interrupted() -> None:
        with Rejections(tmp_path) as rejections:
            rejections.add(BAD)
            assert not (tmp_path / "rejected.jsonl").exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert json.loads((tmp_path / "rejected.jsonl").read_text())["line"] == 3


def test_without_a_rejection_no_folder_is_made(tmp_path: Path) -> None:
    with Rejections(tmp_path / "out"):
        pass
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    file(tmp_path, "out", b"")
    with pytest.raises(SinkError, match=r"out/rejected.jsonl: cannot be written: "):
        Rejections(tmp_path / "out").add(BAD)


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=[])), st.binary(max_size=2000))
def test_whatever_is_rejected_can_be_written(
    tmp_path_factory: pytest.TempPathFactory, text: str, data: bytes
) -> None:
    out = tmp_path_factory.mktemp("out")
    with Rejections(out) as rejections:
        for raw in (text, data, {"k": text, "b": data}):
            rejections.add(Rejected.of("p", 1, text, raw))
    lines = (out / "rejected.jsonl").read_bytes().split(b"\n")
    assert [json.loads(line)["line"] for line in lines[:-1]] == [1, 1, 1]


# Whether the files are what they were


def test_a_changed_input_is_noticed_and_a_copied_one_is_not(tmp_path: Path) -> None:
    one = file(tmp_path, "in/one.jsonl", jsonl(ROWS))
    two = file(tmp_path, "in/two.csv", delimited(ROWS))
    before = json.loads(json.dumps(prompts.fingerprint([tmp_path / "in", "-"])))
    assert list(before) == [str(one), str(two)]
    one.write_bytes(one.read_bytes())
    two.touch()
    assert prompts.differences(before, prompts.fingerprint([tmp_path / "in"])) == []
    one.write_bytes(one.read_bytes().replace(b"Lima", b"Rom!"))
    two.unlink()
    file(tmp_path, "in/three.jsonl", b"")
    assert prompts.differences(before, prompts.fingerprint([tmp_path / "in"])) == [
        f"{two}: is not read any more",
        f"{one}: has changed: its contents are not what they were",
        f"{tmp_path / 'in' / 'three.jsonl'}: is new",
    ]


def test_of_a_large_file_both_ends_and_the_time_are_looked_at(tmp_path: Path) -> None:
    path = file(tmp_path, "p.jsonl", b"x" * (2**22 + 10))
    before = prompts.fingerprint([path])
    for place in (0, -1):
        data = bytearray(path.read_bytes())
        data[place] = 0
        path.write_bytes(data)
        now = prompts.fingerprint([path])
        assert prompts.differences(before, now) == [
            f"{path}: has changed: its contents are not what they were"
        ]
        before = now
    data[2**21] = 0
    path.write_bytes(data)
    assert "may have changed" in prompts.differences(before, prompts.fingerprint([path]))[0]
