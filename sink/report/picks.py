"""Which samples of a log are worth showing: some drawn evenly, and those that stand out."""

from __future__ import annotations

import heapq
import math
import random
from collections import defaultdict
from itertools import count
from typing import TYPE_CHECKING

from sink.report.moments import Reservoir

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arbitrage.types import Candidate, Sample

DRAWN = "drawn at random"
NOBODY = "no winner"
WIDEST, CLOSEST = "clearest wins", "closest calls"
COSTLIEST, SLOWEST = "most expensive", "slowest"
LONG_SHOT, DISAGREEMENT = "long shots that won", "scorers disagree"
KINDS = (DRAWN, NOBODY, WIDEST, CLOSEST, LONG_SHOT, DISAGREEMENT, COSTLIEST, SLOWEST)
"""Why a sample is shown."""
_DRAWN, _NOBODY, _EACH = 1_400, 160, 60
_FEWEST = 4  # of each language, however many there are


class Picks:
    """At most 2,000 samples of a stream or so, drawn with a fixed seed and so reproducible.

    The even draw is one for each language. While languages are few it may keep many
    of each; when another one comes, all make room for it.
    """

    def __init__(self) -> None:
        self._random = random.Random(0)  # noqa: S311 - not for secrets
        self._drawn: dict[str, Reservoir[Sample]] = {}
        self._nobody: Reservoir[Sample] = Reservoir(_NOBODY, self._random)
        self._best = {kind: _Best(_EACH) for kind in KINDS if kind not in {DRAWN, NOBODY}}

    def add(self, sample: Sample) -> None:
        """Looks at the next sample."""
        self._of(sample.prompt.language).offer(sample)
        if sample.winner is None:
            self._nobody.offer(sample)
        for kind, rank in _ranks(sample):
            if math.isfinite(rank):
                self._best[kind].offer(rank, sample)

    def chosen(self) -> list[tuple[Sample, list[str]]]:
        """The samples, each once and with why it is here; of every kind the first ones first."""
        why: defaultdict[int, list[str]] = defaultdict(list)
        found: dict[int, Sample] = {}
        # by identity: sample ids of two folders may be the same
        for kind, samples in self._kinds():
            for sample in samples:
                found[id(sample)] = sample
                why[id(sample)].append(kind)
        standing_out = [samples for kind, samples in self._kinds() if kind != DRAWN]
        drawn = [reservoir.kept for reservoir in self._drawn.values()]
        order = dict.fromkeys(map(id, [*_in_turn(standing_out), *_in_turn(drawn)]))
        return [(found[key], why[key]) for key in order]

    def _of(self, language: str) -> Reservoir[Sample]:
        if language not in self._drawn:
            size = max(_DRAWN // (len(self._drawn) + 1), _FEWEST)
            for reservoir in self._drawn.values():
                reservoir.shrink(size)
            self._drawn[language] = Reservoir(size, self._random)
        return self._drawn[language]

    def _kinds(self) -> Iterable[tuple[str, list[Sample]]]:
        yield DRAWN, [sample for reservoir in self._drawn.values() for sample in reservoir.kept]
        yield NOBODY, self._nobody.kept
        for kind, best in self._best.items():
            yield kind, best.kept()


class _Best:
    """Those of the highest rank; of equals, the first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[float, int, Sample]] = []
        self._number = count(0, -1)

    def offer(self, rank: float, sample: Sample) -> None:
        entry = (rank, next(self._number), sample)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, entry)
        elif entry > self._heap[0]:
            heapq.heapreplace(self._heap, entry)

    def kept(self) -> list[Sample]:
        return [sample for *_, sample in sorted(self._heap, reverse=True)]


def _ranks(sample: Sample) -> Iterable[tuple[str, float]]:
    """How far it stands out, of each kind that it is of."""
    if sample.margin is not None:
        yield WIDEST, sample.margin
        yield CLOSEST, -sample.margin
    if cost := sum(candidate.cost_usd for candidate in sample.candidates):
        yield COSTLIEST, cost
    if latency := max((c.latency_seconds for c in sample.candidates), default=0.0):
        yield SLOWEST, latency
    decision = sample.decision
    asked = dict(zip(decision.arms, decision.propensities, strict=True))
    propensity = asked.get(sample.winner.teacher, 1.0) if sample.winner else 1.0
    # with nobody to win against, or among equally likely ones, there is no long shot
    if sample.margin is not None and propensity < max(asked.values()):
        yield LONG_SHOT, -propensity
    if dissent := _dissent(sample.candidates):
        yield DISAGREEMENT, dissent


def _dissent(candidates: Iterable[Candidate]) -> float:
    """Share of an ensemble's members that would have had another candidate win.

    Members are those under whose name in `raw` there are figures of their own
    (`judge`, `judge.votes`); a single reward model agrees with itself.
    """
    scored = [(c.score.reward, c.score.raw) for c in candidates if c.score]
    if len(scored) < 2:  # noqa: PLR2004 - nothing to disagree about
        return 0.0
    common = set.intersection(*(set(raw) for _, raw in scored))
    members = common & {name.split(".")[0] for name in common if "." in name}
    if len(members) < 2:  # noqa: PLR2004 - alike
        return 0.0
    winner = max(range(len(scored)), key=lambda n: scored[n][0])
    against = sum(
        any(raw[member] > scored[winner][1][member] for _, raw in scored) for member in members
    )
    return against / len(members)


def _in_turn(groups: Iterable[list[Sample]]) -> Iterable[Sample]:
    """The first of each group, the second of each, and so on."""
    groups = [group for group in groups if group]
    for turn in range(max(map(len, groups), default=0)):
        yield from (group[turn] for group in groups if turn < len(group))
