"""A reward model loaded by vLLM: how it is started, asked and ended.

What computes runs in processes that vLLM starts. On a CPU they are made to start in seconds and
to leave memory to others; `engine` in the configuration says otherwise: `enforce_eager = false`
compiles the model, `kv_cache_memory_bytes` takes more.
"""

from __future__ import annotations

import asyncio
import difflib
import os
import signal
import warnings
from contextlib import aclosing
from dataclasses import fields
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from arbitrage.errors import ConfigError, RewardError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore::FutureWarning",
    # a fork would copy the locks of this process's other threads, gRPC's among them
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    # threads that spin while they wait would slow down other models on the same cores
    "OMP_WAIT_POLICY": "PASSIVE",
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)  # read when vLLM is imported

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from vllm import AsyncEngineArgs, PoolingParams
    from vllm.exceptions import VLLMError
    from vllm.inputs import tokens_input
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

_CPU_CACHE_BYTES = 1 << 30
_SECONDS_TO_END = 15.0
_MESSAGE_LENGTH = 300
_SET_ELSEWHERE = {"model": "set reward.model instead", "dtype": "set reward.dtype instead"}
_OWN = ("runner", "convert", "tokenizer", "tokenizer_mode", "skip_tokenizer_init")
# vLLM 0.32 takes this one for a model without a head, and does not find its weights
_ARCHITECTURES = {"Gemma3TextForSequenceClassification": "Gemma3ForCausalLM"}


class Engine:
    """One loaded classifier; `open` makes it."""

    def __init__(self, llm: AsyncLLM) -> None:
        self._llm = llm
        # the raw logit: a logistic function would make good answers alike
        self._asked = PoolingParams(task="classify", use_activation=False)
        model = llm.model_config
        last = model.pooler_config.seq_pooling_type == "LAST"
        self._pad: int | None = getattr(model.hf_text_config, "pad_token_id", None)
        self._pad = self._pad if last else None

    @classmethod
    async def open(
        cls, model: str, architecture: str, dtype: str, engine: Mapping[str, Any]
    ) -> Engine:
        """Starts the engine's processes, beside the event loop, and tries it.

        Args:
            model: folder or hub name of the weights.
            architecture: the name of the model's class in its configuration.
            dtype: of weights and activations.
            engine: further arguments of `AsyncEngineArgs`.

        Raises:
            ConfigError: the model cannot be loaded or run, or vLLM does not know a setting.
        """
        arguments = _arguments(model, architecture, dtype, engine)
        opened = cls(await asyncio.to_thread(_load, arguments))
        try:
            # what the processor lacks a kernel for is told here, not by the first answer
            await opened.score([0])
        except BaseException as error:
            await opened.close()
            if isinstance(error, RewardError):
                raise ConfigError(f"reward.model: vLLM cannot run {model!r}: {error}") from error
            raise
        return opened

    @property
    def limit(self) -> int:
        """Tokens of the longest row that it reads."""
        return int(self._llm.model_config.max_model_len)

    async def score(self, tokens: Sequence[int]) -> float:
        """The logit of a row, `logits[0][0]` in Transformers. Cancelled, it is taken out.

        Raises:
            RewardError: the engine refuses the row, or has died.
        """
        prompt = tokens_input(self._without_padding(tokens))
        try:
            async with aclosing(self._llm.encode(prompt, self._asked, uuid4().hex)) as outputs:
                async for output in outputs:
                    logits = output.outputs.data
        except VLLMError as error:
            raise RewardError(f"vLLM: {line(error.__cause__ or error)}") from error
        if logits.numel() != 1:
            raise RewardError(f"vLLM: the engine gave {logits.numel()} figures for an answer")
        return float(logits)

    async def close(self) -> None:
        """Ends the engine's processes; requests under way must have ended before."""
        # left running, it would report that the engine has died
        if self._llm.output_handler:
            self._llm.output_handler.cancel()
        await asyncio.to_thread(self._llm.shutdown, _SECONDS_TO_END)
        del self._llm

    def _without_padding(self, tokens: Sequence[int]) -> list[int]:
        """The row up to the token at whose state Transformers reads the reward.

        That is the last one which is not the padding token, even where a chat template
        ends with it; vLLM reads the last one.
        """
        end = len(tokens)
        while end > 1 and tokens[end - 1] == self._pad:
            end -= 1
        return list(tokens[:end])


def _load(arguments: Mapping[str, Any]) -> AsyncLLM:
    # An interrupt at the terminal is this process's to answer: it lets calls under way end, so
    # the engine must not. Its processes inherit what is blocked here; the tracker, which they
    # share, would unblock it where it starts.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        given = AsyncEngineArgs(**arguments)
        return AsyncLLM.from_vllm_config(
            given.create_engine_config(),
            disable_log_stats=given.disable_log_stats,
            enable_log_requests=given.enable_log_requests,
        )
    except Exception as error:
        raise ConfigError(
            f"reward.model: vLLM cannot load {arguments['model']!r}: {line(error)}"
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _arguments(
    model: str, architecture: str, dtype: str, engine: Mapping[str, Any]
) -> dict[str, Any]:
    """What `AsyncEngineArgs` is made with; of the caches, vLLM takes those the model allows."""
    _check_keys(engine)
    arguments: dict[str, Any] = {
        "model": model,
        "dtype": dtype,
        "runner": "pooling",
        "convert": "classify",
        # rows come as tokens
        "skip_tokenizer_init": True,
        # -1: as much of the model's own as the cache holds
        "max_model_len": -1,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if architecture in _ARCHITECTURES:
        arguments["hf_overrides"] = {"architectures": [_ARCHITECTURES[architecture]]}
    if current_platform.is_cpu():
        # compiling takes a minute and more, and by itself the cache takes most of the memory
        arguments["enforce_eager"] = True
        sizes = {"kv_cache_memory_bytes", "gpu_memory_utilization"} & engine.keys()
        if not sizes and not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
            arguments["kv_cache_memory_bytes"] = _CPU_CACHE_BYTES
    return {**arguments, **engine}


def _check_keys(engine: Mapping[str, Any]) -> None:
    known = [field.name for field in fields(AsyncEngineArgs)]
    for key in engine:
        where = f"reward.engine.{key}"
        if key in _SET_ELSEWHERE:
            raise ConfigError(f"{where}: {_SET_ELSEWHERE[key]}")
        if key in _OWN:
            raise ConfigError(f"{where}: is the reward's own; leave it out")
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "see vLLM's AsyncEngineArgs"
            raise ConfigError(f"{where}: unknown key; {hint}")


def line(error: BaseException) -> str:
    """What a library says, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MESSAGE_LENGTH else f"{text[: _MESSAGE_LENGTH - 1]}…"
