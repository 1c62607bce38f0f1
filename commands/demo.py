"""`arbitrage demo`: the main job on embedded teachers: a real server, client and dataset."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import server
from arbitrage import config, prompts
from arbitrage.client import AsyncClient
from arbitrage.display.policy import favourites
from arbitrage.display.progress import Progress
from arbitrage.errors import ArbitrageError, NoWinner
from arbitrage.types import Prompt

if TYPE_CHECKING:
    from rich.console import Console

_IN_FLIGHT = 6
_HOW_TO_GO_ON = """
{samples} samples are in {folder}/data, one folder a language; {folder}/README.md is their card.
  {bin}/python -c "import datasets as d; print(d.load_dataset('{folder}', 'de')['train'][0])"

With teachers of your own: copy examples/embedded.toml, replace a teacher by yours, such as
  [[teachers]]
  name = "mine"
  kind = "openai"                          # vLLM, SGLang, TGI, llama.cpp, most hosts
  model = "Qwen/Qwen3-8B"
  base_url = "http://127.0.0.1:8000/v1"
  api_key_env = "MY_API_KEY"               # the variable's name, if it needs a key
and run:  {bin}/arbitrage serve -c mine.toml
then:     {bin}/arbitrage complete "Wo liegt Lima?"
"""


async def run(output: Path, console: Console, examples: Path | None = None) -> int:
    """Serves the example's teachers, sends them its prompts, and shows what comes of it.

    Args:
        output: the folder of the dataset; where it holds something, one named after it.
        console: where to show it.
        examples: a folder with `embedded.toml` and `prompts.jsonl`; by default, ours.

    Returns:
        How many samples there are.

    Raises:
        ArbitrageError: the teachers cannot be opened, or the folder cannot be written.
    """
    examples = examples or _examples()
    folder = _unused(output)
    settings = replace(
        config.load(examples / "embedded.toml"),
        service=config.Service(listen="127.0.0.1:0", metrics="127.0.0.1:0"),
        sink=config.Sink(path=folder),
    )
    asked = [p for p in prompts.read([examples / "prompts.jsonl"]) if isinstance(p, Prompt)]
    console.print("loading the teachers and the reward model; the first time takes a minute")
    async with (
        server.running(settings) as running,
        AsyncClient(running.address, attempts=1) as client,
    ):
        console.print(f"serving on {running.address}, metrics at {running.metrics_url}")
        with _Sending(console, client, len(asked), len(settings.teachers)) as sending:
            async with asyncio.TaskGroup() as group:
                for prompt in asked:
                    group.create_task(sending.send(prompt))
        policy = await client.policy()
    console.print(favourites(policy))
    for reason in sending.failures:
        console.print(f"no sample: {reason}")
    sending.say(_HOW_TO_GO_ON.format(folder=folder, samples=sending.samples, bin=_commands()))
    return sending.samples


class _Sending(Progress):
    """Sends prompts, some at once, and shows who wins.

    Attributes:
        samples: prompts with a winner so far.
        failures: why others ended without one, in the order of their ending.
    """

    def __init__(self, console: Console, client: AsyncClient, prompts: int, teachers: int) -> None:
        super().__init__(console)
        self.samples = 0
        self.failures: list[str] = []
        self._calls = 0
        self._client = client
        self._prompts = prompts
        self._teachers = teachers
        self._free = asyncio.Semaphore(_IN_FLIGHT)

    async def send(self, prompt: Prompt) -> None:
        """Sends one, when it is its turn."""
        won = None
        async with self._free:
            try:
                sample = await self._client.complete(prompt)
            except ArbitrageError as error:
                # nobody wins only after everyone was asked
                calls = self._teachers if isinstance(error, NoWinner) else 0
                self.failures.append(f"{prompt.prompt_id}: {error}")
            else:
                calls = len(sample.decision.arms)
                if sample.winner:
                    won = (sample.winner.teacher, sample.winner.reward or 0.0)
                self.samples += 1
        self._calls += calls
        self.count(prompt.language, calls, won)

    def summary(self) -> str:
        """One line: how far, for how long, and how many calls were saved."""
        done = self.samples + len(self.failures)
        everyone = done * self._teachers
        saved = 1 - self._calls / everyone if everyone else 0.0
        return (
            f"{done}/{self._prompts} prompts in {perf_counter() - self._begun:.0f} s, "
            f"{self._calls} calls ({saved:.0%} fewer than asking all {self._teachers})"
        )


def _examples() -> Path:
    """The folder of examples: in a wheel beside the core, in a checkout at its root."""
    root = Path(__file__).resolve().parent.parent
    core = root / "arbitrage" / "examples"
    return core if core.is_dir() else root / "examples"


def _commands() -> Path:
    """Where this environment's commands lie, from here."""
    return Path(os.path.relpath(sys.prefix)) / "bin"


def _unused(folder: Path) -> Path:
    """The folder, or the first of `folder-2`, `folder-3`, ... that holds nothing yet."""
    candidate, number = folder, 1
    while candidate.exists() and (not candidate.is_dir() or any(candidate.iterdir())):
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate
