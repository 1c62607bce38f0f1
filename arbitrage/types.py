"""What crosses a seam: frozen values, named by the vocabulary in `docs/architecture.md`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, Self, get_args

from arbitrage.errors import InvalidPrompt
from arbitrage.language import UNDETERMINED, normalise

if TYPE_CHECKING:
    from datetime import datetime

    import numpy as np
    import numpy.typing as npt

Role = Literal["system", "user", "assistant"]
ROLES: tuple[str, ...] = get_args(Role)
_REMEMBERED = 1 << 15  # characters of a prompt up to which its hash is remembered with it


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request: a conversation that ends where a teacher should go on.

    Build it with `Prompt.of`, which checks and normalises.

    Attributes:
        prompt_id: the caller's id, or a stable hash of the messages.
        language: normalised BCP-47 tag, `und` until somebody has detected it.
        domain: optional second context label (math, code, chat, ...).
    """

    prompt_id: str
    messages: tuple[Message, ...]
    language: str = UNDETERMINED
    domain: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        prompt: str | Sequence[Message | Mapping[str, str]],
        *,
        prompt_id: str | None = None,
        language: str | None = None,
        domain: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes a prompt from a text, or from chat messages.

        Raises:
            InvalidPrompt: the prompt is empty, a role or a language is unknown, or
                the last message is not the user's.
        """
        if isinstance(prompt, str):
            messages: tuple[Message, ...] = (Message("user", prompt),)
            _require_text("prompt", prompt)
        else:
            messages = tuple(_message(i, message) for i, message in enumerate(prompt))
            if not messages:
                raise InvalidPrompt("messages", "is empty; give at least one user message")
            if messages[-1].role != "user":
                raise InvalidPrompt(
                    f"messages[{len(messages) - 1}].role",
                    f"the last message is the {messages[-1].role}'s; it must be the user's",
                )
        return cls(
            prompt_id=prompt_id or _content_hash(messages),
            messages=messages,
            language=normalise(language) if language else UNDETERMINED,
            domain=domain or None,
            metadata=dict(metadata or {}),
        )

    @property
    def text(self) -> str:
        """The last user message: what a gate compares an answer with."""
        return self.messages[-1].content

    def sample_id(self, job: str) -> str:
        """The id of the sample that a job makes of it, as it stands: 128 bits in hex."""
        content, domain = _content_hash(self.messages), self.domain or ""
        return _digest(job, self.prompt_id, content, self.language, domain)


@dataclass(frozen=True, slots=True)
class Context:
    """What a policy may see of a prompt before anyone has answered it.

    Attributes:
        features: `(features,)`, what an encoder makes of the prompt's text; None where
            the policy routes by language and domain alone.
    """

    language: str
    domain: str | None = None
    features: npt.NDArray[np.float32] | None = field(default=None, compare=False)


Priority = Literal["interactive", "batch"]
"""Whether somebody waits for the answer."""


@dataclass(frozen=True, slots=True)
class Routing:
    """How one prompt is routed, where that is not as it is configured.

    Attributes:
        fan_out: arms that may be asked, over all waves; None for the configuration's.
        teachers: arms that may be asked; empty for all.
        max_cost_usd: what asking may cost, as expected from prices; None for no limit.
        latency_budget_seconds: after which the best of what has arrived is taken.
        learn: whether policy and calibration learn from the prompt.
    """

    fan_out: int | None = None
    teachers: frozenset[str] = frozenset()
    max_cost_usd: float | None = None
    latency_budget_seconds: float | None = None
    learn: bool = True


AS_CONFIGURED = Routing()


@dataclass(frozen=True, slots=True)
class Decision:
    """Which arms a policy chose, and how likely it was to choose each.

    The three sequences run in parallel, one entry an arm. A policy returns
    one wave at a time; the engine joins them with `then`.

    Attributes:
        propensities: inclusion probability of each arm in (0, 1], given what the
            policy had seen when it chose that arm's wave.
        waves: number of the wave, from 0, in which each arm was asked.
        version: how many updates the policy had learned from.
    """

    policy: str
    version: int
    arms: tuple[str, ...]
    propensities: tuple[float, ...]
    waves: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.arms) == len(self.propensities) == len(self.waves):
            raise ValueError("arms, propensities and waves must have one length")
        if not all(0.0 < p <= 1.0 for p in self.propensities):
            raise ValueError(f"propensities must lie in (0, 1]: {self.propensities}")

    def without(self, arms: Collection[str]) -> Decision:
        """This decision, as if these arms had not been chosen."""
        kept = [i for i, arm in enumerate(self.arms) if arm not in arms]
        return replace(
            self,
            arms=tuple(self.arms[i] for i in kept),
            propensities=tuple(self.propensities[i] for i in kept),
            waves=tuple(self.waves[i] for i in kept),
        )

    def then(self, wave: Decision) -> Decision:
        """This decision, followed by one more wave."""
        number = max(self.waves, default=-1) + 1
        return replace(
            self,
            arms=self.arms + wave.arms,
            propensities=self.propensities + wave.propensities,
            waves=self.waves + (number,) * len(wave.arms),
        )


@dataclass(frozen=True, slots=True)
class Completion:
    """What a teacher answered.

    Attributes:
        finish_reason: `stop`, `length`, `content_filter`, or the provider's own word.
        prompt_tokens: tokens billed for the prompt; None where nobody counted. Of the
            answers of one call, the first has them all.
        completion_tokens: tokens billed for the answer, its reasoning included.
        cached: true when no call was paid for it.
        reasoning: what the model thought before it answered, where it tells; never part
            of `text`.
    """

    text: str
    finish_reason: str = "stop"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached: bool = False
    reasoning: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a teacher has no completion: `outcome` is from a bounded set, `message` for people."""

    outcome: str
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """A gate that stopped a candidate, and why."""

    gate: str
    reason: str


