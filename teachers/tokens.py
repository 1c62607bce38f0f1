"""Counts tokens where an endpoint does not, with the model's own tokenizer."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from arbitrage.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitrage.types import Completion, Message

# what a chat template writes around a message; the real one is not known here
_AROUND_A_MESSAGE = 4
# as many take about two milliseconds, on the loop; more are counted beside it
_AT_ONCE = 4000
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")


class TokenCounter:
    """A tokenizer that only counts.

    A prompt's count is approximate: the tokens of its contents, and four for each
    message. Special tokens are not counted.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @classmethod
    async def load(cls, name: str, where: str) -> Self:
        """Loads a tokenizer beside the loop.

        Args:
            name: path of a `tokenizer.json` or of a folder that holds one, or the name of
                a model on the hub.
            where: whose tokenizer it is: begins the error.

        Raises:
            ConfigError: it cannot be loaded, or the library for it is not installed.
        """
        try:
            return cls(await asyncio.to_thread(_load, name))
        except ImportError as error:
            raise ConfigError(
                f"{where}: tokenizer needs the extra: pip install 'data-arbitrage[tokenizer]'"
            ) from error
        except Exception as error:  # the library raises bare ones
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"{where}: tokenizer {name!r} cannot be loaded: {reason}; name a tokenizer.json, "
                "its folder, or a model on the hub"
            ) from error

    async def count(
        self, messages: Sequence[Message], completions: Sequence[Completion]
    ) -> list[Completion]:
        """The answers of one call, with the counts that they lack."""
        counted = list(completions)
        if counted[0].completion_tokens is None:
            texts = await self._tokens([c.text for c in counted])
            thoughts = await self._tokens([c.reasoning or "" for c in counted])
            counted = [
                replace(c, completion_tokens=text + thought)
                for c, text, thought in zip(counted, texts, thoughts, strict=True)
            ]
        if counted[0].prompt_tokens is None:
            contents = await self._tokens([message.content for message in messages])
            prompt = sum(contents) + _AROUND_A_MESSAGE * len(messages)
            counted = [
                replace(c, prompt_tokens=0 if place else prompt) for place, c in enumerate(counted)
            ]
        return counted

    async def _tokens(self, texts: Sequence[str]) -> list[int]:
        if sum(map(len, texts)) <= _AT_ONCE:
            return self._count(texts)
        return await asyncio.to_thread(self._count, texts)

    def _count(self, texts: Sequence[str]) -> list[int]:
        # half a surrogate pair, which a prompt may hold, is no text to the library
        whole = [text.encode("utf-8", "replace").decode() for text in texts]
        # a batch, even of one, is encoded without the interpreter's lock
        encodings = self._tokenizer.encode_batch_fast(whole, add_special_tokens=False)
        return [len(encoding) for encoding in encodings]


def _load(name: str) -> Any:
    # a heavy import, and one that most configurations do without
    from tokenizers import Tokenizer  # noqa: PLC0415

    path = Path(name).expanduser()
    if path.is_dir():
        path /= "tokenizer.json"
    if path.exists() or path.suffix == ".json" or not _HUB_NAME.fullmatch(name):
        return Tokenizer.from_file(str(path))
    return Tokenizer.from_pretrained(name)
