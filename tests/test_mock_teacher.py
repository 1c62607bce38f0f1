"""The mock teacher from outside: every fault on the wire, and that a run repeats."""

from __future__ import annotations

import json
import math
import re
import signal
import socket
import struct
import subprocess
import time
from collections import Counter
from email.utils import parsedate_to_datetime
from itertools import pairwise
from statistics import fmean, quantiles
from typing import TYPE_CHECKING, Any

import pytest
from mock_process import COMMAND, MockServer, mock_teacher

from arbitrage.types import Candidate, Completion, Prompt
from reward.gates import open_gates
from reward.language import Detector

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

A_MINUTE = 60.0
MANY = 10_000
QUESTIONS = {
    "ja": "なぜ空は青いのですか",
    "ko": "하늘은 왜 파란가요?",
    "zh": "天为什么是蓝的？",
    "ar": "لماذا السماء زرقاء؟",
    "hi": "आसमान नीला क्यों है?",
    "th": "ทำไมท้องฟ้าถึงเป็นสีฟ้า",
    "uk": "Чому небо таке синє і яке воно є?",
    "ru": "Почему небо синее?",
    "en": "Why is the sky blue?",
    "de": "[de] Warum ist der Himmel blau?",
    "es": "[es] ¿Por qué es azul el cielo?",
    "fr": "[fr] Pourquoi le ciel est-il bleu ?",
    "it": "[it] Perché il cielo è blu?",
    "pt": "[pt-BR] Por que o céu é azul?",
}


@pytest.fixture(scope="module")
def shared() -> Iterator[MockServer]:
    with mock_teacher() as server:
        yield server


@pytest.fixture
def server(shared: MockServer) -> MockServer:
    """A healthy teacher without latency."""
    script(shared)
    shared.reset()
    return shared


def script(server: MockServer, **settings: Any) -> None:
    server.script({"models": {"default": {"latency": 0.0, **settings}}})


def fault(kind: str, **settings: Any) -> Mapping[str, Any]:
    return {"faults": [{"kind": kind, "share": 1.0, **settings}]}


def request(prompt: str = "Why?", *, headers: str = "", **body: Any) -> bytes:
    """A whole request, byte for byte."""
    content = {"model": "m", "messages": [{"role": "user", "content": prompt}], **body}
    return raw("POST /v1/chat/completions", json.dumps(content).encode(), headers)


def raw(line: str, body: bytes = b"", headers: str = "") -> bytes:
    head = f"{line} HTTP/1.1\r\nHost: mock\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def connect(server: MockServer) -> socket.socket:
    return socket.create_connection(server.address, timeout=A_MINUTE)


