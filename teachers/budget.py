"""What calls to teachers cost, each to the token, and what all of them may cost together."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from arbitrage import config
    from arbitrage.errors import TeacherError
    from arbitrage.types import Completion, Prompt

_MILLION = 1_000_000
_FREE = Decimal(0)
_USUAL_ANSWER_TOKENS = 512
_BYTES_A_TOKEN = 3  # scripts of three bytes a character take about a token for each


class Budget:
    """A hard stop: no call starts that would, at what such calls cost, exceed it.

    So it can be exceeded only by what the calls in flight cost more than expected.

    Attributes:
        limit: US dollars; None for no limit.
        spent: US dollars, by calls that have ended.
        in_flight: US dollars that the calls under way are expected to cost.
        hear: is told of what is paid, call by call.
    """

    def __init__(self, limit_usd: float | None = None) -> None:
        self.spent = self.in_flight = _FREE
        self.hear: Callable[[Decimal], object] = lambda _: None
        self.limit: Decimal | None
        self.allow(limit_usd)

    def allow(self, limit_usd: float | None) -> None:
        """Sets another limit, above or below what is spent."""
        self.limit = None if limit_usd is None else Decimal(str(limit_usd))

    @property
    def remaining_usd(self) -> float | None:
        """What is left, below 0 if it was exceeded; None without a limit."""
        return None if self.limit is None else float(self.limit - self.spent)

    def pay(self, usd: Decimal) -> None:
        """Takes what a call has cost off it."""
        if usd:
            self.spent += usd
            self.hear(usd)

    def allows(self, expected: Decimal) -> bool:
        """Whether a call that is expected to cost so much may start."""
        committed = self.spent + self.in_flight
        return self.limit is None or committed < self.limit >= committed + expected


@dataclass(frozen=True, slots=True)
class Tariff:
    """US dollars per million tokens.

    Decimals, so that a cost is the price as written times the tokens, without binary dust.
    """

    prompt: Decimal = _FREE
    completion: Decimal = _FREE

    @classmethod
    def of(cls, price: config.Price | None) -> Self:
        """The price as it is written in a configuration; nothing where there is none."""
        return cls(Decimal(str(price.prompt)), Decimal(str(price.completion))) if price else cls()

    def cost(self, prompt_tokens: int, completion_tokens: int) -> Decimal:
        """US dollars for so many tokens."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / _MILLION


class Account:
    """What the calls of one teacher use and cost, before they are made and after.

    Attributes:
        tariff: what its tokens cost.
    """

    def __init__(self, tariff: Tariff, sampling: config.Sampling, budget: Budget) -> None:
        self.tariff = tariff
        self._budget = budget
        self._free = tariff == Tariff()
        self._longest = (sampling.max_tokens or _USUAL_ANSWER_TOKENS) * sampling.n
        self._calls = self._prompt_tokens = self._completion_tokens = 0

    def expected_tokens(self, prompt: Prompt) -> tuple[int, int]:
        """What a call will use for the prompt and for the answer.

        The mean of the calls so far; before the first, the prompt's bytes and the
        longest answer that the sampling allows.
        """
        if self._calls:
            return self._prompt_tokens // self._calls, self._completion_tokens // self._calls
        return _prompt_tokens(prompt), self._longest

    @property
    def within_budget(self) -> bool:
        """Whether anything may be spent on it; on a teacher without a price, always."""
        return self._free or self._budget.allows(_FREE)

    def affordable(self, prompt: Prompt) -> bool:
        """Whether the budget allows a call for this prompt."""
        if self._free or self._budget.limit is None:
            return True
        return self._budget.allows(self.expected_cost(prompt))

    def payable(self, prompt: Prompt) -> bool:
        """Whether the budget will allow a call if those in flight cost nothing."""
        limit, spent = self._budget.limit, self._budget.spent
        return self._free or limit is None or spent + self.expected_cost(prompt) <= limit

    @contextmanager
    def reserved(self, prompt: Prompt) -> Iterator[None]:
        """Counts a call's expected cost to what is in flight while it is."""
        expected = _FREE if self._free else self.expected_cost(prompt)
        self._budget.in_flight += expected
        try:
            yield
        finally:
            self._budget.in_flight -= expected

    def settle(self, prompt: Prompt, answers: Sequence[Completion]) -> tuple[int, list[Decimal]]:
        """Takes an answered call off the budget; what nobody counted is guessed from the text.

        Returns:
            Tokens that the call used, and US dollars for each answer.
        """
        used, costs = 0, []
        self._calls += 1
        for number, answer in enumerate(answers):
            asked, written = answer.prompt_tokens, answer.completion_tokens
            if asked is None:
                asked = 0 if number else _prompt_tokens(prompt)
            if written is None:
                written = _tokens(answer.text) + _tokens(answer.reasoning or "")
            self._prompt_tokens += asked
            self._completion_tokens += written
            used += asked + written
            costs.append(_FREE if self._free or answer.cached else self.tariff.cost(asked, written))
        self._budget.pay(sum(costs, _FREE))
        return used, costs

    def charge(self, error: TeacherError) -> Decimal:
        """Takes a failed call off the budget that was billed all the same."""
        cost = self.tariff.cost(error.prompt_tokens or 0, error.completion_tokens or 0)
        self._budget.pay(cost)
        return cost

    def expected_cost(self, prompt: Prompt) -> Decimal:
        """What a call for this prompt is likely to cost, in US dollars."""
        return self.tariff.cost(*self.expected_tokens(prompt))


def _prompt_tokens(prompt: Prompt) -> int:
    return sum(_tokens(message.content) for message in prompt.messages)


def _tokens(text: str) -> int:
    return math.ceil(len(text.encode("utf-8", "surrogatepass")) / _BYTES_A_TOKEN)
