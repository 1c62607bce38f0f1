"""The command line from outside: exit codes, one line for each mistake, and nothing lost."""

from __future__ import annotations

import hashlib
import signal
import socket
import struct
from typing import TYPE_CHECKING

import grpc
import pytest

from arbitrage.v1 import arbitrage_pb2 as pb
from arbitrage.v1.arbitrage_pb2_grpc import ArbitrageServiceStub
from tests.processes import Served, arbitrage, free_port, published, served, write_config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ADA = 'name = "ada"\nkind = "scripted"\nquality = { default = 1.0 }'
LISTEN = 'listen = "127.0.0.1:0"'
METRICS = 'metrics = "127.0.0.1:0"'


def ask(server: Served, prompts: int) -> list[str]:
    """Sends different prompts; the ids of the samples that were answered, sorted."""
    texts = {"de": "Was ist {}, und warum?", "en": "What is {}, and why?"}
    asked = [
        pb.Prompt(text=text.format(number), language=language)
        for language, text in texts.items()
        for number in range(prompts // 2)
    ]
    with grpc.insecure_channel(server.address, [("grpc.enable_http_proxy", 0)]) as channel:
        stub = ArbitrageServiceStub(channel)
        answers = [stub.Complete(pb.CompleteRequest(prompt=p), timeout=60) for p in asked]
    return sorted(answer.sample.sample_id for answer in answers)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """For commands that change nothing: one server for all of them."""
    config = write_config(tmp_path_factory.mktemp("cli"), "[reward]", '[reward]\ngates = ["empty"]')
    with served(config) as running:
        yield running


def test_serve_answers_until_it_is_told_to_stop(tmp_path: Path) -> None:
    with served(write_config(tmp_path)) as server:
        answered = arbitrage("complete", "-a", server.address, "--language", "de", "Warum?")
        shown = arbitrage("policy", "show", "-a", server.address)
        ended = server.stop(signal.SIGTERM)
    assert answered.code == 0
    assert answered.out.startswith("Dafür gibt es")
    assert answered.complaint.startswith("[de] ada won; asked: ")
    assert (shown.code, shown.err) == (0, "")
    assert "1 prompts learned from" in shown.out
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"stopped; samples are in {tmp_path / 'out'}\n"
    assert len(published(tmp_path / "out")) == 1


def test_who_stops_reading_what_is_printed_hears_no_complaint(tmp_path: Path) -> None:
    with served(write_config(tmp_path)) as server:
        assert server.process.stdout
        server.process.stdout.close()
        server.process.terminate()
        assert server.process.stderr
        assert server.process.stderr.read() == ""
        assert server.process.wait() == 0


def test_an_interrupt_publishes_what_was_answered(tmp_path: Path) -> None:
    with served(write_config(tmp_path)) as server:
        answered = ask(server, 6)
        ended = server.stop(signal.SIGINT)
    assert (ended.code, ended.err) == (130, "")
    assert published(tmp_path / "out") == answered


def test_what_was_answered_survives_a_kill_exactly_once(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with served(config) as server:
        answered = ask(server, 40)
        assert server.stop(signal.SIGKILL).code == -signal.SIGKILL
    assert published(tmp_path / "out") == []
    with served(config) as again:
        assert again.stop(signal.SIGTERM).code == 0
    assert published(tmp_path / "out") == answered


def test_a_second_server_on_one_folder_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with served(config) as first:
        answered = ask(first, 2)
        second = arbitrage("serve", "-c", config)
        assert second.code == 1
        assert f"is in use by process {first.process.pid}" in second.complaint
        answered = sorted({*answered, *ask(first, 4)})
        assert first.stop(signal.SIGTERM).code == 0
    assert len(answered) == 4
    assert published(tmp_path / "out") == answered


def test_what_cannot_be_published_at_the_end_is_kept(tmp_path: Path) -> None:
    config, obstacle = write_config(tmp_path), tmp_path / "out" / "data"
    with served(config) as server:
        answered = ask(server, 4)
        obstacle.write_text("in the way")
        ended = server.stop(signal.SIGTERM)
    assert ended.code == 1
    assert str(obstacle) in ended.complaint
    assert "the journal kept every sample" in ended.complaint
    obstacle.unlink()
    with served(config) as again:
        assert again.stop(signal.SIGTERM).code == 0
    assert published(tmp_path / "out") == answered


def test_complete_reads_stdin(server: Served) -> None:
    stdin = b"Warum trinken Menschen so viel Wasser?\n"
    answered = arbitrage("complete", "-a", server.address, "-", stdin=stdin)
    assert answered.code == 0
    assert answered.out.startswith("Dafür gibt es")
    assert answered.complaint.startswith("[de] ")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((b"",), "prompt: is empty"),
        ((b" \n ",), "prompt: is empty"),
        ((b"-",), "prompt: is empty"),
        ((b"-l", b"klingonisch", b"Was?"), "language: unknown language"),
        ((b"-t", b"0", b"Was?"), "127.0.0.1:"),
    ],
)
def test_a_prompt_that_is_refused_is_one_line(
    server: Served, arguments: tuple[bytes, ...], reason: str
) -> None:
    ended = arbitrage("complete", "-a", server.address, *arguments)
    assert ended.code == 1
    assert ended.complaint.startswith(f"arbitrage complete: {reason}")


