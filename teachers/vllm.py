"""Models on vLLM in this process: continuous batching, a prefix cache, one engine for many arms."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from arbitrage.errors import TeacherAnswerInvalid, TeacherUnavailable
from arbitrage.types import Completion
from teachers.reasoning import Splitter, split
from teachers.shared import Shared
from teachers.vllm_engine import Engine, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arbitrage import config
    from arbitrage.types import Message

_THOUGHTS = "<think>"
_ENGINES: Shared[Settings, Engine] = Shared()


async def open_teachers(configs: Sequence[config.VLLMTeacher]) -> list[VLLMTeacher]:
    """Gives every arm its teacher, in order; arms of one model and engine share it.

    A model that arms of an earlier call have open is not loaded again.

    Raises:
        ConfigError: a model cannot be loaded or has no chat template, or vLLM does not
            know a setting.
    """
    teachers: list[VLLMTeacher] = []
    try:
        for arm in configs:
            teachers.append(await VLLMTeacher.open(arm))  # noqa: PERF401 - closed if one fails
    except BaseException:
        for teacher in teachers:
            await teacher.close()
        raise
    return teachers


class VLLMTeacher:
    """An arm of an engine: how the model draws its tokens."""

    def __init__(self, settings: config.VLLMTeacher, engine: Engine) -> None:
        """Takes an arm of an engine that has been leased for it.

        Raises:
            ConfigError: vLLM does not take the sampling.
        """
        self.name = settings.name
        self._engine = engine
        self._key = Settings.of(settings)
        self._sampling = engine.sampling(settings.sampling, f"teacher {settings.name!r}")
        self._calls: set[asyncio.Task[list[Completion]]] = set()
        self._closed = asyncio.Event()

    @classmethod
    async def open(cls, settings: config.VLLMTeacher) -> VLLMTeacher:
        """Leases the engine, which loads the model if no other arm has."""
        key = Settings.of(settings)
        engine = await _ENGINES.lease(key, lambda: Engine.open(key, f"teacher {settings.name!r}"))
        try:
            return cls(settings, engine)
        except BaseException:
            await _ENGINES.release(key)
            raise

    async def complete(
        self, messages: Sequence[Message], on_delta: Callable[[str], None] | None = None
    ) -> list[Completion]:
        """Answers beside the engine's other calls; cancelling takes the call out of it.

        Raises:
            TeacherRejected: the prompt is longer than the context, or the model's chat
                template does not take it.
            TeacherUnavailable: the engine has died, or the teacher was closed.
            TeacherAnswerInvalid: thoughts were streamed as if they were the answer.
        """
        if self._closed.is_set():
            raise TeacherUnavailable(f"{self.name}: the teacher is closed")
        # a task of its own, which closing can end wherever it has got to
        call = asyncio.create_task(self._answer(messages, on_delta))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        try:
            return await call
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if self._closed.is_set() and not (caller and caller.cancelling()):
                raise TeacherUnavailable(f"{self.name}: the teacher is closed") from None
            raise

    async def close(self) -> None:
        """Ends this arm's calls; with the last arm, the engine's processes end."""
        if self._closed.is_set():
            return
        self._closed.set()
        calls = list(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await _ENGINES.release(self._key)

    async def _answer(
        self, messages: Sequence[Message], on_delta: Callable[[str], None] | None
    ) -> list[Completion]:
        prompt = await self._engine.prompt(messages)
        opened = str(prompt.get("prompt", "")).rstrip().endswith(_THOUGHTS)
        answers = [
            _Answer(None if number else on_delta, opened=opened)
            for number in range(self._sampling.n)
        ]
        prompt_tokens = 0
        outputs = self._engine.outputs(prompt, self._sampling, deltas=on_delta is not None)
        async with aclosing(outputs):
            async for output in outputs:
                prompt_tokens = len(output.prompt_token_ids or ())
                for piece in output.outputs:
                    answers[piece.index].take(piece)
        return [
            answer.completion(0 if number else prompt_tokens)
            for number, answer in enumerate(answers)
        ]


class _Answer:
    """Gathers one answer from its pieces, and tells of its text as it comes."""

    def __init__(self, on_delta: Callable[[str], None] | None, *, opened: bool) -> None:
        # a chat template that opens the block of thoughts leaves its mark in the prompt
        self._text = [_THOUGHTS] if opened else []
        self._tokens = 0
        self._finish_reason: str | None = None
        self._on_delta = on_delta
        self._told = ""
        self._splitter = Splitter(opened=opened)

    def take(self, piece: Any) -> None:
        self._text.append(piece.text)
        self._tokens += len(piece.token_ids)
        self._finish_reason = piece.finish_reason or self._finish_reason
        if self._on_delta:
            self._tell(self._splitter.feed(piece.text))

    def completion(self, prompt_tokens: int) -> Completion:
        if self._finish_reason in {None, "abort", "error"}:
            raise TeacherUnavailable("vLLM: the engine gave the answer up before its end")
        reasoning, text = split("".join(self._text))
        if not text.startswith(self._told):
            raise TeacherAnswerInvalid(
                "vLLM: thoughts were streamed as if they were the answer",
                prompt_tokens=prompt_tokens,
                completion_tokens=self._tokens,
            )
        self._tell(text[len(self._told) :])
        return Completion(
            text=text,
            finish_reason=str(self._finish_reason),
            prompt_tokens=prompt_tokens,
            completion_tokens=self._tokens,
            reasoning=reasoning,
        )

    def _tell(self, text: str) -> None:
        if self._on_delta and text:
            self._told += text
            self._on_delta(text)
