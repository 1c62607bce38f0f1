from __future__ import annotations

from datetime import UTC

from hypothesis import given
from hypothesis import strategies as st

from arbitrage.document import decode, encode
from arbitrage.types import (
    ROLES,
    Candidate,
    Completion,
    Decision,
    Failure,
    Message,
    Prompt,
    Sample,
    Score,
    Verdict,
)

TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates are among them
NUMBER = st.floats(allow_nan=False)
COUNT = st.none() | st.integers(0, 2**63 - 1)
CANDIDATES = st.builds(
    Candidate,
    TEXT,
    st.none() | st.builds(Completion, TEXT, TEXT, COUNT, COUNT, st.booleans()),
    st.none() | st.builds(Failure, TEXT, TEXT),
    st.lists(st.builds(Verdict, TEXT, TEXT), max_size=2).map(tuple),
    st.none() | st.builds(Score, NUMBER, st.dictionaries(TEXT, NUMBER, max_size=2)),
    st.none() | NUMBER,
    NUMBER,
    NUMBER,
)
PROMPTS = st.builds(
    Prompt,
    TEXT,
    st.lists(st.builds(Message, st.sampled_from(ROLES), TEXT), max_size=3).map(tuple),
    TEXT,
    st.none() | TEXT,
    st.dictionaries(TEXT, TEXT, max_size=2),
)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    candidates = tuple(draw(st.lists(CANDIDATES, max_size=3)))
    propensity = st.floats(0, 1, exclude_min=True)
    arms = draw(st.lists(st.tuples(TEXT, propensity, st.integers(0, 5)), max_size=3))
    names, propensities, waves = zip(*arms, strict=True) if arms else ((), (), ())
    return Sample(
        draw(TEXT),
        draw(PROMPTS),
        Decision(draw(TEXT), draw(st.integers(0)), names, propensities, waves),
        candidates,
        draw(st.sampled_from((None, *candidates))),
        draw(st.none() | NUMBER),
        draw(st.datetimes(timezones=st.just(UTC))),
    )


@given(samples())
def test_a_document_gives_back_the_sample_it_was_made_from(one: Sample) -> None:
    assert decode(encode(one)) == one