@dataclass(frozen=True, slots=True)
class Score:
    """What a reward model says of one candidate.

    Attributes:
        reward: calibrated scalar; larger is better. What a reward model returns is its
            own scalar, until the calibration has made a reward of it.
        raw: the reward models' own outputs, by name; `uncalibrated` is the scalar that
            the calibration began with.
    """

    reward: float
    raw: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One teacher's part in one prompt: a completion or a failure, and what became of it.

    Attributes:
        gates: verdicts of the gates that stopped it; empty when it passed.
        score: None for a candidate that failed, was stopped, or of which the reward
            model has no opinion.
        advantage: reward minus the prompt's mean over its scored candidates.
        latency_seconds: from asking to the whole answer, waiting and retries included.
        cost_usd: price of the call by the teacher's price per million tokens, together
            with the attempts before it that were billed.
    """

    teacher: str
    completion: Completion | None = None
    failure: Failure | None = None
    gates: tuple[Verdict, ...] = ()
    score: Score | None = None
    advantage: float | None = None
    latency_seconds: float = 0.0
    cost_usd: float = 0.0

    @property
    def reward(self) -> float | None:
        """The calibrated reward, where it was scored."""
        return self.score.reward if self.score else None

    @property
    def passed(self) -> bool:
        """Whether it answered, and no gate said no."""
        return self.completion is not None and not self.gates

    @property
    def may_win(self) -> bool:
        """Whether it passed, and the reward model has an opinion of it."""
        return self.passed and self.score is not None


@dataclass(frozen=True, slots=True)
class Sample:
    """What the sink stores: a prompt, everything that was answered, and the winner.

    Attributes:
        sample_id: pure function of the prompt as it came and the job, so writing twice is
            harmless, and two prompts under one id stay two.
        winner: highest-reward candidate that passed the gates; None if none did.
        margin: winner's reward minus the runner-up's; None without a runner-up.
        learned: whether policy and calibration have learned from it, or are to.
    """

    sample_id: str
    prompt: Prompt
    decision: Decision
    candidates: tuple[Candidate, ...]
    winner: Candidate | None
    margin: float | None
    created_at: datetime
    learned: bool = True

    @classmethod
    def of(
        cls,
        prompt: Prompt,
        decision: Decision,
        candidates: Sequence[Candidate],
        *,
        job: str,
        created_at: datetime,
        sample_id: str | None = None,
        learned: bool = True,
    ) -> Self:
        """Ranks the candidates of a prompt, and names the winner.

        Args:
            prompt: as it was answered.
            decision: who was asked.
            candidates: what they said.
            job: names the run.
            created_at: the time.
            sample_id: of the prompt as it came, where that said less, such as no language.
            learned: whether it is learned from.
        """
        rewards = [c.score.reward for c in candidates if c.score]
        mean = sum(rewards) / len(rewards) if rewards else 0.0
        candidates = tuple(
            replace(c, advantage=c.score.reward - mean) if c.score else c for c in candidates
        )
        ranked = sorted(
            ((c.score.reward, c) for c in candidates if c.score), key=lambda pair: -pair[0]
        )
        return cls(
            sample_id=sample_id or prompt.sample_id(job),
            prompt=prompt,
            decision=decision,
            candidates=candidates,
            winner=ranked[0][1] if ranked else None,
            margin=ranked[0][0] - ranked[1][0] if len(ranked) > 1 else None,
            created_at=created_at,
            learned=learned,
        )


@dataclass(frozen=True, slots=True)
class Feedback:
    """A reward that came later for one answer of a sample.

    Attributes:
        feedback_id: the caller's, one for each piece of feedback.
        teacher: whose answer is judged.
        reward: on the scale of the candidates' calibrated rewards.
        source: who judges.
        comment: kept with it; the policy does not see it.
    """

    feedback_id: str
    sample_id: str
    teacher: str
    reward: float
    source: Literal["person", "verifier"]
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a policy believes of one arm in one language.

    Attributes:
        scored: candidates it learned a reward from.
        stopped: candidates that a gate stopped.
        reward: expected reward, gates counted; NaN-free, in the reward's units.
        standard_error: of `reward`.
        share: probability that the arm is asked when a prompt of this language comes.
        cost_usd: what a call of the arm is expected to cost; None where nobody has told.
        best: probability that no arm has a higher expected reward; None where nobody has
            told.
    """

    language: str
    arm: str
    scored: int
    stopped: int
    reward: float
    standard_error: float
    share: float
    cost_usd: float | None = None
    best: float | None = None


