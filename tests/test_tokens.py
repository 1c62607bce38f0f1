"""Tokens counted here, where an endpoint does not count them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from arbitrage import config
from arbitrage.errors import ConfigError
from arbitrage.types import Completion, Message
from teachers.openai import open_teachers
from teachers.tokens import TokenCounter
from tests.chat_server import body, body_of, chunk, events, sends, serve, streams

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chat_server import ChatServer

TURNS = (Message("system", "a b c"), Message("user", "d e"))
PROMPT_TOKENS = 3 + 2 + 2 * 4


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A `tokenizer.json` by which every word is a token, with one special token before them."""
    words = Tokenizer(WordLevel({"?": 0, "<s>": 1}, unk_token="?"))  # noqa: S106 - a word
    words.pre_tokenizer = WhitespaceSplit()
    words.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    words.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


async def ask(server: ChatServer, tokenizer: Path, **settings: Any) -> list[Completion]:
    (teacher,) = await open_teachers([server.settings(tokenizer=str(tokenizer), **settings)])
    try:
        return list(await teacher.complete(TURNS))
    finally:
        await teacher.close()


async def test_what_the_endpoint_does_not_count_is_counted(tokenizer: Path) -> None:
    async with serve(sends({"choices": body("one two three")["choices"]})) as server:
        (answer,) = await ask(server, tokenizer)
    assert answer == Completion("one two three", "stop", PROMPT_TOKENS, 3)


async def test_thoughts_are_counted_with_the_answer(tokenizer: Path) -> None:
    choices = body_of(content="<think>so so</think>\n\nHi.", reasoning="hm hm ")["choices"]
    async with serve(sends({"choices": choices})) as server:
        (answer,) = await ask(server, tokenizer)
    assert answer.completion_tokens == 5


async def test_each_of_several_answers_is_counted(tokenizer: Path) -> None:
    choices = body("one")["choices"] + body("one two")["choices"]
    async with serve(sends({"choices": choices})) as server:
        answers = await ask(server, tokenizer, sampling=config.Sampling(n=2))
    assert [(a.prompt_tokens, a.completion_tokens) for a in answers] == [(PROMPT_TOKENS, 1), (0, 2)]


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 70, "completion_tokens": 20}, (70, 20)),
        ({"prompt_tokens": 70}, (70, 1)),
        ({"completion_tokens": 20}, (PROMPT_TOKENS, 20)),
    ],
)
async def test_what_the_endpoint_counts_is_taken(
    tokenizer: Path, usage: dict[str, int], counts: tuple[int, int]
) -> None:
    async with serve(sends(body("one") | {"usage": usage})) as server:
        (answer,) = await ask(server, tokenizer)
    assert (answer.prompt_tokens, answer.completion_tokens) == counts


async def test_streams_are_counted_too(tokenizer: Path) -> None:
    pieces = (chunk("one "), chunk("two", finish_reason="stop"))
    usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 20}}
    for chunks, tokens in ((pieces, 2), ((*pieces, usage), 20)):
        async with serve(streams([events(*chunks)])) as server:
            (teacher,) = await open_teachers([server.settings(tokenizer=str(tokenizer))])
            (answer,) = await teacher.complete(TURNS, lambda _: None)
            await teacher.close()
        assert answer.completion_tokens == tokens


async def test_a_folder_is_as_good_as_its_file(tokenizer: Path) -> None:
    counter = await TokenCounter.load(str(tokenizer.parent), "t")
    (answer,) = await counter.count(TURNS, [Completion("one two")])
    assert answer.completion_tokens == 2


async def test_a_long_text_is_counted_as_a_short_one_is(tokenizer: Path) -> None:
    counter = await TokenCounter.load(str(tokenizer), "t")
    (answer,) = await counter.count(TURNS, [Completion("one " * 100_000)])
    assert answer.completion_tokens == 100_000


async def test_half_a_surrogate_pair_in_a_prompt_is_counted(tokenizer: Path) -> None:
    counter = await TokenCounter.load(str(tokenizer), "t")
    (answer,) = await counter.count([Message("user", "a \ud83d b")], [Completion("")])
    assert (answer.prompt_tokens, answer.completion_tokens) == (3 + 4, 0)


@pytest.mark.parametrize("name", ["nowhere/tokenizer.json", "./nowhere", "{}", "a/b/c", ""])
async def test_a_tokenizer_that_is_missing_or_none_is_a_config_error(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("none")
    with pytest.raises(ConfigError) as caught:
        await TokenCounter.load(str(tmp_path / "file") if name == "{}" else name, "teacher 't'")
    assert str(caught.value).startswith("teacher 't': tokenizer ")
    assert "\n" not in str(caught.value)


async def test_arms_with_one_tokenizer_share_it(tokenizer: Path) -> None:
    async with serve(sends()) as server:
        settings = [
            server.settings(name=name, tokenizer=path)
            for name, path in (("a", str(tokenizer)), ("b", str(tokenizer)), ("c", None))
        ]
        first, second, third = await open_teachers(settings)
    assert first._counter is second._counter
    assert third._counter is None


def run(program: str, **environment: str) -> str:
    program = f"import asyncio\nfrom teachers.tokens import TokenCounter\n{program}"
    command = (sys.executable, "-c", program)
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr.strip().rpartition("\n")[2]


def test_a_name_that_the_hub_does_not_hold_is_a_config_error() -> None:
    load = "asyncio.run(TokenCounter.load('nobody/nothing', 'teacher t'))"
    said = run(load, HF_HUB_OFFLINE="1")
    assert said.startswith("arbitrage.errors.ConfigError: teacher t: tokenizer 'nobody/nothing'")


def test_the_library_is_imported_only_where_it_is_needed() -> None:
    assert run("import sys, teachers.openai\nprint('tokenizers' in sys.modules)") == "False\n"
    missing = "import sys\nsys.modules['tokenizers'] = None\n"
    said = run(missing + "asyncio.run(TokenCounter.load('tokenizer.json', 'teacher t'))")
    assert "teacher t: tokenizer needs the extra: pip install 'data-arbitrage[tokenizer]'" in said
