"""GGUF models in this process, on llama.cpp's own server engine (xllamacpp).

One engine a file: continuous batching over parallel slots, shared by the
arms that differ only in sampling. Calls stream inside, so that a cancelled
one stops at its next token.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xllamacpp

from arbitrage import config, weights
from arbitrage.errors import (
    ConfigError,
    TeacherAnswerInvalid,
    TeacherError,
    TeacherRejected,
    TeacherUnavailable,
)
from arbitrage.types import Completion, Message
from teachers.gguf import read_metadata

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_DEFAULT_CONTEXT = 4096
_DEFAULT_MAX_TOKENS = 512
_PROMPT = "{prompt}"


async def open_teachers(configs: Sequence[config.LlamaCppTeacher]) -> list[LlamaCppTeacher]:
    """Loads each file once, and gives every arm its teacher, in order.

    Raises:
        ConfigError: a file is missing, damaged, or nothing that llama.cpp loads.
    """
    arms_of: dict[_Settings, list[config.LlamaCppTeacher]] = {}
    for arm in configs:
        arms_of.setdefault(_Settings.of(arm), []).append(arm)
    engines: dict[_Settings, _Engine] = {}
    try:
        for settings, arms in arms_of.items():
            slots = max(arm.max_concurrency for arm in arms)
            with _KeptSignalHandlers():
                engines[settings] = await asyncio.to_thread(_Engine.load, settings, slots)
    except BaseException:
        for engine in engines.values():
            await engine.close()
        raise
    return [LlamaCppTeacher(arm, engines[_Settings.of(arm)]) for arm in configs]


class LlamaCppTeacher:
    """An arm of a loaded GGUF model: its engine, and one way to draw tokens."""

    def __init__(self, settings: config.LlamaCppTeacher, engine: _Engine) -> None:
        self.name = settings.name
        self._engine = engine
        self._sampling = _sampling_fields(settings.sampling)

    async def complete(self, messages: Sequence[Message]) -> Completion:
        """Answers on a free slot; waiting for one can be cancelled, too."""
        return await self._engine.complete(messages, self._sampling)

    async def close(self) -> None:
        """Frees the model; the arms that share it need it no more."""
        await self._engine.close()


@dataclass(frozen=True, slots=True)
class _Settings:
    """What arms must have in common to share an engine."""

    model: str
    sha256: str | None
    context_length: int | None
    prompt_template: str | None
    threads: int | None

    @classmethod
    def of(cls, arm: config.LlamaCppTeacher) -> _Settings:
        return cls(arm.model, arm.sha256, arm.context_length, arm.prompt_template, arm.threads)


class _Engine:
    """One loaded model with its slots. A thread a slot waits on llama.cpp, outside the GIL."""

    def __init__(self, server: Any, slots: int, template: str | None) -> None:
        self._server = server
        self._template = template
        self._free_slots = asyncio.Semaphore(slots)
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="llama-slot")
        self._closing = threading.Event()

    @classmethod
    def load(cls, settings: _Settings, slots: int) -> _Engine:
        path = weights.locate(settings.model, settings.sha256)
        metadata = read_metadata(path)
        packaged = weights.PACKAGED.get(settings.model)
        template = settings.prompt_template or (packaged.prompt_template if packaged else None)
        if not metadata.chat_template and not template:
            raise ConfigError(
                f"{path}: has no chat template; set prompt_template, such as "
                f"'Question: {_PROMPT}\\nAnswer:'"
            )
        if template and _PROMPT not in template:
            raise ConfigError(f"prompt_template {template!r} must contain {_PROMPT}")
        context = settings.context_length or min(
            metadata.context_length or _DEFAULT_CONTEXT, _DEFAULT_CONTEXT
        )
        server = _start(path, context, slots, settings.threads or os.cpu_count() or 1)
        return cls(server, slots, template)

    async def complete(self, messages: Sequence[Message], sampling: dict[str, Any]) -> Completion:
        cancelled = threading.Event()
        async with self._free_slots:
            if self._closing.is_set():
                raise TeacherUnavailable("the model is closed")
            loop = asyncio.get_running_loop()
            try:
                return await loop.run_in_executor(
                    self._threads, self._generate, messages, sampling, cancelled
                )
            finally:
                cancelled.set()

    def _generate(
        self, messages: Sequence[Message], sampling: dict[str, Any], cancelled: threading.Event
    ) -> Completion:
        answer = _Answer(lambda: cancelled.is_set() or self._closing.is_set())
        request = {**sampling, "stream": True, "stream_options": {"include_usage": True}}
        if self._template:
            head, tail = self._template.split(_PROMPT, 1)
            # a base model goes on with the next question: that is where its answer ends
            turns = [f"\n{mark.strip()}" for mark in (head, tail) if mark.strip()]
            request["stop"] = [*request.get("stop", []), *turns]
            request["prompt"] = _render(messages, self._template)
            self._server.handle_completions(request, answer.take)
        else:
            request["messages"] = [{"role": m.role, "content": m.content} for m in messages]
            self._server.handle_chat_completions(request, answer.take)
        return answer.completion()

    async def close(self) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)
        # the last reference goes there, too: its destructor waits for llama.cpp's loop
        await asyncio.to_thread(delattr, self, "_server")


class _Answer:
    """Gathers the chunks of one stream."""

    def __init__(self, stopped: Any) -> None:
        self._stopped = stopped
        self._text: list[str] = []
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
            self._text.append(choice.get("text") or choice.get("delta", {}).get("content") or "")
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
        self._usage = chunk.get("usage") or self._usage
        return bool(self._stopped())

    def completion(self) -> Completion:
        if self._error:
            raise self._error
        if self._finish_reason is None:
            raise TeacherAnswerInvalid("the answer stopped before its end")
        return Completion(
            text="".join(self._text).strip(),
            finish_reason=self._finish_reason,
            prompt_tokens=self._usage.get("prompt_tokens"),
            completion_tokens=self._usage.get("completion_tokens"),
        )


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


def _sampling_fields(sampling: config.Sampling) -> dict[str, Any]:
    """The request's fields. A seed of None draws a new one for each call."""
    fields: dict[str, Any] = {"max_tokens": sampling.max_tokens or _DEFAULT_MAX_TOKENS}
    for name in ("temperature", "top_p", "seed"):
        if (value := getattr(sampling, name)) is not None:
            fields[name] = value
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    return fields


def _render(messages: Sequence[Message], template: str) -> str:
    r"""A conversation as a text that a base model goes on with.

    >>> turns = [Message("user", "1+1?"), Message("assistant", "2"), Message("user", "2+2?")]
    >>> _render(turns, "Q: {prompt}\nA:")
    'Q: 1+1?\nA: 2\n\nQ: 2+2?\nA:'
    """
    text = ""
    for message in messages:
        match message.role:
            case "user":
                text += template.replace(_PROMPT, message.content)
            case "assistant":
                text += f" {message.content}\n\n"
            case "system":
                text += f"{message.content}\n\n"
    return text
