"""`[[teachers]]`: which models answer, and how they are asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt

from arbitrage.config.fields import STRICT, Share, Text


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a teacher draws its tokens; what is None is left to the provider.

    Attributes:
        n: answers drawn in one call; each becomes a candidate of its own.
        json_schema: the JSON schema that an answer has to follow.
    """

    temperature: Annotated[float, Ge(0.0)] | None = None
    top_p: Share | None = None
    max_tokens: Annotated[int, Ge(1)] | None = None
    frequency_penalty: Annotated[float, Ge(-2.0), Le(2.0)] | None = None
    seed: int | None = None
    stop: tuple[Text, ...] = ()
    n: Annotated[int, Ge(1), Le(128)] = 1
    json_schema: Mapping[str, Any] | None = None
    __pydantic_config__: ClassVar = STRICT


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens."""

    prompt: Annotated[float, Ge(0.0)] = 0.0
    completion: Annotated[float, Ge(0.0)] = 0.0
    __pydantic_config__: ClassVar = STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """What every kind of teacher has.

    Attributes:
        max_concurrency: calls under way at once; fewer while the provider asks for that.
        requests_per_minute, tokens_per_minute: what the provider allows; None for no limit.
        when_limited: whether a prompt waits for a teacher that its provider limits, or
            is routed around it while another may answer.
        timeout_seconds: time that the attempts of one call may take together; waiting
            for the limits above is not among it.
        max_attempts: how often a call that failed for a passing reason is sent at most.
        hedge_percentile: share of the calls, such as 0.95, after whose usual time a
            second call is sent beside one that is still under way; None sends none.
        price_per_million: None takes what the adapter knows of the model, or else 0.
        languages: tags it may be asked in; empty means all.
        license: terms of its outputs, carried into the dataset card.
        trainable: whether those terms let its outputs train other models; None where
            nobody has looked.
        cache: whether what it has answered is kept, and not asked for again.
    """

    name: Text
    model: Text
    sampling: Sampling = Sampling()
    max_concurrency: Annotated[int, Ge(1)] = 8
    requests_per_minute: Annotated[int, Ge(1)] | None = None
    tokens_per_minute: Annotated[int, Ge(1)] | None = None
    when_limited: Literal["route_around", "wait"] = "route_around"
    timeout_seconds: Annotated[float, Gt(0.0)] = 60.0
    max_attempts: Annotated[int, Ge(1)] = 3
    hedge_percentile: Annotated[float, Gt(0.0), Lt(1.0)] | None = None
    price_per_million: Price | None = None
    languages: tuple[Text, ...] = ()
    license: Text | None = None
    trainable: bool | None = None
    cache: bool = True
    __pydantic_config__: ClassVar = STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAITeacher(Teacher):
    """Any OpenAI-compatible endpoint, such as `http://127.0.0.1:8000/v1`.

    Attributes:
        tokenizer: path of a `tokenizer.json`, or a hub name, which counts tokens where
            the endpoint does not.
    """

    kind: Literal["openai"]
    base_url: Text
    api_key_env: Text | None = None
    tokenizer: Text | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiteLLMTeacher(Teacher):
    """Any model that LiteLLM reaches, such as `anthropic/claude-sonnet-4-5`.

    Attributes:
        base_url: where the provider's API is, if not at its usual address.
        options: further arguments of `litellm.acompletion`, such as `aws_region_name`.
    """

    kind: Literal["litellm"]
    base_url: Text | None = None
    api_key_env: Text | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class VLLMTeacher(Teacher):
    """A model on vLLM in this process; arms of one model and engine share it.

    Attributes:
        model: folder or hub name of the weights.
        dtype: of weights and activations, as vLLM names it; `auto` is the model's own.
        context_length: tokens for a prompt and its answer; by default the model's own.
        engine: further arguments of vLLM's `AsyncEngineArgs`, such as
            `gpu_memory_utilization` or `tensor_parallel_size`.
    """

    kind: Literal["vllm"]
    max_concurrency: Annotated[int, Ge(1)] = 64
    dtype: Text = "auto"
    context_length: Annotated[int, Ge(64)] | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaCppTeacher(Teacher):
    """A GGUF file, run in this process.

    Attributes:
        model: path of a `.gguf` file, or the name of packaged weights.
        sha256: expected digest of the file, checked before it is loaded.
        context_length: tokens for a prompt and its answer; by default the
            model's own, at most 4096.
        prompt_template: for a base model without a chat template: a text with
            `{prompt}` in it, which replaces the model's own template.
        threads: threads for the model; by default the cores that this process may use.
    """

    kind: Literal["llama_cpp"]
    sha256: Text | None = None
    context_length: Annotated[int, Ge(64)] | None = None
    prompt_template: Text | None = None
    threads: Annotated[int, Ge(1)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedTeacher(Teacher):
    """The shipped fake: a seeded teacher whose quality, speed and faults are given.

    Attributes:
        quality: mean quality by language, `default` for the others.
        latency_seconds: mean time an answer takes; exponential jitter around it.
        failure_rate: share of calls that fail as unavailable.
        rate_limit_rate: share of calls that are refused as too many.
        drift_after: number of calls after which `drift_quality` holds instead.
    """

    kind: Literal["scripted"]
    model: Text = "scripted"
    quality: Mapping[str, float] = field(default_factory=dict)
    latency_seconds: Annotated[float, Ge(0.0)] = 0.0
    failure_rate: Share = 0.0
    rate_limit_rate: Share = 0.0
    drift_after: Annotated[int, Ge(1)] | None = None
    drift_quality: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0


AnyTeacher = OpenAITeacher | LiteLLMTeacher | VLLMTeacher | LlamaCppTeacher | ScriptedTeacher
