"""How far a job is: what its earlier runs have left, and what this one adds."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from arbitrage.errors import BudgetSpent, TeacherLeftAlone, TeacherOverBudget
from arbitrage.events import Answered, Routed, Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from arbitrage.events import Event
    from arbitrage.job import Job
    from arbitrage.journal import Journal
    from arbitrage.registry import Progress
    from arbitrage.types import Prompt

_NOT_CALLED = frozenset({TeacherLeftAlone.outcome, TeacherOverBudget.outcome})


class Meter:
    """Watches one run of a job: hears its engine, and stands before its journal.

    What was accepted, stored and paid is the journal's to know, and exact whatever ended the
    run before; of calls it knows those whose completions it keeps, and what was found there
    is as of when that was last told.

    Attributes:
        total: rows of the source, as far as somebody knows.
        spent_usd: by all runs.
    """

    def __init__(
        self,
        journal: Journal,
        before: Progress,
        changed: Callable[[], object],
        total: int | None,
        budget_usd: float | None,
    ) -> None:
        self.total = before.total if total is None else total
        self.spent_usd = self._paid_before = journal.cost_usd
        self._budget_usd = budget_usd
        self._journal = journal
        self._before = before
        self._changed = changed
        self._job: Job | None = None
        self._accepted = self._calls = self._cached = 0
        self._unwon: set[str] = set()
        self._failed: set[str] = set()
        self._call: object = None
        self._began = asyncio.get_running_loop().time()

    @classmethod
    async def open(
        cls,
        journal: Journal,
        before: Progress,
        changed: Callable[[], object],
        total: int | None = None,
        budget_usd: float | None = None,
    ) -> Self:
        """Looks up what the earlier runs have left.

        Args:
            journal: the job's.
            before: what was told of them.
            changed: is called when there is more to tell.
            total: rows of the source; None where nobody knows yet.
            budget_usd: what all runs may cost; None for no limit.
        """
        self = cls(journal, before, changed, total, budget_usd)
        self._accepted, unwon = await journal.unwon()
        # of a process that was killed, not the last calls were told
        calls = max(before.calls, await journal.completions())
        self._before = replace(before, calls=calls)
        self._unwon = set(unwon)
        self._failed = {sample_id for sample_id, tried in unwon.items() if tried}
        return self

    def follow(self, job: Job) -> None:
        """Counts what a job has read and ended, too, and stops it once the budget is spent."""
        self._job = job
        self._hold_back(job)
        self._changed()

    @property
    def over_budget(self) -> bool:
        """Whether nothing is left to spend."""
        return self._budget_usd is not None and self.spent_usd >= self._budget_usd

    async def known(self, sample_ids: Collection[str]) -> set[str]:
        """Those of which there is a sample that somebody has won."""
        return await self._journal.known(sample_ids)

    def accept(self, sample_id: str, prompt: Prompt) -> asyncio.Future[int | None]:
        """Stores a prompt that is to be answered, and counts it unless it was before."""
        self._accepted += sample_id not in self._unwon
        self._failed.discard(sample_id)  # it is tried again
        self._changed()
        return self._journal.accept(sample_id, prompt)

    def observe(self, event: Event) -> None:
        """Counts calls and what they cost, which the journal hears, too."""
        match event:
            case Routed():
                self._call = None
            case Answered(prompt, candidate):
                call = prompt, candidate.teacher  # a call may have several answers
                if candidate.completion and candidate.completion.cached:
                    self._cached += 1
                elif not candidate.failure or candidate.failure.outcome not in _NOT_CALLED:
                    self._calls += call != self._call
                self._call = call
                if candidate.cost_usd:
                    self.spent_usd += candidate.cost_usd
                    self._journal.charge(candidate.cost_usd)
                    if self._job:
                        self._hold_back(self._job)
                self._changed()
            case Stored(sample):
                if sample.winner is None:  # should it come again, it is not another
                    self._unwon.add(sample.sample_id)
                self._changed()

    def _hold_back(self, job: Job) -> None:
        if self.over_budget:
            job.stop(BudgetSpent(f"the job's budget_usd, {self._budget_usd}, is spent"))

    @property
    def progress(self) -> Progress:
        """How far the job is now, over all its runs."""
        so_far = replace(
            self._before,
            total=self.total,
            accepted=self._accepted,
            samples=self._journal.pending + self._journal.published,
            calls=self._before.calls + self._calls,
            cached=self._before.cached + self._cached,
            cost_usd=self.spent_usd,
            failed=len(self._failed),
            remaining_usd=None,
            remaining_seconds=None,
        )
        return self._with(self._job, so_far) if self._job else so_far

    def _with(self, job: Job, progress: Progress) -> Progress:
        counts = job.counts
        total = counts.read if job.exhausted else self.total
        progress = replace(
            progress,
            total=total,
            # each run reads from the beginning
            rejected=max(progress.rejected, counts.rejected),
            failed=progress.failed + counts.unanswered.total(),
        )
        worked = counts.answered + counts.unanswered.total()
        if total is None or not worked:
            return progress
        share = max(total - counts.done, 0) / worked
        usd = share * (self.spent_usd - self._paid_before)
        if self._budget_usd is not None:
            usd = min(usd, max(self._budget_usd - self.spent_usd, 0.0))
        seconds = asyncio.get_running_loop().time() - self._began
        return replace(progress, remaining_usd=usd, remaining_seconds=share * seconds)
