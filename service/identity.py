"""Who calls, and what they may: known to all that works for an RPC."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, get_args

from arbitrage.errors import PermissionDenied

Scope = Literal["complete", "jobs", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
Kind = Literal["token", "certificate", "peer"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Attributes:
        kind: what tells who it is: a token, a client's certificate, or else the address it calls
            from.
        name: of the token, in the certificate, or the address without its port.
        scopes: what it may; `admin` may everything. By default all of them.
    """

    kind: Kind
    name: str
    scopes: frozenset[Scope] = frozenset(SCOPES)

    def require(self, scope: Scope) -> None:
        """Lets those pass who may do something.

        Raises:
            PermissionDenied: this caller may not.
        """
        if not self.scopes & {scope, "admin"}:
            raise PermissionDenied(
                f"{self.kind} {self.name!r} does not have the scope {scope!r}; ask the operator "
                "for one that has",
                scope=scope,
            )


caller: ContextVar[Caller] = ContextVar("caller")
"""Set in each RPC of our own services, and in the tasks that it starts; nowhere else."""