def exchange(server: MockServer, sent: bytes) -> bytes:
    """Everything that comes back until the server ends the connection."""
    with connect(server) as client:
        client.sendall(sent.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        return read_all(client)


def read_all(client: socket.socket) -> bytes:
    received = bytearray()
    while piece := client.recv(1 << 20):
        received += piece
    return bytes(received)


def split(response: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a response."""
    head, _, body = response.partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    named = {name.lower(): value.strip() for name, _, value in (h.partition(":") for h in headers)}
    return int(line.split()[1]), named, body


def complete(server: MockServer, prompt: str = "Why?", *, headers: str = "", **body: Any) -> Any:
    status, _, content = split(exchange(server, request(prompt, headers=headers, **body)))
    assert status == 200
    return json.loads(content)


def say(server: MockServer, prompt: str = "Why?", *, headers: str = "", **body: Any) -> str:
    answer = complete(server, prompt, headers=headers, **body)
    text = answer["choices"][0]["message"]["content"]
    assert isinstance(text, str)
    return text


def quality(text: str) -> float:
    found = re.search(r"\[quality (\d\.\d\d)\]", text)
    assert found, text
    return float(found[1])


def unchunk(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        assert body[length : length + 2] == b"\r\n"
        whole, body = whole + body[:length], body[length + 2 :]
        if length == 0:
            assert body == b""
            return whole
    raise AssertionError("the last chunk is missing")


def events(server: MockServer, **body: Any) -> list[Any]:
    """The data of a stream's events, without the last, `[DONE]`."""
    status, headers, content = split(exchange(server, request(stream=True, **body)))
    assert status == 200
    assert headers["content-type"] == "text/event-stream"
    *data, done, nothing = unchunk(content).decode().split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in data]


def streamed(chunks: list[Any], key: str = "content", index: int = 0) -> str:
    choices = [c for chunk in chunks for c in chunk["choices"] if c["index"] == index]
    return "".join(choice["delta"].get(key, "") for choice in choices)


def wait_for(server: MockServer, **counts: int) -> None:
    """Waits until the counters over all models are as given."""
    deadline = time.monotonic() + A_MINUTE
    while True:
        total = server.stats()["total"]
        if all(total[name] == count for name, count in counts.items()):
            return
        assert time.monotonic() < deadline, total
        time.sleep(0.01)


def plan(folder: Path, calls: int, settings: Mapping[str, Any], **top: Any) -> list[Any]:
    """What the first calls of a model `m` would meet."""
    path = folder / "plan.json"
    path.write_text(json.dumps({"models": {"m": settings}, **top}), "utf-8")
    done = subprocess.run(
        [*COMMAND, "--script", path, "--plan", str(calls)],
        capture_output=True,
        check=True,
        timeout=A_MINUTE,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["call"] for row in rows] == list(range(calls))
    return rows


# The process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_ends_on_a_signal(number: int) -> None:
    with mock_teacher() as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", server.base_url)
        script(server, **fault("hang"))
        with connect(server) as client:
            client.sendall(request())
            wait_for(server, in_flight=1)
            assert server.stop(number) == 0
        assert server.process.stdout
        assert server.process.stdout.read() == ""


def test_its_options_are_what_a_script_falls_back_on() -> None:
    with mock_teacher({"models": {"long": {"answer_characters": 600}}}, latency=0, seed=3,
                      answer_characters=200) as server:  # fmt: skip
        short, long = say(server), say(server, model="long")
        assert 100 < len(short) <= 200 < len(long) <= 600
        server.script({"seed": 4})
        assert say(server) != short
        server.script({})
        assert say(server) == short


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("s.toml", "seed = 'x'", "s.toml: seed: must be a whole number, not 'x'"),
        ("s.toml", "seed =", "s.toml: is not toml: "),
        ("s.json", "{", "s.json: is not json: "),
        ("s.json", '{"modles": {}}', "s.json: modles: unknown key; valid are seed, models"),
        (
            "s.toml",
            "[models.'a/b']\nfaults = [{ kind = 'hnag', share = 1 }]",
            "s.toml: models.a/b.faults[0].kind: must be one of rate_limit, error, ",
        ),
        ("s.json", None, "s.json: cannot be read: No such file"),
    ],
)
def test_a_wrong_script_ends_it_with_one_line(
    tmp_path: Path, name: str, text: str | None, complaint: str
) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text, "utf-8")
    ended = subprocess.run(
        [*COMMAND, "--script", path], capture_output=True, text=True, check=False, timeout=A_MINUTE
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"mock_teacher: {tmp_path}/{complaint}")
    assert ended.stderr.count("\n") == 1


