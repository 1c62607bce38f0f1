"""Embeddings of a GGUF file, by llama.cpp's own server engine (xllamacpp) in this process."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

# OpenMP's threads spin while they wait, at the cost of every other model on the same cores. It
# is read when the library is loaded, so it comes first.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import xllamacpp

from arbitrage import weights
from arbitrage.errors import ConfigError
from arbitrage.machine import usable_cores
from router.encoders.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from arbitrage import config

_MAX_TOKENS = 256  # of a text that are read: enough to tell what sort of prompt it is
_MAX_CHARACTERS = 8 * _MAX_TOKENS
_SURELY_SHORT = 32  # characters that are fewer tokens than that in any script


async def open_encoder(settings: config.Features) -> Worker:
    """Loads a GGUF file, or packaged weights by their name.

    Raises:
        ConfigError: the file is missing, damaged, or nothing that llama.cpp embeds with.
    """
    with _kept_signal_handlers():
        embedder = await asyncio.to_thread(Embedder.load, settings.model or "")
    return Worker(embedder.embed, free=embedder.free)


class Embedder:
    """One loaded file. A model that was made to embed pools its tokens as it was trained to.

    Of a language model, which was not, it is the mean over the tokens.
    """

    def __init__(self, server: Any) -> None:
        self._server = server

    @classmethod
    def load(cls, model: str) -> Embedder:
        """Loads a file, and tries it; blocks for seconds."""
        path = weights.locate(model)
        pooling = xllamacpp.llama_pooling_type
        for kind in (pooling.LLAMA_POOLING_TYPE_UNSPECIFIED, pooling.LLAMA_POOLING_TYPE_MEAN):
            server = _start(path, kind)
            try:
                _embedding(server, "1 + 1 = 2")
            except _Refused as refused:  # at first, since a language model does not pool
                reason = str(refused)
            else:
                return cls(server)
        raise ConfigError(f"{path}: llama.cpp cannot embed with it: {reason}")

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The embeddings of texts' beginnings, `(texts, width)`."""
        return np.array([self._of(text[:_MAX_CHARACTERS]) for text in texts], np.float32)

    def _of(self, text: str) -> Sequence[float]:
        """Cuts a text until it fits, as there is no tokenizer to ask how long it is."""
        try:
            return _embedding(self._server, text)
        except _Refused:
            if len(text) <= _SURELY_SHORT:
                raise
            return self._of(text[: len(text) // 2])

    def free(self) -> None:
        """Gives up the model; its destructor waits for llama.cpp's loop."""
        self._server = None


class _Refused(Exception):
    """llama.cpp does not embed a text, and says why."""


def _embedding(server: Any, text: str) -> Sequence[float]:
    answer = server.handle_embeddings({"content": text, "embd_normalize": -1})
    if isinstance(answer, dict):
        raise _Refused(str(answer.get("error", {}).get("message", "it does not say why")))
    (embedding,) = answer[0]["embedding"]
    vector: Sequence[float] = embedding
    return vector


def _start(path: Path, pooling: Any) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.embedding = True
    params.pooling_type = pooling
    # an embedding takes its text at once
    params.n_ctx = params.n_batch = params.n_ubatch = _MAX_TOKENS
    params.n_parallel = 1
    params.cache_ram_mib = 0
    params.warmup = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = usable_cores()
    params.verbosity = -1
    params.endpoint_metrics = True
    # it opens an HTTP port, which nobody needs: loopback, any free one, behind a secret
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [secrets.token_hex(32)]
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise ConfigError(
            f"{path}: llama.cpp cannot load it; the file may be cut short, of an unknown "
            "architecture, or too large for this machine's memory"
        ) from error
    # it answers when llama.cpp's loop turns; freed before that, it would never end
    server.handle_metrics()
    return server


@contextmanager
def _kept_signal_handlers() -> Iterator[None]:
    """llama.cpp takes SIGINT and SIGTERM when a model has loaded; they are the process's."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        main = threading.current_thread() is threading.main_thread()
        for number, handler in handlers.items():
            if main and handler is not None:
                signal.signal(number, handler)
