"""All gates together: which there are, what they stop, what they let pass, and how they end."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
from bad_answers import KINDS
from corpus import questions
from gates import DATA, SOURCES, detection, false_rejections
from stock_phrases import PRAISE

from arbitrage.errors import ConfigError
from arbitrage.types import Candidate, Completion, Failure, Prompt
from reward.gates import AnswerGates, empty, open_gates, truncated
from reward.language import Detector
from tests.gated import ICE, PROMPT, answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

GATES = (
    "empty", "truncated", "leaked_template", "unbalanced_reasoning", "wrong_language", "refusal",
    "repetition", "copied_prompt", "constant_text",
)  # fmt: skip
DECLINES = "I'm sorry, but I can't help with that."


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


@pytest.fixture
async def gates(detector: Detector) -> AsyncIterator[AnswerGates]:
    gates = open_gates(None, detector)
    yield gates
    await gates.close()


@pytest.mark.parametrize("text", ["", " \n\t", "...", "。！？", "— «»", "()", "\u200b\u200e", "*"])
def test_nothing_but_punctuation_is_empty(text: str) -> None:
    assert empty(PROMPT, answer(text))


@pytest.mark.parametrize("text", ["7", "Ja", "水", "ก", "ا", "👍", "½", "**x**", *ICE.values()])
def test_one_letter_digit_or_emoji_is_not_empty(text: str) -> None:
    assert not empty(PROMPT, answer(text))


@pytest.mark.parametrize("language", questions())
def test_praise_of_the_question_alone_is_empty(language: str) -> None:
    praise = PRAISE[language][0]
    assert empty(PROMPT, answer(praise))
    assert empty(PROMPT, answer(f"**{praise}** 😊"))
    assert not empty(PROMPT, answer(f"{praise} {ICE['en']}"))


def test_praise_that_is_a_translation_is_an_answer() -> None:
    prompt = Prompt.of('How do you translate "good question" into French?', language="en")
    assert not empty(prompt, answer("Bonne question !"))


def test_only_an_answer_cut_off_at_max_tokens_is_truncated() -> None:
    assert truncated(PROMPT, answer("Ice floats bec", "length"))
    assert not truncated(PROMPT, answer("Ice floats bec", "stop"))
    assert not truncated(PROMPT, answer("Ice floats bec", "content_filter"))


async def test_every_gate_that_stops_an_answer_is_named_in_order(gates: AnswerGates) -> None:
    prompt = Prompt.of("Warum schwimmt Eis?", language="de")
    text = "I'm sorry, but I can't help with that. " * 9
    verdicts, fine, failed = await gates.inspect(
        prompt,
        [
            Candidate("a", Completion(text, "length")),
            Candidate("b", Completion(ICE["de"])),
            Candidate("c", failure=Failure("timeout", "no answer in 60 s")),
        ],
    )
    assert [v.gate for v in verdicts] == ["truncated", "wrong_language", "refusal", "repetition"]
    assert all(v.reason and "\n" not in v.reason for v in verdicts)
    assert fine == failed == ()


async def test_an_answer_with_nothing_in_it_is_only_empty(gates: AnswerGates) -> None:
    (verdicts,) = await gates.inspect(PROMPT, [Candidate("a", Completion(""))])
    assert [v.gate for v in verdicts] == ["empty"]
    assert list(await gates.inspect(PROMPT, [])) == []


async def test_odd_text_is_judged_like_any_other(gates: AnswerGates) -> None:
    odd = [
        "\ud83d half a pair",
        "x" * 20_000,
        "\x00" * 50,
        "!" * 50_000,
        "नमस्ते " * 3_000,
        "🧊" * 500,
    ]
    verdicts = await gates.inspect(PROMPT, [Candidate("a", Completion(text)) for text in odd])
    assert len(verdicts) == len(odd)


async def test_the_configuration_chooses_the_gates_and_their_order(detector: Detector) -> None:
    assert open_gates(None, detector).names == GATES
    gates = open_gates(["refusal", "truncated"], detector)
    (verdicts,) = await gates.inspect(PROMPT, [Candidate("a", Completion(DECLINES, "length"))])
    assert [v.gate for v in verdicts] == ["refusal", "truncated"]
    none = open_gates([], detector)
    assert list(await none.inspect(PROMPT, [Candidate("a", Completion(""))])) == [()]
    for opened in (gates, none):
        await opened.close()
        await opened.close()


def test_an_unknown_gate_is_named(detector: Detector) -> None:
    with pytest.raises(ConfigError, match=r"reward\.gates: unknown gate 'polite'; known are empty"):
        open_gates(["empty", "polite"], detector)


async def test_the_loop_turns_while_gates_work() -> None:
    released = threading.Event()

    def slow(_prompt: Prompt, _completion: Completion) -> str | None:
        return None if released.wait(60) else "was never released"

    gates = AnswerGates({"slow": slow})
    call = asyncio.create_task(_inspect(gates))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not call.done()
    released.set()
    assert await call == [()]
    await gates.close()


async def _inspect(gates: AnswerGates) -> list[tuple[object, ...]]:
    return [tuple(v) for v in await gates.inspect(PROMPT, [Candidate("a", Completion("Ice."))])]


NASTY = {
    "letters": "a",
    "backticks": "`",
    "odd backticks": "`` ",
    "fences": "```x",
    "spaces": " ",
    "lines": "\n",
    "turns": "\nUser: ",
    "tokens": "<|x|>",
    "open tokens": "<|x",
    "brackets": "<[{(",
    "tags": "<think>",
    "strikes": "<s>",
    "dollars": "$",
    "formulas": "\\(x",
    "praise": "great question ",
    "apologies": "I'm sorry, I am so very ",
    "quotes": '"',
    "code lines": "x.y[",
    "digits": "1234567890",
    "Han": "水",
    "vowels": "ना",
    "surrogates": "\ud83d",
    "sentences": "Ice floats. ",
}


@pytest.mark.parametrize("piece", NASTY.values(), ids=NASTY)
async def test_a_hundred_thousand_characters_of_anything_come_to_an_end(
    gates: AnswerGates, piece: str
) -> None:
    """A gate that takes time squared would take minutes."""
    text = (piece * (100_000 // len(piece)))[:100_000]
    prompt = Prompt.of(f"Why? {text[:20_000]}", language="de")
    async with asyncio.timeout(60):
        candidates = [Candidate("a", Completion(t)) for t in (text, f"{ICE['de']} {text} end")]
        assert len(await gates.inspect(prompt, candidates)) == 2


@pytest.mark.parametrize("source", SOURCES)
async def test_good_answers_pass(
    gates: AnswerGates, source: str, record_property: Callable[[str, object], None]
) -> None:
    """No gate stops 1 % of good answers that are as good as they seem.

    Of the preferred answers of the data some are not: 13 % end in a template's token, 1.4 %
    are in English by mistake, and 1 % run into a loop (read by hand, docs/reward.md).
    """
    if source != "answers" and not DATA.is_dir():
        pytest.skip(f"measures on {DATA}, which is not here")
    rates = await false_rejections(source, gates)
    for gate, rate in rates.items():
        record_property(f"false rejections by {gate} on {source}", f"{rate.share:.2%}")
    of_preferences = {"leaked_template": 0.14, "wrong_language": 0.015, "repetition": 0.011}
    allowed = {"preferences": of_preferences, "mgsm": {}, "answers": dict.fromkeys(GATES, 0.0)}
    shares = {gate: rate.share for gate, rate in rates.items()}
    assert not {g: share for g, share in shares.items() if share > allowed[source].get(g, 0.01)}


@pytest.mark.parametrize("language", questions())
@pytest.mark.parametrize("kind", KINDS)
async def test_bad_answers_are_stopped(detector: Detector, kind: str, language: str) -> None:
    stopped, made = await detection(kind, language, detector)
    assert stopped >= (0.85 if kind == "constant text" else 0.95) * made
