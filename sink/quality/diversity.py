"""How different texts are from one another, and whether answers have become all alike."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sink.quality.balance import chance
from sink.quality.likeness import Figures
from sink.quality.tokens import in_letters, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SAMPLE = 400
_CHARACTERS = 1_000
_OPENING_WORDS, _OPENING_LETTERS = 4, 8


@dataclass(frozen=True, slots=True)
class Opening:
    """A phrase that answers begin with.

    Attributes:
        share: of the answers in the language, the part that begins so.
        teacher: who begins so most often.
    """

    phrase: str
    share: float
    teacher: str


@dataclass(frozen=True, slots=True)
class Diversity:
    """How different the winners of a language are, beside its prompts.

    Attributes:
        answers, prompts: of a seeded sample, each prompt and its answer cut to the
            shorter of the two, so that both have as many tokens.
        sampled: how many pairs that is.
        prompt_tokens, answer_tokens: mean lengths over all, uncut.
        opening: the phrase that most of the sampled answers begin with.
    """

    answers: Figures
    prompts: Figures
    sampled: int
    prompt_tokens: float
    answer_tokens: float
    opening: Opening | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarms:
    """When answers are called too much alike.

    What is normal depends on the prompts: to one question asked four hundred times, the
    answers may well be alike. So they are held against the prompts themselves, which
    somebody chose to be as different as they are. The defaults are from answers of chat
    models to 425 prompts in six languages: their distinct 3-grams were 0.97 to 1.09 of the
    prompts', their compression 0.79 to 1.05, their self-BLEU 0.06 below to 0.03 above, and
    at most 9% began with one phrase. With the same sentence before every answer, these were
    0.70 to 0.90, 1.21 to 1.32 (Russian: 0.98), 0.16 to 0.44 above, and 100%.

    Attributes:
        least: fewer answers tell nothing.
        distinct: the least that their distinct 3-grams may be, over the prompts' own.
        compression: the most that they may be compressed better, over the prompts.
        self_bleu: the most that their self-BLEU may be above the prompts' own.
        opening: the most of them that may begin with the same phrase.
    """

    least: int = 30
    distinct: float = 0.8
    compression: float = 1.25
    self_bleu: float = 0.15
    opening: float = 0.2

    def warnings(self, found: Diversity) -> Iterator[str]:
        """What is wrong with a language's answers, one line each."""
        if found.sampled < self.least:
            return
        ours, theirs = found.answers, found.prompts
        if ours.distinct[2] < self.distinct * theirs.distinct[2]:
            yield (
                f"only {ours.distinct[2]:.0%} of the answers' 3-grams are different ones, of the "
                f"prompts' {theirs.distinct[2]:.0%}"
            )
        if ours.compression > self.compression * theirs.compression:
            yield (
                f"the answers compress to 1/{ours.compression:.1f}, the prompts to "
                f"1/{theirs.compression:.1f}"
            )
        if ours.self_bleu > theirs.self_bleu + self.self_bleu:
            yield (
                f"the answers' self-BLEU is {ours.self_bleu:.2f}, the prompts' "
                f"{theirs.self_bleu:.2f}"
            )
        if found.opening and found.opening.share > self.opening:
            yield (
                f"{found.opening.share:.0%} of the answers begin with {found.opening.phrase!r}, "
                f"most of them from {found.opening.teacher}"
            )


class Gauge:
    """Sees the prompts and answers of a language, and tells how different they are.

    Holds a sample of at most 400 pairs, drawn by their names and the seed, whatever the
    order in which they come.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._sample: list[tuple[float, str, str, str, str]] = []
        self._count = 0
        self._prompt_tokens = 0
        self._answer_tokens = 0

    def add(self, name: str, prompt: str, answer: str, teacher: str) -> None:
        """Takes a pair.

        Args:
            name: of the pair; the sample is drawn by it.
            prompt: what was asked.
            answer: what has won.
            teacher: whose answer it is.
        """
        self._count += 1
        self._prompt_tokens += len(tokens(prompt))
        self._answer_tokens += len(tokens(answer))
        drawn = (
            -chance(name, self._seed),
            name,
            prompt[:_CHARACTERS],
            answer[:_CHARACTERS],
            teacher,
        )
        if len(self._sample) < _SAMPLE:
            heapq.heappush(self._sample, drawn)
        else:
            heapq.heappushpop(self._sample, drawn)

    def read(self) -> Diversity:
        """The figures of what was added, at least one pair."""
        pairs = sorted(self._sample, reverse=True)
        prompts, answers, cut_prompts, cut_answers = [], [], [], []
        for _, _, prompt, answer, _ in pairs:
            asked, said = tokens(prompt), tokens(answer)
            length = min(len(asked), len(said))
            prompts.append(asked[:length])
            answers.append(said[:length])
            characters = min(len(prompt), len(answer))
            cut_prompts.append(prompt[:characters])
            cut_answers.append(answer[:characters])
        return Diversity(
            answers=Figures.of(cut_answers, answers),
            prompts=Figures.of(cut_prompts, prompts),
            sampled=len(pairs),
            prompt_tokens=self._prompt_tokens / self._count,
            answer_tokens=self._answer_tokens / self._count,
            opening=_opening([(tokens(answer), teacher) for _, _, _, answer, teacher in pairs]),
        )


def _opening(answers: Sequence[tuple[Sequence[str], str]]) -> Opening | None:
    """What most answers begin with."""
    phrases: Counter[tuple[str, ...]] = Counter()
    teachers: Counter[tuple[tuple[str, ...], str]] = Counter()
    for parts, teacher in answers:
        begins = tuple(parts[: _OPENING_LETTERS if in_letters(parts[:20]) else _OPENING_WORDS])
        phrases[begins] += 1
        teachers[begins, teacher] += 1
    if not phrases:
        return None
    phrase, count = min(phrases.items(), key=lambda item: (-item[1], item[0]))
    loudest = min((-n, who) for (begins, who), n in teachers.items() if begins == phrase)
    joint = "" if in_letters(phrase) else " "
    return Opening(joint.join(phrase), count / len(answers), loudest[1])
