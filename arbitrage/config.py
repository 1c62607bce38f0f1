"""The configuration file: plain values, checked before anything is opened.

`load` turns a TOML file into a `Config`. Every mistake becomes one
`ConfigError` that names the key and, for an unknown key or kind, the nearest
valid one. No secret is ever part of it: a key is read from the environment
variable that the file names, by the adapter that needs it.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import ConfigDict, Discriminator, TypeAdapter, ValidationError

from arbitrage.errors import ConfigError, InvalidPrompt
from arbitrage.language import normalise

_STRICT = ConfigDict(extra="forbid", strict=True)
Text = Annotated[str, MinLen(1)]
Share = Annotated[float, Ge(0.0), Le(1.0)]


@dataclass(frozen=True, slots=True)
class Service:
    """Where the service listens, as `host:port`; port 0 takes a free one."""

    listen: Text = "127.0.0.1:50051"
    metrics: Text = "127.0.0.1:9464"
    __pydantic_config__: ClassVar = _STRICT


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
    __pydantic_config__: ClassVar = _STRICT


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens."""

    prompt: Annotated[float, Ge(0.0)] = 0.0
    completion: Annotated[float, Ge(0.0)] = 0.0
    __pydantic_config__: ClassVar = _STRICT


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
    __pydantic_config__: ClassVar = _STRICT


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How the scores of a reward model become rewards that compare.

    Attributes:
        per_language: whether each language's location and scale are taken out.
        by_length: whether what a longer or shorter answer usually gains is taken out.
        prior_strength: scored candidates of a language after which its own figures
            weigh as much as those of all languages together.
    """

    per_language: bool = True
    by_length: bool = True
    prior_strength: Annotated[float, Gt(0.0)] = 50.0
    __pydantic_config__: ClassVar = _STRICT


UNCALIBRATED = Calibration(per_language=False, by_length=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """What every kind of reward has.

    Attributes:
        gates: names of the gates to hold answers against, in order; None for all.
    """

    gates: tuple[Text, ...] | None = None
    calibration: Calibration = Calibration()
    __pydantic_config__: ClassVar = _STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalReward(Reward):
    """What every reward has whose model torch runs in this process.

    Attributes:
        device: `cpu`, `cuda`, `cuda:1`, ..., several with commas between them, or
            `auto`, which takes every GPU there is.
        dtype: `float32`, `bfloat16` or `auto`, which takes what the device is fast in.
        max_tokens_per_batch: tokens in one forward pass of one device.
        max_waiting: prompts whose candidates wait for a device at most; those that come
            later wait outside.
    """

    device: Text = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    max_tokens_per_batch: Annotated[int, Ge(64)] = 4096
    max_waiting: Annotated[int, Ge(1)] = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedReward(LocalReward):
    """The packaged reward, which needs no hub.

    Attributes:
        model: a name of packaged weights; None for the default.
    """

    kind: Literal["embedded"] = "embedded"
    model: Text | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersReward(LocalReward):
    """A sequence classifier with one label, such as Skywork-Reward-V2.

    Attributes:
        model: folder or hub name of the weights.
        compile: whether torch compiles the model, which takes minutes once.
    """

    kind: Literal["transformers"] = "transformers"
    model: Text
    compile: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VLLMReward(Reward):
    """The same models, on vLLM's pooling runner in this process.

    Attributes:
        model: folder or hub name of the weights.
        dtype: of weights and activations, as vLLM names it; `auto` is the model's own.
        engine: further arguments of vLLM's `AsyncEngineArgs`.
    """

    kind: Literal["vllm"] = "vllm"
    model: Text
    dtype: Text = "auto"
    engine: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeReward(Reward):
    """A generative judge: any teacher, asked for a grade.

    Attributes:
        teacher: the judge, written as a teacher of the pool is; it need not be one.
        rubric: what makes a good answer, in place of the shipped one.
        rubric_language: `en`, or `prompt` for the prompt's own language where the shipped
            rubric has it.
        lowest, highest: the ends of the scale of whole numbers.
        votes: grades asked for each answer; their mean is the score.
        pairwise: whether answers are compared two at a time, each pair in both orders,
            instead of graded one by one.
        judges_own: whether it grades answers of its own model, too.
    """

    kind: Literal["judge"] = "judge"
    teacher: Annotated[AnyTeacher, Discriminator("kind")]
    rubric: Text | None = None
    rubric_language: Literal["en", "prompt"] = "en"
    lowest: int = 1
    highest: int = 10
    votes: Annotated[int, Ge(1), Le(16)] = 1
    pairwise: bool = False
    judges_own: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesReward(Reward):
    """Verifiable rewards: what the prompt's metadata says of a right answer is checked.

    Attributes:
        answer, pattern, json_schema, code: keys of the metadata under which a prompt may
            have the expected answer, a regular expression, a JSON schema, and the
            programming language in which the answer has to compile.
    """

    kind: Literal["rules"] = "rules"
    answer: Text = "answer"
    pattern: Text = "pattern"
    json_schema: Text = "json_schema"
    code: Text = "code"
    calibration: Calibration = UNCALIBRATED


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedReward(Reward):
    """The shipped fake: a seeded function of teacher, language and text."""

    kind: Literal["scripted"] = "scripted"
    calibration: Calibration = UNCALIBRATED


AnyMember = (
    EmbeddedReward | TransformersReward | VLLMReward | JudgeReward | RulesReward | ScriptedReward
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleReward(Reward):
    """Several rewards, of which no fooled one decides alone.

    Attributes:
        members: the rewards; each is calibrated as it says itself.
        weights: what each counts, in their order; empty for all alike.
        combine: `rank` takes the mean rank among a prompt's candidates, `lower_bound`
            the mean of the calibrated scores minus `k` standard deviations.
        k: see `combine`.
    """

    kind: Literal["ensemble"] = "ensemble"
    members: Annotated[tuple[Annotated[AnyMember, Discriminator("kind")], ...], MinLen(2)]
    weights: tuple[Annotated[float, Gt(0.0)], ...] = ()
    combine: Literal["rank", "lower_bound"] = "lower_bound"
    k: Annotated[float, Ge(0.0)] = 1.0
    calibration: Calibration = UNCALIBRATED


AnyReward = AnyMember | EnsembleReward
_DEFAULT_REWARD = "embedded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How teachers are chosen.

    Attributes:
        fan_out: teachers asked in the first wave; `best_of` asks all.
        audit_rate: share of prompts on which everyone is asked, to keep learning.
        newcomer_share: share of the prompts, beside the audit, in which teachers may be
            asked that were added after the others had been learned.
        budget_usd: what all calls to teachers may cost together, over every run on the
            same sink; then teachers with a price are asked no more.
        experts: for `fixed`: languages to the arms that answer them, in order of
            preference, with `default` for the languages not named.
    """

    kind: Literal["random", "fixed", "best_of", "thompson"] = "thompson"
    fan_out: Annotated[int, Ge(1)] = 2
    audit_rate: Share = 0.05
    newcomer_share: Share = 0.2
    budget_usd: Annotated[float, Gt(0.0)] | None = None
    seed: int = 0
    experts: Mapping[str, tuple[Text, ...]] = field(default_factory=dict)
    __pydantic_config__: ClassVar = _STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class Sink:
    """Where samples go, and in which format.

    Attributes:
        only_trainable: ask, and so let win, only teachers whose outputs may train others.
    """

    path: Path = Path("out")
    format: Literal["parquet"] = "parquet"
    only_trainable: bool = False
    __pydantic_config__: ClassVar = _STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Limits of a run.

    Attributes:
        max_in_flight: prompts under way at once.
        deadline_seconds: time that asking teachers may take for one prompt; what has
            been answered by then is scored and stored.
    """

    max_in_flight: Annotated[int, Ge(1)] = 256
    deadline_seconds: Annotated[float, Gt(0.0)] = 600.0
    __pydantic_config__: ClassVar = _STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole configuration file."""

    teachers: Annotated[tuple[Annotated[AnyTeacher, Discriminator("kind")], ...], MinLen(1)]
    service: Service = Service()
    reward: Annotated[AnyReward, Discriminator("kind")] = EmbeddedReward()
    policy: Policy = Policy()
    sink: Sink = Sink()
    job: Job = Job()
    __pydantic_config__: ClassVar = _STRICT


