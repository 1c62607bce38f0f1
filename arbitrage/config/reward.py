"""`[reward]`: what ranks the candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import Discriminator

from arbitrage.config.fields import STRICT, Text
from arbitrage.config.teachers import AnyTeacher


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
    __pydantic_config__: ClassVar = STRICT


UNCALIBRATED = Calibration(per_language=False, by_length=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """What every kind of reward has.

    Attributes:
        gates: names of the gates to hold answers against, in order; None for all.
    """

    gates: tuple[Text, ...] | None = None
    calibration: Calibration = Calibration()
    __pydantic_config__: ClassVar = STRICT


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
    """A head on a frozen model, which needs no hub.

    Attributes:
        model: a folder that `arbitrage reward train` has written; None for the shipped
            head, on the packaged Gemma 3 270M.
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


def judges(reward: AnyReward) -> list[JudgeReward]:
    """The judges of a reward: itself, or those among its members."""
    match reward:
        case JudgeReward():
            return [reward]
        case EnsembleReward():
            return [judge for member in reward.members for judge in judges(member)]
        case _:
            return []
