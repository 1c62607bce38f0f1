"""What one prompt asks of one teacher."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from arbitrage.types import Prompt
    from teachers.limits import Taken


@dataclass(slots=True)
class Call:
    """What is asked, whatever number of attempts it takes.

    Attributes:
        deadline: time on the loop's clock at which to give up.
        on_delta: hears the answer piece by piece.
        may_leave: tells whether somebody else could answer the prompt instead.
        seconds: that attempts have taken.
        tokens: that were taken from the teacher's rate for the attempt under way.
        billed: US dollars for attempts that failed.
        drafted: whether a piece of the answer was told, which cannot be taken back.
    """

    prompt: Prompt
    deadline: float
    on_delta: Callable[[str], None] | None
    may_leave: Callable[[], bool]
    seconds: float = 0.0
    tokens: Taken | None = None
    billed: Decimal = Decimal(0)
    drafted: bool = False

    def tell(self, text: str) -> None:
        """Passes a piece of the answer on."""
        self.drafted = True
        if self.on_delta:
            self.on_delta(text)
