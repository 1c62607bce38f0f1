"""Reward models that are sequence classifiers: Skywork-Reward-V2 and its kind.

Any `AutoModelForSequenceClassification` with one label whose tokenizer has a
chat template; the raw output `logits[0][0]` is the reward. Candidates of all
prompts meet in one queue, and those of one prompt share its tokens.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from arbitrage.errors import ConfigError, RewardError
from arbitrage.types import Candidate, Prompt, Score
from reward.checkpoints import quiet, require_classifier, source
from reward.classifier import Classifier
from reward.devices import devices_named, dtype_named, first_line, replicas, use_all_cores
from reward.rendering import MAX_TOKENS, Rendered, Rendering
from reward.scoring import ScoringEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

    from arbitrage import config
    from reward import Run
    from reward.trees import Tree


async def open_reward(settings: config.TransformersReward, run: Run) -> TransformersReward:
    """Loads a reward model from a folder, or from the hub by its name.

    Raises:
        ConfigError: there is no such model, or it is no reward model.
    """
    devices = devices_named(settings.device)
    dtype = dtype_named(settings.dtype, devices[0])
    rendering, classifiers = await asyncio.to_thread(_load, settings, devices, dtype)
    first = next(iter(classifiers.values()))
    engine = ScoringEngine(
        classifiers,
        tokens=first.cost,
        max_tokens_per_batch=settings.max_tokens_per_batch,
        max_waiting=settings.max_waiting,
        hear=run.hear,
    )
    return TransformersReward(rendering, first.tree, engine, settings.max_tokens_per_batch)


class TransformersReward:
    """Scores answers with a sequence classifier; a larger logit is a better answer."""

    def __init__(
        self,
        rendering: Rendering,
        tree: Callable[[Sequence[Sequence[int]]], Tree],
        engine: ScoringEngine[Tree, list[float]],
        max_tokens_per_batch: int,
    ) -> None:
        self._rendering = rendering
        self._tree = tree
        self._engine = engine
        self._max_tokens = max_tokens_per_batch
        self._closed = False
        self._depth = 0
        # a tokenizer is not made for several threads
        self._renders = ThreadPoolExecutor(1, thread_name_prefix="reward-rendering")

    @property
    def queue_depth(self) -> int:
        """Candidates that wait to be scored, or are being scored now."""
        return self._depth

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score | None]:
        """Scores the candidates of one prompt, one score each, in order.

        Returns:
            None for an answer that is longer than the model reads; where a prompt was cut
            for its answer to fit, `raw` has how many tokens as `transformers.left_out`.

        Raises:
            RewardError: closed, the template refuses the prompt, or a device fails.
        """
        self._depth += len(candidates)
        try:
            rendered = await self._rendered(prompt, [_text(candidate) for candidate in candidates])
            rewards = iter(await self._rewards([pair.tokens for pair in rendered if pair]))
        finally:
            self._depth -= len(candidates)
        return [_score(next(rewards), pair) if pair else None for pair in rendered]

    async def close(self) -> None:
        """Frees the model; a call that comes later fails."""
        self._closed = True
        await self._engine.close()
        await asyncio.to_thread(self._renders.shutdown)

    async def _rendered(self, prompt: Prompt, answers: Sequence[str]) -> list[Rendered | None]:
        def render() -> list[Rendered | None]:
            return [self._rendering.render(prompt, answer) for answer in answers]

        if self._closed:
            raise RewardError("the reward model is closed; open it again to score")
        return await asyncio.get_running_loop().run_in_executor(self._renders, render)

    async def _rewards(self, rows: Sequence[Sequence[int]]) -> list[float]:
        if not rows:
            return []
        parts = self._tree(rows).split(self._max_tokens)
        scored = await asyncio.gather(*map(self._engine.score, parts))
        return [reward for part in scored for reward in part]


def _text(candidate: Candidate) -> str:
    return candidate.completion.text if candidate.completion else ""


def _score(reward: float, pair: Rendered) -> Score:
    raw = {"transformers": reward}
    if pair.left_out:
        raw["transformers.left_out"] = float(pair.left_out)
    return Score(reward=reward, raw=raw)


def _load(
    settings: config.TransformersReward, devices: Sequence[torch.device], dtype: torch.dtype
) -> tuple[Rendering, Mapping[str, Classifier]]:
    use_all_cores()
    name = source(settings.model)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(name)
            model, found = AutoModelForSequenceClassification.from_pretrained(
                name, dtype=dtype, output_loading_info=True
            )
    except (OSError, ValueError, SafetensorError) as error:
        message = f"reward.model: {name!r} cannot be loaded: {first_line(error)}"
        raise ConfigError(message) from error
    require_classifier(name, model.config.num_labels, found["missing_keys"], tokenizer)
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", MAX_TOKENS)
    rendering = Rendering(tokenizer, min(MAX_TOKENS, positions))
    classifiers = replicas(
        model,
        devices,
        lambda model, device: Classifier(
            model, device, settings.max_tokens_per_batch, compiles=settings.compile
        ),
    )
    return rendering, classifiers
