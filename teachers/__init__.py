"""Teachers: the models that answer prompts, and the pool that asks them.

An adapter is a module with `open_teachers`; `_ADAPTERS` names it by the
configuration's `kind`. It is imported when a configuration asks for it, since
most bring a heavy library.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from arbitrage.errors import ConfigError
from teachers.budget import Budget
from teachers.identity import adapter_part
from teachers.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from arbitrage import config
    from arbitrage.events import Called
    from arbitrage.ports import Teacher

__all__ = ["Budget", "Changes", "Pool", "change_pool", "open_pool"]

_ADAPTERS: Mapping[str, str] = {
    "litellm": "teachers.litellm",
    "llama_cpp": "teachers.llama_cpp",
    "openai": "teachers.openai",
    "scripted": "teachers.scripted",
    "vllm": "teachers.vllm",
}
_EXTRAS: Mapping[str, str] = {"litellm": "hosted", "llama_cpp": "embedded", "vllm": "vllm"}
_OURS = ("arbitrage", "teachers")


class _Adapter(Protocol):
    async def open_teachers(self, configs: Sequence[Any]) -> list[Teacher]:
        """One teacher for each of the configurations, all of the adapter's kind, in order."""


async def open_pool(
    configs: Sequence[config.AnyTeacher],
    *,
    budget: Budget | None = None,
    only_trainable: bool = False,
    hear: Callable[[Called], None] = lambda _: None,
) -> Pool:
    """Opens every teacher of a configuration; the pool keeps their order.

    All configurations of a kind are opened together, so that arms which differ
    only in sampling can share an engine. If one fails, those already open are closed.

    Args:
        configs: of the teachers.
        budget: what their calls may cost together; by default, there is no limit.
        only_trainable: ask only those whose outputs may train other models.
        hear: is told of every attempt.

    Raises:
        ConfigError: a teacher cannot be opened as configured, or its extra is not installed.
    """
    entries = list(zip(configs, await _open_all(configs), strict=True))
    return Pool(entries, budget=budget, only_trainable=only_trainable, hear=hear)


async def change_pool(pool: Pool, configs: Sequence[config.AnyTeacher]) -> Changes:
    """Makes a pool that of another configuration, without dropping a call.

    A teacher whose adapter would be the same stays open and is only held to other
    limits, prices and terms. One that goes, or that is asked in another way, ends
    the calls that it has and is closed.

    Raises:
        ConfigError: a new teacher cannot be opened; the pool is as it was.
    """
    before = pool.entries
    open_now = {adapter_part(settings): teacher for settings, teacher in before}
    new = [settings for settings in configs if adapter_part(settings) not in open_now]
    opened = dict(zip(map(adapter_part, new), await _open_all(new), strict=True))
    teachers = open_now | opened
    pool.replace([(settings, teachers[adapter_part(settings)]) for settings in configs])
    old = {settings.name: settings for settings, _ in before}
    return Changes(
        added=tuple(s.name for s in configs if s.name not in old),
        removed=tuple(name for name in old if name not in {s.name for s in configs}),
        changed=tuple(s.name for s in configs if s.name in old and s != old[s.name]),
    )


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of the teachers that a new configuration has added, removed and changed."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line.

        >>> str(Changes(added=("a", "b"), changed=("c",)))
        'added a, b; changed c'
        """
        parts = {"added": self.added, "removed": self.removed, "changed": self.changed}
        told = "; ".join(f"{what} {', '.join(names)}" for what, names in parts.items() if names)
        return told or "nothing changed"


async def _open_all(configs: Sequence[config.AnyTeacher]) -> list[Teacher]:
    opened: dict[int, Teacher] = {}
    async with AsyncExitStack() as stack:
        for kind in dict.fromkeys(settings.kind for settings in configs):
            places = [i for i, settings in enumerate(configs) if settings.kind == kind]
            teachers = await _open(kind, [configs[i] for i in places])
            for place, teacher in zip(places, teachers, strict=True):
                opened[place] = teacher
                stack.push_async_callback(teacher.close)
        stack.pop_all()
    return [opened[place] for place in range(len(configs))]


async def _open(kind: str, configs: Sequence[config.AnyTeacher]) -> list[Teacher]:
    extra = _EXTRAS.get(kind)
    try:
        adapter = cast("_Adapter", await asyncio.to_thread(import_module, _ADAPTERS[kind]))
        return await adapter.open_teachers(configs)
    except ImportError as error:
        # a module of our own that cannot be imported is a bug, not a missing extra
        if extra is None or (error.name or "").partition(".")[0] in _OURS:
            raise
        raise ConfigError(
            f"teachers: kind {kind!r} needs the extra: pip install 'data-arbitrage[{extra}]'"
            f" ({error})"
        ) from error