def load(path: Path | str) -> Config:
    """Reads and checks a TOML file.

    Raises:
        ConfigError: it is missing, is not TOML, or holds something wrong.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        return parse(tomllib.loads(text), source=str(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error


def parse(data: Mapping[str, Any], source: str = "config") -> Config:
    """Checks a configuration that is already a mapping.

    Raises:
        ConfigError: something in it is wrong; `source` leads the message.
    """
    reward = data.get("reward")
    if isinstance(reward, Mapping):
        data = {**data, "reward": {"kind": _DEFAULT_REWARD, **reward}}
    try:
        config = TypeAdapter(Config).validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(f"{source}: {_explain(first)}") from None
    _check_names(config, source)
    _check_reward(config.reward, f"{source}: reward")
    _check_judges(config, source)
    return config


def _check_names(config: Config, source: str) -> None:
    names = [teacher.name for teacher in config.teachers]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{source}: teachers: two are named {name!r}; names must differ")
    for language, arms in config.policy.experts.items():
        key = f"policy.experts.{language}"
        for arm in arms:
            if arm not in names:
                nearest = _nearest(arm, names)
                raise ConfigError(f"{source}: {key}: no teacher is named {arm!r}{nearest}")
        if language != "default":
            _check_tag(language, f"{source}: {key}")
    for index, teacher in enumerate(config.teachers):
        for tag in teacher.languages:
            _check_tag(tag, f"{source}: teachers[{index}].languages")
    if config.sink.only_trainable and not any(teacher.trainable for teacher in config.teachers):
        raise ConfigError(
            f"{source}: sink.only_trainable: no teacher says trainable = true; set it where the "
            "terms allow it"
        )


def _check_reward(reward: AnyReward, where: str) -> None:
    match reward:
        case JudgeReward() if reward.lowest >= reward.highest:
            raise ConfigError(f"{where}.highest: must be above lowest, {reward.lowest}")
        case EnsembleReward():
            if reward.calibration != UNCALIBRATED:
                raise ConfigError(
                    f"{where}.calibration: members are calibrated each by itself; "
                    "set members[i].calibration"
                )
            if reward.weights and len(reward.weights) != len(reward.members):
                count = f"{len(reward.weights)} for {len(reward.members)} members"
                raise ConfigError(f"{where}.weights: {count}; give each member one")
            for index, member in enumerate(reward.members):
                if member.gates is not None:
                    key = f"{where}.members[{index}].gates"
                    raise ConfigError(f"{key}: the ensemble has the gates; set reward.gates")
                _check_reward(member, f"{where}.members[{index}]")


def _check_judges(config: Config, source: str) -> None:
    """The metrics tell judges and teachers apart by their names."""
    asked = [judge.teacher for judge in judges(config.reward)]
    names = [teacher.name for teacher in (*config.teachers, *asked)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"{source}: reward: a judge and another teacher are named {name!r}; "
                "names must differ"
            )


def judges(reward: AnyReward) -> list[JudgeReward]:
    """The judges of a reward: itself, or those among its members."""
    match reward:
        case JudgeReward():
            return [reward]
        case EnsembleReward():
            return [judge for member in reward.members for judge in judges(member)]
        case _:
            return []


def _check_tag(tag: str, where: str) -> None:
    try:
        normalise(tag)
    except InvalidPrompt as error:
        raise ConfigError(f"{where}: {error}") from None


def _explain(error: Any) -> str:
    """One line for the first mistake that validation found."""
    location = error["loc"]
    match error["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            keys = _keys_of(_table_at(location[:-1])[0])
            return f"{_dotted(location)}: unknown key{_nearest(str(location[-1]), keys)}"
        case "missing" | "missing_argument":
            return f"{_dotted(location)}: is required"
        case "union_tag_not_found":
            return (
                f"{_dotted(location)}.kind: is required; one of {', '.join(_table_at(location)[1])}"
            )
        case "union_tag_invalid":
            kind, kinds = error["ctx"]["tag"], list(_table_at(location)[1])
            return f"{_dotted(location)}.kind: unknown {kind!r}{_nearest(kind, kinds)}"
        case "literal_error":
            options = error["ctx"]["expected"]
            return f"{_dotted(location)}: unknown {error['input']!r}; use {options}"
        case _:
            message = str(error["msg"])
            return f"{_dotted(location)}: {message[0].lower()}{message[1:]}"


def _table_at(location: tuple[int | str, ...]) -> tuple[Any, Mapping[str, type]]:
    """What type is at a location, and the types that its `kind` may choose from."""
    table: Any = Config
    kinds: Mapping[str, type] = {}
    for step in location:
        if step in kinds:
            table, kinds = kinds[str(step)], {}
        elif isinstance(step, str) and dataclasses.is_dataclass(table):
            table, kinds = get_type_hints(table).get(step), _KINDS.get(step, {})
    return table, kinds


def _keys_of(table: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(table)] if dataclasses.is_dataclass(table) else []


def _dotted(location: tuple[int | str, ...]) -> str:
    """`('teachers', 0, 'openai', 'model')` as a person would write it."""
    path = ""
    for index, step in enumerate(location):
        if isinstance(step, int):
            path += f"[{step}]"
        elif step not in _table_at(location[:index])[1]:
            path += f".{step}" if path else step
    return path or "config"


def _nearest(word: str, valid: list[str]) -> str:
    close = difflib.get_close_matches(word, valid, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; valid are {', '.join(sorted(valid))}" if valid else ""


def _by_kind(union: Any) -> Mapping[str, type]:
    return {get_args(get_type_hints(kind)["kind"])[0]: kind for kind in get_args(union)}


_KINDS: Mapping[str, Mapping[str, type]] = {
    "teachers": _by_kind(AnyTeacher),
    "teacher": _by_kind(AnyTeacher),
    "reward": _by_kind(AnyReward),
    "members": _by_kind(AnyMember),
}
