"""The reward that needs nothing but the packaged weights: a likelihood ratio under Gemma 3 270M.

For an answer a of n tokens to a prompt x it takes two figures, both in nats a token:

    relevance = (log p(a | x) - log p(a)) / n     how much the prompt explains the answer
    fluency   = log p(a) / n                      how probable a text the answer is by itself

and ranks by `relevance + fluency / 2`. Relevance alone (pointwise mutual
information) favours rare words; likelihood alone favours platitudes. It tells
an on-topic answer from an off-topic one in many languages; it does not judge
truth or style, for which `docs/reward.md` has figures and the `transformers`
kind the means. A text that repeats itself is highly probable, so it counts on
the `repetition` gate before it.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from arbitrage.errors import ConfigError, RewardError
from arbitrage.types import Candidate, Prompt, Score
from reward import packaged, packed
from reward.devices import devices_named, dtype_named, replicas
from reward.reader import Answers, Reader
from reward.rendering import well_formed
from reward.scoring import ScoringEngine
from reward.trees import Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from arbitrage import config
    from reward import Run
    from reward.head import Reading

_log = logging.getLogger(__name__)
_QUESTION, _ANSWER = "Question: {prompt}\nAnswer:", "Answer:"
_FLUENCY_WEIGHT = 0.5
_MAX_PROMPT_TOKENS, _MAX_ANSWER_TOKENS = 1024, 1024


async def open_reward(settings: config.EmbeddedReward, run: Run) -> EmbeddedReward:
    """Loads the model; the first time ever, converts it, which takes most of a minute.

    Raises:
        ConfigError: the weights are missing or damaged, or cannot be converted.
    """
    devices = devices_named(settings.device)
    dtype = dtype_named(settings.dtype, devices[0])
    folder = await asyncio.to_thread(packaged.folder_of, settings.model or packaged.GEMMA)
    tokenizer, model = await asyncio.to_thread(packaged.load, folder, dtype)
    readers = await asyncio.to_thread(replicas, model, devices, _reader)
    engine = ScoringEngine(
        readers,
        tokens=lambda answers: answers.tokens,
        max_tokens_per_batch=settings.max_tokens_per_batch,
        max_waiting=settings.max_waiting,
        hear=run.hear,
    )
    return EmbeddedReward(tokenizer, engine, settings.max_tokens_per_batch)


class EmbeddedReward:
    """Scores by the likelihood ratio of the module's docstring."""

    def __init__(
        self, tokenizer: Any, engine: ScoringEngine[Answers, list[Reading]], max_tokens: int
    ) -> None:
        self._tokenizer = tokenizer
        self._engine = engine
        self._max_tokens = max_tokens
        # a tokenizer is not made for several threads
        self._tokenizes = ThreadPoolExecutor(1, thread_name_prefix="reward-tokens")
        self._closed = False

    @property
    def queue_depth(self) -> int:
        """Parts of prompts that wait to be read, or are being read now."""
        return self._engine.queue_depth

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        """Scores the candidates of one prompt, one score each, in order.

        Raises:
            RewardError: closed, or a device fails.
        """
        if self._closed:
            raise RewardError("the reward model is closed; open it again to score")
        if not candidates:
            return []
        answers = [c.completion.text if c.completion else "" for c in candidates]
        loop = asyncio.get_running_loop()
        parts = await loop.run_in_executor(self._tokenizes, self._parts, prompt, answers)
        read = await asyncio.gather(*map(self._engine.score, parts))
        return [_score(reading) for readings in read for reading in readings]

    async def close(self) -> None:
        """Frees the model; a call that comes later fails."""
        self._closed = True
        await self._engine.close()
        await asyncio.to_thread(self._tokenizes.shutdown, cancel_futures=True)

    def _parts(self, prompt: Prompt, answers: Sequence[str]) -> list[Answers]:
        question = "\n\n".join(m.content for m in prompt.messages)
        given = self._tokens(_QUESTION.format(prompt=question))
        # the question's two ends stay, and the words around it
        over = max(0, len(given) - _MAX_PROMPT_TOKENS)
        half = _MAX_PROMPT_TOKENS // 2
        given = given[:half] + given[half + over :]
        alone = self._tokens(_ANSWER)
        branches = tuple(
            tuple(self._tokens(f" {answer.strip()}", start=False)[:_MAX_ANSWER_TOKENS])
            for answer in answers
        )
        room = (self._max_tokens + len(given) - len(alone)) // 2
        return [
            Answers(part, Tree(tuple(alone), part.branches))
            for part in Tree(tuple(given), branches).split(room)
        ]

    def _tokens(self, text: str, *, start: bool = True) -> list[int]:
        tokens: list[int] = self._tokenizer(well_formed(text), add_special_tokens=start).input_ids
        return tokens


def _score(reading: Reading) -> Score:
    marginal = float(reading.log_p_alone.mean())
    relevance, fluency = float(reading.log_p_given.mean()) - marginal, marginal
    return Score(
        reward=relevance + _FLUENCY_WEIGHT * fluency,
        raw={"relevance": relevance, "fluency": fluency},
    )


def _reader(model: Any, device: torch.device) -> Reader:
    if not packed.packs(model.model, device):
        raise ConfigError(
            f"reward.device: {str(device)!r} computes other scores in packed passes; use 'cpu'"
        )
    return Reader(model, device)
