"""What the fields of a configuration have in common."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le, MinLen
from pydantic import ConfigDict

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Text = Annotated[str, MinLen(1)]
Share = Annotated[float, Ge(0.0), Le(1.0)]
