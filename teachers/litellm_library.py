"""LiteLLM itself: loaded quiet and local, and its objects as the rest of the adapter reads them."""

from __future__ import annotations

import logging
import os
import re
from contextvars import ContextVar
from functools import cache
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from arbitrage.errors import ConfigError
from teachers import litellm_http
from teachers.completions import parse
from teachers.refusal import said_in

if TYPE_CHECKING:
    from collections.abc import Sequence

_STOLE_CREDENTIALS = ("1.82.7", "1.82.8")
_ENVIRONMENT = {
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",  # else it reads an .env file of the working directory
}
_LOGGERS = ("LiteLLM", "LiteLLM Proxy", "LiteLLM Router", "openai")
# for a provider that does not count: no tokenizer of its own is at hand
_COUNTED_AS = "gpt-4o"
_BEHIND = re.compile(r"\nTraceback|\.? Handle with `litellm|\s*Original exception: ")
_CLASSES = re.compile(r"(?:(?:litellm\.)?\w*(?:Error|Exception)\b[:\s]*(?:-\s+)?)+")


@cache
def load() -> Any:
    """Imports LiteLLM, which takes seconds.

    It reads its price list from its own files, asks nobody for a newer one, and writes
    no log.

    Raises:
        ConfigError: the installed version must not be used.
        ImportError: it is not installed.
    """
    version = metadata.version("litellm")
    if version in _STOLE_CREDENTIALS:
        raise ConfigError(
            f"teachers: litellm {version} steals credentials; install another version, and "
            "change every secret that this machine has"
        )
    os.environ.update(_ENVIRONMENT)
    litellm: Any = import_module("litellm")
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    litellm.drop_params = False
    litellm.modify_params = False
    litellm.disable_hf_tokenizer_download = True
    litellm.disable_streaming_logging = True
    for name in _LOGGERS:
        # what they say of a failure is raised, too; below that, they write requests down
        logging.getLogger(name).setLevel(logging.CRITICAL)
    litellm_http.install(litellm)
    _spare_costs(litellm)
    return litellm


@cache
def load_tokenizer() -> None:
    """Loads what counts tokens, which takes a third of a second and 110 MB."""
    count_tokens(load(), "the first count loads it")


@cache
def unlogged() -> ContextVar[bool]:
    """What a context has to say to spare its calls LiteLLM's log records, which nobody reads."""
    try:
        internal = import_module("litellm._internal_context")
    except ImportError:
        return ContextVar("unlogged")
    return getattr(internal, "is_internal_call", None) or ContextVar("unlogged")


def _spare_costs(litellm: Any) -> None:
    """Keeps LiteLLM from working out what each call of a teacher costs: the pool does.

    That is a third of the time that a call takes it.
    """
    update = getattr(litellm.utils, "update_response_metadata", None)
    if update is None:
        return

    def update_for_others(*arguments: Any, **named: Any) -> None:
        if litellm_http.EXCHANGE.get() is None:
            update(*arguments, **named)

    litellm.utils.update_response_metadata = update_for_others


def count_tokens(litellm: Any, text: str) -> int:
    """Tokens of a text in OpenAI's `o200k_base`, whatever the model."""
    return int(litellm.token_counter(model=_COUNTED_AS, text=text)) if text else 0


class Tokenizer:
    """LiteLLM's token counter, as `TokenCounter` calls a tokenizer."""

    def __init__(self, litellm: Any) -> None:
        self._litellm = litellm

    def encode_batch_fast(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[range]:
        """As many numbers as each text has tokens."""
        del add_special_tokens
        return [range(count_tokens(self._litellm, text)) for text in texts]


def body(answer: Any) -> dict[str, Any]:
    """An answer of LiteLLM in the protocol of `/chat/completions`."""
    choices = [
        {"message": _message(choice.message), "finish_reason": choice.finish_reason}
        for choice in answer.choices
    ]
    return {"choices": choices, "usage": _usage(answer)}


def chunk(chunk: Any) -> dict[str, Any]:
    """A chunk of LiteLLM's stream in that protocol."""
    choices = [
        {
            "index": choice.index,
            "delta": _message(choice.delta),
            "finish_reason": choice.finish_reason,
        }
        for choice in chunk.choices
    ]
    return {"choices": choices, "usage": _usage(chunk)}


def words(error: Exception) -> str:
    """What a provider said, without LiteLLM's names for it.

    >>> words(ValueError('litellm.BadRequestError: OpenAIException - {"error": "too long"}'))
    'too long'
    """
    text, *_ = _BEHIND.split(str(error), maxsplit=1)
    if classes := _CLASSES.match(text):
        text = text[classes.end() :]
    try:
        return said_in(parse(text.encode("utf-8", "replace"))) or text
    except (ValueError, RecursionError):
        return text


def _message(message: Any) -> dict[str, Any]:
    return {
        "content": getattr(message, "content", None),
        "reasoning_content": getattr(message, "reasoning_content", None),
    }


def _usage(answer: Any) -> dict[str, int | None] | None:
    """The tokens; LiteLLM says 0 of a prompt that nobody counted."""
    usage: Any = getattr(answer, "usage", None)
    if usage is None or not usage.prompt_tokens:
        return None
    return {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
