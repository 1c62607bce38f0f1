"""What a policy has learned, in a terminal."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from arbitrage.display.tables import titled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from arbitrage.client import Learned
    from arbitrage.types import Estimate

_WITHIN_95 = 1.96  # standard errors


def favourites(policy: Learned) -> Table:
    """What a policy learned, a line a language: whom it likes best, and by how much."""
    title = f"what policy {policy.policy!r} learned from {policy.version} prompts"
    columns = ("language", "favourite", "expected reward", "asked", "runner-up", "behind by")
    table = titled(title, *columns)
    for language, (best, *others) in _ranked(policy):
        table.add_row(
            language,
            best.arm,
            f"{best.reward:+.2f} ± {best.standard_error:.2f}",
            f"{best.share:.0%}",
            others[0].arm if others else "",
            f"{best.reward - others[0].reward:.2f}" if others else "",
        )
    return table


def learned(policy: Learned) -> Table:
    """All that a policy believes: a line for each language and arm, the best arm first."""
    title = f"policy {policy.policy!r}, {policy.version} prompts learned from"
    columns = (
        "language",
        "arm",
        "expected reward (95%)",
        "is the best",
        "asked",
        "USD per 1000 calls",
        "scored",
        "stopped by gates",
    )
    table = titled(title, *columns)
    table.caption = _paid(policy)
    table.caption_justify = "left"
    for language, arms in _ranked(policy):
        for arm in arms:
            table.add_row(
                language,
                arm.arm,
                f"{arm.reward:+.2f} ± {_WITHIN_95 * arm.standard_error:.2f}",
                f"{arm.best or 0.0:.0%}",
                f"{arm.share:.0%}",
                f"{1000 * (arm.cost_usd or 0.0):.4g}",
                str(arm.scored),
                str(arm.stopped),
            )
        table.add_section()
    return table


def _paid(policy: Learned) -> str:
    """What quality costs, in a line."""
    spent = f"a prompt costs {policy.usd_per_prompt:.4g} USD"
    if not policy.price:
        return f"{spent}; rewards alone decide, whatever they cost"
    worth = policy.price / 1000.0
    return f"{spent}; 0.001 USD more have to bring {worth:.4g} standard deviations of reward"


def _ranked(policy: Learned) -> Iterator[tuple[str, list[Estimate]]]:
    """Each language with its arms, the best one first."""
    for language, arms in groupby(policy.estimates, key=lambda estimate: estimate.language):
        yield language, sorted(arms, key=lambda arm: -arm.reward)
