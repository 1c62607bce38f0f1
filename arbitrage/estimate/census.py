"""Prompts counted: how many there are of each language and domain, and how long they are."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from arbitrage.estimate import tokens
from arbitrage.estimate.tokens import Tokens
from arbitrage.language import UNDETERMINED
from arbitrage.prompts import Rejected
from arbitrage.types import Completion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from arbitrage.types import Message, Prompt

BY_SCRIPT = ""
"""Names the counts that are guessed from the scripts of the texts."""

_DOMAINS = 1000  # told apart, lest each prompt has its own
_AT_ONCE = 512  # prompts taken together


class TokenCounter(Protocol):
    """A tokenizer that counts; `teachers.tokens.TokenCounter` is one."""

    async def count(
        self, messages: Sequence[Message], completions: Sequence[Completion]
    ) -> list[Completion]:
        """The answers of one call, with the counts that they lack."""


@dataclass(slots=True)
class Tally:
    """Prompts, and their tokens by the tokenizer that counted them."""

    prompts: int = 0
    tokens: defaultdict[str, Tokens] = field(
        default_factory=lambda: defaultdict(lambda: Tokens(0.0, 0.0))
    )

    def each(self, counter: str) -> Tokens:
        """Tokens of a prompt, on average."""
        total = self.tokens[counter]
        return Tokens(total.expected / self.prompts, total.most / self.prompts)


class Census:
    """Counts prompts and forgets them.

    Attributes:
        tallies: by language and domain.
        rejected: rows that are no prompts.
        done: prompts that are answered already.

    Args:
        detect: tells the language of a text, where the prompt does not.
        counters: tokenizers by name.
        is_done: tells of some prompts, as they came, which are answered already.
    """

    def __init__(
        self,
        detect: Callable[[str], str],
        counters: Mapping[str, TokenCounter],
        is_done: Callable[[Sequence[Prompt]], Sequence[bool]] | None = None,
    ) -> None:
        self.tallies: defaultdict[tuple[str, str | None], Tally] = defaultdict(Tally)
        self.rejected = self.done = 0
        self._domains: set[str | None] = {None}
        self._detect = detect
        self._counters = counters
        self._is_done = is_done

    async def take(self, read: Iterable[Prompt | Rejected]) -> None:
        """Counts everything, some at a time."""
        rows = iter(read)
        while batch := list(islice(rows, _AT_ONCE)):
            prompts = [row for row in batch if not isinstance(row, Rejected)]
            self.rejected += len(batch) - len(prompts)
            done = self._is_done(prompts) if self._is_done else [False] * len(prompts)
            self.done += sum(done)
            for prompt, is_done in zip(prompts, done, strict=True):
                if not is_done:
                    await self._count(self._told(prompt))

    async def _count(self, prompt: Prompt) -> None:
        tally = self.tallies[prompt.language, self._domain(prompt.domain)]
        tally.prompts += 1
        tally.tokens[BY_SCRIPT] += tokens.of_prompt(prompt)
        for name, counter in self._counters.items():
            [counted] = await counter.count(prompt.messages, [Completion("", completion_tokens=0)])
            exactly = float(counted.prompt_tokens or 0)
            tally.tokens[name] += Tokens(exactly, exactly)

    def _told(self, prompt: Prompt) -> Prompt:
        """The prompt with its language."""
        if prompt.language != UNDETERMINED:
            return prompt
        return replace(prompt, language=self._detect(prompt.text))

    def _domain(self, domain: str | None) -> str | None:
        if len(self._domains) < _DOMAINS:
            self._domains.add(domain)
        return domain if domain in self._domains else None
