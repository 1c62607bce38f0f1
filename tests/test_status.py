"""Every error of the tree has its code, and no status is too long to arrive."""

from __future__ import annotations

import pytest
from google.rpc import code_pb2
from hypothesis import given
from hypothesis import strategies as st

from arbitrage import errors
from arbitrage.status import CODES, status_of
from tests.samples import sample

CODE_OF = {
    errors.InvalidPrompt("prompt", "is empty"): code_pb2.INVALID_ARGUMENT,
    errors.NotBuilt("no"): code_pb2.UNIMPLEMENTED,
    errors.NoWinner("no", sample(won=False)): code_pb2.FAILED_PRECONDITION,
    errors.NotFound("no"): code_pb2.NOT_FOUND,
    errors.AlreadyExists("no"): code_pb2.ALREADY_EXISTS,
    errors.Overloaded("no"): code_pb2.RESOURCE_EXHAUSTED,
    errors.Stopping("no"): code_pb2.UNAVAILABLE,
    errors.NoTeacherAvailable("no"): code_pb2.UNAVAILABLE,
    errors.RewardError("no"): code_pb2.UNAVAILABLE,
    errors.SinkError("no"): code_pb2.UNAVAILABLE,
    errors.TeacherTimeout("no"): code_pb2.INTERNAL,
    errors.ConfigError("no"): code_pb2.FAILED_PRECONDITION,
}


@pytest.mark.parametrize("error", CODE_OF, ids=lambda error: type(error).__name__)
def test_an_error_has_its_code(error: errors.ArbitrageError) -> None:
    status = status_of(error)
    assert status.code == CODE_OF[error]
    assert CODES[status.code].name == code_pb2.Code.Name(status.code)
    assert status.message == str(error)


@given(st.text(st.characters(), min_size=1), st.integers(1, 5_000))
def test_no_status_is_too_long_to_arrive(word: str, times: int) -> None:
    status = status_of(errors.InvalidPrompt("prompt.language", word * times))
    # as metadata: the message with every byte escaped, and the whole in base64
    assert 3 * len(status.message.encode()) + 4 / 3 * status.ByteSize() < 8 * 1024
