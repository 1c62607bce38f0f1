"""A sample as a line to train on: an answer, a pair of them, or all that was answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import pyarrow as pa

from sink import schema
from sink.export.reasons import Reason
from sink.quality.balance import chance

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from arbitrage.types import Candidate, Sample

Kind = Literal["sft", "dpo", "scored"]
KINDS: tuple[str, ...] = get_args(Kind)
Rejected = Literal["worst", "second", "random"]

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_ABOUT = [("language", pa.string()), ("domain", pa.string()), ("sample_id", pa.string())]
SCHEMAS: Mapping[str, Any] = {
    "sft": pa.schema(
        [("messages", _MESSAGES), *_ABOUT, ("teacher", pa.string()), ("reward", pa.float64())]
    ),
    "dpo": pa.schema(
        [
            ("prompt", _MESSAGES),
            ("chosen", _MESSAGES),
            ("rejected", _MESSAGES),
            ("score_chosen", pa.float64()),
            ("score_rejected", pa.float64()),
            ("margin", pa.float64()),
            *_ABOUT,
            ("teacher_chosen", pa.string()),
            ("teacher_rejected", pa.string()),
        ]
    ),
    "scored": schema.SCHEMA,
}
"""The columns of each kind: TRL's conversational `messages`, its conversational preferences
with an explicit prompt, and those of a run."""


@dataclass(frozen=True, slots=True)
class Line:
    """What of a sample is exported.

    Attributes:
        margin: the winner's reward minus that of the answer it is held against, which is
            the rejected one, or without such the runner-up; None if there is none.
    """

    sample: Sample
    kind: Kind
    winner: Candidate | None
    rejected: Candidate | None
    margin: float | None

    @classmethod
    def of(cls, sample: Sample, kind: Kind, rejected: Rejected, seed: int) -> Line | Reason:
        """The line of a sample, or why it makes none."""
        if sample.winner is None:
            return Reason.UNANSWERED if kind != "scored" else cls(sample, kind, None, None, None)
        if kind != "dpo":
            return cls(sample, kind, sample.winner, None, sample.margin)
        return _pair(sample, sample.winner, rejected, seed)

    @property
    def teachers(self) -> list[str]:
        """Whose texts are in it."""
        return [candidate.teacher for candidate in self._answers]

    def texts(self) -> Iterator[tuple[str, str]]:
        """The texts in it, each with what it is: `prompt` or `answer`."""
        for message in self.sample.prompt.messages:
            yield "prompt", message.content
        for candidate in self._answers:
            yield "answer", _text(candidate)

    @property
    def reward(self) -> float | None:
        """The winner's; None where nobody has won."""
        return self.winner.reward if self.winner else None

    @property
    def answer(self) -> str:
        """The winner's text; empty where nobody has won."""
        return _text(self.winner)

    @property
    def _answers(self) -> list[Candidate]:
        if self.kind == "scored":
            return [one for one in self.sample.candidates if one.completion]
        return [one for one in (self.winner, self.rejected) if one]

    def row(self) -> Mapping[str, Any]:
        """The line as plain values, named as in its schema."""
        sample, winner, rejected = self.sample, self.winner, self.rejected
        if self.kind == "scored":
            return schema.row(sample)
        turns = [{"role": m.role, "content": m.content} for m in sample.prompt.messages]
        about = {
            "language": sample.prompt.language,
            "domain": sample.prompt.domain,
            "sample_id": sample.sample_id,
        }
        answer = [{"role": "assistant", "content": _text(winner)}]
        if rejected is None:
            teacher = winner.teacher if winner else None
            return {"messages": turns + answer, **about, "teacher": teacher, "reward": self.reward}
        return {
            "prompt": turns,
            "chosen": answer,
            "rejected": [{"role": "assistant", "content": _text(rejected)}],
            "score_chosen": self.reward,
            "score_rejected": rejected.reward,
            "margin": self.margin,
            **about,
            "teacher_chosen": winner.teacher if winner else None,
            "teacher_rejected": rejected.teacher,
        }


def cost(sample: Sample) -> float:
    """What the answers to a prompt cost, in dollars."""
    return sum(candidate.cost_usd for candidate in sample.candidates)


def _pair(sample: Sample, winner: Candidate, rejected: Rejected, seed: int) -> Line | Reason:
    """The winner and one of those that passed, say something else and have a lower reward."""
    best = winner.reward or 0.0
    others = [
        (other.reward, other)
        for other in sample.candidates
        if other.may_win and other.reward is not None and _text(other) != _text(winner)
    ]
    worse = [(reward, other) for reward, other in others if reward < best]
    if not worse:
        return Reason.TIE if others else Reason.ALONE
    worse.sort(key=lambda pair: -pair[0])
    last = len(worse) - 1
    drawn = int(chance(sample.sample_id, seed) * len(worse))
    reward, other = worse[{"worst": last, "second": 0, "random": drawn}[rejected]]
    return Line(sample, "dpo", winner, other, best - reward)


def _text(candidate: Candidate | None) -> str:
    return candidate.completion.text if candidate and candidate.completion else ""
