"""A model loaded by vLLM: how it is started, asked and ended.

What computes runs in processes that vLLM starts. On a CPU they are made to start in seconds and
to leave memory to others; `engine` in the configuration says otherwise: `enforce_eager = false`
compiles the model, `kv_cache_memory_bytes` takes more.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import os
import signal
import warnings
from contextlib import aclosing
from dataclasses import dataclass, fields
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from arbitrage.errors import ConfigError, TeacherRejected, TeacherUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from arbitrage import config
    from arbitrage.types import Message

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
    from vllm import AsyncEngineArgs, SamplingParams
    from vllm.exceptions import GracefulHTTPError, VLLMClientError, VLLMServerError
    from vllm.platforms import current_platform
    from vllm.renderers import ChatParams, renderer_from_config
    from vllm.renderers.chat_utils import ChatTemplateResolutionError
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
    from vllm.utils.mistral import is_mistral_tokenizer
    from vllm.v1.engine.async_llm import AsyncLLM

_DEFAULT_MAX_TOKENS = 512
_CPU_CACHE_BYTES = 1 << 30
_SECONDS_TO_END = 15.0
_MESSAGE_LENGTH = 300
_OWN_KEYS = {"model": "model", "dtype": "dtype", "max_model_len": "context_length"}


@dataclass(frozen=True, slots=True)
class Settings:
    """What arms must have in common to share an engine."""

    model: str
    dtype: str
    context_length: int | None
    engine: str

    @classmethod
    def of(cls, arm: config.VLLMTeacher) -> Settings:
        """Those of an arm."""
        engine = json.dumps(dict(arm.engine), sort_keys=True)
        return cls(arm.model, arm.dtype, arm.context_length, engine)


class Engine:
    """One loaded model; `open` makes it."""

    def __init__(self, llm: AsyncLLM) -> None:
        self._llm = llm
        self._chat = _chat(llm.renderer)

    @classmethod
    async def open(cls, settings: Settings, where: str) -> Engine:
        """Starts the engine's processes, beside the event loop.

        Args:
            settings: the model, and how it is run.
            where: what an error's message begins with.

        Raises:
            ConfigError: the model cannot be loaded or has no chat template, or vLLM does
                not know a setting.
        """
        arguments = _arguments(settings, where)
        return cls(await asyncio.to_thread(_load, arguments, where))

    def sampling(self, drawn: config.Sampling, where: str) -> SamplingParams:
        """How requests draw their tokens; what is not set is the model's own.

        Raises:
            ConfigError: vLLM does not take it.
        """
        given: dict[str, Any] = {"n": drawn.n, "output_kind": RequestOutputKind.FINAL_ONLY}
        for name in ("temperature", "top_p", "max_tokens", "frequency_penalty", "seed"):
            if (value := getattr(drawn, name)) is not None:
                given[name] = value
        if drawn.stop:
            given["stop"] = list(drawn.stop)
        if drawn.json_schema is not None:
            given["structured_outputs"] = StructuredOutputsParams(json=dict(drawn.json_schema))
        llm = self._llm
        try:
            own = llm.model_config.get_diff_sampling_param()
            sampling = SamplingParams(**{"max_tokens": _DEFAULT_MAX_TOKENS, **own, **given})
            # each request is checked like this; here, the schema is told before there is one
            sampling.clone().verify(
                llm.model_config,
                llm.vllm_config.speculative_config,
                llm.vllm_config.structured_outputs_config,
                llm.renderer.tokenizer,
            )
        except (VLLMClientError, ValueError, TypeError) as error:
            raise ConfigError(f"{where}: sampling: {_line(error)}") from error
        return sampling

    async def prompt(self, messages: Sequence[Message]) -> Any:
        """A conversation in the model's chat template, as tokens.

        Raises:
            TeacherRejected: it is longer than the context, or the template or the
                tokenizer does not take it.
        """
        turns: list[Any] = [{"role": m.role, "content": m.content} for m in messages]
        try:
            _, (prompt,) = await self._llm.renderer.render_chat_async([turns], *self._chat)
        # tokenizers tell of half a surrogate pair with a TypeError
        except (VLLMClientError, ValueError, TypeError) as error:
            raise TeacherRejected(f"vLLM: {_line(error)}") from error
        return prompt

    async def outputs(
        self, prompt: Any, sampling: SamplingParams, *, deltas: bool
    ) -> AsyncGenerator[Any, None]:
        """Runs a request; closing the generator takes it out of the engine.

        Args:
            prompt: what `prompt` made.
            sampling: what `sampling` made.
            deltas: whether each output holds what is new, or the only one holds it all.

        Raises:
            TeacherRejected: the engine refuses this request.
            TeacherUnavailable: the engine has died, or has too much to do.
        """
        sampling = sampling.clone()
        if deltas:
            sampling.output_kind = RequestOutputKind.DELTA
        try:
            async with aclosing(self._llm.generate(prompt, sampling, uuid4().hex)) as outputs:
                async for output in outputs:
                    yield output
        except VLLMClientError as error:
            raise TeacherRejected(f"vLLM: {_line(error)}") from error
        except GracefulHTTPError as error:
            raise TeacherUnavailable(f"vLLM: {_line(error)}", overloaded=True) from error
        except VLLMServerError as error:
            raise TeacherUnavailable(f"vLLM: {_line(error.__cause__ or error)}") from error

    async def close(self) -> None:
        """Ends the engine's processes; requests under way must have ended before."""
        # left running, it would report that the engine has died
        if self._llm.output_handler:
            self._llm.output_handler.cancel()
        await asyncio.to_thread(self._llm.shutdown, _SECONDS_TO_END)
        del self._llm