def test_an_address_that_is_taken_ends_it_with_one_line(server: MockServer) -> None:
    port = str(server.address[1])
    ended = subprocess.run(
        [*COMMAND, "--port", port], capture_output=True, text=True, check=False, timeout=A_MINUTE
    )
    assert ended.returncode == 1
    assert f"mock_teacher: 127.0.0.1:{port}: " in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_script_in_toml_says_the_same_as_one_in_json(tmp_path: Path) -> None:
    settings = {
        "latency": {"kind": "lognormal", "p50": 0.4, "p95": 2.0},
        "faults": [{"kind": "rate_limit", "share": 0.1, "retry_after": 2, "to_call": 30}],
    }
    path = tmp_path / "script.toml"
    path.write_text(
        """
        seed = 7
        [models.m]
        latency = { kind = "lognormal", p50 = 0.4, p95 = 2.0 }
        faults = [{ kind = "rate_limit", share = 0.1, retry_after = 2, to_call = 30 }]
        """,
        "utf-8",
    )
    done = subprocess.run(
        [*COMMAND, "--script", path, "--plan", "50"],
        capture_output=True,
        check=True,
        timeout=A_MINUTE,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows == plan(tmp_path, 50, settings, seed=7)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"latency": -1}, "latency: must be at least 0, not -1"),
        ({"latency": "slow"}, "latency: must be a number, not 'slow'"),
        ({"latency": math.nan}, "latency: must be a number, not nan"),
        ({"latency": 10**400}, "latency: must be a number, not 1000"),
        ({"latency": {"kind": "normal"}}, "latency.kind: must be one of constant, exponential, "),
        ({"latency": {"kind": "exponential"}}, "latency.mean: is required"),
        ({"latency": {"mean": 1, "p95": 2}}, "latency.p95: unknown key; valid are kind, mean"),
        ({"latency": {"kind": "lognormal", "p50": 1}}, "latency: a lognormal latency has p50 and"),
        (
            {"latency": {"kind": "lognormal", "p50": 1, "p99": 0.5}},
            "latency.p99: must be at least p50",
        ),
        ({"answer_characters": 1.5}, "answer_characters: must be a whole number, not 1.5"),
        ({"answer_characters": -1}, "answer_characters: must be at least 0, not -1"),
        ({"stream_pieces": 0}, "stream_pieces: must be at least 1, not 0"),
        ({"usage": 1}, "usage: must be true or false, not 1"),
        ({"reasoning": "loud"}, "reasoning: must be one of none, reasoning_content, think"),
        ({"quality": {"de": 2}}, "quality.de: must be from 0 to 1, not 2"),
        ({"quality": 1}, "quality: must be a table"),
        ({"faults": {}}, "faults: must be a list of tables"),
        ({"faults": [{}]}, "faults[0].kind: must be one of"),
        ({"faults": [{"kind": "error"}]}, "faults[0].share: is required"),
        (fault("error", share=2), "faults[0].share: must be from 0 to 1, not 2"),
        (fault("error", seconds=2), "faults[0].seconds: unknown key; valid are kind, share, "),
        (fault("drip", seconds=-1), "faults[0].seconds: must be at least 0, not -1"),
        (fault("rate_limit", retry_after_as="x"), "faults[0].retry_after_as: must be one of"),
        (fault("error", from_call=5, to_call=5), "faults[0].to_call: must be more than from_call"),
        (
            {"faults": [
                {"kind": "error", "share": 0.6},
                {"kind": "hang", "share": 0.6, "from_call": 9},
            ]},
            "faults: the shares at call 9 are 1.2, more than 1",
        ),
        ({"speed": 1}, "speed: unknown key; valid are latency, answer_characters, "),
        (7, "must be a table"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_script_is_named_by_its_key(
    server: MockServer, settings: object, complaint: str
) -> None:
    before = say(server)
    where = "models.m" if settings == 7 else "models.m."
    with pytest.raises(ValueError, match=f"^{re.escape(where)}") as caught:
        server.script({"models": {"m": settings}})
    assert complaint in str(caught.value)
    assert say(server) == before


# The draws


def test_a_plan_repeats_and_depends_on_seed_and_model(tmp_path: Path) -> None:
    settings = {"latency": {"kind": "exponential", "mean": 1}, **fault("error", share=0.5)}
    first = plan(tmp_path, 100, settings, seed=1)
    assert plan(tmp_path, 100, settings, seed=1) == first
    assert plan(tmp_path, 100, settings, seed=2) != first


@pytest.mark.parametrize(
    ("latency", "mean", "median"),
    [
        (0.25, 0.25, 0.25),
        ({"kind": "constant", "mean": 0.25}, 0.25, 0.25),
        ({"kind": "exponential", "mean": 0.5}, 0.5, 0.5 * math.log(2)),
        ({"kind": "lognormal", "p50": 0.4, "mean": 0.6}, 0.6, 0.4),
    ],
)
def test_latency_has_its_mean(tmp_path: Path, latency: object, mean: float, median: float) -> None:
    drawn = [row["latency"] for row in plan(tmp_path, MANY, {"latency": latency})]
    assert fmean(drawn) == pytest.approx(mean, rel=0.03)
    assert quantiles(drawn, n=2)[0] == pytest.approx(median, rel=0.03)


@pytest.mark.parametrize(("key", "place"), [("p95", 94), ("p99", 98)])
def test_latency_has_its_percentiles(tmp_path: Path, key: str, place: int) -> None:
    latency = {"kind": "lognormal", "p50": 0.4, key: 2.0}
    drawn = [row["latency"] for row in plan(tmp_path, MANY, {"latency": latency})]
    percentiles = quantiles(drawn, n=100)
    assert percentiles[49] == pytest.approx(0.4, rel=0.05)
    assert percentiles[place] == pytest.approx(2.0, rel=0.1)


def test_faults_share_one_draw_and_each_hits_its_share(tmp_path: Path) -> None:
    faults = [
        {"kind": "error", "share": 0.1},
        {"kind": "rate_limit", "share": 0.05},
        {"kind": "hang", "share": 0.6, "to_call": MANY // 2},
    ]
    hit = Counter(row["fault"] for row in plan(tmp_path, MANY, {"faults": faults}))
    assert hit["error"] == pytest.approx(0.1 * MANY, rel=0.1)
    assert hit["rate_limit"] == pytest.approx(0.05 * MANY, rel=0.1)
    assert hit["hang"] == pytest.approx(0.3 * MANY, rel=0.05)


def test_a_window_is_an_outage(tmp_path: Path) -> None:
    rows = plan(tmp_path, 30, fault("error", from_call=10, to_call=20))
    assert [row["call"] for row in rows if row["fault"]] == list(range(10, 20))


def test_the_server_does_what_the_plan_says(server: MockServer, tmp_path: Path) -> None:
    settings = {"latency": 0.0, **fault("error", share=0.5)}
    planned = [500 if row["fault"] else 200 for row in plan(tmp_path, 40, settings, seed=5)]
    assert {200, 500} == set(planned)
    server.script({"seed": 5, "models": {"m": settings}})
    for _ in range(2):
        server.reset()
        assert [split(exchange(server, request()))[0] for _ in range(40)] == planned


# Answers


def test_an_answer_has_the_fields_of_the_protocol(server: MockServer) -> None:
    answer = complete(server, "Why?", model="vendor/x", temperature=0.3)
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "vendor/x"
    assert answer["id"].startswith("chatcmpl-")
    assert isinstance(answer["created"], int)
    (choice,) = answer["choices"]
    assert choice["index"] == 0
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["role"] == "assistant"
    text = choice["message"]["content"]
    assert 700 < len(text) <= 800
    tokens = -(-len(text.encode()) // 4)
    assert answer["usage"] == {
        "prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1
    }  # fmt: skip


def test_n_answers_differ_and_are_billed_together(server: MockServer) -> None:
    answer = complete(server, n=3)
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len(set(texts)) == 3
    tokens = sum(-(-len(text.encode()) // 4) for text in texts)
    assert answer["usage"]["completion_tokens"] == tokens


def test_an_answer_is_a_function_of_seed_model_and_conversation(server: MockServer) -> None:
    first = say(server, "Why?")
    assert say(server, "Why?", temperature=1.0, headers="X-Other: 1\r\n") == first
    parts = [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}]
    assert say(server, messages=parts) == first
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    others = [
        say(server, "Why not?"),
        say(server, "Why?", model="other"),
        say(server, messages=turns),
    ]
    server.script({"seed": 1, "models": {"default": {"latency": 0.0}}})
    others.append(say(server, "Why?"))
    assert len({first, *others}) == 5


def test_the_quality_is_drawn_around_the_mean_of_the_language(server: MockServer) -> None:
    script(server, quality={"de": 0.8, "default": 0.4}, quality_noise=0.05)

    def drawn(prefix: str, **settings: Any) -> list[float]:
        return [quality(say(server, f"{prefix}{i}", **settings)) for i in range(50)]

    assert fmean(drawn("[de] Warum? ")) == pytest.approx(0.8, abs=0.03)
    assert fmean(drawn("Warum? ", headers="X-Language: de-AT\r\n")) == pytest.approx(0.8, abs=0.03)
    english = drawn("Why? ")
    assert fmean(english) == pytest.approx(0.4, abs=0.03)
    assert len(set(english)) > 5
    script(server, quality={"default": 1.0}, quality_noise=1.0)
    assert {1.0} < set(drawn("Why? ")) <= {i / 100 for i in range(101)}


async def test_answers_are_in_the_language_asked_for_and_pass_the_gates(
    server: MockServer,
) -> None:
    gates = open_gates(None, Detector())
    for language, question in QUESTIONS.items():
        for i in range(5):
            prompt = Prompt.of(f"{question} ({i})", language=language)
            answer = Candidate("m", Completion(say(server, prompt.text)))
            assert await gates.inspect(prompt, [answer]) == [()], answer
    await gates.close()


def test_a_language_without_sentences_is_answered_in_english(server: MockServer) -> None:
    script(server, quality={"sw": 1.0, "default": 0.0}, quality_noise=0.0)
    text = say(server, "[sw] Kwa nini?")
    assert "good reasons" in text
    assert quality(text) == 1.0


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_stands_where_the_script_says(server: MockServer, stream: bool) -> None:
    def told() -> tuple[str, str]:
        if stream:
            chunks = events(server)
            return streamed(chunks), streamed(chunks, "reasoning_content")
        message = complete(server)["choices"][0]["message"]
        return message["content"], message.get("reasoning_content", "")

    plain, nothing = told()
    assert not nothing
    script(server, reasoning="reasoning_content")
    text, thoughts = told()
    assert text == plain
    assert thoughts
    script(server, reasoning="think")
    assert told() == (f"<think>\n{thoughts}\n</think>\n\n{plain}", "")


def test_reasoning_is_billed(server: MockServer) -> None:
    script(server, reasoning="reasoning_content")
    usage = complete(server)["usage"]
    assert 0 < usage["completion_tokens_details"]["reasoning_tokens"] < usage["completion_tokens"]


def test_a_stream_is_the_answer_in_pieces(server: MockServer) -> None:
    chunks = events(server, n=2)
    whole = complete(server, n=2)
    for index in range(2):
        assert streamed(chunks, index=index) == whole["choices"][index]["message"]["content"]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[-2:]] == ["stop", "stop"]
    assert not any("usage" in chunk for chunk in chunks)


def test_a_stream_is_spread_over_the_latency(server: MockServer) -> None:
    script(server, latency=1e6, stream_pieces=10_000_000)
    with connect(server) as client:
        client.sendall(request(stream=True))
        assert b'"role":"assistant"' in client.recv(1 << 20)
        wait_for(server, in_flight=1, answered=0)


def test_a_stream_tells_its_usage_when_asked(server: MockServer) -> None:
    *chunks, last = events(server, stream_options={"include_usage": True})
    assert {chunk["usage"] for chunk in chunks} == {None}
    assert last["choices"] == []
    assert last["usage"] == complete(server)["usage"]


def test_usage_can_be_withheld(server: MockServer) -> None:
    script(server, usage=False)
    assert "usage" not in complete(server)
    chunks = events(server, stream_options={"include_usage": True})
    assert not any("usage" in chunk for chunk in chunks)
    assert chunks[-1]["choices"]


def test_the_scripted_models_are_listed(server: MockServer) -> None:
    def listed() -> list[str]:
        status, _, body = split(exchange(server, raw("GET /v1/models")))
        assert status == 200
        return [model["id"] for model in json.loads(body)["data"]]

    assert listed() == ["default"]
    server.script({"models": {"default": {}, "ada": {}, "vendor/bob": {}}})
    assert listed() == ["ada", "vendor/bob"]


# Faults, each with and without a stream


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("kind", "status", "header"),
    [
        ("rate_limit", 429, None),
        ("overloaded", 503, None),
        ("error", 500, None),
        ("unauthorized", 401, ("www-authenticate", "Bearer")),
    ],
)
def test_a_refusal_has_its_status(
    server: MockServer, kind: str, status: int, header: tuple[str, str] | None, stream: bool
) -> None:
    script(server, **fault(kind))
    answered, headers, body = split(exchange(server, request(stream=stream)))
    assert answered == status
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["error"]["message"]
    assert "retry-after" not in headers
    assert header is None or header in headers.items()


@pytest.mark.parametrize("kind", ["rate_limit", "overloaded"])
def test_a_refusal_says_when_to_come_again(server: MockServer, kind: str) -> None:
    def retry_after(**settings: Any) -> str:
        script(server, **fault(kind, **settings))
        return split(exchange(server, request()))[1]["retry-after"]

    assert retry_after(retry_after=2) == "2"
    assert retry_after(retry_after=0.5) == "0.5"
    date = retry_after(retry_after=3600, retry_after_as="date")
    assert date.endswith(" GMT")
    assert 3500 < parsedate_to_datetime(date).timestamp() - time.time() < 3700


@pytest.mark.parametrize("stream", [False, True])
def test_reset_tears_the_connection_down(server: MockServer, stream: bool) -> None:
    script(server, **fault("reset"))
    with connect(server) as client:
        client.sendall(request(stream=stream))
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_half_a_body_is_less_than_it_promises(server: MockServer) -> None:
    script(server, **fault("half_body"))
    with connect(server) as client:
        client.sendall(request())
        status, headers, body = split(read_all(client))
    assert status == 200
    assert 0 < len(body) <= int(headers["content-length"]) / 2


def test_half_a_stream_never_says_that_it_is_done(server: MockServer) -> None:
    script(server, **fault("half_body"))
    status, _, body = split(exchange(server, request(stream=True)))
    assert status == 200
    assert b'"content"' in body
    with pytest.raises(AssertionError, match=r"last chunk|assert"):
        unchunk(body)
    assert b"[DONE]" not in body


def test_bad_json_is_no_json(server: MockServer) -> None:
    script(server, **fault("bad_json"))
    status, headers, body = split(exchange(server, request()))
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert len(body) == int(headers["content-length"])
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)
    with pytest.raises(json.JSONDecodeError):
        events(server)


@pytest.mark.parametrize("stream", [False, True])
def test_the_wrong_type_is_a_page(server: MockServer, stream: bool) -> None:
    script(server, **fault("wrong_type"))
    status, headers, body = split(exchange(server, request(stream=stream)))
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    assert body.startswith(b"<!doctype html>")


@pytest.mark.parametrize("stream", [False, True])
def test_a_drip_is_the_whole_answer_a_few_bytes_at_a_time(server: MockServer, stream: bool) -> None:
    well = say(server)
    script(server, **fault("drip", seconds=0.5))
    with connect(server) as client:
        client.sendall(request(stream=stream))
        pieces = [client.recv(1 << 20)]
        client.sendall(raw("GET /stats", headers="Connection: close\r\n"))
        while piece := client.recv(1 << 20):
            pieces.append(piece)
    assert len(pieces) > 5
    answer, stats = b"".join(pieces).split(b"HTTP/1.1")[1:]
    body = split(b"HTTP/1.1" + answer)[2]
    if stream:
        data = [json.loads(e[6:]) for e in unchunk(body).decode().split("\n\n")[:-2]]
        assert streamed(data) == well
    else:
        assert json.loads(body)["choices"][0]["message"]["content"] == well
    assert json.loads(split(b"HTTP/1.1" + stats)[2])["total"]["answered"] == 2


def test_empty_choices_are_an_answer_without_one(server: MockServer) -> None:
    script(server, **fault("empty_choices"))
    assert complete(server)["choices"] == []
    assert [chunk["choices"] for chunk in events(server)] == [[]]


def test_a_huge_answer_is_as_large_as_it_says(server: MockServer) -> None:
    script(server, **fault("huge", megabytes=3))
    answer = complete(server)
    text = answer["choices"][0]["message"]["content"]
    assert 3_000_000 <= len(text) < 3_010_000
    assert answer["usage"]["completion_tokens"] == pytest.approx(len(text) / 4, rel=0.01)
    assert len(streamed(events(server))) >= 3_000_000
    wait_for(server, answered=2, in_flight=0)


def test_a_hung_call_ends_with_its_client(server: MockServer) -> None:
    script(server, **fault("hang"))
    with connect(server) as client:
        client.sendall(request())
        wait_for(server, in_flight=1, cancelled=0)
    wait_for(server, in_flight=0, cancelled=1, answered=0)
    assert server.stats()["total"]["faults"] == {"hang": 1}


# What is counted


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    "settings",
    [{"latency": 1e6}, fault("drip", seconds=1e6), fault("huge", megabytes=1000)],
)
def test_a_client_that_closes_early_is_counted_and_freed(
    server: MockServer, settings: Mapping[str, Any], reset: bool
) -> None:
    script(server, **settings)
    with connect(server) as client:
        client.sendall(request())
        wait_for(server, in_flight=1)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_for(server, in_flight=0, cancelled=1, answered=0)
    assert server.stats()["connections"] == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_closes_while_it_reads_is_counted_and_freed(
    server: MockServer, stream: bool
) -> None:
    script(server, **fault("huge", megabytes=100))
    for _ in range(10):
        with connect(server) as client:
            client.sendall(request(stream=stream))
            client.recv(100_000)
            client.recv(100_000)
    wait_for(server, in_flight=0, cancelled=10, answered=0)


