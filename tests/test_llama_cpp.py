"""Embedded models: real weights, shared engines, and a process that stays its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from arbitrage import config, weights
from arbitrage.errors import ConfigError, TeacherError, TeacherRejected
from arbitrage.types import Message
from teachers.llama_cpp import open_teachers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from teachers.llama_cpp import LlamaCppTeacher

ASK = [Message("user", "Why do people drink water?")]
CHAT, BASE = "smollm2-135m-instruct", "gemma-3-270m"


def settings(name: str, model: str = CHAT, **changes: Any) -> config.LlamaCppTeacher:
    sampling = config.Sampling(temperature=0.0, max_tokens=changes.pop("max_tokens", 24))
    changes.setdefault("sampling", sampling)
    changes.setdefault("context_length", 512)
    return config.LlamaCppTeacher(name=name, kind="llama_cpp", model=model, **changes)


@asynccontextmanager
async def opened(*configs: config.LlamaCppTeacher) -> AsyncIterator[list[LlamaCppTeacher]]:
    teachers = await open_teachers(configs)
    try:
        yield teachers
    finally:
        for teacher in teachers:
            await teacher.close()


async def test_arms_of_one_file_share_an_engine_and_keep_their_sampling() -> None:
    brief = config.Sampling(temperature=0.0, max_tokens=5)
    async with opened(settings("a"), settings("b", sampling=brief)) as (a, b):
        assert a._engine is b._engine
        answers = [answer for (answer,) in await asyncio.gather(a.complete(ASK), b.complete(ASK))]
        assert [answer.completion_tokens for answer in answers] == [24, 5]
        assert [answer.finish_reason for answer in answers] == ["length", "length"]
        assert answers[0].text.startswith(answers[1].text)
        assert answers[0].prompt_tokens == answers[1].prompt_tokens


async def test_a_base_model_answers_by_its_template_and_stops_before_the_next_question() -> None:
    asked = settings("a", BASE, max_tokens=64, prompt_template="Question: {prompt}\nAnswer:")
    async with opened(asked) as (teacher,):
        (answer,) = await teacher.complete([Message("user", "¿Cuál es la capital de Perú?")])
    assert "Lima" in answer.text
    assert "Question:" not in answer.text
    assert answer.completion_tokens


async def test_a_seed_makes_an_answer_repeatable() -> None:
    drawn = config.Sampling(temperature=1.0, max_tokens=16, seed=11)
    async with opened(settings("a", sampling=drawn)) as (teacher,):
        texts = {(await teacher.complete(ASK))[0].text for _ in range(3)}
    assert len(texts) == 1


async def test_a_prompt_that_does_not_fit_is_rejected_in_one_line() -> None:
    async with opened(settings("a")) as (teacher,):
        with pytest.raises(TeacherRejected, match=r"exceeds the available context size") as caught:
            await teacher.complete([Message("user", "water " * 2000)])
    assert "\n" not in str(caught.value)


async def test_any_gguf_file_is_one_entry(tmp_path: Path) -> None:
    file = tmp_path / "own.gguf"
    file.symlink_to(weights.locate(CHAT))
    async with opened(settings("a", str(file), sha256=weights.PACKAGED[CHAT].sha256)) as (teacher,):
        assert (await teacher.complete(ASK))[0].text


async def test_a_wrong_digest_a_cut_file_and_a_missing_template_are_one_line(
    tmp_path: Path,
) -> None:
    whole = weights.locate(BASE)
    base, cut = tmp_path / "base.gguf", tmp_path / "cut.gguf"
    base.symlink_to(whole)
    with whole.open("rb") as source:
        cut.write_bytes(source.read(8_000_000))
    for wrong, reason in [
        (settings("a", str(base), sha256="0" * 64), "SHA-256 is"),
        (settings("a", str(base)), "has no chat template; set prompt_template"),
        (settings("a", str(base), prompt_template="Q:"), "prompt_template must contain {prompt}"),
        (settings("a", str(cut), prompt_template="{prompt}"), "cut.gguf: llama.cpp cannot load"),
    ]:
        with pytest.raises(ConfigError) as caught:
            await open_teachers([wrong])
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)


async def test_waiting_for_a_slot_can_be_cancelled() -> None:
    async with opened(settings("a", max_concurrency=1)) as (teacher,):
        first = asyncio.create_task(teacher.complete(ASK))
        second = asyncio.create_task(teacher.complete(ASK))
        while not teacher._engine._free_slots.locked():  # noqa: ASYNC110 - no such event
            await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert (await first)[0].text


_LOADS_AND_WAITS = """
import asyncio, signal
from tests.test_llama_cpp import opened, settings
async def main():
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with opened(settings("a")):
        print("loaded", flush=True)
        await stopped.wait()
    print("closed", flush=True)
asyncio.run(main())
"""


def test_signals_stay_the_process_s_own() -> None:
    root = Path(__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, "-c", _LOADS_AND_WAITS],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    with process:
        assert process.stdout
        assert process.stdout.readline() == "loaded\n"
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60)[0] == "closed\n"
    assert process.returncode == 0


async def test_closing_an_arm_ends_its_calls_and_leaves_the_model_to_the_others() -> None:
    async with opened(settings("a", max_tokens=400), settings("b")) as (a, b):
        a._fields["ignore_eos"] = True
        call = asyncio.create_task(a.complete(ASK))
        await asyncio.sleep(0.1)
        await a.close()
        with pytest.raises(TeacherError):
            await call
        with pytest.raises(TeacherError):
            await a.complete(ASK)
        (later,) = await open_teachers([settings("c")])
        assert later._engine is b._engine
        assert (await b.complete(ASK))[0].text
        await later.close()
        assert (await b.complete(ASK))[0].text


async def test_several_answers_to_one_call_differ_and_count_the_prompt_once() -> None:
    sampling = config.Sampling(temperature=1.0, max_tokens=16, seed=3, n=3)
    async with opened(settings("a", sampling=sampling)) as (teacher,):
        answers = await teacher.complete(ASK)
        assert len({answer.text for answer in answers}) == 3
        assert answers[0].prompt_tokens
        assert [answer.prompt_tokens for answer in answers[1:]] == [0, 0]
        assert await teacher.complete(ASK) == answers


async def test_pieces_join_to_the_answer() -> None:
    base = settings("base", BASE, prompt_template="Question: {prompt}\nAnswer:")
    async with opened(settings("chat"), base) as teachers:
        for teacher in teachers:
            pieces: list[str] = []
            (answer,) = await teacher.complete(ASK, pieces.append)
            assert len(pieces) > 1
            assert "".join(pieces) == answer.text


async def test_a_schema_binds_the_answer() -> None:
    schema = {
        "type": "object",
        "properties": {"drink": {"type": "boolean"}},
        "required": ["drink"],
        "additionalProperties": False,
    }
    sampling = config.Sampling(temperature=0.0, max_tokens=64, json_schema=schema)
    base = settings("b", BASE, sampling=sampling, prompt_template="Question: {prompt}\nAnswer:")
    async with opened(settings("a", sampling=sampling), base) as teachers:
        for teacher in teachers:
            (answer,) = await teacher.complete(ASK)
            assert list(json.loads(answer.text)) == ["drink"]
