"""Reward models on vLLM in this process: continuous batching, a prefix cache, several GPUs.

The models are those of `reward.transformers`, and so are their scores: one raw logit an
answer. The candidates of a prompt begin with the same tokens, which a decoder reads once.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from arbitrage.errors import ConfigError, RewardError
from arbitrage.types import Candidate, Prompt, Score
from reward.checkpoints import quiet, require_classifier, source
from reward.rendering import MAX_TOKENS, Rendered, Rendering
from reward.vllm.engine import Engine, line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage import config

_CLOSED = "the reward model is closed; open it again to score"
# arguments of the engine that say which files a hub's name stands for
_SOURCE = ("revision", "trust_remote_code")


async def open_reward(settings: config.VLLMReward, _run: object = None) -> VLLMReward:
    """Loads a reward model from a folder, or from the hub by its name.

    Raises:
        ConfigError: there is no such model, it is no reward model, or vLLM cannot run it.
    """
    options = {key: settings.engine[key] for key in _SOURCE if key in settings.engine}
    model = source(settings.model)
    tokenizer, architecture = await asyncio.to_thread(_check, model, options)
    engine = await Engine.open(model, architecture, settings.dtype, settings.engine)
    return VLLMReward(Rendering(tokenizer, min(MAX_TOKENS, engine.limit)), engine)


class VLLMReward:
    """Scores answers with a sequence classifier; a larger logit is a better answer."""

    def __init__(self, rendering: Rendering, engine: Engine) -> None:
        self._rendering = rendering
        self._engine = engine
        # a tokenizer is not made for several threads
        self._renders = ThreadPoolExecutor(1, thread_name_prefix="reward-rendering")
        self._calls: set[asyncio.Task[list[Score | None]]] = set()
        self._depth = 0
        self._closed = asyncio.Event()

    @property
    def queue_depth(self) -> int:
        """Candidates that wait to be scored, or are being scored now."""
        return self._depth

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score | None]:
        """Scores the candidates of one prompt beside those of others, one score each, in order.

        Returns:
            None for an answer that is longer than the model reads; where a prompt was cut
            for its answer to fit, `raw` has how many tokens as `vllm.left_out`.

        Raises:
            RewardError: closed, the template refuses the prompt, or the engine has died.
        """
        if self._closed.is_set():
            raise RewardError(_CLOSED)
        # a task of its own, which closing can end wherever it has got to
        call = asyncio.create_task(self._score(prompt, [_text(c) for c in candidates]))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        self._depth += len(candidates)
        try:
            return await call
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if self._closed.is_set() and not (caller and caller.cancelling()):
                raise RewardError(_CLOSED) from None
            raise
        finally:
            self._depth -= len(candidates)

    async def close(self) -> None:
        """Ends the calls under way, and the engine's processes; a later call fails."""
        if self._closed.is_set():
            return
        self._closed.set()
        calls = list(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.to_thread(self._renders.shutdown)
        await self._engine.close()

    async def _score(self, prompt: Prompt, answers: Sequence[str]) -> list[Score | None]:
        def render() -> list[Rendered | None]:
            return [self._rendering.render(prompt, answer) for answer in answers]

        pairs = await asyncio.get_running_loop().run_in_executor(self._renders, render)
        try:
            async with asyncio.TaskGroup() as group:
                scores = [group.create_task(self._score_pair(pair)) for pair in pairs]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [score.result() for score in scores]

    async def _score_pair(self, pair: Rendered | None) -> Score | None:
        if pair is None:
            return None
        reward = await self._engine.score(pair.tokens)
        raw = {"vllm": reward}
        if pair.left_out:
            raw["vllm.left_out"] = float(pair.left_out)
        return Score(reward=reward, raw=raw)


def _text(candidate: Candidate) -> str:
    return candidate.completion.text if candidate.completion else ""


def _check(name: str, options: dict[str, Any]) -> tuple[Any, str]:
    """The tokenizer and the architecture of a model; no weights are read yet."""
    try:
        own = AutoConfig.from_pretrained(name, **options)
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        # how weights are stored that are quantized is vLLM's business
        missing = [] if hasattr(own, "quantization_config") else _missing(name, options)
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"reward.model: {name!r} cannot be loaded: {line(error)}") from error
    require_classifier(name, own.num_labels, missing, tokenizer)
    return tokenizer, (own.architectures or [""])[0]


def _missing(name: str, options: dict[str, Any]) -> list[str]:
    """The weights that the classifier needs and its files lack."""
    with quiet():
        _, found = AutoModelForSequenceClassification.from_pretrained(
            name, device_map="meta", output_loading_info=True, **options
        )
    return list(found["missing_keys"])
