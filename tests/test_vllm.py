"""vLLM teachers: real weights on the CPU, one engine for many arms, nothing left behind.

They need an environment of their own: `make test-vllm`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import os
import shutil
import signal
import sys
import warnings
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

pytest.importorskip("vllm", reason="vLLM has an environment of its own: make test-vllm")

from arbitrage import config
from arbitrage.errors import ConfigError, TeacherRejected, TeacherUnavailable
from arbitrage.types import Message
from reward.packaged import folder_of
from teachers.vllm import open_teachers
from tests.contracts import test_teacher as contract

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from teachers.vllm import VLLMTeacher

# an engine belongs to its loop, and takes half a minute to load: the tests share both
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:unclosed context:ResourceWarning"),
]

ASK = [Message("user", "Why do people drink water?")]
MODEL = "smollm2-135m-instruct"


def arm(name: str = "a", **changes: Any) -> config.VLLMTeacher:
    drawn = {"temperature": 0.0, "max_tokens": 24} | changes.pop("sampling", {})
    changes.setdefault("model", str(folder_of(MODEL)))
    return config.VLLMTeacher(name=name, kind="vllm", sampling=config.Sampling(**drawn), **changes)


@asynccontextmanager
async def opened(*arms: config.VLLMTeacher) -> AsyncIterator[list[VLLMTeacher]]:
    teachers = await open_teachers(arms)
    try:
        yield teachers
    finally:
        for teacher in teachers:
            await teacher.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def held() -> AsyncIterator[VLLMTeacher]:
    """An arm that keeps the engine open from one test to the next."""
    async with opened(arm("held")) as (teacher,):
        yield teacher
    del teacher
    # vLLM leaves its ZeroMQ contexts to the garbage collector: not in somebody else's test
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest_asyncio.fixture(loop_scope="module")
async def subject(held: VLLMTeacher) -> AsyncIterator[contract.Subject]:
    """The contract's."""
    llm = held._engine._llm
    endless = arm("slow", sampling={"max_tokens": 8000})
    async with asyncio.timeout(contract.A_MINUTE), opened(arm("t"), endless) as (teacher, slow):
        slow._sampling.ignore_eos = True
        yield contract.Subject(teacher, slow, None, lambda: computing(llm), lambda: idle(llm))


async def computing(llm: Any) -> None:
    """Waits until a request holds memory in the engine's process."""
    while await llm.reset_prefix_cache():  # noqa: ASYNC110 - another process's state
        await asyncio.sleep(0.01)


async def idle(llm: Any) -> None:
    """Waits until none does, and nobody waits for one."""
    while not await llm.reset_prefix_cache():  # noqa: ASYNC110 - another process's state
        await asyncio.sleep(0.01)
    assert llm.get_num_unfinished_requests() == 0


globals().update({name: it for name, it in vars(contract).items() if name.startswith("test_")})


async def test_arms_of_one_model_share_an_engine_and_keep_their_sampling(
    held: VLLMTeacher,
) -> None:
    async with opened(arm("a"), arm("b", sampling={"max_tokens": 5})) as (a, b):
        assert a._engine is b._engine
        assert a._engine is held._engine  # which another call has opened
        (long,), (short,) = await asyncio.gather(a.complete(ASK), b.complete(ASK))
    assert (long.completion_tokens, short.completion_tokens) == (24, 5)
    assert (long.finish_reason, short.finish_reason) == ("length", "length")
    assert long.text.startswith(short.text)
    assert long.prompt_tokens == short.prompt_tokens


async def test_closing_an_arm_leaves_the_other_its_calls() -> None:
    async with opened(arm("a"), arm("b")) as (a, b):
        calls = [asyncio.create_task(teacher.complete(ASK)) for teacher in (a, b)]
        await asyncio.sleep(0)
        await a.close()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(ends[0], TeacherUnavailable)
        assert not isinstance(ends[1], BaseException)
        assert (await b.complete(ASK))[0].text


async def test_several_answers_are_billed_one_prompt() -> None:
    drawn = {"n": 3, "temperature": 1.0, "seed": 5}
    async with opened(arm(sampling=drawn)) as (teacher,):
        answers = await teacher.complete(ASK)
    assert len({answer.text for answer in answers}) == 3
    assert answers[0].prompt_tokens
    assert [answer.prompt_tokens for answer in answers[1:]] == [0, 0]
    assert all(answer.completion_tokens for answer in answers)


async def test_a_seed_makes_an_answer_repeatable() -> None:
    async with opened(arm(sampling={"temperature": 1.0, "seed": 11})) as (teacher,):
        texts = {(await teacher.complete(ASK))[0].text for _ in range(3)}
    assert len(texts) == 1


async def test_long_prompts_with_a_seed_are_answered_side_by_side() -> None:
    prompts = [[Message("user", f"{number}: {'water ' * 1000}")] for number in range(10)]
    async with opened(arm(sampling={"temperature": 1.0, "seed": 11, "max_tokens": 4})) as (
        teacher,
    ):
        answers = await asyncio.gather(*(teacher.complete(prompt) for prompt in prompts))
    assert all((answer.prompt_tokens or 0) > 1000 for (answer,) in answers)


async def test_a_stop_string_ends_an_answer_before_it() -> None:
    async with opened(arm(), arm("b", sampling={"stop": ("question",)})) as (talks, stops):
        (whole,), (cut,) = await talks.complete(ASK), await stops.complete(ASK)
    assert "question" in whole.text
    assert whole.text.startswith(cut.text)
    assert "question" not in cut.text
    assert cut.finish_reason == "stop"


