"""What became of each prompt, as a trace: prompt, wave, call of a teacher, score, write.

In the terms of OpenTelemetry's semantic conventions, where they have some (`gen_ai.*`). No text of
a prompt or an answer is in it, nor what errors say, which may quote them.
"""

from __future__ import annotations

import sys
from asyncio import CancelledError
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from time import time_ns
from typing import TYPE_CHECKING, Any, Protocol

from arbitrage.errors import ConfigError
from arbitrage.events import Accepted, Answered, Event, Judged, Left, Routed, Stored
from service.request import Request, current

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from arbitrage.ports import Pool
    from arbitrage.types import Candidate, Decision, Prompt, Sample, TeacherInfo

_ERROR_TYPE = "error.type"
Attributes = dict[str, Any]


@dataclass(slots=True)
class Step:
    """A part of what is done for a prompt: a span to be.

    Attributes:
        started, ended: in nanoseconds since 1970.
        calls_out: whether somebody else does it.
        steps: its own parts.
    """

    name: str
    started: int
    attributes: Attributes = field(default_factory=dict)
    ended: int = 0
    calls_out: bool = False
    steps: list[Step] = field(default_factory=list)


class Root(Protocol):
    """The span of a whole prompt."""

    @property
    def trace_id(self) -> str:
        """Of its trace, in hexadecimal digits."""

    def end(self, whole: Step) -> None:
        """Has it sent, with all its steps; never waits."""


@dataclass(slots=True)
class _Prompt:
    """A prompt under way."""

    prompt: Prompt  # held, so that no other gets its place in memory
    root: Root
    whole: Step
    asked: dict[str, Step] = field(default_factory=dict)
    stored: bool = False


class Traces:
    """Follows each prompt of an engine and of its jobs.

    Args:
        begin: begins a prompt's trace: given when, the client's own span, and whether a client
            waits for it. None where the client has said that it is not to be traced.
    """

    def __init__(self, begin: Callable[[int, str, bool], Root | None]) -> None:
        self._begin = begin
        self._under_way: dict[int, _Prompt] = {}
        self._describe: Callable[[], Sequence[TeacherInfo]] = list

    def follow_pool(self, pool: Pool) -> None:
        """Tells of its teachers which models they are."""
        self._describe = pool.describe

    def observe(self, event: Event) -> None:
        """Takes one event of the engine."""
        if isinstance(event, Accepted):
            self._accepted(event.prompt)
            return
        if isinstance(event, Stored):
            prompt = event.sample.prompt
        elif isinstance(event, Routed | Answered | Judged | Left):
            prompt = event.prompt
        else:
            return
        if (one := self._under_way.get(id(prompt))) is None:
            return
        now = time_ns()
        match event:
            case Routed(_, wave):
                self._routed(one, wave, now)
            case Answered(_, candidate):
                _answered(one, candidate, now)
            case Judged(_, candidates, seconds):
                _judged(one, candidates, int(seconds * 1e9), now)
            case Stored(sample):
                _stored(one, sample, now)
            case Left():
                del self._under_way[id(prompt)]
                _left(one, now)

    def _accepted(self, prompt: Prompt) -> None:
        about, now = current.get(None) or Request(), time_ns()
        root = self._begin(now, about.parent, bool(about.method))
        if root is None:
            return
        told = {
            "arbitrage.language": prompt.language,
            "arbitrage.request_id": about.request_id,
            "arbitrage.job": about.job,
            "rpc.method": about.method,
        }
        whole = Step("arbitrate", now, {key: value for key, value in told.items() if value})
        self._under_way[id(prompt)] = _Prompt(prompt, root, whole)
        if about.method and not about.many:
            about.trace_id = root.trace_id  # for whatever works for the request
        else:
            current.set(replace(about, trace_id=root.trace_id))

    def _routed(self, one: _Prompt, wave: Decision, now: int) -> None:
        number = len(one.whole.steps)
        known = {teacher.name: teacher for teacher in self._describe()}
        told: Attributes = {
            "arbitrage.wave": number,
            "arbitrage.policy": wave.policy,
            "arbitrage.policy_version": wave.version,
            "arbitrage.arms": wave.arms,
        }
        asked = {
            arm: _asked(arm, propensity, known.get(arm), now)
            for arm, propensity in zip(wave.arms, wave.propensities, strict=True)
        }
        one.asked = asked
        one.whole.steps.append(Step("wave", now, told, steps=list(asked.values())))


