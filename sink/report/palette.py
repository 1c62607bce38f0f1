"""Colours of teachers: each keeps its own from report to report."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LIGHT = (
    *("#2176d4", "#c04f12", "#186158", "#d56498", "#50559c", "#572703"),
    *("#0b9ccb", "#b78933", "#3f2585", "#9e320b", "#2b3e49", "#4b805a"),
)
"""On paper. Drawn by annealing for the largest distance in Oklab between the two nearest, as
seen with full colour vision, protanopia and deuteranopia (Machado, Oliveira & Fernandes 2009):
0.087 here, 0.083 in the dark; each has a contrast of 3 at least with what is behind it."""
DARK = (
    *("#77c1fe", "#fcb761", "#89ccbc", "#b55f78", "#8491ed", "#e4a07c"),
    *("#9ee5fe", "#917e02", "#9267ba", "#d57774", "#91a4b3", "#bdedba"),
)
"""The same hues in the dark."""


def colours(teachers: Iterable[str]) -> Mapping[str, int]:
    """Number of each teacher's colour, by its name and so alike in every report.

    Two whose names ask for one colour are told apart while there are colours left.

    >>> colours(["qwen"]) == {"qwen": colours(["qwen", "gemma", "mistral"])["qwen"]}
    True
    >>> sorted(colours(map(str, range(12))).values()) == list(range(12))
    True
    """
    taken: dict[str, int] = {}
    for teacher in sorted(set(teachers)):
        wish = hashlib.sha256(teacher.encode("utf-8", "surrogatepass")).digest()[0]
        turns = [(wish + turn) % len(LIGHT) for turn in range(len(LIGHT))]
        free = (number for number in turns if number not in taken.values())
        taken[teacher] = next(free, turns[0])
    return taken


def style() -> str:
    """The colours as custom properties, and a class for each."""
    lights = "".join(f"--t{n}:{colour};" for n, colour in enumerate(LIGHT))
    darks = "".join(f"--t{n}:{colour};" for n, colour in enumerate(DARK))
    classes = "".join(f".t{n}{{--c:var(--t{n})}}" for n in range(len(LIGHT)))
    dark = f"@media screen and (prefers-color-scheme:dark){{:root{{{darks}}}}}"
    return f":root{{{lights}}}{dark}{classes}\n"