async def test_an_answer_follows_a_json_schema() -> None:
    schema = {
        "type": "object",
        "properties": {
            "drink": {"type": "string", "enum": ["water", "tea"]},
            "wet": {"type": "boolean"},
        },
        "required": ["drink", "wet"],
        "additionalProperties": False,
    }
    async with opened(arm(sampling={"json_schema": schema, "max_tokens": 200})) as (teacher,):
        (answer,) = await teacher.complete(ASK)
    read = json.loads(answer.text)
    assert set(read) == {"drink", "wet"}
    assert read["drink"] in {"water", "tea"}


async def test_the_pieces_of_the_first_answer_are_its_text() -> None:
    async with opened(arm(sampling={"n": 2, "temperature": 1.0})) as (teacher,):
        pieces: list[str] = []
        first, _ = await teacher.complete(ASK, pieces.append)
    assert len(pieces) > 1
    assert "".join(pieces) == first.text
    assert first.completion_tokens == 24


async def test_thoughts_that_the_template_opens_are_no_answer(
    held: VLLMTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat, tokens = held._engine._chat
    thinks = dataclasses.replace(chat, chat_template="{{ messages[0]['content'] }}\n<think>\n")
    monkeypatch.setattr(held._engine, "_chat", (thinks, tokens))
    pieces: list[str] = []
    for on_delta in (None, pieces.append):
        (answer,) = await held.complete(ASK, on_delta)
        assert answer.reasoning
        assert answer.text == ""
    assert pieces == []


async def test_cancelling_takes_every_answer_out_of_the_engine(held: VLLMTeacher) -> None:
    llm = held._engine._llm
    await idle(llm)
    async with opened(arm(sampling={"n": 4, "temperature": 1.0, "max_tokens": 8000})) as (teacher,):
        teacher._sampling.ignore_eos = True
        call = asyncio.create_task(teacher.complete(ASK))
        await computing(llm)
        assert llm.get_num_unfinished_requests() == 4
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        async with asyncio.timeout(contract.A_MINUTE):
            await idle(llm)


@pytest.mark.parametrize("text", ["water " * 9000, "half a \ud83d pair"])
async def test_a_prompt_that_the_model_cannot_take_is_rejected_in_one_line(
    held: VLLMTeacher, text: str
) -> None:
    with pytest.raises(TeacherRejected, match="vLLM: ") as caught:
        await held.complete([Message("user", text)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"model": "/no/such/folder"}, "model '/no/such/folder': there is no such folder"),
        ({"engine": {"max_num_seq": 4}}, "max_num_seq: unknown key; did you mean 'max_num_seqs'?"),
        ({"engine": {"max_model_len": 4}}, "set context_length of the teacher instead"),
        ({"engine": {"max_num_seqs": -1}}, "vLLM cannot load"),
        ({"dtype": "float7"}, "vLLM cannot load"),
        ({"sampling": {"top_p": 0.0}}, "sampling: top_p must be in"),
        ({"sampling": {"json_schema": {"type": "objekt"}}}, "sampling: "),
    ],
)
async def test_a_mistake_in_the_configuration_is_one_line(
    wrong: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        await open_teachers([arm("wrong", **wrong)])
    assert str(caught.value).startswith("teacher 'wrong': ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_model_that_does_not_fit_into_memory_is_one_line() -> None:
    small = arm("wrong", engine={"kv_cache_memory_bytes": 1 << 20}, context_length=8192)
    with pytest.raises(ConfigError) as caught:
        await open_teachers([small])
    assert str(caught.value).startswith("teacher 'wrong': vLLM cannot load ")
    assert "\n" not in str(caught.value)


async def test_a_base_model_is_told_what_it_lacks(tmp_path: Path) -> None:
    def but_for_the_template(_: str, files: list[str]) -> list[str]:
        return [name for name in files if name == "chat_template.jinja"]

    base = tmp_path / "base"
    shutil.copytree(folder_of(MODEL), base, copy_function=os.symlink, ignore=but_for_the_template)
    with pytest.raises(ConfigError, match=r"has no chat template; put one into its folder"):
        await open_teachers([arm(model=str(base))])


async def test_an_engine_that_dies_fails_its_calls_and_can_be_closed() -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.01)
            turns += 1

    counting = asyncio.create_task(count_turns())
    async with opened(arm(context_length=1024, sampling={"max_tokens": 1000})) as (teacher,):
        assert turns > 100  # the loop went on while the model was loaded
        counting.cancel()
        llm = teacher._engine._llm
        call = asyncio.create_task(teacher.complete(ASK))
        await computing(llm)
        (process,) = llm.engine_core.resources.engine_manager.processes
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(TeacherUnavailable, match="vLLM: "):
            await call
        with pytest.raises(TeacherUnavailable, match="vLLM: "):
            await teacher.complete(ASK)


_ANSWERS_WHEN_INTERRUPTED = """
import asyncio, multiprocessing, signal
from tests.test_vllm import ASK, arm, opened
async def main():
    interrupted = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted.set)
    async with opened(arm()) as (teacher,):
        print("loaded", flush=True)
        await interrupted.wait()
        (answer,) = await teacher.complete(ASK)
        print("answered", answer.completion_tokens, flush=True)
    print("processes", multiprocessing.active_children(), flush=True)
asyncio.run(main())
"""


async def test_it_answers_on_when_interrupted_says_nothing_and_leaves_no_process() -> None:
    root = Path(__file__).parents[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _ANSWERS_WHEN_INTERRUPTED,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        start_new_session=True,
    )
    assert process.stdout
    assert await process.stdout.readline() == b"loaded\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to the engine, too
    said, complained = await process.communicate()
    assert said.decode() == "answered 24\nprocesses []\n"
    # PyTorch misses Triton, which this environment leaves out
    assert [line for line in complained.decode().splitlines() if "Triton" not in line] == []
    assert process.returncode == 0
