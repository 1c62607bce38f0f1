"""GGUF models in this process, on llama.cpp's own server engine (xllamacpp).

One engine a file: continuous batching over parallel slots, shared by the
arms that differ only in sampling. Calls stream inside, so that a cancelled
one stops at its next token.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from arbitrage import config, weights
from arbitrage.errors import ConfigError
from teachers.llama_engine import Engine, EngineSettings, load
from teachers.shared import Shared

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arbitrage.types import Completion, Message
    from teachers.gguf import Metadata

_DEFAULT_MAX_TOKENS = 512
_PROMPT = "{prompt}"
_engines: Shared[EngineSettings, Engine] = Shared()


async def open_teachers(configs: Sequence[config.LlamaCppTeacher]) -> list[LlamaCppTeacher]:
    """Loads each file once, and gives every arm its teacher, in order.

    An arm that comes later joins the engine of those that are open, and its slots.

    Raises:
        ConfigError: a file is missing, damaged, or nothing that llama.cpp loads.
    """
    slots: Counter[EngineSettings] = Counter()
    for arm in configs:
        # each arm's own limit is the pool's to hold: here, nobody queues a second time
        slots[EngineSettings.of(arm)] += arm.max_concurrency * arm.sampling.n
    async with AsyncExitStack() as leases:
        teachers = []
        for arm in configs:
            settings = EngineSettings.of(arm)
            opens = partial(load, settings, slots[settings])
            engine = await _engines.lease(settings, opens)
            leases.push_async_callback(_engines.release, settings)
            teachers.append(LlamaCppTeacher(arm, engine))
        leases.pop_all()
    return teachers


class LlamaCppTeacher:
    """An arm of a loaded GGUF model: how it is asked, and how it draws its tokens."""

    def __init__(self, settings: config.LlamaCppTeacher, engine: Engine) -> None:
        """Takes an arm of an engine.

        Raises:
            ConfigError: nobody says how a question is put to this model.
        """
        self.name = settings.name
        self._engine = engine
        self._lease = EngineSettings.of(settings)
        self._closing = threading.Event()
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
            self._engine.complete(
                asked | self._drawn(number), self._closing, None if number else on_delta
            )
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
        """Ends its calls; the last of the arms that share a model frees it."""
        if not self._closing.is_set():
            self._closing.set()
            await _engines.release(self._lease)


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

    >>> from arbitrage.types import Message
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
