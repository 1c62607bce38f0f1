"""What a hostile client sends: messages, bytes, headers, frames and bodies, all from a seed."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from arbitrage.v1 import arbitrage_pb2 as pb

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from google.protobuf.descriptor import Descriptor

METHODS: Mapping[str, Descriptor] = {
    f"/{service.full_name}/{method.name}": method.input_type
    for service in pb.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
"""Every method of both services, with what it takes."""
ELSEWHERE = (
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/arbitrage.v1.ArbitrageService/NoSuch",
    "/no.such.Service/Method",
    "/",
)
_LONG = 5_000
_MANY = 1_001
_PLAUSIBLE: Mapping[str, Sequence[str]] = {
    "text": ("Was ist das, und warum?", "Why is the sky blue?", "なぜ空は青いのですか。"),
    "content": ("Was ist das, und warum?", "Weil es so ist."),
    "role": ("user", "user", "assistant", "system", "tool"),
    "language": ("de", "zh-Hant", "zz", "de-x-a-b", "d" * _LONG, "de" + "-abcde" * 2000, "\0"),
    "policy": ("thompson", "random"),
    "teachers": ("ada", "bob", "eve"),
    "teacher": ("ada", "bob", "eve"),
    "job_id": ("a", "a-1", "../a", "A", "service", "jobs.sqlite", "a" * 64),
    "paths": ("ok.jsonl", "../ok.jsonl", "/etc/passwd", "jobs.sqlite", ".", "a/" * 3000, "\0"),
    "output": ("a", "../a", "/tmp/a", "jobs.sqlite", ".", "a/" * 1000, "ok.jsonl"),  # noqa: S108
    "page_token": ("1-0123456789ab", "-1-", "9" * _LONG),
}
_TEXTS = ("", " ", "\0", "x" * _LONG, "\0" * _LONG, "\u202e\ufeff", "a\u0301" * 500, "%s{0}$(id)")
_FLOATS = (float("nan"), float("inf"), -float("inf"), -0.0, 5e-324, 1e308, -1.0, 0.5)
_JSONS: Sequence[Any] = (
    None,
    True,
    -1,
    2**63,
    1e308,
    float("nan"),
    "",
    "\ud800",
    "x" * _LONG,
    [],
    {},
    [[]],
)


def drawn(strategy: st.SearchStrategy[Any], count: int, number: int) -> list[Any]:
    """So many examples, the same ones whenever the number is the same."""
    examples: list[Any] = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def draw(example: Any) -> None:
        examples.append(example)

    draw()
    return examples


def messages(kind: Descriptor) -> st.SearchStrategy[Message]:
    """Messages of a kind, whose fields are missing, plausible or extreme."""
    fields = {field.name: _values(field) for field in kind.fields}
    return st.fixed_dictionaries({}, optional=fields).map(lambda chosen: _built(kind, chosen))


def _built(kind: Descriptor, chosen: Mapping[str, Any]) -> Message:
    message: Message = GetMessageClass(kind)()
    for name, value in chosen.items():
        target = getattr(message, name)
        if isinstance(value, dict):
            target.update(value)
        elif isinstance(value, list):
            target.extend(value)
        elif kind.fields_by_name[name].message_type:
            target.CopyFrom(value)
        else:
            setattr(message, name, value)
    return message


def _values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    inner = field.message_type
    if inner and inner.GetOptions().map_entry:
        texts = _one(inner.fields_by_name["key"])
        some = st.dictionaries(texts, texts, max_size=4)
        return st.one_of(*[some] * 9, st.just({str(number): "" for number in range(_MANY)}))
    one = _one(field)
    if not field.is_repeated:
        return one
    few = st.lists(one, max_size=4)
    return st.one_of(*[few] * 9, one.map(_often))


def _often(one: Any) -> list[Any]:
    """The same many times, but in no more than a megabyte: there may be many of them, too."""
    size = one.ByteSize() if isinstance(one, Message) else len(str(one))
    return [one] * max(1, min(_MANY, (1 << 20) // (size + 1)))


def _one(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.message_type:
        return messages(field.message_type)
    if field.type == FieldDescriptor.TYPE_STRING:
        likely = _PLAUSIBLE.get(field.name, _TEXTS)
        return st.one_of(*[st.sampled_from(likely)] * 3, st.sampled_from(_TEXTS), st.text())
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=64)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return st.sampled_from(_FLOATS) | st.floats()
    bits = 64 if "64" in _NAMES[field.type] else 32
    unsigned = _NAMES[field.type].startswith("TYPE_UINT")
    low, high = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return st.sampled_from((0, 1, 2, 7, low, high)) | st.integers(low, high)


_NAMES = {
    getattr(FieldDescriptor, name): name for name in dir(FieldDescriptor) if name.startswith("TYPE")
}


def mutant(rng: random.Random, sent: bytes) -> bytes:
    """The bytes of a message, or what was made of them."""
    at = rng.randrange(len(sent) + 1)
    ways: Sequence[Callable[[], bytes]] = (
        lambda: sent[:at],
        lambda: sent[:at] + rng.randbytes(rng.randrange(1, 9)) + sent[at:],
        lambda: sent[:at] + rng.randbytes(1) + sent[at + 1 :],
        lambda: sent[:at] + b"\xff" * 9 + b"\x7f" + sent[at:],  # a varint of 70 bits
        lambda: sent[:at] + b"\xed\xa0\x80" + sent[at + 3 :],  # a lone surrogate in UTF-8
        lambda: sent[:at] + b"\x0b" * rng.choice((5, 99, 101, 20_000)) + sent[at:],  # groups
        lambda: b"\x0a" + _varint(rng.choice((2**31, 2**32, 2**63, len(sent) + 1))) + sent,
        lambda: sent * min(rng.randrange(2, 50), 1 + (1 << 20) // (len(sent) + 1)),
        lambda: rng.randbytes(rng.randrange(200)),
        lambda: b"".join(_nested(rng.choice((10, 200, 5_000)))),
    )
    return rng.choice(ways)()


def _nested(depth: int) -> Iterator[bytes]:
    """A message in field 1 of one in field 1 of one ..., with a length that may be true."""
    for level in range(depth, 0, -1):
        yield b"\x0a" + _varint(2 * level)


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*parts, number))


def large(size: int) -> Iterator[tuple[str, str, bytes]]:
    """What is large of requests of some size, with their methods."""
    service, jobs = "/arbitrage.v1.ArbitrageService", "/arbitrage.v1.JobService"

    def complete(**fields: Any) -> bytes:
        prompt = pb.Prompt(**({"text": "Was?", "language": "de"} | fields))
        return pb.CompleteRequest(prompt=prompt).SerializeToString()

    def routed(**options: Any) -> bytes:
        prompt = pb.Prompt(text="Was?", language="de")
        chosen = pb.RoutingOptions(**options)
        return pb.CompleteRequest(prompt=prompt, options=chosen).SerializeToString()

    def job(**fields: Any) -> bytes:
        return pb.CreateJobRequest(spec=pb.JobSpec(**fields)).SerializeToString()

    one = pb.Message(role="user", content="x")
    paths, prompts = ["ok.jsonl"] * (size // 10), [pb.Prompt(text="Was?")]
    for name, message in {
        "text of one word": complete(text="a" * size),
        "text of words": complete(text="the quick brown fox " * (size // 20)),
        "text of lines": complete(text="```\n" * (size // 4), language=""),
        "messages": complete(text="", messages=[one] * (size // 12)),
        "metadata": complete(metadata={f"{number:x}": "" for number in range(size // 12)}),
        "domain": complete(domain="d" * size),
        "language": complete(language="de" + "-abcde" * (size // 6)),
        "names of teachers": routed(teachers=["bob"] * (size // 5)),
        "a teacher's name": routed(teachers=["\0" * size]),
        "a policy's name": routed(policy="\0" * size),
    }.items():
        yield name, f"{service}/Complete", message
    states = pb.ListJobsRequest(states=[pb.JOB_STATE_PENDING] * size)
    yield "states", f"{jobs}/ListJobs", states.SerializeToString()
    yield "job id", f"{jobs}/GetJob", pb.GetJobRequest(job_id="x" * size).SerializeToString()
    for name, message in {
        "files": job(files=pb.PromptFiles(paths=paths)),
        "a path": job(files=pb.PromptFiles(paths=["../" * (size // 3)])),
        "output": job(prompts=pb.PromptList(prompts=prompts), output="a/" * (size // 2)),
    }.items():
        yield name, f"{jobs}/CreateJob", message
    yield "a language", f"{service}/Complete", complete(language="d" * size)


def metadata(rng: random.Random) -> list[tuple[str, str | bytes]]:
    """What gRPC's own client lets pass."""
    token = "Bearer arb_" + "A" * rng.choice((0, 43, 3_000))
    odd: Sequence[tuple[str, str | bytes]] = (
        ("authorization", token),
        ("authorization", token),
        ("authorization", "Basic eDp5"),
        ("authorization-bin", rng.randbytes(20)),
        ("x-request-id", "x" * rng.choice((0, 1, 128, 129, 4_000))),
        ("traceparent", rng.choice(("", "00-0-0-0", f"00-{'f' * 32}-{'f' * 16}-ff", "é".upper()))),
        ("x-bin", rng.randbytes(rng.choice((0, 10, 9_000)))),
        ("grpc-status-details-bin", rng.randbytes(30)),
        ("x-large", "y" * rng.choice((10, 7_000, 100_000))),
    )
    chosen = rng.sample(odd, rng.randrange(1, 4))
    return [(key, value) for key, value in chosen if isinstance(value, bytes) or value.isascii()]


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _END_HEADERS = 1, 4