def test_calls_are_counted_by_model_and_fault(server: MockServer) -> None:
    server.script(
        {"models": {
            "default": {"latency": 0.0},
            "sick": fault("error", to_call=2),
        }}
    )  # fmt: skip
    for model in ("well", "sick", "sick", "sick"):
        exchange(server, request(model=model))
    exchange(server, request(model="well", n=0))
    stats = server.stats()
    assert stats["models"] == {
        "well": {
            "calls": 1, "answered": 1, "cancelled": 0, "in_flight": 0, "most_in_flight": 1,
            "faults": {},
        },
        "sick": {
            "calls": 3, "answered": 1, "cancelled": 0, "in_flight": 0, "most_in_flight": 1,
            "faults": {"error": 2},
        },
    }  # fmt: skip
    assert stats["total"]["calls"] == 4
    assert stats["connections"] == 1
    server.reset()
    assert server.stats()["models"] == {}
    assert server.stats()["total"]["calls"] == 0


def test_the_most_calls_at_once_are_remembered(server: MockServer) -> None:
    script(server, **fault("hang"))
    clients = [connect(server) for _ in range(5)]
    for i, client in enumerate(clients):
        client.sendall(request(model=f"m{i % 2}"))
    wait_for(server, in_flight=5)
    server.reset()
    for client in clients[:3]:
        client.close()
    wait_for(server, in_flight=2, most_in_flight=5, cancelled=3, calls=0)
    for client in clients[3:]:
        client.close()
    wait_for(server, in_flight=0)
    server.reset()
    wait_for(server, most_in_flight=0, cancelled=0)