def test_stdin_that_is_no_text_is_one_line(server: Served) -> None:
    ended = arbitrage("complete", "-a", server.address, "-", stdin=b"\xff\xfe")
    assert ended.code == 1
    assert ended.complaint.startswith("arbitrage complete: stdin: is not UTF-8")


@pytest.mark.parametrize("command", [("complete", "Was?"), ("policy", "show")])
def test_nobody_at_the_address_is_one_line(command: tuple[str, ...]) -> None:
    address = f"127.0.0.1:{free_port()}"
    ended = arbitrage(*command, "-a", address)
    assert ended.code == 1
    assert ended.complaint == (
        f"arbitrage {command[0]}: {address}: nobody answers; start: arbitrage serve -c CONFIG"
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "required: COMMAND"),
        (("sevre",), "invalid choice: 'sevre'"),
        (("serve",), "required: -c/--config"),
        (("serve", "-c", "x.toml", "y.toml"), "unrecognized arguments: y.toml"),
        (("complete",), "required: text"),
        (("complete", "-t", "soon", "Was?"), "-t/--timeout: invalid float value: 'soon'"),
        (("complete", "-a", "somewhere", "Was?"), "-a/--address: 'somewhere' is not host:port"),
        (("complete", "-a", "", "Was?"), "-a/--address: '' is not host:port"),
        (("complete", b"\xff"), "argument text: is not UTF-8"),
        (("policy",), "required: ACTION"),
    ],
)
def test_wrong_usage_is_one_line(arguments: tuple[str | bytes, ...], reason: str) -> None:
    ended = arbitrage(*arguments)
    assert ended.code == 2
    assert reason in ended.complaint
    assert "--help" in ended.complaint


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("[policy]", "[policy]\nfanout = 2", "policy.fanout: unknown key; did you mean 'fan_out'?"),
        ("[sink]", "[snik]", "snik: unknown key; did you mean 'sink'?"),
        ("quality", "qualty", "teachers[0].qualty: unknown key; did you mean 'quality'?"),
        ('kind = "scripted"', 'kind = "scriptd"', "teachers[0].kind: unknown 'scriptd'; did you"),
        ('kind = "best_of"', 'kind = "bestof"', "policy.kind: unknown 'bestof'; use 'random'"),
        ('name = "bob"', 'name = "ada"', "teachers: two are named 'ada'"),
        ("[sink]", "[sink", "is not TOML: "),
    ],
)
def test_a_wrong_configuration_is_one_line(tmp_path: Path, old: str, new: str, reason: str) -> None:
    config = write_config(tmp_path, old, new)
    for command in (("serve",), ("teachers",)):
        ended = arbitrage(*command, "-c", config)
        assert ended.code == 2
        assert ended.complaint.startswith(f"arbitrage {command[0]}: {config}: ")
        assert reason in ended.complaint
    assert not (tmp_path / "out").exists()


def test_a_missing_configuration_is_one_line(tmp_path: Path) -> None:
    ended = arbitrage("serve", "-c", tmp_path / "none.toml")
    assert ended.code == 2
    assert ended.complaint.endswith("none.toml: cannot be read: No such file or directory")