def frame(kind: int, payload: bytes = b"", stream: int = 0, flags: int = 0) -> bytes:
    """A frame of HTTP/2."""
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes((kind, flags))
        + struct.pack(">I", stream)
        + payload
    )


def headers(fields: Sequence[tuple[str, str]]) -> bytes:
    """Fields in HPACK, as literals that nobody remembers."""
    return b"".join(
        b"\x00" + b"".join(_prefixed(part.encode("latin-1")) for part in field) for field in fields
    )


def _prefixed(text: bytes) -> bytes:
    if len(text) < 0x7F:  # noqa: PLR2004 - what seven bits hold
        return bytes((len(text),)) + text
    return b"\x7f" + _varint(len(text) - 0x7F) + text


def call(rng: random.Random, stream: int, message: bytes) -> bytes:
    """One RPC in frames, with something wrong in most of them."""
    fields = [
        (":method", rng.choice(("POST", "POST", "POST", "GET", "X" * 50))),
        (":scheme", "http"),
        (":path", rng.choice((*METHODS, *ELSEWHERE, "x", "", "/\xff", "/" + "a" * 5_000))),
        (":authority", "x"),
        ("te", rng.choice(("trailers", "trailers", ""))),
        ("content-type", rng.choice(("application/grpc",) * 4 + ("text/plain", "", "a" * 900))),
        ("grpc-timeout", rng.choice(("1S", "1S", "-1S", "99999999H", "9" * 40 + "S", "x", "0n"))),
        ("grpc-encoding", rng.choice(("identity", "gzip", "snappy", "\0"))),
        ("authorization", rng.choice(("Bearer x", "\xff", ""))),
        ("X-Upper", "1"),
        ("x-request-id", rng.choice(("a", "\xe9", "a b", "a" * 300))),
    ]
    rng.shuffle(fields[rng.randrange(4) :])
    chosen = [field for field in fields if rng.random() < 0.9 and field[0] != "X-Upper"]  # noqa: PLR2004
    if rng.random() < 0.05:  # noqa: PLR2004 - a share
        chosen.append(fields[-2])
    lie = rng.choice((len(message),) * 5 + (0, len(message) + 1, 2**32 - 1))
    body = struct.pack(">BI", rng.choice((0, 0, 0, 1, 7)), lie) + message
    parts = [frame(HEADERS, headers(chosen), stream, _END_HEADERS)]
    parts += [frame(DATA, body, stream)] * rng.choice((0, 1, 1, 1, 2))
    parts.append(
        rng.choice(
            (
                frame(DATA, b"", stream, _END_STREAM),
                frame(DATA, b"", stream, _END_STREAM),
                frame(RESET, b"\0\0\0\x08", stream),
                b"",
            )
        )
    )
    return b"".join(parts)