def test_a_teacher_falls_sick_and_well_again(server: MockServer) -> None:
    with connect(server) as client:

        def status() -> int:
            client.sendall(request())
            return split(client.recv(1 << 20))[0]

        assert status() == 200
        script(server, **fault("overloaded"))
        assert status() == 503
        script(server, **fault("overloaded", to_call=1))
        assert [status(), status()] == [503, 200]
    assert server.stats()["total"]["calls"] == 4


# HTTP


def test_one_connection_takes_pipelined_requests_in_order(server: MockServer) -> None:
    script(server, latency=0.01)
    asked = [f"Why {i}?" for i in range(20)]
    with connect(server) as client:
        last = request("Last?", headers="Connection: close\r\n")
        client.sendall(b"".join(request(prompt) for prompt in asked) + last)
        received = read_all(client)
    bodies = [split(b"HTTP/1.1" + part)[2] for part in received.split(b"HTTP/1.1")[1:]]
    texts = [json.loads(body)["choices"][0]["message"]["content"] for body in bodies]
    assert texts == [say(server, prompt) for prompt in [*asked, "Last?"]]
    assert server.stats()["total"]["most_in_flight"] == 1


def test_a_request_may_come_byte_by_byte(server: MockServer) -> None:
    with connect(server) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request(headers="Connection: close\r\n"):
            client.sendall(bytes([byte]))
        assert split(read_all(client))[0] == 200