def _asked(arm: str, propensity: float, teacher: TeacherInfo | None, now: int) -> Step:
    told: Attributes = {
        "gen_ai.operation.name": "chat",
        "arbitrage.teacher": arm,
        "arbitrage.propensity": propensity,
    }
    name = "chat"
    if teacher:
        name = f"chat {teacher.model}"
        told |= {"gen_ai.provider.name": teacher.kind, "gen_ai.request.model": teacher.model}
    return Step(name, now, told, calls_out=True)


def _answered(one: _Prompt, candidate: Candidate, now: int) -> None:
    step = one.asked.get(candidate.teacher)
    if step is None:
        return
    told, completion = step.attributes, candidate.completion
    told["arbitrage.outcome"] = candidate.failure.outcome if candidate.failure else "ok"
    told["arbitrage.cost_usd"] = told.get("arbitrage.cost_usd", 0.0) + candidate.cost_usd
    if candidate.failure:
        told[_ERROR_TYPE] = candidate.failure.outcome
    if completion:
        told["arbitrage.cached"] = completion.cached
        reasons = told.get("gen_ai.response.finish_reasons", ())
        told["gen_ai.response.finish_reasons"] = (*reasons, completion.finish_reason)
        for direction, tokens in (
            ("input", completion.prompt_tokens),
            ("output", completion.completion_tokens),
        ):
            if tokens is not None:
                key = f"gen_ai.usage.{direction}_tokens"
                told[key] = told.get(key, 0) + tokens
    if not step.ended:  # a call may have several answers
        step.started = max(step.started, now - int(candidate.latency_seconds * 1e9))
        step.ended = now


def _judged(one: _Prompt, candidates: Sequence[Candidate], scoring: int, now: int) -> None:
    if not one.whole.steps:
        return
    wave = one.whole.steps[-1]
    wave.ended = now
    if scoring:
        passed = sum(candidate.passed for candidate in candidates)
        step = Step("score", max(wave.started, now - scoring), {"arbitrage.candidates": passed})
        step.ended = now
        wave.steps.append(step)
    for candidate in candidates:
        if (asked := one.asked.get(candidate.teacher)) is None:
            continue
        told = asked.attributes
        if candidate.gates:
            gates = (*told.get("arbitrage.gates", ()), *(v.gate for v in candidate.gates))
            told["arbitrage.gates"] = tuple(dict.fromkeys(gates))
        if candidate.reward is not None:
            best = max(candidate.reward, told.get("arbitrage.reward", candidate.reward))
            told["arbitrage.reward"] = best


def _stored(one: _Prompt, sample: Sample, now: int) -> None:
    waves, told = one.whole.steps, one.whole.attributes
    began = max((wave.ended for wave in waves), default=now)
    one.whole.steps.append(Step("write", began, ended=now))
    one.stored = True
    told |= {
        "arbitrage.sample_id": sample.sample_id,
        "arbitrage.policy": sample.decision.policy,
        "arbitrage.outcome": "ok" if sample.winner else "no_winner",
    }
    if sample.winner is None:
        told[_ERROR_TYPE] = "no_winner"
        return
    told["arbitrage.winner"] = sample.winner.teacher
    for key, value in (("reward", sample.winner.reward), ("margin", sample.margin)):
        if value is not None:
            told[f"arbitrage.{key}"] = value


def _left(one: _Prompt, now: int) -> None:
    """Ends what has not ended, such as calls that nobody waits for any more."""
    for step in (one.whole, *one.whole.steps, *one.asked.values()):
        step.ended = step.ended or now
    for step in one.asked.values():
        step.attributes.setdefault("arbitrage.outcome", "cancelled")
    error = None if one.stored else sys.exc_info()[1]  # what the prompt leaves the engine with
    if error:
        kind = "cancelled" if isinstance(error, CancelledError) else type(error).__name__
        one.whole.attributes |= {"arbitrage.outcome": kind, _ERROR_TYPE: kind}
    one.root.end(one.whole)


@asynccontextmanager
async def sent(endpoint: str) -> AsyncIterator[Traces]:
    """Traces that are sent to a collector; the last ones on leaving, if it takes them.

    Args:
        endpoint: of OTLP over gRPC, as a URL.

    Raises:
        ConfigError: it is none, or the extra that this needs is missing.
    """
    try:
        otlp = import_module("service.otlp")
    except ImportError as error:
        # a module of our own that cannot be imported is a bug, not a missing extra
        if (error.name or "").partition(".")[0] in {"arbitrage", "service"}:
            raise
        raise ConfigError(
            f"service.traces: needs {error.name}; run: pip install 'data-arbitrage[traces]'"
        ) from error
    async with otlp.opened(endpoint) as begin:
        yield Traces(begin)
