"""What may be left out of an export, and on whose word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from sink.export.rows import Rejected
    from sink.quality.balance import Most
    from sink.quality.floors import Floor


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which samples are exported; by default, all that make a line.

    Attributes:
        languages: normalised tags; empty for all.
        only_trainable: those alone whose teachers all let their outputs train others.
        min_reward: the least reward of the winner.
        min_margin: the least margin: in pairs that between the two, else the winner's lead
            on the runner-up, where a sample without one is left out.
        decontaminate: eval sets that neither prompts nor answers may share text with.
        dedupe: the similarity from which on a prompt counts as seen before.
        dedupe_answers: the same of winners' answers of at least 20 words.
        balance: how many samples a language may keep.
        keep: which of those: a seeded random share keeps the mix of prompts as it is; the
            best by reward leaves hard prompts out with poor answers.
        rejected: which answer a winner is paired with, of those that passed and are worse:
            the worst, the runner-up (`second`), or a seeded random one.
        seed: of all that is random.
    """

    languages: tuple[str, ...] = ()
    only_trainable: bool = False
    min_reward: Floor | None = None
    min_margin: Floor | None = None
    decontaminate: tuple[Path, ...] = ()
    dedupe: float | None = None
    dedupe_answers: float | None = None
    balance: Most | None = None
    keep: Literal["random", "best"] = "random"
    rejected: Rejected = "worst"
    seed: int = 0
