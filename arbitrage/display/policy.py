"""What a policy has learned, in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbitrage.display.tables import titled

if TYPE_CHECKING:
    from rich.table import Table

    from arbitrage.v1 import arbitrage_pb2 as pb

_WITHIN_95 = 1.96  # standard errors


def favourites(policy: pb.GetPolicyResponse) -> Table:
    """What a policy learned, a line a language: whom it likes best, and by how much."""
    title = f"what policy {policy.policy!r} learned from {policy.version} prompts"
    columns = ("language", "favourite", "expected reward", "asked", "runner-up", "behind by")
    table = titled(title, *columns)
    for language in policy.languages:
        best, *others = _ranked(language)
        table.add_row(
            language.language,
            best.arm,
            _with_error(best),
            f"{best.route_share:.0%}",
            others[0].arm if others else "",
            f"{best.mean_reward - others[0].mean_reward:.2f}" if others else "",
        )
    return table


def learned(policy: pb.GetPolicyResponse) -> Table:
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
    for language in policy.languages:
        for arm in _ranked(language):
            table.add_row(
                language.language,
                arm.arm,
                f"{arm.mean_reward:+.2f} ± {_WITHIN_95 * arm.standard_error:.2f}",
                f"{arm.best_probability:.0%}",
                f"{arm.route_share:.0%}",
                f"{1000 * arm.cost_usd:.4g}",
                str(arm.count),
                str(arm.rejected_count),
            )
        table.add_section()
    return table


def _paid(policy: pb.GetPolicyResponse) -> str:
    """What quality costs, in a line."""
    spent = f"a prompt costs {policy.usd_per_prompt:.4g} USD"
    if not policy.price:
        return f"{spent}; rewards alone decide, whatever they cost"
    worth = policy.price / 1000.0
    return f"{spent}; 0.001 USD more have to bring {worth:.4g} standard deviations of reward"


def _ranked(language: pb.LanguageEstimates) -> list[pb.ArmEstimate]:
    return sorted(language.arms, key=lambda arm: -arm.mean_reward)


def _with_error(arm: pb.ArmEstimate) -> str:
    return f"{arm.mean_reward:+.2f} ± {arm.standard_error:.2f}"
