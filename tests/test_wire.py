"""Protobuf at the edge: nothing is lost, and nothing that a teacher says breaks a response."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from arbitrage import wire
from arbitrage.errors import InvalidPrompt
from arbitrage.types import (
    AS_CONFIGURED,
    ROLES,
    Candidate,
    Completion,
    Decision,
    Estimate,
    Failure,
    Message,
    Prompt,
    Routing,
    Sample,
    Score,
    TeacherInfo,
    Verdict,
)
from arbitrage.v1 import arbitrage_pb2 as pb
from tests.samples import sample as stored_sample

if TYPE_CHECKING:
    from collections.abc import Sequence

names = st.text(min_size=1, max_size=8)
said = st.text(st.characters(), max_size=20)  # lone surrogates, too
contents = st.text(min_size=1).filter(str.strip)
finite = st.floats(-1e6, 1e6)
counts = st.none() | st.integers(0, 2**40)


@st.composite
def conversations(draw: st.DrawFn) -> Sequence[Message]:
    turns = st.builds(Message, st.sampled_from(ROLES), contents)
    return [*draw(st.lists(turns, max_size=3)), Message("user", draw(contents))]


prompts = st.builds(
    Prompt.of,
    conversations(),
    prompt_id=st.none() | names,
    language=st.sampled_from([None, "de", "zh-TW", "pt-BR", "sr-Latn", "und"]),
    domain=st.none() | names,
    metadata=st.dictionaries(names, st.text(max_size=8), max_size=2),
)
completions = st.builds(
    Completion, said, said, prompt_tokens=counts, completion_tokens=counts, cached=st.booleans()
)
verdicts = st.lists(st.builds(Verdict, names, said), max_size=2).map(tuple)
scores = st.builds(Score, finite, st.dictionaries(names, finite, max_size=2))
seconds = st.floats(0.0, 1e6)


@st.composite
def candidates(draw: st.DrawFn, arm: str) -> Candidate:
    """A failure, an answer that a gate stopped, or an answer with its score."""
    gates = draw(verdicts)
    answered = Candidate(arm, draw(completions), gates=gates, score=None if gates else draw(scores))
    failed = Candidate(arm, failure=draw(st.builds(Failure, names, said)))
    chosen = draw(st.sampled_from([answered, failed]))
    return replace(chosen, latency_seconds=draw(seconds), cost_usd=draw(seconds))


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    arms = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    decision = Decision(
        policy=draw(names),
        version=draw(st.integers(0, 2**63)),
        arms=tuple(arms),
        propensities=tuple(draw(st.floats(0.0, 1.0, exclude_min=True)) for _ in arms),
        waves=tuple(draw(st.integers(0, 9)) for _ in arms),
    )
    return Sample.of(
        draw(prompts),
        decision,
        [draw(candidates(arm)) for arm in arms],
        job="test",
        created_at=draw(st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 2))),  # noqa: DTZ001 - the strategy adds the zone
    )


def sent(message: pb.Sample) -> pb.Sample:
    """As it arrives."""
    return pb.Sample.FromString(message.SerializeToString())


def shown(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


@given(prompts)
def test_a_prompt_arrives_as_it_was_sent(prompt: Prompt) -> None:
    sent = pb.Prompt(
        id=prompt.prompt_id,
        messages=[pb.Message(role=m.role, content=m.content) for m in prompt.messages],
        language=prompt.language,
        domain=prompt.domain or "",
        metadata=prompt.metadata,
    )
    received = pb.CompleteRequest.FromString(pb.CompleteRequest(prompt=sent).SerializeToString())
    assert wire.prompt_from(received) == prompt


@given(contents)
def test_a_text_is_one_message_of_the_user(text: str) -> None:
    prompt = wire.prompt_from(pb.CompleteRequest(prompt=pb.Prompt(text=text)))
    assert prompt == Prompt.of([Message("user", text)])


@given(samples())
def test_a_sample_arrives_with_everything_in_it(sample: Sample) -> None:
    message = sent(wire.sample_to(sample, include_candidates=True))
    decision = sample.decision
    assert message.created_at.ToDatetime(UTC) == sample.created_at
    assert (message.decision.policy, message.decision.version) == (
        decision.policy,
        decision.version,
    )
    choices = [(choice.arm, choice.propensity, choice.wave) for choice in message.decision.choices]
    columns = (decision.arms, decision.propensities, decision.waves)
    assert choices == list(zip(*columns, strict=True))
    assert message.HasField("winner") == (sample.winner is not None)
    assert message.HasField("margin") == (sample.margin is not None)
    for kept, arrived in zip(sample.candidates, message.candidates, strict=True):
        assert_same(kept, arrived)
    if sample.winner:
        (place,) = (
            i for i, c in enumerate(sample.candidates) if c.teacher == sample.winner.teacher
        )
        assert message.winner == message.candidates[place]


def assert_same(kept: Candidate, arrived: pb.Candidate) -> None:
    assert arrived.teacher == kept.teacher
    assert arrived.cost_usd == kept.cost_usd
    assert abs(arrived.latency.ToTimedelta().total_seconds() - kept.latency_seconds) < 1e-5
    assert [(v.gate, v.reason) for v in arrived.gates] == [
        (v.gate, shown(v.reason)) for v in kept.gates
    ]
    assert (arrived.reward if arrived.HasField("reward") else None) == kept.reward
    assert (arrived.advantage if arrived.HasField("advantage") else None) == kept.advantage
    assert dict(arrived.scores) == (kept.score.raw if kept.score else {})
    assert arrived.HasField("error") == (kept.failure is not None)
    if kept.failure:
        assert arrived.error.code == kept.failure.outcome
        assert arrived.error.message == shown(kept.failure.message)
    if kept.completion:
        assert arrived.completion == shown(kept.completion.text)
        assert arrived.finish_reason == shown(kept.completion.finish_reason)
        assert arrived.cached == kept.completion.cached
        read, written = kept.completion.prompt_tokens, kept.completion.completion_tokens
        assert arrived.HasField("prompt_tokens") == (read is not None)
        assert arrived.HasField("completion_tokens") == (written is not None)
        assert arrived.prompt_tokens == min(read or 0, 2**32 - 1)
        assert arrived.completion_tokens == min(written or 0, 2**32 - 1)


def test_candidates_stay_behind_unless_they_are_asked_for() -> None:
    message = wire.sample_to(stored_sample(1), include_candidates=False)
    assert not message.candidates
    assert message.winner.teacher == "beta"


def test_a_sample_that_nobody_won_has_no_winner() -> None:
    message = wire.sample_to(stored_sample(1, won=False), include_candidates=True)
    assert not message.HasField("winner")
    assert len(message.candidates) == 3


def test_the_field_of_a_wrong_prompt_is_its_path_from_the_request() -> None:
    message = pb.Message(role="user")
    with pytest.raises(InvalidPrompt) as caught:
        wire.prompt_from(pb.CompleteRequest(prompt=pb.Prompt(messages=[message])))
    assert caught.value.field == "prompt.messages[0].content"


def test_options_say_how_a_prompt_is_routed() -> None:
    options = pb.RoutingOptions(
        policy="thompson", fan_out=2, teachers=["ada"], max_cost_usd=0.0, learn=False
    )
    options.latency_budget.FromMilliseconds(1500)
    routing = wire.routing_from(options, teachers=["ada", "bob"], policy="thompson")
    assert routing == Routing(2, frozenset({"ada"}), 0.0, 1.5, learn=False)
    assert wire.routing_from(pb.RoutingOptions()) == AS_CONFIGURED


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (pb.RoutingOptions(policy="linucb"), "policy"),
        (pb.RoutingOptions(teachers=["ada", "eve"]), "teachers[1]"),
        (pb.RoutingOptions(max_cost_usd=-1.0), "max_cost_usd"),
        (pb.RoutingOptions(max_cost_usd=math.nan), "max_cost_usd"),
        (pb.RoutingOptions(max_cost_usd=math.inf), "max_cost_usd"),
        (pb.RoutingOptions(latency_budget=Duration()), "latency_budget"),
        (pb.RoutingOptions(latency_budget=Duration(seconds=-1)), "latency_budget"),
    ],
)
def test_an_option_that_is_wrong_is_named(options: pb.RoutingOptions, field: str) -> None:
    with pytest.raises(InvalidPrompt) as caught:
        wire.routing_from(options, "spec.options", teachers=["ada"], policy="thompson")
    assert caught.value.field == f"spec.options.{field}"


def test_a_price_is_unset_where_none_is_configured() -> None:
    free = TeacherInfo("a", "scripted", "m", available=False)
    assert wire.teacher_to(free) == pb.Teacher(name="a", kind="scripted", model="m")
    paid = wire.teacher_to(TeacherInfo("a", "openai", "m", available=True, completion_price=2.0))
    assert paid.HasField("price_per_million")
    assert paid.price_per_million.completion_usd == 2.0


def test_estimates_are_grouped_by_language() -> None:
    estimates = [
        Estimate(language, arm, 3, 1, 0.5, 0.25, 1.0)
        for language, arm in (("de", "ada"), ("de", "bob"), ("fr", "ada"))
    ]
    german, french = wire.languages_to(estimates)
    assert [arm.arm for arm in german.arms] == ["ada", "bob"]
    assert french == pb.LanguageEstimates(
        language="fr",
        arms=[
            pb.ArmEstimate(
                arm="ada",
                count=3,
                rejected_count=1,
                mean_reward=0.5,
                standard_error=0.25,
                route_share=1.0,
            )
        ],
    )