@dataclass(frozen=True, slots=True)
class TeacherInfo:
    """What a pool tells of one teacher: its description, and whether it may be asked."""

    name: str
    kind: str
    model: str
    available: bool
    languages: tuple[str, ...] = ()
    license: str | None = None
    prompt_price: float = 0.0
    completion_price: float = 0.0
    max_concurrency: int = 0
    trainable: bool | None = None


def _message(index: int, message: object) -> Message:
    if isinstance(message, Mapping) and set(message) == {"role", "content"}:
        message = Message(message["role"], message["content"])
    if not isinstance(message, Message):
        raise InvalidPrompt(f"messages[{index}]", 'must be {"role": "...", "content": "..."}')
    if message.role not in ROLES:
        known = ", ".join(ROLES)
        raise InvalidPrompt(f"messages[{index}].role", f"unknown {message.role!r}; use {known}")
    _require_text(f"messages[{index}].content", message.content)
    return message


def _require_text(field_name: str, text: object) -> None:
    if not isinstance(text, str):
        raise InvalidPrompt(field_name, f"must be text, not {type(text).__name__}")
    if not text.strip():
        raise InvalidPrompt(field_name, "is empty; give a text to answer")


def _content_hash(messages: tuple[Message, ...]) -> str:
    if sum(len(message.content) for message in messages) > _REMEMBERED:
        return _hashed(messages)  # rather than keep it in memory
    return _remembered(messages)


@lru_cache(maxsize=1024)  # a prompt's ids are asked for at each of its stations
def _remembered(messages: tuple[Message, ...]) -> str:
    return _hashed(messages)


def _hashed(messages: tuple[Message, ...]) -> str:
    turns = json.dumps([[m.role, m.content] for m in messages], ensure_ascii=False)
    return _digest(turns)


def _digest(*parts: str) -> str:
    """128 bits of SHA-256 over the parts, each with its length, as hex."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()[:32]
