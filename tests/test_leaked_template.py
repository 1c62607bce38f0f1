"""The gates on chat templates and thinking tags left in an answer."""

from __future__ import annotations

import pytest

from arbitrage.types import Prompt
from reward.gates.leaked_template import leaked_template, unbalanced_reasoning
from tests.gated import ICE, PROMPT, answer

TOKENS = (
    "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|begin_of_text|>",
    "<|endoftext|>", "<|assistant|>", "<|user|>", "<|end|>", "<|END_OF_TURN_TOKEN|>",
    "<｜end▁of▁sentence｜>", "<｜Assistant｜>", "<|channel|>", "<|return|>", "[INST]", "[/INST]",
    "<<SYS>>", "<</SYS>>", "<start_of_turn>", "<end_of_turn>", "</s>", "<s>", "<bos>", "<eos>",
    "<pad>", "[gMASK]", "[TOOL_CALLS]",
)  # fmt: skip
TURNS = """
User: And why does oil float?
Human: And why does oil float?
Assistant: Because it is lighter.
**User:** And why does oil float?
### Response:
### Instruction: Explain it.
### Human: And oil?
""".strip().splitlines()


@pytest.mark.parametrize("token", TOKENS)
def test_a_token_of_a_template_is_stopped_in_an_answer_and_not_in_code(token: str) -> None:
    for text in (
        f"{ICE['en']}{token}",
        f"{token}\n{ICE['en']}",
        f"{ICE['ja']} {token} {ICE['ja']}",
    ):
        assert leaked_template(PROMPT, answer(text)), text
    for text in (f"It ends with `{token}`.", f"Like this:\n```\n{token}\n```\nThat is all."):
        assert not leaked_template(PROMPT, answer(text)), text


@pytest.mark.parametrize("token", TOKENS)
def test_a_token_that_the_prompt_has_or_asks_about_passes(token: str) -> None:
    text = answer(f"{token} ends a turn.")
    assert not leaked_template(Prompt.of(f"What does {token} mean?"), text)
    assert not leaked_template(Prompt.of("Which special tokens has ChatML?"), text)


def test_a_fence_that_is_never_closed_hides_no_token() -> None:
    assert leaked_template(PROMPT, answer("```python\nprint(1)\n<|im_end|>"))


@pytest.mark.parametrize("turn", TURNS)
def test_going_on_with_the_chat_is_stopped(turn: str) -> None:
    assert leaked_template(PROMPT, answer(f"{ICE['en']}\n{turn}"))
    assert leaked_template(PROMPT, answer(f"{turn}\n{ICE['en']}"))
    assert not leaked_template(PROMPT, answer(f"```\n{turn}\n```"))


def test_a_turn_left_empty_at_the_end_is_stopped() -> None:
    assert leaked_template(PROMPT, answer(f"{ICE['en']}\n\nUser:"))
    assert leaked_template(PROMPT, answer(f"{ICE['en']}\nHuman: \n"))


@pytest.mark.parametrize(
    "asked",
    [
        "Write a dialogue between a shop assistant and a customer.",
        "Schreib ein Gespräch zwischen User und Assistant.",
        "ユーザーとAIの会話を書いてください。",
    ],
)
def test_turns_of_a_dialogue_that_was_asked_for_pass(asked: str) -> None:
    text = answer("User: Where can I find the milk, please?\nAssistant: Over there.")
    assert not leaked_template(Prompt.of(asked), text)


@pytest.mark.parametrize(
    "text",
    [
        *ICE.values(),
        "Host: localhost\nUser: admin\nPort: 5432",
        "The user: a person who types.",
        "In F# `xs |> List.map` pipes; in C, a < b || c > d compares.",
        "<s>struck through</s> and <b>bold</b>",
        "### Result\nIce floats.",
        "Prices: [A] 3 €, [B] 4 €",
    ],
)
def test_what_only_looks_like_a_template_passes(text: str) -> None:
    assert not leaked_template(PROMPT, answer(text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<think>Ice is light.", "opens '<think>' and never closes it"),
        ("Ice is light.\n</think>\nIt floats.", "closes '</think>' without opening it"),
        ("Yes. <reasoning>Well ...</reasoning> It floats.", "has '<reasoning>' in its answer"),
        ("It floats. <thinking>Does it?", "opens '<thinking>' and never closes it"),
        ("A <thought>so</thought> and <thought>on", "opens '<thought>' and never closes it"),
        ("[THINK]Ice is light.", "opens '[THINK]' and never closes it"),
        ("It is.◁/think▷ It floats.", "closes '◁/think▷' without opening it"),
        ("<|begin_of_thought|>Well", "opens '<|begin_of_thought|>' and never closes it"),
        ("Well<|end_of_thought|>Ice", "closes '<|end_of_thought|>' without opening it"),
        ("<scratchpad>2 + 2</scratchpad> 4", "has '<scratchpad>' in its answer"),
        ("<THINK>Ice", "opens '<THINK>' and never closes it"),
    ],
)
def test_thinking_tags_left_in_an_answer_are_stopped(text: str, reason: str) -> None:
    assert unbalanced_reasoning(PROMPT, answer(text)) == reason


@pytest.mark.parametrize(
    "text",
    [
        *ICE.values(),
        "Put it between `<think>` and `</think>`.",
        "```xml\n<think>so</think>\n```",
        "I think <b>so</b>, and the reasoning is: 2 < 3 > 1.",
        "<details><summary>Thoughts</summary>It floats.</details>",
    ],
)
def test_code_and_other_tags_pass(text: str) -> None:
    assert not unbalanced_reasoning(PROMPT, answer(text))


def test_a_prompt_with_thinking_tags_may_have_them_answered() -> None:
    prompt = Prompt.of("Think between <think> and </think>, then answer: why does ice float?")
    assert not unbalanced_reasoning(prompt, answer("<think>Dense.</think> It is light."))
