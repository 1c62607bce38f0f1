"""`arbitrage estimate`: figures held against what runs really take."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import assembly
from arbitrage import config, prompts
from arbitrage.errors import SnapshotError
from arbitrage.estimate import tokens
from arbitrage.prompts import Rejected
from arbitrage.types import Message, Prompt
from commands.estimate import estimate, learned

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from arbitrage.estimate.forecast import Estimate, Range

PROMPTS = [
    Prompt.of(f"{text} Nummer {number}", language=language)
    for number in range(40)
    for language, text in (("de", "Warum ist der Himmel blau?"), ("ja", "空はなぜ青いのですか"))
]


def teacher(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "scripted",
        "sampling": {"max_tokens": 100},
        "price_per_million": {"prompt": 1000.0, "completion": 4000.0},
        **more,
    }


def made(path: Path, *teachers: dict[str, Any], **sections: Any) -> config.Config:
    pool = teachers or (teacher("ada"), teacher("bob"), teacher("cyd"), teacher("dan"))
    return config.parse(
        {
            "teachers": list(pool),
            "reward": {"kind": "scripted"},
            "sink": {"path": str(path)},
            "policy": {"features": {"kind": "none"}} | sections.pop("policy", {}),
            **sections,
        }
    )


def shown(found: Estimate, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False, markup=False).print(*found.parts(), sep="\n")
    return out.getvalue()


def ordered(figure: Range) -> bool:
    return figure.most is None or 0.0 <= figure.expected <= figure.most * 1.000001


# How often teachers are asked


@pytest.mark.parametrize(
    ("policy", "least", "expected"),
    [
        ({"kind": "best_of"}, 4, 4.0),
        ({"kind": "random", "fan_out": 2, "audit_rate": 0.0}, 2, 2.0),
        ({"kind": "random", "fan_out": 1, "audit_rate": 0.1}, 1, 1.3),
        ({"kind": "thompson", "fan_out": 3, "audit_rate": 0.2}, 3, 3.2),
        ({"kind": "thompson", "fan_out": 9}, 4, 4.0),
        ({"kind": "fixed", "fan_out": 1, "audit_rate": 0, "experts": {"default": ["bob"]}}, 1, 1.0),
        ({"kind": "pandora", "fan_out": {"min": 1, "max": 3, "waves": 3}, "audit_rate": 0}, 1, 2.0),
    ],
)
async def test_calls_follow_from_the_policy(
    tmp_path: Path, policy: dict[str, Any], least: float, expected: float
) -> None:
    found = await estimate(made(tmp_path, policy=policy), PROMPTS)
    assert found.prompts == len(PROMPTS)
    assert found.total.least / len(PROMPTS) == pytest.approx(least)
    assert found.total.calls.expected / len(PROMPTS) == pytest.approx(expected, abs=0.01)
    assert found.total.calls.most == pytest.approx(4 * len(PROMPTS))


async def test_a_fixed_expert_gets_all_calls(tmp_path: Path) -> None:
    policy = {"kind": "fixed", "fan_out": 1, "audit_rate": 0.0, "experts": {"default": ["bob"]}}
    found = await estimate(made(tmp_path, policy=policy), PROMPTS)
    calls = {part.teacher: part.use.calls.expected for part in found.teachers}
    assert calls == {"ada": 0.0, "bob": 80.0, "cyd": 0.0, "dan": 0.0}


async def test_only_those_are_asked_that_the_pool_would_ask(tmp_path: Path) -> None:
    pool = (teacher("ada", languages=["de-AT"], trainable=True), teacher("bob", trainable=False))
    sink = {"path": str(tmp_path), "only_trainable": True}
    found = await estimate(made(tmp_path, *pool, sink=sink), PROMPTS)
    assert (found.prompts, found.unserved) == (40, 40)
    assert [(part.language, part.teacher) for part in found.cells] == [("de", "ada")]
    assert "40 are in languages in which no teacher may be asked" in shown(found)


async def test_what_is_done_or_no_prompt_is_left_out(tmp_path: Path) -> None:
    lines = ['{"prompt": "Warum trinken Menschen Wasser?"}', "{", '{"prompt": "x", "id": "done"}']
    read = prompts.read(["-"], stdin=io.BytesIO("\n".join(lines * 10).encode()))
    seen: list[str] = []

    def done(some: Sequence[Prompt]) -> list[bool]:
        seen.extend(prompt.language for prompt in some)
        return [prompt.prompt_id == "done" for prompt in some]

    found = await estimate(made(tmp_path), read, done=done)
    assert (found.prompts, found.done, found.rejected) == (10, 10, 10)
    assert [part.language for part in found.languages] == ["de"]
    assert seen[:2] == ["und", "und"], "a sample is named by its prompt as it came"
    text = shown(found)
    assert "10 are answered already: not counted" in text
    assert "10 lines are no prompts: not counted" in text


async def test_without_a_prompt_nothing_is_needed(tmp_path: Path) -> None:
    found = await estimate(made(tmp_path), [Rejected("p", 1, "is not JSON", "{")])
    assert (found.prompts, found.total.usd.expected, found.seconds.expected) == (0, 0.0, 0.0)
    assert "0 prompts" in shown(found)


async def test_domains_without_end_are_not_held_apart(tmp_path: Path) -> None:
    many = [Prompt.of("Hallo", language="de", domain=f"d{number}") for number in range(1500)]
    found = await estimate(made(tmp_path), many)
    assert found.prompts == 1500
    assert len(found.cells) == 4


# Tokens and money


async def test_a_tokenizer_on_this_disk_counts_exactly(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words = {"<unk>": 0}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))  # noqa: S106 - no secret
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    exact = {
        "kind": "openai",
        "model": "m",
        "base_url": "http://127.0.0.1:9/v1",
        "tokenizer": str(tmp_path / "tokenizer.json"),
    }
    pool = (teacher("ada", **exact), teacher("bob"))
    policy = {"kind": "best_of"}
    prompt = Prompt.of([Message("system", "sei kurz"), Message("user", "eins zwei drei")])
    found = await estimate(made(tmp_path, *pool, policy=policy), [prompt] * 3)
    ada, bob = (part.use.prompt_tokens for part in found.teachers)
    assert (ada.expected, ada.most) == (39.0, 39.0), "five words, and four around each message"
    assert bob.most
    assert bob.expected < bob.most
    assert "guessed from their scripts (bob)" in " ".join(found.assumptions)


async def test_a_run_that_nobody_has_learned_from_costs_the_longest_answers(tmp_path: Path) -> None:
    found = await estimate(made(tmp_path, teacher("ada")), PROMPTS)
    use = found.total
    assert use.completion_tokens.expected == use.completion_tokens.most == 80 * 100
    expected = (use.prompt_tokens.expected * 1000 + 8000 * 4000) / 1e6
    assert use.usd.expected == pytest.approx(expected)
    assert use.usd.most == pytest.approx(((use.prompt_tokens.most or 0) * 1000 + 8000 * 4000) / 1e6)


async def test_without_a_longest_answer_nothing_is_promised(tmp_path: Path) -> None:
    endpoint = {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
    free = teacher("free", sampling={}, **endpoint)
    del free["price_per_million"]
    pool = (teacher("ada", sampling={}), free)
    found = await estimate(made(tmp_path, *pool), PROMPTS)
    ada, unpriced = (part.use for part in found.teachers)
    assert (ada.usd.most, ada.completion_tokens.most) == (None, None)
    assert ada.usd.expected > 0.0
    assert (unpriced.usd.expected, unpriced.usd.most) == (0.0, 0.0)
    assert found.total.usd.most is None
    text = " ".join(shown(found).split())
    assert "USD, without a bound" in text
    assert "; nothing bounds what comes out" in text
    assert "set sampling.max_tokens (ada, free)" in text
    assert "no price is known, so it counts as free (free)" in text


async def test_several_answers_to_a_call_are_paid_and_their_prompt_once(tmp_path: Path) -> None:
    one = await estimate(made(tmp_path, teacher("ada")), PROMPTS)
    sampling = {"max_tokens": 100, "n": 3}
    three = await estimate(made(tmp_path, teacher("ada", sampling=sampling)), PROMPTS)
    assert three.total.prompt_tokens == one.total.prompt_tokens
    assert three.total.completion_tokens == one.total.completion_tokens.times(3)


@pytest.mark.parametrize(("pairwise", "calls", "most"), [(False, 2.0, 4.0), (True, 2.0, 12.0)])
async def test_judges_are_asked_and_paid_too(
    tmp_path: Path, pairwise: bool, calls: float, most: float
) -> None:
    judge = teacher("judge", model="other", sampling={"max_tokens": 20})
    reward = {"kind": "judge", "teacher": judge, "pairwise": pairwise, "votes": 3}
    policy = {"kind": "random", "fan_out": 2, "audit_rate": 0.0}
    found = await estimate(made(tmp_path, reward=reward, policy=policy), PROMPTS)
    part = found.teachers[-1]
    assert part.teacher == "judge"
    assert part.use.calls.expected / 80 == pytest.approx(calls)
    assert (part.use.calls.most or 0) / 80 == pytest.approx(most)
    assert part.use.completion_tokens.most == pytest.approx(80 * most * 60)
    assert part.use.usd.expected > 0.0
    assert found.total.usd.expected > sum(p.use.usd.expected for p in found.teachers[:-1])


async def test_what_the_budget_does_is_said(tmp_path: Path) -> None:
    policy = {"budget_usd": 10.0, "kind": "best_of"}
    found = await estimate(made(tmp_path, policy=policy), PROMPTS, spent_usd=4.0)
    assert found.budget_usd == 6.0
    share = 80 * 6.0 / found.total.usd.expected
    assert f"the budget stops it at 6.00 USD, after some {share:.0f} prompts" in " ".join(
        shown(found).split()
    )


# Time


@pytest.mark.parametrize(
    ("limits", "seconds", "slowest"),
    [
        ({"max_concurrency": 2}, 80 * 3.0 / 2, "teacher 'ada' (at once)"),
        ({"requests_per_minute": 10}, 480.0, "teacher 'ada' (requests a minute)"),
        ({"tokens_per_minute": 500}, None, "teacher 'ada' (tokens a minute)"),
        ({"max_concurrency": 1000}, 80 * 3.0 / 16, "job.max_in_flight"),
    ],
)
async def test_time_is_set_by_whatever_is_slowest(
    tmp_path: Path, limits: dict[str, Any], seconds: float | None, slowest: str
) -> None:
    pool = teacher("ada", latency_seconds=3.0, **limits)
    found = await estimate(made(tmp_path, pool, job={"max_in_flight": 16}), PROMPTS)
    assert found.slowest == slowest
    use = found.total
    tokens_used = use.prompt_tokens.expected + use.completion_tokens.expected
    assert found.seconds.expected == pytest.approx(seconds or tokens_used / 500 * 60)
    assert ordered(found.seconds)


# What was learned, and what runs really take


async def run(settings: config.Config, some: Sequence[Prompt]) -> list[Any]:
    async with assembly.open(settings) as engine:
        return [await engine.arbitrate(prompt) for prompt in some]


@pytest.mark.parametrize("kind", ["thompson", "random", "best_of", "pandora"])
async def test_a_run_takes_what_was_estimated_from_the_one_before(
    tmp_path: Path, kind: str
) -> None:
    some = PROMPTS[:48]
    qualities = {"ada": 0.2, "bob": 0.5, "cyd": 0.9, "dan": 0.1}
    pool = [teacher(name, quality={"default": q}) for name, q in qualities.items()]
    fan_out: Any = {"min": 1, "max": 2, "waves": 2} if kind == "pandora" else 2
    policy = {"kind": kind, "fan_out": fan_out, "audit_rate": 0.1}
    settings = made(tmp_path, *pool, policy=policy)
    before = await estimate(settings, some)
    samples = await run(settings, some)
    after = await estimate(settings, some)
    assert (before.learned_from, after.learned_from) == (0, 48)
    more = [Prompt.of(p.text + "!", language=p.language) for p in some]
    again = await run(settings, more)
    for found, made_by in ((before, samples), (after, again)):
        calls = sum(len(sample.decision.arms) for sample in made_by)
        usd = sum(c.cost_usd for sample in made_by for c in sample.candidates)
        assert found.total.least <= calls <= (found.total.calls.most or 0.0)
        assert usd <= (found.total.usd.most or 0.0)
        assert found.total.calls.expected == pytest.approx(calls, rel=0.35)
    spent = sum(c.cost_usd for sample in again for c in sample.candidates)
    assert after.total.usd.expected == pytest.approx(spent, rel=0.35)
    assert after.total.usd.expected < before.total.usd.expected, "answers are shorter than feared"
    assert not any("max_tokens, or" in line for line in after.assumptions)


async def test_answers_that_gates_stop_make_for_more_calls(tmp_path: Path) -> None:
    settings = made(tmp_path, policy={"fan_out": 1, "audit_rate": 0.0})
    policy = learned(settings)
    from arbitrage.types import Candidate, Completion, Context, Score, Verdict  # noqa: PLC0415

    for number in range(100):
        answer = Completion("a", prompt_tokens=1, completion_tokens=1)
        gates = (Verdict("empty", "has no text"),) if number % 2 else ()
        score = None if gates else Score(1.0, {})
        asked = [
            Candidate(arm, answer, gates=gates, score=score, latency_seconds=2.0, cost_usd=0.5)
            for arm in ("ada", "bob", "cyd", "dan")
        ]
        policy.update(Context("de"), asked)
    version = policy.version
    found = await estimate(settings, PROMPTS[::2], policy=policy)
    assert policy.version == version
    assert found.total.calls.expected / 40 == pytest.approx(2.0, abs=0.1)
    assert found.total.usd.expected == pytest.approx(found.total.calls.expected * 0.5, rel=0.05)
    assert "gates stop answers as often as they did, in one language 50%" in found.assumptions
    busy = [part.seconds.expected for part in found.teachers if part.seconds]
    assert sum(busy) == pytest.approx(found.total.calls.expected * 2.0 / 8, rel=0.05)


async def test_a_damaged_state_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text("{")
    with pytest.raises(SnapshotError, match=r"policy\.json"):
        await estimate(made(tmp_path), PROMPTS)


# How it is told


async def test_the_figures_are_plain_and_add_up(tmp_path: Path) -> None:
    found = await estimate(made(tmp_path), PROMPTS)
    plain = json.loads(json.dumps(found.plain(), allow_nan=False))
    assert plain["total"]["calls"]["expected"] == pytest.approx(found.total.calls.expected)
    for parts in (found.cells, found.languages, found.teachers):
        for name in ("calls", "prompt_tokens", "completion_tokens", "usd"):
            figures = [getattr(part.use, name) for part in parts]
            assert all(map(ordered, figures))
            total = getattr(found.total, name)
            assert math.fsum(f.expected for f in figures) == pytest.approx(total.expected)
            assert math.fsum(f.most for f in figures) == pytest.approx(total.most)


async def test_it_fits_a_terminal_of_80_columns(tmp_path: Path) -> None:
    pool = [teacher(f"a-teacher-with-a-long-name/{n}", sampling={}) for n in range(3)]
    settings = made(tmp_path, *pool)
    found = await estimate(settings, PROMPTS * 300)
    big = replace(found, total=found.total + found.total)
    text = shown(big)
    assert max(map(len, text.splitlines())) <= 80
    assert "a-teacher-with" in text
    assert "…" not in text
    for column in ("language", "teacher", "prompts", "tokens in", "at most", "USD"):
        assert column in text


# Tokens of texts


@given(st.text(max_size=300), st.sampled_from(["en", "de", "ja", "und"]))
def test_a_guess_is_ordered_and_within_reason(text: str, language: str) -> None:
    guess = tokens.of_text(text, language)
    assert 0.0 <= guess.expected <= guess.most <= 4 * max(1, len(text))
    assert guess.expected >= len(text) / 5


@pytest.mark.parametrize(
    ("text", "language", "counts"),
    [
        ("Warum trinken Menschen Wasser, und was geschieht ohne?", "de", (12, 15, 11, 15, 15)),
        ("Why do people drink water, and what happens without it?", "en", (12, 12, 12, 12, 12)),
        ("为什么人要喝水？", "zh", (6, 5, 6, 6, 10)),
        ("なぜ人は水を飲むのですか。", "ja", (7, 9, 12, 10, 15)),
        ("Почему люди пьют воду?", "ru", (7, 11, 6, 8, 14)),
        ("ทำไมคนเราต้องดื่มน้ำ", "th", (7, 9, 10, 10, 17)),
        ("मनुष्य पानी क्यों पीते हैं?", "hi", (9, 24, 8, 15, 25)),
    ],
)
def test_a_guess_is_like_what_tokenizers_count(
    text: str, language: str, counts: tuple[int, ...]
) -> None:
    # by Gemma 3, Qwen 3, GPT-4o, Llama 3, GPT-4
    guess = tokens.of_text(text, language)
    assert guess.expected == pytest.approx(sum(counts[:4]) / 4, rel=0.2)
    assert guess.most >= 0.95 * max(counts)


def test_of_mixed_texts_each_script_counts_as_itself() -> None:
    both = tokens.of_text("Wasser " * 200 + "水" * 700, "de")
    alone = tokens.of_text("Wasser " * 200, "de") + tokens.of_text("水" * 700, "zh")
    assert both.expected == pytest.approx(alone.expected)
    assert both.most == pytest.approx(alone.most)