@pytest.mark.parametrize("trailers", [b"", b"X-Sum: 1\r\nX-More: 2\r\n"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_body_may_come_in_chunks(server: MockServer, size: int, trailers: bytes) -> None:
    body = request("Why?").partition(b"\r\n\r\n")[2]
    head = b"POST /chat/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    chunks = b"".join(b"%x;a=b\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    sent = head + chunks + b"0\r\n" + trailers + b"\r\n"
    with connect(server) as client:
        for start in range(0, len(sent), 11):
            client.sendall(sent[start : start + 11])
        client.sendall(request("Why?", headers="Connection: close\r\n"))
        first, second = read_all(client).split(b"HTTP/1.1")[1:]
    texts = [
        json.loads(split(b"HTTP/1.1" + part)[2])["choices"][0]["message"]["content"]
        for part in (first, second)
    ]
    assert texts[0] == texts[1]


def test_a_body_that_waits_to_be_asked_for_is_asked_for(server: MockServer) -> None:
    head, _, body = request(headers="Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    with connect(server) as client:
        client.sendall(head + b"\r\nConnection: close\r\n\r\n")
        assert client.recv(1 << 20) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        assert split(read_all(client))[0] == 200


def test_an_old_client_is_answered_and_left(server: MockServer) -> None:
    def answered(sent: bytes) -> int:
        with connect(server) as client:
            client.sendall(sent.replace(b"HTTP/1.1", b"HTTP/1.0"))
            return split(read_all(client))[0]

    assert answered(request()) == 200
    assert answered(request(stream=True)) == 400


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"{", "the body is not JSON"),
        (b"\xff", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b"[]", "the body must be an object"),
        (b"{}", "model: must be a text"),
        (b'{"model": "m"}', "messages: must be a list that is not empty"),
        (b'{"model": "m", "messages": []}', "messages: must be a list that is not empty"),
        (b'{"model": "m", "messages": [1]}', "messages[0]: must have a role and a content"),
        (
            b'{"model": "m", "messages": [{"role": "user"}]}',
            "messages[0]: must have a role and a content",
        ),
        (request(n=0).partition(b"\r\n\r\n")[2], "n: must be a whole number from 1 to 128"),
        (request(n=True).partition(b"\r\n\r\n")[2], "n: must be a whole number from 1 to 128"),
        (request(stream="yes").partition(b"\r\n\r\n")[2], "stream: must be true or false"),
        (request(stream=[]).partition(b"\r\n\r\n")[2], "stream: must be true or false"),
        (request(stream_options=1).partition(b"\r\n\r\n")[2], "stream_options: must be an object"),
    ],
)
def test_a_request_that_is_no_call_is_refused_and_the_connection_goes_on(
    server: MockServer, body: bytes, complaint: str
) -> None:
    with connect(server) as client:
        client.sendall(raw("POST /v1/chat/completions", body))
        status, _, said = split(client.recv(1 << 20))
        assert (status, json.loads(said)["error"]["message"]) == (400, complaint)
        client.sendall(request(headers="Connection: close\r\n"))
        assert split(read_all(client))[0] == 200
    assert server.stats()["total"]["calls"] == 1


