"""Answers to one prompt as a tree of tokens: what they share is a trunk, computed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tree:
    """Rows of tokens that begin alike.

    Attributes:
        trunk: what every row begins with.
        branches: how each goes on; none is empty.
    """

    trunk: Tokens
    branches: tuple[Tokens, ...]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Tree:
        """The tree of rows, none of them empty; each keeps a last token of its own.

        >>> Tree.of([[1, 2, 3], [1, 2, 4, 5]])
        Tree(trunk=(1, 2), branches=((3,), (4, 5)))
        >>> Tree.of([[1, 2], [1, 2]])
        Tree(trunk=(1,), branches=((2,), (2,)))
        """
        if len(rows) == 1:
            return cls((), (tuple(rows[0]),))
        shortest = min(map(len, rows)) - 1
        differs = (len(set(column)) > 1 for column in zip(*rows, strict=False))
        shared = next((place for place, differ in enumerate(differs) if differ), shortest)
        shared = min(shared, shortest)
        return cls(tuple(rows[0][:shared]), tuple(tuple(row[shared:]) for row in rows))

    @property
    def tokens(self) -> int:
        """How many tokens a packed pass has to compute."""
        return len(self.trunk) + sum(map(len, self.branches))

    @property
    def rows(self) -> list[Tokens]:
        """The rows, each whole."""
        return [self.trunk + branch for branch in self.branches]

    def split(self, max_tokens: int) -> Iterator[Tree]:
        """The tree in parts of at most so many tokens; a row longer than that is a part alone.

        >>> tree = Tree((1, 2), ((3,), (4,), (5, 6, 7)))
        >>> [part.branches for part in tree.split(5)]
        [((3,), (4,)), ((5, 6, 7),)]
        """
        part: list[Tokens] = []
        room = max_tokens - len(self.trunk)
        for branch in self.branches:
            if part and sum(map(len, part)) + len(branch) > room:
                yield Tree(self.trunk, tuple(part))
                part = []
            part.append(branch)
        yield Tree(self.trunk, tuple(part))
