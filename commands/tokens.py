"""`arbitrage token new | list | revoke`: the tokens that a service's callers show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.tokens import new, read
from service.tokens import revoke as take_back

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["listed", "new", "revoke"]


def listed(path: Path) -> Iterator[str]:
    """A line for each token of a file: its name and its scopes.

    Raises:
        ConfigError: the file is missing, or none of tokens.
    """
    for name, token in read(path).items():
        yield f"{name}\t{', '.join(sorted(token.scopes))}"


def revoke(path: Path, name: str) -> str:
    """Takes a token back, and tells so.

    Raises:
        NotFound: none has this name.
        ConfigError: the file is missing, or none of tokens.
    """
    take_back(path, name)
    return f"{name}: revoked; services that read {path} refuse it from now on"
