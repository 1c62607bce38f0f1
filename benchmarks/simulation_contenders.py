"""Who takes part in the simulation, and with which settings.

Each has one setting for all four scenarios: of those in its grid the one with the least regret
over all of them together, on seeds that are not reported on (`simulation.py --tune`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from itertools import product
from typing import TYPE_CHECKING, Any

from simulation_bandits import Centred, IndependentThompson, IndependentUCB, Routed, Static
from simulation_libraries import MabwiserEpsilonGreedy, MabwiserLinear, VowpalWabbit

import router

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from simulation_bandits import Contender, Task

OURS = "linucb"
"""The policy for one teacher a prompt, which the others are compared with."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One who takes part.

    Attributes:
        settings: what it is made with; `centred` says whether it is handed rewards as
            distances from their mean.
        grid: what its settings were chosen from.
        library: the module that it needs.
    """

    make: Callable[..., Contender]
    settings: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    library: str | None = None

    def enter(self, task: Task, settings: Mapping[str, Any] | None = None) -> Contender:
        """Makes the contender, with its own settings or with others."""
        chosen = dict(self.settings if settings is None else settings)
        centred = chosen.pop("centred", False)
        contender = self.make(task, **chosen)
        return Centred(contender, task) if centred else contender

    def all_settings(self) -> Iterator[dict[str, Any]]:
        """Every combination of the grid."""
        for values in product(*self.grid.values()):
            yield dict(zip(self.grid, values, strict=True))


_LINEAR = {"weight": (0.3, 1.0, 3.0), "l2_lambda": (10.0, 30.0, 100.0), "centred": (False, True)}
_BAGS = ("--bag 4", "--bag 8")

_ALL: Mapping[str, Entry] = {
    "linucb": Entry(
        partial(Routed, kind="linucb"),
        {"confidence": 2.0, "drift": True},
        {"confidence": (1.5, 2.0, 2.5), "drift": (False, True), "half_life": (None, 4000.0)},
    ),
    "thompson": Entry(
        partial(Routed, kind="thompson"),
        {"confidence": 0.5, "drift": True},
        {"confidence": (0.35, 0.5, 1.0), "drift": (False, True), "half_life": (None, 1000.0)},
    ),
    "MABWiser epsilon-greedy": Entry(
        MabwiserEpsilonGreedy, {"epsilon": 0.1}, {"epsilon": (0.02, 0.05, 0.1, 0.2)}, "mabwiser"
    ),
    "MABWiser LinUCB": Entry(
        partial(MabwiserLinear, policy="LinUCB"),
        {"alpha": 1.0, "weight": 1.0, "l2_lambda": 30.0, "centred": True},
        {"alpha": (0.3, 0.5, 0.7, 1.0, 1.5), **_LINEAR},
        "mabwiser",
    ),
    "MABWiser LinTS": Entry(
        partial(MabwiserLinear, policy="LinTS"),
        {"alpha": 0.3, "weight": 1.0, "l2_lambda": 30.0, "centred": True},
        {"alpha": (0.2, 0.3, 0.5, 0.7), **_LINEAR},
        "mabwiser",
    ),
    "Vowpal Wabbit": Entry(
        VowpalWabbit,
        {"options": "--bag 8 --learning_rate 2"},
        {
            "options": tuple(
                f"{exploration} --learning_rate {rate}"
                for exploration in ("--squarecb", "--epsilon 0.05", "--cover 4", *_BAGS)
                for rate in (0.1, 0.5, 2)
            )
        },
        "vowpalwabbit",
    ),
    "independent Thompson": Entry(
        IndependentThompson,
        {"prior_sd": 1.0, "width": 0.3},
        {"prior_sd": (0.1, 0.15, 0.2, 0.3, 1.0), "width": (0.2, 0.3, 0.5, 1.0)},
    ),
    "independent UCB1": Entry(
        IndependentUCB, {"width": 0.3}, {"width": (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)}
    ),
    "static best single": Entry(Static),
}


def _exists(name: str, entry: Entry) -> bool:
    if entry.library:
        return find_spec(entry.library) is not None
    return not isinstance(entry.make, partial) or name in router.KINDS


CONTENDERS: Mapping[str, Entry] = {
    name: entry for name, entry in _ALL.items() if _exists(name, entry)
}
MISSING: Sequence[str] = sorted(
    {entry.library for name, entry in _ALL.items() if entry.library and name not in CONTENDERS}
)
"""Libraries that are not installed; their bandits take no part."""
