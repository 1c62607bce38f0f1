"""Server-sent events, however their bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teachers.sse import EventReader


def read(content: bytes, size: int) -> list[str]:
    reader = EventReader()
    pieces = (content[at : at + size] for at in range(0, len(content), size))
    data = [event for piece in pieces for event in reader.feed(piece)]
    return [event.decode() for event in (*data, *reader.finish())]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("lines", "events"),
    [
        (["data: one", "", "data: two", ""], ["one", "two"]),
        (["data:one", "data:  two", "", ""], ["one\n two"]),
        ([": ping", "", "event: x", "id: 7", "retry: 10", "data: one", "", ""], ["one"]),
        (["data", "", "data:", "data: ", ""], ["", "\n"]),
        (["\ufeffdata: 你好 🌊", ""], ["你好 🌊"]),
        (["data: no blank line behind it"], ["no blank line behind it"]),
        (["data: no", "data: line's end"], ["no\nline's end"]),
        (["", "", ": only a comment"], []),
        ([], []),
    ],
)
def test_events_are_read(lines: list[str], events: list[str], end: str, size: int) -> None:
    assert read(end.join(lines).encode(), size) == events


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))),
    st.integers(1, 20),
)
def test_what_was_written_is_read(texts: list[str], size: int) -> None:
    assert read("".join(f"data: {text}\r\n\r\n" for text in texts).encode(), size) == texts


def test_an_event_is_read_as_soon_as_it_is_whole() -> None:
    reader = EventReader()
    assert list(reader.feed(b"data: one\n\ndata: tw")) == [b"one"]
    assert list(reader.feed(b"o\n")) == []
    assert list(reader.feed(b"\n")) == [b"two"]
