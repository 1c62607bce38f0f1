"""The least that a figure may be: a value, or one that a share of a language's lies below."""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from arbitrage.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Floor:
    """The least reward or margin that is kept.

    Attributes:
        value: the least; or, where it is a `share`, what part of each language's samples
            lies below the least: rewards of two languages are not always of one scale.
    """

    value: float
    share: bool = False

    @classmethod
    def parse(cls, text: str) -> Floor:
        """Reads what a user has written: `0.5`, or `25%` for the lowest quarter.

        >>> Floor.parse("0.5"), Floor.parse("25%")
        (Floor(value=0.5, share=False), Floor(value=0.25, share=True))

        Raises:
            ConfigError: it is neither.
        """
        share = text.endswith("%")
        try:
            value = float(text.removesuffix("%"))
        except ValueError:
            value = math.nan
        if share:
            value /= 100.0
        if not math.isfinite(value) or (share and not 0.0 <= value < 1.0):
            raise ConfigError(f"{text!r} is no least value; give one such as 0.5, or 25%")
        return cls(value, share)

    def __str__(self) -> str:
        return f"{100.0 * self.value:g}%" if self.share else f"{self.value:g}"


class Level:
    """Whether figures reach a floor, which for a share has to have seen them all before.

    Of equal figures none is left out for the others: at least `1 - value` of them reach it.

    >>> level = Level(Floor(0.25, share=True))
    >>> for reward in (3.0, 1.0, 2.0, 4.0):
    ...     level.add("de", reward)
    >>> level.reached("de", 1.5), level.reached("de", 2.0), level.reached("de", None)
    (False, True, False)

    Attributes:
        waits: it needs the figures added before it can tell.
    """

    def __init__(self, floor: Floor | None) -> None:
        self._floor = floor
        self._figures: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self._least: dict[str, float] = {}
        self.waits = floor is not None and floor.share

    def add(self, language: str, figure: float | None) -> None:
        """Takes the figure of a sample; None where it has none."""
        if self.waits and figure is not None:
            self._figures[language].append(figure)

    def reached(self, language: str, figure: float | None) -> bool:
        """Whether a figure is enough; none never is, unless there is no floor."""
        if self._floor is None:
            return True
        if figure is None:
            return False
        if not self.waits:
            return figure >= self._floor.value
        if language not in self._least:
            own = np.asarray(self._figures.pop(language))
            lost = int(self._floor.value * len(own))
            self._least[language] = float(np.partition(own, lost)[lost])
        return figure >= self._least[language]