@pytest.mark.parametrize(("key", "line"), [("listen", LISTEN), ("metrics", METRICS)])
def test_a_port_that_is_taken_is_one_line(tmp_path: Path, key: str, line: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"127.0.0.1:{listener.getsockname()[1]}"
        ended = arbitrage("serve", "-c", write_config(tmp_path, line, f'{key} = "{place}"'))
    assert ended.code == 2
    assert ended.complaint.startswith(
        f"arbitrage serve: service.{key}: cannot listen on {place}: is it taken"
    )


@pytest.mark.parametrize("below", ["", "/below"])
def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    config = write_config(tmp_path, 'path = "OUT"', f'path = "{tmp_path}/file{below}"')
    ended = arbitrage("serve", "-c", config)
    assert ended.code == 1
    assert f"{tmp_path}/file{below}" in ended.complaint
    assert "choose another output folder" in ended.complaint
    assert (tmp_path / "file").read_text() == "mine"


def test_a_teacher_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    port = free_port()
    hosted = f'name = "far"\nkind = "openai"\nmodel = "m"\nbase_url = "http://127.0.0.1:{port}/v1"'
    ended = arbitrage("teachers", "--check", "-c", write_config(tmp_path, ADA, hosted))
    assert ended.code == 1
    assert ended.complaint.startswith(f"arbitrage teachers: far: 127.0.0.1:{port}: ")
    far, bob = (line.split("\t") for line in ended.out.splitlines())
    assert (far[0], far[2]) == ("far", "FAILED")
    assert (bob[0], bob[2][:3]) == ("bob", "ok ")


def test_teachers_lists_the_pool_and_calls_it_when_asked(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    listed = arbitrage("teachers", "-c", config)
    assert (listed.code, listed.err) == (0, "")
    assert listed.out.splitlines() == [
        f"{name}\tscripted\tscripted\tall languages" for name in ("ada", "bob")
    ]
    checked = arbitrage("teachers", "--check", "-c", config)
    assert (checked.code, checked.err) == (0, "")
    assert checked.out.count("\tok '") == 2


@pytest.mark.parametrize("command", [("serve",), ("teachers", "--check")])
def test_a_key_that_is_not_set_is_one_line(tmp_path: Path, command: tuple[str, ...]) -> None:
    hosted = (
        'name = "far"\nkind = "openai"\nmodel = "m"\nbase_url = "http://127.0.0.1:9/v1"\n'
        'api_key_env = "A_KEY_OF_NOBODY"'
    )
    config = write_config(tmp_path, ADA, hosted)
    ended = arbitrage(*command, "-c", config, env={"A_KEY_OF_NOBODY": ""})
    assert ended.code == 2
    assert "'far': the environment variable A_KEY_OF_NOBODY is not set" in ended.complaint


@pytest.mark.parametrize(
    ("content", "sha256", "reason"),
    [
        (b"GGUF" + bytes(64), "0" * 64, "SHA-256 is "),
        (b"not a model at all" * 10, None, "it does not begin with the magic GGUF"),
        (b"", None, "is not a readable GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1), None, "its header is cut short"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + b"\xff" * 8, None, "its header is cut short"),
        (b"GGUF" + struct.pack("<IQQ", 99, 0, 0), None, "version 99 is not one of"),
    ],
    ids=["wrong hash", "garbage", "empty", "cut after the head", "cut in a key", "version"],
)
def test_a_corrupt_gguf_is_one_line(
    tmp_path: Path, content: bytes, sha256: str | None, reason: str
) -> None:
    pytest.importorskip("xllamacpp")
    model = tmp_path / "model.gguf"
    model.write_bytes(content)
    expected = sha256 or hashlib.sha256(content).hexdigest()
    local = f'name = "own"\nkind = "llama_cpp"\nmodel = "{model}"\nsha256 = "{expected}"'
    ended = arbitrage("serve", "-c", write_config(tmp_path, ADA, local))
    assert ended.code == 2
    assert str(model) in ended.complaint
    assert reason in ended.complaint


def test_a_gguf_that_is_missing_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    local = 'name = "own"\nkind = "llama_cpp"\nmodel = "none.gguf"'
    ended = arbitrage("teachers", "--check", "-c", write_config(tmp_path, ADA, local))
    assert ended.code == 2
    assert "model 'none.gguf': no such file" in ended.complaint