def test_half_a_surrogate_pair_is_taken_as_it_is(server: MockServer) -> None:
    text = say(server, "Why \ud83d?", model="m\ud83d")
    assert text != say(server, "Why ?")


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /", 404),
        ("POST /v1/embeddings", 404),
        ("GET /v1/chat/completions", 405),
        ("POST /stats", 405),
        ("GET /script", 405),
        ("GET /stats?fresh=1", 200),
    ],
)
def test_unknown_paths_and_methods_are_refused(server: MockServer, line: str, status: int) -> None:
    assert split(exchange(server, raw(line)))[0] == status


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"220 mail.example ESMTP\r\n\r\n", 400),
        (b"GET /stats HTTP/2\r\n\r\n", 400),
        (b"GET /stats HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /stats HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n", 400),
        (b"GET /stats HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET /stats HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"GET /stats HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n", 400),
        (b"GET /stats HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 300, 400),
        (b"GET /stats HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", 413),
        (b"GET /stats HTTP/1.1\r\nContent-Length: 16000001\r\n\r\n", 413),
        (b"GET /stats HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 413),
        (b"GET /stats HTTP/1.1\r\nX: " + b"x" * 40_000, 431),
        (b"GET /stats HTTP/1.1\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", 431),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_ends(
    server: MockServer, sent: bytes, status: int
) -> None:
    with connect(server) as client:
        client.sendall(sent)
        answered, headers, body = split(read_all(client))
    assert (answered, headers["connection"]) == (status, "close")
    assert json.loads(body)["error"]["message"]


def test_a_body_over_16_megabytes_is_refused_before_it_has_come(server: MockServer) -> None:
    body = b" " * 16_000_001
    with connect(server) as client:
        client.sendall(raw("POST /v1/chat/completions", body))
        assert split(read_all(client))[0] == 413
    assert split(exchange(server, request("x" * 15_000_000)))[0] == 200


def test_answers_to_neighbouring_prompts_differ_in_their_number(server: MockServer) -> None:
    numbers = [re.search(r"\d{6}", say(server, f"Why {i}?")) for i in range(50)]
    assert all(numbers)
    assert all(one and two and one[0] != two[0] for one, two in pairwise(numbers))
