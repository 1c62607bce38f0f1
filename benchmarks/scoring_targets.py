"""What the soak of scoring asks: an engine over sick fake devices, or a real reward model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from time import sleep
from typing import TYPE_CHECKING, Protocol

from arbitrage.types import Candidate, Completion, Prompt
from reward.scoring import ScoringEngine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage.events import Batched
    from arbitrage.ports import RewardModel

BATCH_TOKENS, MEMORY_TOKENS = 256, 512
MAX_WAITING = 48
_POISONOUS, _FAR_TOO_LONG = 0.01, 0.02
_WORDS = (
    "ice",
    "floats",
    "on",
    "Eis",
    "schwimmt",
    "море",
    "синее",
    "水",
    "在",
    "沸腾",
    "ماء",
    "بحر",
)


class Target(Protocol):
    """What is soaked.

    Attributes:
        callers: how many ask at once.
        most_items: items that one of them asks for at most.
        most_patience_seconds: how long those wait at most who give up.
        grace_seconds: how long an answer may take before it counts as stuck.
        most_growth_bytes: what its resident memory may still grow by when it is warm.
    """

    callers: int
    most_items: int
    most_patience_seconds: float
    grace_seconds: float
    most_growth_bytes: int

    @property
    def queue_depth(self) -> int:
        """Items that were accepted and are not answered."""

    @property
    def waiting(self) -> int:
        """Items that wait for a device, where that is known."""

    async def ask(self, chance: Random) -> bool:
        """One call with an input of chance; whether the answer is right."""

    async def close(self) -> None:
        """Closes it."""


@dataclass(frozen=True, slots=True)
class Work:
    """A fake input; the right answer is its number."""

    number: int
    tokens: int
    poisonous: bool = False


@dataclass
class FakeDevice:
    """Answers with the numbers of the work items, when it is well.

    Attributes:
        ill: share of the batches that fail for no reason of theirs.
    """

    ill: float
    chance: Random
    batches: int = 0
    works: int = 0

    def compute(self, batch: Sequence[Work]) -> list[int]:
        """Takes as long as a small GPU might, and fails as one does."""
        self.batches += 1
        self.works += len(batch)
        tokens = sum(work.tokens for work in batch)
        sleep(2e-4 + 1e-6 * tokens)
        if tokens > MEMORY_TOKENS:
            raise MemoryError
        if any(work.poisonous for work in batch):
            raise ValueError("poison")
        if self.chance.random() < self.ill:
            return self._fail(tokens)
        return [work.number for work in batch]

    def _fail(self, tokens: int) -> list[int]:
        if tokens > self.chance.uniform(0, MEMORY_TOKENS):  # as if others had taken the rest
            raise RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB")
        match self.chance.randrange(3):
            case 0:
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            case 1:
                raise BaseException("a tokenizer's panic")  # noqa: TRY002 - it is just that
            case _:
                return []


class FakeTarget:
    """A scoring engine over three fake devices, two of which are sick."""

    callers, most_items, most_patience_seconds = 96, 1, 0.02
    grace_seconds = 60.0
    most_growth_bytes = 64_000_000

    def __init__(self, seed: int) -> None:
        shares = (0.0, 0.05, 0.2)
        self.devices = [FakeDevice(share, chance_of(seed, share)) for share in shares]
        self.tokens = 0
        self._numbers = 0
        self._engine = ScoringEngine(
            {f"fake:{number}": device for number, device in enumerate(self.devices)},
            tokens=lambda work: work.tokens,
            max_tokens_per_batch=BATCH_TOKENS,
            max_waiting=MAX_WAITING,
            hear=self._hear,
        )

    @property
    def queue_depth(self) -> int:
        """Work items of all callers."""
        return self._engine.queue_depth

    @property
    def waiting(self) -> int:
        """Work items in the queue."""
        return self._engine.waiting

    async def ask(self, chance: Random) -> bool:
        """One work item, mostly small."""
        self._numbers += 1
        largest = chance.choice((16, 16, 64, BATCH_TOKENS, 2 * MEMORY_TOKENS))
        work = Work(self._numbers, chance.randint(1, largest), chance.random() < _POISONOUS)
        return await self._engine.score(work) == work.number

    async def close(self) -> None:
        """Closes the engine."""
        await self._engine.close()

    def _hear(self, batch: Batched) -> None:
        self.tokens += batch.tokens


class RealTarget:
    """A reward model, asked for the scores of random texts in many scripts."""

    callers, most_items, most_patience_seconds = 8, 4, 5.0
    grace_seconds = 600.0  # a long text takes a busy CPU a minute
    most_growth_bytes = 512_000_000  # torch keeps what its largest batch took
    waiting = 0

    def __init__(self, reward: RewardModel) -> None:
        self._reward = reward

    @property
    def queue_depth(self) -> int:
        """What the model says itself."""
        return self._reward.queue_depth

    async def ask(self, chance: Random) -> bool:
        """A prompt with one to four answers; now and then one of these texts is far too long."""
        texts = [_text(chance) for _ in range(chance.randint(2, 1 + self.most_items))]
        if chance.random() < _FAR_TOO_LONG:
            texts[chance.randrange(len(texts))] *= 1_000
        prompt = Prompt.of(texts[0])
        candidates = [Candidate(str(n), Completion(text)) for n, text in enumerate(texts[1:])]
        scores = await self._reward.score(prompt, candidates)
        return len(scores) == len(candidates) and all(
            score is not None and math.isfinite(score.reward) for score in scores
        )

    async def close(self) -> None:
        """Frees the model."""
        await self._reward.close()


def _text(chance: Random) -> str:
    return " ".join(chance.choices(_WORDS, k=chance.randint(1, 40)))


def chance_of(*seed: float) -> Random:
    """Chance that is the same in every run."""
    return Random(repr(seed))  # noqa: S311 - it hides nothing
