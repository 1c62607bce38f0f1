"""Pairwise comparison: who meets whom, and what share of the games each has won."""

from __future__ import annotations

import random
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Game:
    """Two players compared in both orders.

    Attributes:
        players: their numbers.
        placed_first, placed_second: the first player's share of the win, in [0, 1], when it
            was shown first and when it was shown second; 0.5 is a tie.
    """

    players: tuple[int, int]
    placed_first: float
    placed_second: float

    @property
    def share(self) -> float:
        """The first player's share of the win, whoever is preferred for its place."""
        return (self.placed_first + self.placed_second) / 2

    @property
    def consistent(self) -> bool:
        """Whether both orders have one winner, or none."""
        return _side(self.placed_first) == _side(self.placed_second)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a player has reached: its mean share of the wins, and how far to trust it.

    Attributes:
        share: in [0, 1].
        consistency: share of its games in which both orders agree.
    """

    share: float
    consistency: float


def pairings(count: int, seed: str) -> Iterator[tuple[int, int]]:
    """Pairs of players, each at most once: all pairs of up to six, five rounds of more.

    The rounds are those of a round-robin tournament (the circle method) over an order that
    the seed decides. So each player meets at most five others, and the number of games
    grows with that of the players, not with its square.

    >>> [len(list(pairings(n, "p"))) for n in (1, 2, 3, 6, 7, 20)]
    [0, 1, 3, 15, 15, 50]
    """
    players: list[int | None] = list(range(count))
    random.Random(seed).shuffle(players)  # noqa: S311 - it draws pairs, not secrets
    if count % 2:
        players.append(None)  # who meets nobody sits this round out
    for _ in range(min(len(players) - 1, _ROUNDS)):
        for first, second in zip(players[: len(players) // 2], reversed(players), strict=False):
            if first is not None and second is not None:
                yield first, second
        players.insert(1, players.pop())


def standings(count: int, games: Sequence[Game]) -> list[Standing | None]:
    """What each player has reached; None for one without a game."""
    shares: list[list[float]] = [[] for _ in range(count)]
    consistent: list[list[bool]] = [[] for _ in range(count)]
    for game in games:
        for player, share in zip(game.players, (game.share, 1 - game.share), strict=True):
            shares[player].append(share)
            consistent[player].append(game.consistent)
    return [
        Standing(fmean(won), fmean(agreed)) if won else None
        for won, agreed in zip(shares, consistent, strict=True)
    ]


def _side(share: float) -> int:
    return (share > 0.5) - (share < 0.5)  # noqa: PLR2004 - a tie
