"""The configuration file: plain values, checked before anything is opened.

`load` turns a TOML file into a `Config`. Every mistake becomes one
`ConfigError` that names the key and, for an unknown key or kind, the nearest
valid one. No secret is ever part of it: a key is read from the environment
variable that the file names, by the adapter that needs it.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import Discriminator, TypeAdapter, ValidationError

from arbitrage.config.fields import STRICT, Text
from arbitrage.config.mistakes import Explainer, by_kind, nearest
from arbitrage.config.policy import FAN_OUT_FORMS, FanOut, Features, Policy, WarmStart
from arbitrage.config.reward import (
    UNCALIBRATED,
    AnyMember,
    AnyReward,
    Calibration,
    EmbeddedReward,
    EnsembleReward,
    JudgeReward,
    LocalReward,
    Reward,
    RulesReward,
    ScriptedReward,
    TransformersReward,
    VLLMReward,
    judges,
)
from arbitrage.config.teachers import (
    AnyTeacher,
    LiteLLMTeacher,
    LlamaCppTeacher,
    OpenAITeacher,
    Price,
    Sampling,
    ScriptedTeacher,
    Teacher,
    VLLMTeacher,
)
from arbitrage.errors import ConfigError, InvalidPrompt
from arbitrage.language import normalise

__all__ = [
    "UNCALIBRATED",
    "AnyMember",
    "AnyReward",
    "AnyTeacher",
    "Calibration",
    "Config",
    "EmbeddedReward",
    "EnsembleReward",
    "FanOut",
    "Features",
    "Job",
    "JudgeReward",
    "LiteLLMTeacher",
    "LlamaCppTeacher",
    "LocalReward",
    "OpenAITeacher",
    "Policy",
    "Price",
    "Reward",
    "RulesReward",
    "Sampling",
    "ScriptedReward",
    "ScriptedTeacher",
    "Service",
    "Sink",
    "Teacher",
    "TransformersReward",
    "VLLMReward",
    "VLLMTeacher",
    "WarmStart",
    "judges",
    "load",
    "parse",
]
_DEFAULT_POLICY = Policy()
_DEFAULT_REWARD = EmbeddedReward()


@dataclass(frozen=True, slots=True)
class Service:
    """Where the service listens, as `host:port`; port 0 takes a free one.

    Attributes:
        metrics: where Prometheus scrapes; empty closes the port.
        metrics_auth: wants a token with the scope `admin` there, too.
        jobs: the job folder: prompts of jobs are read in it, and their datasets are
            written there; made with the first job.
        tls_certificate, tls_key: PEM files of the server's certificate chain and of its key.
        tls_clients: PEM file of the authorities one of which must have signed a client's
            certificate; None asks for none.
        auth_tokens: file of the tokens that callers may show, as `arbitrage token` writes it;
            None lets in whoever can connect.
        plaintext: may answer other machines without TLS.
        reflection: tells callers what services there are.
        max_message_mb: size of a request.
        max_metadata_kb: size of its metadata.
        max_prompts: prompts that a request may bring.
        openai: where the pool is one model of OpenAI's chat API; None closes the port.
        max_in_flight_a_client: prompts of one client that are worked on at once; None for as
            many as of all, `job.max_in_flight`.
        prompts_per_minute_a_client: that each may bring, by calls and streams; a sixth of them
            at once. None for no end of them.
        log: form of a line of the log: text, or an object of JSON.
        traces: URL of a collector of traces (OTLP over gRPC), such as http://127.0.0.1:4317;
            None sends none.
    """

    listen: Text = "127.0.0.1:50051"
    metrics: str = "127.0.0.1:9464"
    jobs: Path = Path("jobs")
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_clients: Path | None = None
    auth_tokens: Path | None = None
    plaintext: bool = False
    reflection: bool = True
    max_message_mb: Annotated[int, Ge(1), Le(1024)] = 16
    max_metadata_kb: Annotated[int, Ge(1), Le(1024)] = 8
    max_prompts: Annotated[int, Ge(1)] = 10_000
    openai: Text | None = None
    max_in_flight_a_client: Annotated[int, Ge(1)] | None = None
    metrics_auth: bool = False
    prompts_per_minute_a_client: Annotated[int, Ge(1)] | None = None
    log: Literal["text", "json"] = "text"
    traces: Text | None = None
    __pydantic_config__: ClassVar = STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class Sink:
    """Where samples go, and in which format.

    Attributes:
        path: the folder of the run; its journal and its card are there, whatever the format.
        file_mb: size up to which a language's small files are merged.
        table: for `delta`: URL, such as `s3://bucket/name`, or folder of the tables;
            credentials come from the environment alone. By default they lie in `path`.
        only_trainable: ask, and so let win, only teachers whose outputs may train others.
    """

    path: Path = Path("out")
    format: Literal["parquet", "jsonl", "delta"] = "parquet"
    file_mb: Annotated[int, Ge(1)] = 128
    table: Text | None = None
    only_trainable: bool = False
    __pydantic_config__: ClassVar = STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Limits of a run.

    Attributes:
        max_in_flight: prompts under way at once.
        deadline_seconds: time that asking teachers may take for one prompt; what has
            been answered by then is scored and stored.
        cache: a file that keeps completions for several runs, which may run at once; by
            default each run keeps its own, in its journal.
        dedupe: similarity from which `arbitrage run` takes two prompts of a language for
            the same, and answers the first alone, such as 0.8; None answers all.
        decontaminate: evaluation sets, files or folders; what overlaps with them is not
            answered.
    """

    max_in_flight: Annotated[int, Ge(1)] = 256
    deadline_seconds: Annotated[float, Gt(0.0)] = 600.0
    cache: Path | None = None
    dedupe: Annotated[float, Gt(0.0), Le(1.0)] | None = None
    decontaminate: tuple[Path, ...] = ()
    __pydantic_config__: ClassVar = STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole configuration file."""

    teachers: Annotated[tuple[Annotated[AnyTeacher, Discriminator("kind")], ...], MinLen(1)]
    service: Service = Service()
    reward: Annotated[AnyReward, Discriminator("kind")] = _DEFAULT_REWARD
    policy: Policy = _DEFAULT_POLICY
    sink: Sink = Sink()
    job: Job = Job()
    __pydantic_config__: ClassVar = STRICT


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
        data = {**data, "reward": {"kind": _DEFAULT_REWARD.kind, **reward}}
    try:
        config = TypeAdapter(Config).validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(f"{source}: {_EXPLAINER.explain(first)}") from None
    _check_names(config, source)
    _check_policy(config.policy, f"{source}: policy")
    if config.sink.table and config.sink.format != "delta":
        raise ConfigError(f"{source}: sink.table: format {config.sink.format!r} has no table")
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
                hint = nearest(arm, names)
                raise ConfigError(f"{source}: {key}: no teacher is named {arm!r}{hint}")
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


def _check_policy(policy: Policy, where: str) -> None:
    waves = policy.waves
    if waves.min > waves.max:
        raise ConfigError(f"{where}.fan_out.min: must not be above max, {waves.max}")
    if waves != FanOut(min=waves.max, max=waves.max) and policy.kind != "pandora":
        raise ConfigError(
            f"{where}.fan_out: kind {policy.kind!r} asks a number of teachers in one wave; give "
            "a number, or set kind = 'pandora'"
        )
    if policy.horizon and policy.usd_per_prompt:
        raise ConfigError(f"{where}.usd_per_prompt: budget_usd over horizon says it; give one")
    if policy.horizon and not policy.budget_usd:
        raise ConfigError(f"{where}.horizon: needs budget_usd, which is to last for so long")
    embeds = policy.features.kind in {"transformers", "llama_cpp"}
    if embeds and not policy.features.model:
        raise ConfigError(f"{where}.features.model: is required for {policy.features.kind!r}")
    if policy.features.model and not embeds:
        raise ConfigError(f"{where}.features.model: kind {policy.features.kind!r} has no model")


def _check_reward(reward: AnyReward, where: str) -> None:
    match reward:
        case JudgeReward() if reward.teacher.sampling.n != 1:
            raise ConfigError(f"{where}.teacher.sampling.n: a judge has {where}.votes instead")
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


def _check_tag(tag: str, where: str) -> None:
    try:
        normalise(tag)
    except InvalidPrompt as error:
        raise ConfigError(f"{where}: {error}") from None


_EXPLAINER = Explainer(
    Config,
    {
        "teachers": by_kind(AnyTeacher),
        "teacher": by_kind(AnyTeacher),
        "reward": by_kind(AnyReward),
        "members": by_kind(AnyMember),
        "fan_out": FAN_OUT_FORMS,
    },
)
