"""Pairs as tokens: the chat template's, whole where they fit, and cut where nobody misses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from transformers import AutoTokenizer

from arbitrage.errors import RewardError
from arbitrage.types import Prompt
from reward.rendering import Rendering
from tests.reward_models import TEMPLATE, make_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

PROMPT = Prompt.of("Warum schwimmt Eis?")
ANSWERS = ["Weil es leichter ist.", "Nein.", "氷は水より軽いからです。" * 4, "🧊", "", " Ja. \n"]


def conversation(prompt: Prompt, answer: str) -> list[dict[str, str]]:
    turns = [{"role": m.role, "content": m.content} for m in prompt.messages]
    return [*turns, {"role": "assistant", "content": answer}]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    make_tokenizer(tmp_path)
    return AutoTokenizer.from_pretrained(tmp_path)


def test_tokens_are_those_of_the_chat_template(tokenizer: Any) -> None:
    for answer in ANSWERS:
        expected = tokenizer.apply_chat_template(
            conversation(PROMPT, answer), tokenize=True, return_dict=False
        )
        assert Rendering(tokenizer).tokens(PROMPT, answer) == expected


@pytest.mark.parametrize("template", [TEMPLATE, TEMPLATE.replace("{{ bos_token }}", "")])
def test_a_pair_has_one_first_token(tokenizer: Any, template: str) -> None:
    tokenizer.chat_template = template
    tokens = Rendering(tokenizer).tokens(PROMPT, "Ja.")
    assert tokens[0] == tokenizer.bos_token_id
    assert tokens.count(tokenizer.bos_token_id) == 1


def test_a_system_prompt_is_left_out(tokenizer: Any) -> None:
    prompt = Prompt.of(
        [
            {"role": "system", "content": "Antworte auf Latein."},
            {"role": "user", "content": PROMPT.text},
        ]
    )
    rendering = Rendering(tokenizer)
    assert rendering.tokens(prompt, "Ja.") == rendering.tokens(PROMPT, "Ja.")


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_long_prompt_is_cut_in_its_middle_and_the_answer_is_whole(
    tokenizer: Any, answer: str
) -> None:
    prompt = Prompt.of("Anfang " + "Warum " * 100 + "Ende?")
    whole = Rendering(tokenizer).tokens(prompt, answer)
    rendered = Rendering(tokenizer, 256).render(prompt, answer)
    assert rendered
    assert len(rendered.tokens) == 256
    assert rendered.left_out == len(whole) - 256
    text = tokenizer.decode(rendered.tokens)
    assert text.startswith("<s>[user]Anfang Warum")
    assert text.endswith(f"Ende?</s>[assistant]{answer}</s>")


def test_a_pair_that_just_fits_is_whole(tokenizer: Any) -> None:
    whole = Rendering(tokenizer).render(PROMPT, "Ja.")
    assert whole
    assert whole.left_out == 0
    assert Rendering(tokenizer, len(whole.tokens)).render(PROMPT, "Ja.") == whole


def test_an_answer_that_does_not_fit_is_not_rendered(tokenizer: Any) -> None:
    rendering = Rendering(tokenizer, 64)
    assert rendering.render(PROMPT, "Ja. " * 200) is None
    with pytest.raises(RewardError, match="an answer is over 64 tokens"):
        rendering.tokens(PROMPT, "Ja. " * 200)


def test_a_tokenizers_own_limit_holds(tokenizer: Any) -> None:
    tokenizer.model_max_length = 100
    assert Rendering(tokenizer).limit == 100


def test_text_that_is_no_unicode_is_rendered(tokenizer: Any) -> None:
    tokens = Rendering(tokenizer).tokens(Prompt.of("Eis \ud83d schwimmt"), "\ud83d")
    assert tokens == Rendering(tokenizer).tokens(Prompt.of("Eis \ufffd schwimmt"), "\ufffd")


def test_a_template_that_refuses_is_a_reward_error_on_one_line(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ raise_exception('no\nway') }}"
    with pytest.raises(RewardError, match=r"^prompt '\w+' cannot be scored: .*no$"):
        Rendering(tokenizer).render(PROMPT, "Ja.")