def noise(rng: random.Random) -> tuple[bytes, int]:
    """What is no RPC at all, and how many requests it counts for."""
    path = rng.choice(tuple(METHODS))
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x"}
    fields |= {"te": "trailers", "content-type": "application/grpc"}
    opened = headers([*fields.items()])
    began = PREFACE + frame(SETTINGS)
    resets = b"".join(
        frame(HEADERS, opened, stream, _END_HEADERS) + frame(RESET, b"\0\0\0\x08", stream)
        for stream in range(1, 401, 2)
    )
    ways: Sequence[tuple[bytes, int]] = (
        (rng.randbytes(rng.randrange(1, 3_000)), 1),
        (PREFACE[: rng.randrange(len(PREFACE))], 1),
        (began + rng.randbytes(500), 1),
        (began + b"".join(_any_frame(rng) for _ in range(20)), 20),
        (began + resets, 200),
        (began + frame(SETTINGS, b"\0\4\0\0\xff\xff") * 100, 100),
        (began + frame(PING, bytes(8)) * 100, 100),
        (began + frame(HEADERS, opened, 1) + frame(CONTINUATION, headers([("a", "b" * 500)]), 1)
         * 50, 50),
        (began + frame(HEADERS, opened, 1) + frame(CONTINUATION, b"", 1) * 100, 100),
        (b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello", 1),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", 1),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(500), 1),
    )  # fmt: skip
    return rng.choice(ways)


