"""Opening a pool from a configuration: order, clean failure, and imports only on demand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import teachers
from arbitrage import config
from arbitrage.errors import ConfigError
from arbitrage.types import Prompt
from teachers import Budget, open_pool
from teachers.scripted import ScriptedTeacher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage.events import Called


def settings(name: str = "a", **fields: Any) -> config.ScriptedTeacher:
    return config.ScriptedTeacher(name=name, kind="scripted", **fields)


async def test_open_pool_keeps_the_order_across_kinds() -> None:
    hosted = config.OpenAITeacher(
        name="b", kind="openai", model="m", base_url="http://127.0.0.1:9/v1"
    )
    pool = await open_pool([settings("a"), hosted, settings("c")])
    assert [info.name for info in pool.describe()] == ["a", "b", "c"]
    (candidate,) = await pool.ask("c", Prompt.of("Why?"))
    assert candidate.completion
    await pool.close()


async def test_open_pool_passes_on_what_holds_for_all() -> None:
    heard: list[Called] = []
    pool = await open_pool(
        [settings("a", trainable=True), settings("b")],
        budget=Budget(1.0),
        only_trainable=True,
        hear=heard.append,
    )
    prompt = Prompt.of("Why?")
    assert pool.available(prompt) == ["a"]
    assert pool.budget.remaining_usd == 1.0
    await pool.ask("a", prompt)
    assert [(call.teacher, call.outcome) for call in heard] == [("a", "ok")]
    await pool.close()


async def test_open_pool_closes_what_is_open_when_one_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed = []

    class Opened(ScriptedTeacher):
        async def close(self) -> None:
            closed.append(self.name)

    async def open_teachers(configs: Sequence[config.ScriptedTeacher]) -> list[ScriptedTeacher]:
        return [Opened(settings) for settings in configs]

    monkeypatch.setattr("teachers.scripted.open_teachers", open_teachers)
    hosted = config.OpenAITeacher(name="b", kind="openai", model="m", base_url="nowhere")
    with pytest.raises(ConfigError, match="base_url"):
        await open_pool([settings("a"), hosted, settings("c")])
    assert closed == ["c", "a"]


@pytest.mark.parametrize(
    ("teacher", "needed", "extra"),
    [
        (config.LlamaCppTeacher(name="a", kind="llama_cpp", model="m"), "xllamacpp", "embedded"),
        (config.VLLMTeacher(name="a", kind="vllm", model="m"), "vllm", "vllm"),
    ],
)
async def test_a_missing_extra_is_named(
    teacher: config.AnyTeacher, needed: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("llama_cpp", "llama_engine", "vllm", "vllm_engine"):
        monkeypatch.delitem(sys.modules, f"teachers.{name}", raising=False)
        monkeypatch.delattr(teachers, name, raising=False)
    monkeypatch.setitem(sys.modules, needed, None)
    with pytest.raises(ConfigError) as caught:
        await open_pool([teacher])
    assert str(caught.value).startswith(
        f"teachers: kind {teacher.kind!r} needs the extra: pip install 'data-arbitrage[{extra}]'"
    )


async def test_a_module_of_ours_that_is_missing_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "teachers.llama_cpp", None)
    local = config.LlamaCppTeacher(name="a", kind="llama_cpp", model="m.gguf")
    with pytest.raises(ImportError):
        await open_pool([local])


def test_importing_the_package_imports_no_adapter() -> None:
    heavy = {"aiohttp", "litellm", "tokenizers", "vllm", "xllamacpp"}
    check = f"import sys, teachers; print(*{heavy} & set(sys.modules))"
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
