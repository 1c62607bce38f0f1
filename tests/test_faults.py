"""One of four teachers is sick in every way that the mock server knows; nobody else is harmed.

The figures, healthy latencies among them, are printed by `benchmarks/faults.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from faults import FAULTS, SHARES, run
from mock_process import MockServer, mock_teacher

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMPTS = 2000


@pytest.fixture(scope="module")
def server() -> Iterator[MockServer]:
    with mock_teacher() as server:
        yield server


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("fault", FAULTS)
async def test_no_prompt_is_lost_or_late_and_calls_to_the_sick_teacher_are_bounded(
    server: MockServer, fault: str, share: float
) -> None:
    outcome = await run(server, fault, share, PROMPTS)
    assert outcome.prompts == PROMPTS
    assert outcome.lost == 0
    assert outcome.late == 0
    assert 0 < outcome.sick_calls <= outcome.bound(share)[0]
