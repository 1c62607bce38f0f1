"""How teachers are chosen: `[policy]`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le
from pydantic import Discriminator, Tag

from arbitrage.config.fields import STRICT, Share, Text

FEATURE_KINDS = Literal["hashed", "transformers", "llama_cpp", "none"]
POLICY_KINDS = Literal[
    "random", "fixed", "best_of", "thompson", "linucb", "softmax", "knn", "pandora"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class FanOut:
    """How many teachers are asked for a prompt, and in how many waves.

    Attributes:
        min: teachers asked at least, as far as there are so many; all of them in the
            first wave.
        max: teachers asked at most, over all waves.
        waves: rounds of asking at most; each sees the rewards of those before it.
        latency_budget: seconds within which the last answer should be there: no
            teacher is asked that is likely to take longer. Without it, only the
            prompt's deadline counts.
        least_gain: by how much a further teacher must be expected to raise the best
            reward, in spreads of the language's rewards, to be asked; what it costs
            comes on top where there is a budget.
    """

    min: Annotated[int, Ge(1)] = 1
    max: Annotated[int, Ge(1)] = 2
    waves: Annotated[int, Ge(1)] = 1
    latency_budget: Annotated[float, Gt(0.0)] | None = None
    least_gain: Annotated[float, Ge(0.0)] = 0.02
    __pydantic_config__: ClassVar = STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What of a prompt's text the policy sees.

    Attributes:
        kind: `hashed` counts character n-grams, without any model; `transformers` and
            `llama_cpp` embed the text; `none` routes by language and domain alone.
        model: for the embedding kinds: a folder or a hub's name, or a GGUF file.
        dimensions: principal components that are kept of the features.
        types: prompt types told apart where a prompt has no domain; 1 for none.
        device: for `transformers`: cpu, cuda, cuda:1, ..., or auto.
    """

    kind: FEATURE_KINDS = "hashed"
    model: Text | None = None
    dimensions: Annotated[int, Ge(1), Le(256)] = 16
    types: Annotated[int, Ge(1), Le(256)] = 8
    device: Text = "auto"
    __pydantic_config__: ClassVar = STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStart:
    """What a policy knows before its first prompt, where its sink holds no state yet.

    Attributes:
        snapshot: a file that `arbitrage policy snapshot` has written.
        samples: output folders of finished runs, whose candidates are learned from.
        scores: a CSV file with the columns `language`, `teacher`, `score`; larger is better.
        score_weight: answers that a score of the table counts for.
    """

    snapshot: Path | None = None
    samples: tuple[Path, ...] = ()
    scores: Path | None = None
    score_weight: Annotated[float, Gt(0.0)] = 10.0
    __pydantic_config__: ClassVar = STRICT


def _form_of_fan_out(value: Any) -> str:
    return "table" if isinstance(value, (Mapping, FanOut)) else "number"


AnyFanOut = Annotated[
    Annotated[int, Ge(1), Tag("number")] | Annotated[FanOut, Tag("table")],
    Discriminator(_form_of_fan_out),
]
FAN_OUT_FORMS: Mapping[str, type] = {"number": int, "table": FanOut}

_NO_WARM_START = WarmStart()
_HASHED = Features()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How teachers are chosen.

    Attributes:
        fan_out: how many teachers are asked, a number or a table; `best_of` asks all.
        audit_rate: share of prompts on which everyone is asked, to keep learning.
        newcomer_share: share of the prompts on which a teacher is asked beside the chosen
            ones that was added after these had been learned, until it is known, too; at 1
            newcomers are treated like all others from the start.
        budget_usd: what all calls to teachers may cost together, over every run on the
            same sink; then teachers with a price are asked no more.
        horizon: prompts over which the budget is to last; the policy then weighs
            rewards against costs so as to spend it evenly.
        usd_per_prompt: what a prompt may cost on average, instead of a horizon.
        half_life: prompts of a language after which what was learned in it counts
            half, where teachers change in it alone; by default nothing is forgotten.
        drift: whether teachers may change in all languages at once, as those do that are
            replaced behind their names; how fast is estimated.
        confidence: how far what is uncertain is explored: for `linucb` the standard errors
            added to an arm's expected reward, by default 2, and for `knn`, by default
            1.5; for `thompson` what they are
            multiplied by before arms are drawn, by default 0.5.
        temperature: for `softmax`: of the distribution that arms are drawn from, in
            spreads of the language's rewards.
        smoothing: for `softmax`: weight of the prompt's own rewards in what is learned;
            the rest is the mean of its language and domain.
        neighbours: for `knn`: logged prompts that a decision looks at; at most an eighth
            of those remembered.
        features: what of the prompt's text the policy sees.
        warm_start: what it knows before its first prompt.
        experts: for `fixed`: languages to the arms that answer them, in order of
            preference, with `default` for the languages not named.
    """

    kind: POLICY_KINDS = "thompson"
    fan_out: AnyFanOut = 2
    audit_rate: Share = 0.05
    newcomer_share: Share = 0.2
    budget_usd: Annotated[float, Gt(0.0)] | None = None
    horizon: Annotated[int, Ge(1)] | None = None
    usd_per_prompt: Annotated[float, Gt(0.0)] | None = None
    half_life: Annotated[float, Gt(0.0)] | None = None
    drift: bool = False
    confidence: Annotated[float, Ge(0.0)] | None = None
    temperature: Annotated[float, Gt(0.0)] = 0.05
    smoothing: Share = 0.3
    neighbours: Annotated[int, Ge(1)] = 400
    seed: int = 0
    features: Features = _HASHED
    warm_start: WarmStart = _NO_WARM_START
    experts: Mapping[str, tuple[Text, ...]] = field(default_factory=dict)
    __pydantic_config__: ClassVar = STRICT

    @property
    def waves(self) -> FanOut:
        """The fan-out as a table: a number asks so many in one wave."""
        if isinstance(self.fan_out, FanOut):
            return self.fan_out
        return FanOut(min=self.fan_out, max=self.fan_out)
