"""Weights are checked before they are loaded, and a damaged file is one clear line."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from arbitrage import weights
from arbitrage.errors import ConfigError
from teachers.gguf import read_metadata

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", sorted(weights.PACKAGED))
def test_packaged_weights_are_there_and_whole(name: str) -> None:
    path = weights.locate(name)
    assert weights.digest(path) == weights.PACKAGED[name].sha256


def test_parts_are_assembled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_ARBITRAGE_CACHE", str(tmp_path))
    made = weights.locate("gemma-3-270m").stat()
    assert weights.locate("gemma-3-270m").stat().st_mtime_ns == made.st_mtime_ns
    assert [path.name for path in tmp_path.iterdir()] == ["gemma-3-270m.gguf"]


def test_a_damaged_cache_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_ARBITRAGE_CACHE", str(tmp_path))
    (tmp_path / "gemma-3-270m.gguf").write_bytes(b"GGUF, but not really")
    with pytest.raises(ConfigError, match=r"SHA-256 is .*, expected .*: remove it"):
        weights.locate("gemma-3-270m")


def test_a_cache_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DATA_ARBITRAGE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ConfigError, match="cannot be assembled") as caught:
        weights.locate("gemma-3-270m")
    assert "\n" not in str(caught.value)


def test_a_file_is_held_against_the_digest_that_is_given(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    assert weights.locate(str(path)) == path
    assert weights.locate(str(path), weights.digest(path).upper()) == path
    with pytest.raises(ConfigError, match="expected 00"):
        weights.locate(str(path), "00" * 32)


def test_a_missing_file_names_the_packaged_models() -> None:
    with pytest.raises(ConfigError, match=r"no such file; packaged models are smollm2.*gemma"):
        weights.locate("nowhere.gguf")


def test_metadata_of_a_chat_model_and_of_a_base_model() -> None:
    chat = read_metadata(weights.locate("smollm2-135m-instruct"))
    assert (chat.architecture, chat.context_length) == ("llama", 8192)
    assert chat.chat_template
    assert "im_start" in chat.chat_template
    base = read_metadata(weights.locate("gemma-3-270m"))
    assert (base.architecture, base.context_length, base.chat_template) == ("gemma3", 32768, None)


@pytest.mark.parametrize("kept", [0, 3, 20, 200, 100_000])
def test_a_header_that_is_cut_short_is_one_line(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.gguf"
    with weights.locate("smollm2-135m-instruct").open("rb") as whole, path.open("wb") as cut:
        cut.write(whole.read(kept))
    with pytest.raises(ConfigError, match=r"cut\.gguf: is not a (whole|readable) GGUF file"):
        read_metadata(path)


def test_another_format_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    shutil.copyfile(__file__, path)
    with pytest.raises(ConfigError, match="does not begin with the magic GGUF"):
        read_metadata(path)
