"""The gates on copied prompts and on constant answers."""

from __future__ import annotations

from itertools import combinations

import pytest

from arbitrage.types import Prompt
from reward.gates.copies import ConstantText, copied_prompt
from tests.gated import ICE, answer


def test_a_copied_prompt_is_stopped() -> None:
    prompt = Prompt.of("Why does ice float on water? Explain it in two sentences.")
    for text in (
        prompt.text,
        prompt.text.upper() + "!!",
        "Q: " + prompt.text,
        "does ice float on water? Explain it in two sentences.",
        f"«{prompt.text}» OK then.",
    ):
        assert copied_prompt(prompt, answer(text)), text
    assert copied_prompt(Prompt.of("为什么冰会浮在水面上？"), answer("为什么冰会浮在水面上"))


def test_an_answer_that_quotes_its_prompt_is_not_copied() -> None:
    prompt = Prompt.of("Why does ice float on water? Explain it in two sentences.")
    for text in (f"{prompt.text} {ICE['en']}", "ice float", "", ICE["en"], "in two sentences"):
        assert not copied_prompt(prompt, answer(text)), text
    assert not copied_prompt(Prompt.of("Is it 12 or 21?"), answer("21"))


def test_copying_is_measured_at_four_fifths() -> None:
    prompt = Prompt.of("abcdefghij")
    assert copied_prompt(prompt, answer("abcdefgh"))
    assert not copied_prompt(prompt, answer("abcdefg"))
    assert copied_prompt(prompt, answer("abcdefghij 12"))
    assert not copied_prompt(prompt, answer("abcdefghij 123"))


def test_one_answer_to_many_prompts_is_constant() -> None:
    gate = ConstantText()
    first, second, third = (Prompt.of(f"question {number}") for number in range(3))
    text = answer("The answer to your question is forty-two.")
    for prompt in (first, first, second, first, second):
        assert not gate(prompt, text)
    assert gate(third, text) == "was the answer to 3 different prompts"
    assert gate(first, text)
    assert gate(Prompt.of("question 9"), answer("the ANSWER to your question: is forty two"))
    assert not gate(third, answer(ICE["en"]))


def test_the_same_question_under_another_id_is_the_same_prompt() -> None:
    gate = ConstantText()
    for number in range(9):
        assert not gate(Prompt.of("Why does ice float?", prompt_id=str(number)), answer(ICE["en"]))


@pytest.mark.parametrize("text", ["Yes.", "42", "true", "はい", "水素", "B) 1969", "..."])
def test_short_answers_are_never_constant(text: str) -> None:
    gate = ConstantText()
    assert not any(gate(Prompt.of(f"question {n}"), answer(text)) for n in range(50))


def test_the_memory_of_constant_answers_is_bounded() -> None:
    gate = ConstantText()
    for number in range(6_000):
        gate(Prompt.of(f"question {number}"), answer(f"The answer to that question is {number}."))
    assert len(gate._prompts) == 4096
    constant = answer("The answer to your question is forty-two.")
    stopped = [gate(Prompt.of(f"question {number}"), constant) for number in range(1_000)]
    assert sum(map(bool, stopped)) == 998
    assert sum(map(len, gate._prompts.values())) == 4095 + 3


CONSTANT = "I am happy to help you. There are many things to say about it."


def stopped_of_six(answers: list[str]) -> list[bool]:
    gate = ConstantText()
    prompts = [f"Why is it that the thing with number {n} floats on water?" for n in range(6)]
    return [
        bool(gate(Prompt.of(asked), answer(text.replace("PROMPT", asked))))
        for asked, text in zip(prompts, answers, strict=True)
    ]


@pytest.mark.parametrize(
    "text", [CONSTANT, f"PROMPT {CONSTANT}", f"You ask: PROMPT\n{CONSTANT}", f"«PROMPT» {CONSTANT}"]
)
def test_quoting_the_prompt_does_not_make_a_constant_answer_another(text: str) -> None:
    assert stopped_of_six([text] * 6) == [False, False, True, True, True, True]


def test_constant_sentences_in_another_order_are_still_constant() -> None:
    first, second = CONSTANT.split(". ")
    answers = [CONSTANT, f"{second} {first}."] * 3
    assert stopped_of_six(answers) == [False, False, True, True, True, True]


def test_a_standing_phrase_in_front_of_new_words_is_not_constant() -> None:
    answers = [f"I am happy to help you with it. {text}" for text in list(ICE.values())[:6]]
    assert not any(stopped_of_six(answers))


def test_answers_from_one_stock_of_sentences_are_not_constant() -> None:
    stock = list(ICE.values())[:4]
    answers = [f"{first} {second}" for first, second in combinations(stock, 2)]
    assert not any(stopped_of_six(answers))


def test_figures_and_code_may_answer_many_prompts() -> None:
    for text in ("```python\nprint(sum(range(10)))  # the sum of them\n```", "1969-07-20, " * 3):
        assert not any(stopped_of_six([text] * 6))


@pytest.mark.parametrize(
    "praise",
    ["Great question!", "Tolle Frage!", "¡Excelente pregunta!", "素晴らしい質問ですね！",
     "很好的问题！", "좋은 질문입니다!", "Отличный вопрос!", "سؤال رائع!", "बहुत बढ़िया सवाल!",
     "เป็นคำถามที่ดีมาก!"],
)  # fmt: skip
def test_praise_does_not_hide_a_copied_prompt(praise: str) -> None:
    prompt = Prompt.of("Why does ice float on water?")
    assert copied_prompt(prompt, answer(f"{praise} {prompt.text}"))
    assert copied_prompt(prompt, answer(f"{praise} {prompt.text} {prompt.text}"))
    assert not copied_prompt(prompt, answer(f"{praise} {ICE['en']}"))
    assert not copied_prompt(prompt, answer(praise))


def test_a_copied_system_message_is_stopped() -> None:
    rules = "You are a careful assistant of a weather station in the Alps."
    messages = [{"role": "system", "content": rules}, {"role": "user", "content": "Will it rain?"}]
    assert copied_prompt(Prompt.of(messages), answer(rules))
    assert not copied_prompt(Prompt.of(messages), answer("Yes, from six in the evening."))
