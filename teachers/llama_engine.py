"""llama.cpp's own server engine (xllamacpp) in this process: one loaded file with its slots."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

# OpenMP's threads spin while they wait. Beside another model on the same cores, that makes an
# answer of one second take up to thirteen; read when the library is loaded, so it comes first.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import xllamacpp

from arbitrage import weights
from arbitrage.errors import (
    ConfigError,
    TeacherAnswerInvalid,
    TeacherError,
    TeacherRejected,
    TeacherUnavailable,
)
from arbitrage.machine import usable_cores
from arbitrage.types import Completion
from teachers.gguf import Metadata, read_metadata
from teachers.reasoning import Splitter, split

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from arbitrage import config

_DEFAULT_CONTEXT = 4096


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What arms must have in common to share an engine."""

    model: str
    sha256: str | None
    context_length: int | None
    threads: int | None

    @classmethod
    def of(cls, arm: config.LlamaCppTeacher) -> EngineSettings:
        """Those of an arm."""
        return cls(arm.model, arm.sha256, arm.context_length, arm.threads)


async def load(settings: EngineSettings, slots: int) -> Engine:
    """Loads a file, off the loop; it can answer so many calls side by side.

    Raises:
        ConfigError: the file is missing, damaged, or nothing that llama.cpp loads.
    """
    with _KeptSignalHandlers():
        return await asyncio.to_thread(Engine.load, settings, slots)


class Engine:
    """One loaded model with its slots. A thread a slot waits on llama.cpp, outside the GIL."""

    def __init__(self, server: Any, slots: int, metadata: Metadata) -> None:
        self.metadata = metadata
        self._server = server
        self._free_slots = asyncio.Semaphore(slots)
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="llama-slot")

    @classmethod
    def load(cls, settings: EngineSettings, slots: int) -> Engine:
        """Loads a file; blocks for seconds."""
        path = weights.locate(settings.model, settings.sha256)
        metadata = read_metadata(path)
        own = min(metadata.context_length or _DEFAULT_CONTEXT, _DEFAULT_CONTEXT)
        context = settings.context_length or own
        server = _start(path, context, slots, settings.threads or usable_cores())
        # it answers when llama.cpp's loop turns; closed before that, it would never end
        server.handle_metrics()
        return cls(server, slots, metadata)

    async def complete(
        self,
        request: dict[str, Any],
        closing: threading.Event,
        on_delta: Callable[[str], None] | None,
    ) -> Completion:
        """Answers a request of llama.cpp's server; waits for a free slot.

        Args:
            request: for its `/completions`, or with `messages` for `/chat/completions`.
            closing: set when the arm that asks is closed.
            on_delta: hears the answer piece by piece.

        Raises:
            TeacherError: there is no answer.
        """
        cancelled = threading.Event()
        async with self._free_slots:
            if closing.is_set():
                raise TeacherUnavailable("the model is closed")
            loop = asyncio.get_running_loop()
            tell = partial(_on_loop, loop, on_delta) if on_delta else None
            answer = _Answer(lambda: cancelled.is_set() or closing.is_set(), tell)
            try:
                await loop.run_in_executor(self._threads, self._answer, request, answer)
            finally:
                cancelled.set()
            if closing.is_set() and not answer.whole:
                raise TeacherUnavailable("the model is closed")
            return answer.completion()

    def _answer(self, request: dict[str, Any], answer: _Answer) -> None:
        request = {**request, "stream": True, "stream_options": {"include_usage": True}}
        if "messages" in request:
            self._server.handle_chat_completions(request, answer.take)
        else:
            self._server.handle_completions(request, answer.take)

    async def close(self) -> None:
        """Frees the model, when its last call has ended."""
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)
        # the last reference goes there, too: its destructor waits for llama.cpp's loop
        await asyncio.to_thread(delattr, self, "_server")


def _on_loop(loop: asyncio.AbstractEventLoop, on_delta: Callable[[str], None], text: str) -> None:
    loop.call_soon_threadsafe(on_delta, text)


class _Answer:
    """Gathers the chunks of one stream, and tells of its text as it comes."""

    def __init__(self, stopped: Callable[[], bool], tell: Callable[[str], object] | None) -> None:
        self._stopped = stopped
        self._tell = tell
        self._told = ""
        self._untold = ""
        self._text: list[str] = []
        self._splitter = Splitter()
        self._thoughts: list[str] = []
        self._finish_reason: str | None = None
        self._usage: dict[str, int] = {}
        self._error: TeacherError | None = None

    def take(self, chunk: dict[str, Any]) -> bool:
        """Takes a chunk; True tells llama.cpp to stop, which frees the slot."""
        error = chunk.get("error") or (chunk if "code" in chunk else None)
        if error:
            rejected = 400 <= int(error.get("code", 500)) < 500  # noqa: PLR2004 - HTTP's classes
            kind = TeacherRejected if rejected else TeacherUnavailable
            self._error = kind(f"llama.cpp: {error.get('message', 'unknown error')}")
            return True
        for choice in chunk.get("choices", ()):
            delta = choice.get("delta", {})
            self._thoughts.append(delta.get("reasoning_content") or "")
            self._text.append(choice.get("text") or delta.get("content") or "")
            self._pass_on(self._splitter.feed(self._text[-1]))
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
        self._usage = chunk.get("usage") or self._usage
        return bool(self._stopped())

    @property
    def whole(self) -> bool:
        return self._finish_reason is not None

    def completion(self) -> Completion:
        if self._error:
            raise self._error
        if self._finish_reason is None:
            raise TeacherAnswerInvalid("the answer stopped before its end")
        reasoning, answer = split("".join(self._text))
        answer = answer.strip()
        if self._tell and not answer.startswith(self._told):
            raise TeacherAnswerInvalid("thoughts were streamed as if they were the answer")
        self._pass_on(answer[len(self._told) + len(self._untold) :])
        return Completion(
            text=answer,
            reasoning="".join(self._thoughts).strip() or reasoning,
            finish_reason=self._finish_reason,
            prompt_tokens=self._usage.get("prompt_tokens"),
            completion_tokens=self._usage.get("completion_tokens"),
        )

    def _pass_on(self, piece: str) -> None:
        """Tells of the next piece, but for the blanks around the whole answer."""
        if self._tell is None:
            return
        self._untold += piece
        text = self._untold.rstrip()
        self._untold = self._untold[len(text) :]
        text = text if self._told else text.lstrip()
        if text:
            self._tell(text)
            self._told += text


class _KeptSignalHandlers:
    """llama.cpp takes SIGINT and SIGTERM when a model has loaded; they are the process's."""

    def __enter__(self) -> None:
        self._main = threading.current_thread() is threading.main_thread()
        self._handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            if self._main and handler is not None:
                signal.signal(number, handler)


def _start(path: Path, context: int, slots: int, threads: int) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = context * slots
    params.n_parallel = slots
    params.kv_unified = False
    params.cache_ram_mib = 0
    params.warmup = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.verbosity = -1
    params.endpoint_metrics = True
    # it opens an HTTP port, which nobody needs: loopback, any free one, behind a secret
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [secrets.token_hex(32)]
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise ConfigError(
            f"{path}: llama.cpp cannot load it; the file may be cut short, of an unknown "
            "architecture, or too large for this machine's memory"
        ) from error