def _load(arguments: Mapping[str, Any], where: str) -> AsyncLLM:
    # An interrupt at the terminal is this process's to answer: it lets calls under way end, so
    # the engine must not. Its processes inherit what is blocked here; the tracker, which they
    # share, would unblock it where it starts.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        given = AsyncEngineArgs(**arguments)
        settings = given.create_engine_config()
        _try_chat(settings)
        return AsyncLLM.from_vllm_config(
            settings,
            disable_log_stats=given.disable_log_stats,
            enable_log_requests=given.enable_log_requests,
        )
    except ChatTemplateResolutionError:
        raise ConfigError(
            f"{where}: {arguments['model']} has no chat template; put one into its folder as "
            "chat_template.jinja, or name a model that was tuned for chats"
        ) from None
    except Exception as error:
        raise ConfigError(
            f"{where}: vLLM cannot load {arguments['model']}: {_line(error)}"
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _try_chat(settings: Any) -> None:
    """A question costs nothing yet; loading the weights can take minutes."""
    renderer = renderer_from_config(settings)
    try:
        renderer.render_chat([[{"role": "user", "content": "?"}]], *_chat(renderer))
    finally:
        renderer.shutdown()


def _chat(renderer: Any) -> tuple[Any, Any]:
    """How conversations become tokens."""
    options = {
        "add_generation_prompt": True,
        "tokenize": is_mistral_tokenizer(renderer.tokenizer),
    }
    # the template writes the special tokens
    tokens = renderer.default_chat_tok_params.with_kwargs(add_special_tokens=False)
    return ChatParams(chat_template_kwargs=options), tokens


def _arguments(settings: Settings, where: str) -> dict[str, Any]:
    """What `AsyncEngineArgs` is made with."""
    engine: dict[str, Any] = json.loads(settings.engine)
    known = [field.name for field in fields(AsyncEngineArgs)]
    for key in engine:
        if key in _OWN_KEYS:
            own = _OWN_KEYS[key]
            raise ConfigError(f"{where}: engine.{key}: set {own} of the teacher instead")
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "see vLLM's AsyncEngineArgs"
            raise ConfigError(f"{where}: engine.{key}: unknown key; {hint}")
    arguments: dict[str, Any] = {
        "model": _model(settings.model, where),
        "dtype": settings.dtype,
        "max_model_len": settings.context_length,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if current_platform.is_cpu():
        # compiling takes a minute and more, and by itself the cache takes most of the memory
        arguments["enforce_eager"] = True
        # on a CPU, vLLM 0.32 dies of a request with a seed whose prompt is read in two parts
        arguments["enable_chunked_prefill"] = False
        sizes = {"kv_cache_memory_bytes", "gpu_memory_utilization"} & engine.keys()
        if not sizes and not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
            arguments["kv_cache_memory_bytes"] = _CPU_CACHE_BYTES
            # -1: as much of the model's own as the cache holds
            arguments["max_model_len"] = settings.context_length or -1
    return {**arguments, **engine}


def _model(model: str, where: str) -> str:
    path = Path(model).expanduser()
    if path.exists():
        return str(path)
    if path.is_absolute() or model.startswith("."):
        raise ConfigError(f"{where}: model {model!r}: there is no such folder")
    return model


def _line(error: BaseException) -> str:
    """What vLLM says, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MESSAGE_LENGTH else f"{text[: _MESSAGE_LENGTH - 1]}…"
