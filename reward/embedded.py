"""The reward that needs nothing but the packaged weights: a small head on a frozen Gemma 3 270M.

The model reads each answer twice, after the question and alone (`reader.py`); a linear head
weighs what that leaves (`head.py`). It was trained on good answers against wrong-language,
off-topic, repeated, truncated, garbled and otherwise bad ones (`examples/reward/README.md`), by
`arbitrage reward train`, whose heads it opens too. What it can tell and what it cannot,
`docs/reward.md` has figures for.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from arbitrage.errors import ConfigError, RewardError
from arbitrage.types import Candidate, Prompt, Score
from reward import packaged, packed
from reward.devices import devices_named, dtype_named, replicas
from reward.head import HEAD, Head, features
from reward.reader import Answers, Reader
from reward.scoring import ScoringEngine
from reward.wording import Wording

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage import config
    from reward import Run
    from reward.head import Reading

SHIPPED = Path(__file__).with_name("embedded_head.safetensors")


async def open_reward(settings: config.EmbeddedReward, run: Run) -> EmbeddedReward:
    """Loads head and model; the first time ever, converts it, which takes most of a minute.

    Raises:
        ConfigError: a file is missing or damaged, or the weights cannot be converted.
    """
    devices = devices_named(settings.device)
    head = Head.open(_head(settings.model))
    dtype = dtype_named(settings.dtype, devices[0])
    tokenizer, model = await asyncio.to_thread(packaged.load, head.backbone, dtype)
    graders = await asyncio.to_thread(
        replicas, model, devices, lambda model, device: Grader(_reader(model, device), head, device)
    )
    engine = ScoringEngine(
        graders,
        tokens=lambda answers: answers.tokens,
        max_tokens_per_batch=settings.max_tokens_per_batch,
        max_waiting=settings.max_waiting,
        hear=run.hear,
    )
    return EmbeddedReward(Wording(tokenizer, settings.max_tokens_per_batch), engine)


class EmbeddedReward:
    """Scores with a head on a frozen model; of an answer, it reads the first 1,024 tokens."""

    def __init__(self, wording: Wording, engine: ScoringEngine[Answers, list[Score]]) -> None:
        self._wording = wording
        self._engine = engine
        # a tokenizer is not made for several threads
        self._words = ThreadPoolExecutor(1, thread_name_prefix="reward-wording")
        self._closed = False
        self._depth = 0

    @property
    def queue_depth(self) -> int:
        """Candidates that wait to be scored, or are being scored now."""
        return self._depth

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        """Scores the candidates of one prompt, one score each, in order.

        Raises:
            RewardError: closed, or a device fails.
        """
        if self._closed:
            raise RewardError("the reward model is closed; open it again to score")
        if not candidates:
            return []
        question = "\n\n".join(m.content for m in prompt.messages)
        answers = [c.completion.text if c.completion else "" for c in candidates]
        loop = asyncio.get_running_loop()
        self._depth += len(candidates)
        try:
            parts = await loop.run_in_executor(self._words, self._wording.parts, question, answers)
            graded = await asyncio.gather(*map(self._engine.score, parts))
        finally:
            self._depth -= len(candidates)
        return [score for scores in graded for score in scores]

    async def close(self) -> None:
        """Frees the model; a call that comes later fails."""
        self._closed = True
        await self._engine.close()
        await asyncio.to_thread(self._words.shutdown)


class Grader:
    """Reads answers, and weighs what that leaves, on one device."""

    def __init__(self, reader: Reader, head: Head, device: torch.device) -> None:
        self._reader = reader
        self._head = head.to(device)

    @torch.inference_mode()
    def compute(self, batch: Sequence[Answers]) -> list[list[Score]]:
        """The scores of each prompt's answers, in order."""
        return [self._scores(readings) for readings in self._reader.compute(batch)]

    def _scores(self, readings: Sequence[Reading]) -> list[Score]:
        rewards = self._head.scores(torch.stack([features(reading) for reading in readings]))
        pairs = zip(rewards.tolist(), readings, strict=True)
        return [_score(reward, reading) for reward, reading in pairs]


def _score(reward: float, reading: Reading) -> Score:
    """Beside the reward two figures, in nats a token, that say where it comes from.

    `fluency` is the answer's mean log probability by itself; `relevance` is by how much the
    question raises it.
    """
    fluency = float(reading.log_p_alone.mean())
    relevance = float(reading.log_p_given.mean()) - fluency
    return Score(reward, {"embedded": reward, "relevance": relevance, "fluency": fluency})


def _head(folder: str | None) -> Path:
    if folder is None:
        return SHIPPED
    path = Path(folder).expanduser() / HEAD
    if not path.is_file():
        raise ConfigError(
            f"reward.model: {folder!r} has no {HEAD}; name a folder that `arbitrage reward train` "
            "has written, or leave it out for the shipped head"
        )
    return path


def _reader(model: Any, device: torch.device) -> Reader:
    if not packed.packs(model.model, device):
        raise ConfigError(
            f"reward.device: {str(device)!r} computes other scores in packed passes; use 'cpu'"
        )
    return Reader(model, device)
