"""A prompt and an answer as the tokens that a reward model was trained to read.

The conversation and the answer are rendered by the tokenizer's chat template, without a
system prompt, as the Skywork-Reward-V2 cards (arXiv 2507.01352) ask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from arbitrage.errors import RewardError
from reward.devices import first_line

if TYPE_CHECKING:
    from arbitrage.types import Prompt

MAX_TOKENS = 16_384
# of a prompt that is cut, its two ends together keep at least this
_LEAST_PROMPT_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Rendered:
    """A pair as tokens.

    Attributes:
        left_out: tokens cut from the middle of the prompt, so that the pair fits.
    """

    tokens: tuple[int, ...]
    left_out: int = 0


class Rendering:
    """Renders pairs for one model.

    Attributes:
        limit: tokens of the longest pair that the model reads.
    """

    def __init__(self, tokenizer: Any, limit: int = MAX_TOKENS) -> None:
        self._tokenizer = tokenizer
        self.limit = min(limit, tokenizer.model_max_length)

    def render(self, prompt: Prompt, answer: str) -> Rendered | None:
        """The pair; one that is too long loses the middle of its prompt, never of its answer.

        Returns:
            None where even the answer alone does not fit, or cannot be found in what the
            template makes of a pair that is too long.

        Raises:
            RewardError: the chat template refuses the conversation.
        """
        text = self._text(prompt, answer)
        bos = self._tokenizer.bos_token
        # a template that writes the first token itself is not given a second one
        special = not (bos and text.startswith(bos))
        tokens = self._tokens(text, special=special)
        over = len(tokens) - self.limit
        if over <= 0:
            return Rendered(tuple(tokens))
        start = text.rfind(well_formed(answer).strip())
        if start < 0:
            return None  # a template that rewrites answers: nobody knows where this one begins
        before = len(self._tokens(text[:start], special=special))
        kept = before - over
        if kept < min(_LEAST_PROMPT_TOKENS, before):
            return None
        head = kept // 2
        return Rendered((*tokens[:head], *tokens[head + over :]), left_out=over)

    def tokens(self, prompt: Prompt, answer: str) -> list[int]:
        """The tokens of a pair that fits.

        Raises:
            RewardError: it does not, or the chat template refuses it.
        """
        rendered = self.render(prompt, answer)
        if rendered is None:
            raise RewardError(f"prompt {prompt.prompt_id!r}: an answer is over {self.limit} tokens")
        return list(rendered.tokens)

    def _text(self, prompt: Prompt, answer: str) -> str:
        turns = [(m.role, m.content) for m in prompt.messages if m.role != "system"]
        conversation = [
            {"role": role, "content": well_formed(text)}
            for role, text in (*turns, ("assistant", answer))
        ]
        try:
            text: str = self._tokenizer.apply_chat_template(conversation, tokenize=False)
        except Exception as error:  # templates come with models, and may raise anything
            reason = f"its chat template refuses the conversation: {first_line(error)}"
            raise RewardError(f"prompt {prompt.prompt_id!r} cannot be scored: {reason}") from error
        return text

    def _tokens(self, text: str, *, special: bool) -> list[int]:
        # a tokenizer warns of texts over its model's length; those are cut here
        tokens: list[int] = self._tokenizer(
            text, add_special_tokens=special, verbose=False
        ).input_ids
        return tokens


def well_formed(text: str) -> str:
    r"""The text as tokenizers take it: U+FFFD for a lone surrogate, which UTF-8 cannot spell.

    >>> well_formed("Eis \ud83d schwimmt") == "Eis \ufffd schwimmt"
    True
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