def _any_frame(rng: random.Random) -> bytes:
    payload = rng.randbytes(rng.choice((0, 1, 4, 5, 6, 8, 100)))
    return frame(rng.randrange(16), payload, rng.choice((0, 1, 2, 3, 2**31)), rng.randrange(256))


def bodies() -> st.SearchStrategy[bytes]:
    """Bodies for the chat port: JSON whose fields are missing, plausible or of another type."""
    anything = st.sampled_from(_JSONS) | st.recursive(
        st.sampled_from(_JSONS) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=6,
    )
    role = st.sampled_from(("user", "user", "assistant", "developer", "\ud800")) | anything
    part = st.fixed_dictionaries(
        {}, optional={"type": st.just("text") | anything, "text": st.text() | anything}
    )
    content = st.sampled_from(_PLAUSIBLE["text"]) | st.lists(part, max_size=3) | anything
    message = st.fixed_dictionaries({"role": role, "content": content}) | anything
    known = (
        "temperature", "n", "stop", "tools", "logprobs", "user", "seed", "stream_options",
        "arbitrage", "response_format", "metadata", "\ud800", "x" * _LONG, "service_tier",
    )  # fmt: skip
    routed = st.dictionaries(
        st.sampled_from(("policy", "fan_out", "teachers", "max_cost_usd", "learn", "x")), anything
    )
    meant = st.fixed_dictionaries(
        {"model": st.just("arbitrage"), "messages": st.lists(message, min_size=1, max_size=3)},
        optional={
            "stream": st.booleans() | anything,
            "metadata": st.dictionaries(
                st.sampled_from(("language", "domain", "\ud800")), anything
            ),
            "arbitrage": routed | anything,
        },
    )
    odd = st.builds(lambda a, b: a | b, meant, st.dictionaries(st.sampled_from(known), anything))
    raw = st.sampled_from(
        (b"", b"{", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5_000, b"\xff\xfe", b"NaN", b"null")
    )
    encoded = st.one_of(meant, odd, odd, anything).map(lambda body: json.dumps(body).encode())
    return encoded | encoded.map(lambda body: body[: len(body) * 2 // 3]) | raw | st.binary()


def http(rng: random.Random, body: bytes, paths: Sequence[str]) -> bytes:
    """A request of HTTP/1.1, with something wrong in many of them."""
    kind = rng.choice(("application/json",) * 8 + ("text/plain", "", "application/json" * 600))
    length = rng.choice((len(body),) * 12 + (0, len(body) + 7, -1, 10**30))
    chunked = b"%x\r\n%b\r\n" % (rng.choice((len(body), 2**40)), body) + rng.choice(
        (b"0\r\n\r\n", b"", b"-1\r\n", b"zz\r\n")
    )
    framed = rng.random() < 0.9  # noqa: PLR2004 - a share
    how = f"content-length: {length}" if framed else "transfer-encoding: chunked"
    lines = (
        f"{rng.choice(('POST',) * 12 + ('GET', 'PUT', 'X' * 99))} {rng.choice(paths)} HTTP/1.1",
        f"host: {rng.choice(('x', 'y' * 9_000) if rng.random() < 0.03 else ('x',))}",  # noqa: PLR2004
        f"content-type: {kind}",
        f"x-arbitrage-language: {rng.choice(('de', 'de', 'zz', 'é', '-' * 4_000))}",
        f"authorization: {rng.choice(('', 'Bearer x', 'Bearer é'))}",
        "connection: close",
        how,
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body if framed else chunked)
