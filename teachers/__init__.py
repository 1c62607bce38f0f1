"""Teachers: the models that answer prompts, and the pool that asks them.

An adapter is a module with `open_teachers`; `_ADAPTERS` names it by the
configuration's `kind`. It is imported when a configuration asks for it, since
most bring a heavy library.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from arbitrage.errors import ConfigError
from teachers.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arbitrage import config
    from arbitrage.ports import Teacher

__all__ = ["Pool", "open_pool"]

_ADAPTERS: Mapping[str, str] = {
    "llama_cpp": "teachers.llama_cpp",
    "openai": "teachers.openai",
    "scripted": "teachers.scripted",
}
_EXTRAS: Mapping[str, str] = {"llama_cpp": "embedded"}
_OURS = ("arbitrage", "teachers")


class _Adapter(Protocol):
    async def open_teachers(self, configs: Sequence[Any]) -> list[Teacher]:
        """One teacher for each of the configurations, all of the adapter's kind, in order."""


async def open_pool(configs: Sequence[config.AnyTeacher]) -> Pool:
    """Opens every teacher of a configuration; the pool keeps their order.

    All configurations of a kind are opened together, so that arms which differ
    only in sampling can share an engine. If one fails, those already open are closed.

    Raises:
        ConfigError: a teacher cannot be opened as configured, or its extra is not installed.
    """
    opened: dict[int, Teacher] = {}
    async with AsyncExitStack() as stack:
        for kind in dict.fromkeys(settings.kind for settings in configs):
            places = [i for i, settings in enumerate(configs) if settings.kind == kind]
            teachers = await _open(kind, [configs[i] for i in places])
            for place, teacher in zip(places, teachers, strict=True):
                opened[place] = teacher
                stack.push_async_callback(teacher.close)
        pool = Pool([(settings, opened[i]) for i, settings in enumerate(configs)])
        stack.pop_all()
    return pool


async def _open(kind: str, configs: Sequence[config.AnyTeacher]) -> list[Teacher]:
    extra = _EXTRAS.get(kind)
    try:
        adapter = cast("_Adapter", import_module(_ADAPTERS[kind]))
        return await adapter.open_teachers(configs)
    except ImportError as error:
        # a module of our own that cannot be imported is a bug, not a missing extra
        if extra is None or (error.name or "").partition(".")[0] in _OURS:
            raise
        raise ConfigError(
            f"teachers: kind {kind!r} needs the extra: pip install 'data-arbitrage[{extra}]'"
            f" ({error})"
        ) from error
