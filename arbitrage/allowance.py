"""What a request allows of what the pool and the policy would do with its prompt."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from arbitrage.errors import NoTeacherAvailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage.ports import Pool
    from arbitrage.types import Candidate, Prompt, Routing


class Allowance:
    """Whom one prompt may be sent to, how many of them, and at what cost.

    Costs are those that the pool expects of calls, until they are made, and their own from
    then on.
    """

    def __init__(self, pool: Pool, prompt: Prompt, routing: Routing) -> None:
        self.prompt = prompt
        self._pool = pool
        self._routing = routing

    @property
    def barred(self) -> set[str]:
        """Arms that the prompt may not be sent to."""
        if not self._routing.teachers:
            return set()
        return {teacher.name for teacher in self._pool.describe()} - self._routing.teachers

    def affordable(self, arms: Sequence[str], seen: Sequence[Candidate]) -> list[str]:
        """Those of some arms that may be asked after what has been answered."""
        left = self._left(seen)
        if left is None:
            return list(arms)
        return [arm for arm in arms if self._pool.expected_cost(arm, self.prompt) <= left]

    def most(self, arms: Sequence[str], seen: Sequence[Candidate]) -> int | None:
        """How many arms may be asked, those that were included; None for as many as usual.

        Whichever of `arms` are chosen, they are within the limit together: so many of the
        dearest would be.
        """
        left, fan_out = self._left(seen), self._routing.fan_out
        if left is None:
            return fan_out
        costs = sorted((self._pool.expected_cost(arm, self.prompt) for arm in arms), reverse=True)
        within = sum(1 for total in accumulate(costs) if total <= left)
        most = within + len({candidate.teacher for candidate in seen})
        return most if fan_out is None else min(most, fan_out)

    def refusal(self) -> NoTeacherAvailable:
        """Why nobody was asked."""
        refusal, routing = self._pool.refusal(self.prompt), self._routing
        if routing.max_cost_usd is None and not routing.teachers:
            return refusal
        return NoTeacherAvailable(
            "none of the teachers that the request allows may be asked in "
            f"{self.prompt.language!r} now; allow others, or a higher cost",
            retry_after_seconds=refusal.retry_after_seconds,
        )

    def _left(self, seen: Sequence[Candidate]) -> float | None:
        """What may still be spent; None without a limit."""
        if self._routing.max_cost_usd is None:
            return None
        return self._routing.max_cost_usd - sum(candidate.cost_usd for candidate in seen)
