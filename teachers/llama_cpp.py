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
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

# OpenMP's threads spin while they wait. Beside another model on the same cores, that makes an
# answer of one second take up to thirteen; read when the library is loaded, so it comes first.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import xllamacpp

from arbitrage import config, weights
from arbitrage.errors import (
    ConfigError,
    TeacherAnswerInvalid,
    TeacherError,
    TeacherRejected,
    TeacherUnavailable,
)
from arbitrage.machine import usable_cores
from arbitrage.types import Completion, Message
from teachers.gguf import Metadata, read_metadata
from teachers.reasoning import Splitter, split

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
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
            # each arm's own limit is the pool's to hold: here, nobody queues a second time
            slots = sum(arm.max_concurrency * arm.sampling.n for arm in arms)
            with _KeptSignalHandlers():
                engines[settings] = await asyncio.to_thread(_Engine.load, settings, slots)
        return [LlamaCppTeacher(arm, engines[_Settings.of(arm)]) for arm in configs]
    except BaseException:
        for engine in engines.values():
            await engine.close()
        raise


class LlamaCppTeacher:
    """An arm of a loaded GGUF model: how it is asked, and how it draws its tokens."""

    def __init__(self, settings: config.LlamaCppTeacher, engine: _Engine) -> None:
        """Takes an arm of an engine.

        Raises:
            ConfigError: nobody says how a question is put to this model.
        """
        self.name = settings.name
        self._engine = engine
        self._template = _template(settings, engine.metadata)
        self._answers = settings.sampling.n
        self._fields = _sampling_fields(settings.sampling)
        if self._template:
            # a base model goes on with the next question: that is where its answer ends
            marks = (mark.strip() for mark in self._template.split(_PROMPT))
            turns = [f"\n{mark}" for mark in marks if mark]
            self._fields["stop"] = [*self._fields.get("stop", ()), *turns]
        if schema := settings.sampling.json_schema:
            chat = {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}
            self._fields |= {"json_schema": schema} if self._template else chat

    async def complete(
        self, messages: Sequence[Message], on_delta: Callable[[str], None] | None = None
    ) -> list[Completion]:
        """Answers on a free slot, several times on several; waiting can be cancelled, too."""
        if self._template:
            asked: dict[str, Any] = {"prompt": _render(messages, self._template)}
        else:
            asked = {"messages": [{"role": m.role, "content": m.content} for m in messages]}
        answers = [
            self._engine.complete(asked | self._drawn(number), None if number else on_delta)
            for number in range(self._answers)
        ]
        ends = await asyncio.gather(*answers, return_exceptions=True)
        completions = []
        for number, end in enumerate(ends):
            if isinstance(end, BaseException):
                raise end
            completions.append(replace(end, prompt_tokens=0) if number else end)
        return completions

    def _drawn(self, number: int) -> dict[str, Any]:
        """The sampling's fields for one of several answers: with one seed, all would be alike."""
        seed = self._fields.get("seed")
        return self._fields if seed is None else {**self._fields, "seed": seed + number}

    async def close(self) -> None:
        """Frees the model; the arms that share it need it no more."""
        await self._engine.close()


@dataclass(frozen=True, slots=True)
class _Settings:
    """What arms must have in common to share an engine."""

    model: str
    sha256: str | None
    context_length: int | None
    threads: int | None

    @classmethod
    def of(cls, arm: config.LlamaCppTeacher) -> _Settings:
        return cls(arm.model, arm.sha256, arm.context_length, arm.threads)


class _Engine:
    """One loaded model with its slots. A thread a slot waits on llama.cpp, outside the GIL."""

    def __init__(self, server: Any, slots: int, metadata: Metadata) -> None:
        self.metadata = metadata
        self._server = server
        self._free_slots = asyncio.Semaphore(slots)
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="llama-slot")
        self._closing = threading.Event()

    @classmethod
    def load(cls, settings: _Settings, slots: int) -> _Engine:
        path = weights.locate(settings.model, settings.sha256)
        metadata = read_metadata(path)
        own = min(metadata.context_length or _DEFAULT_CONTEXT, _DEFAULT_CONTEXT)
        context = settings.context_length or own
        server = _start(path, context, slots, settings.threads or usable_cores())
        # it answers when llama.cpp's loop turns; closed before that, it would never end
        server.handle_metrics()
        return cls(server, slots, metadata)

    async def complete(
        self, request: dict[str, Any], on_delta: Callable[[str], None] | None = None
    ) -> Completion:
        cancelled = threading.Event()
        async with self._free_slots:
            if self._closing.is_set():
                raise TeacherUnavailable("the model is closed")
            loop = asyncio.get_running_loop()
            tell = partial(_on_loop, loop, on_delta) if on_delta else None
            answer = _Answer(lambda: cancelled.is_set() or self._closing.is_set(), tell)
            try:
                return await loop.run_in_executor(self._threads, self._answer, request, answer)
            finally:
                cancelled.set()

    def _answer(self, request: dict[str, Any], answer: _Answer) -> Completion:
        request = {**request, "stream": True, "stream_options": {"include_usage": True}}
        if "messages" in request:
            self._server.handle_chat_completions(request, answer.take)
        else:
            self._server.handle_completions(request, answer.take)
        if self._closing.is_set() and not answer.whole:
            raise TeacherUnavailable("the model is closed")
        return answer.completion()

    async def close(self) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
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


def _template(settings: config.LlamaCppTeacher, metadata: Metadata) -> str | None:
    """How a question is put to a base model; None where the file has a chat template."""
    packaged = weights.PACKAGED.get(settings.model)
    template = settings.prompt_template or (packaged and packaged.prompt_template)
    if template and _PROMPT not in template:
        raise ConfigError(f"{settings.name}: prompt_template must contain {_PROMPT}")
    if not template and not metadata.chat_template:
        raise ConfigError(
            f"{settings.name}: {settings.model} has no chat template; set prompt_template, "
            f"such as 'Question: {_PROMPT}\\nAnswer:'"
        )
    return template or None


def _sampling_fields(sampling: config.Sampling) -> dict[str, Any]:
    """The request's fields. A seed of None draws a new one for each call."""
    fields: dict[str, Any] = {"max_tokens": sampling.max_tokens or _DEFAULT_MAX_TOKENS}
    for name in ("temperature", "top_p", "frequency_penalty", "seed"):
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
