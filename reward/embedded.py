"""The reward that needs nothing but the packaged weights: a likelihood ratio under Gemma 3 270M.

For an answer a of n tokens to a prompt x it takes two figures, both in nats a token:

    relevance = (log p(a | x) - log p(a)) / n     how much the prompt explains the answer
    fluency   = log p(a) / n                      how probable a text the answer is by itself

and ranks by `relevance + fluency / 2`. Relevance alone (pointwise mutual
information) favours rare words; likelihood alone favours platitudes. It tells
an on-topic answer from an off-topic one in many languages; it does not judge
truth or style, for which `docs/reward.md` has figures and the `transformers`
kind the means. A text that repeats itself is highly probable, so it counts on
the `repetition` gate before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils import logging as transformers_logging

from arbitrage import config, weights
from arbitrage.errors import ConfigError
from arbitrage.types import Candidate, Prompt, Score
from reward.inference import (
    InferenceThread,
    batches,
    device_named,
    dtype_named,
    first_line,
    padded,
    use_all_cores,
    well_formed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_log = logging.getLogger(__name__)
_MODEL = "gemma-3-270m"
_QUESTION, _ANSWER = "Question: {prompt}\nAnswer:", "Answer:"
_FLUENCY_WEIGHT = 0.5
_MAX_PROMPT_TOKENS, _MAX_ANSWER_TOKENS = 1024, 1024
# logits of a 262,144-token vocabulary: 128 positions are 64 MB in bfloat16
_POSITIONS_AT_ONCE = 128


async def open_reward(settings: config.EmbeddedReward, _run: object = None) -> EmbeddedReward:
    """Loads the model; the first time ever, converts it, which takes most of a minute.

    Raises:
        ConfigError: the weights are missing or damaged, or cannot be converted.
    """
    device = device_named(settings.device)
    dtype = dtype_named(settings.dtype, device)
    folder = await asyncio.to_thread(_converted, settings.model or _MODEL)
    tokenizer, model = await asyncio.to_thread(_load, folder, device, dtype)
    return EmbeddedReward(tokenizer, model, device, settings.max_tokens_per_batch)


class EmbeddedReward:
    """Scores by the likelihood ratio of the module's docstring."""

    def __init__(
        self, tokenizer: Any, model: Any, device: torch.device, max_tokens_per_batch: int
    ) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self._max_tokens = max_tokens_per_batch
        self._thread = InferenceThread(device)

    @property
    def queue_depth(self) -> int:
        """Candidates that wait to be scored, or are being scored now."""
        return 0

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        """Scores the candidates of one prompt, one score each, in order."""
        answers = [c.completion.text if c.completion else "" for c in candidates]
        return await self._thread.run(lambda: self._score(prompt, answers))

    async def close(self) -> None:
        """Frees the model; a call that comes later fails."""
        await self._thread.close()
        self._model = None

    def _score(self, prompt: Prompt, answers: Sequence[str]) -> list[Score]:
        question = "\n\n".join(m.content for m in prompt.messages)
        given = self._tokens(_QUESTION.format(prompt=question))
        # the bos token and the words that ask for an answer stay; the question's start may go
        given = given[:1] + given[1:][-_MAX_PROMPT_TOKENS:]
        alone = self._tokens(_ANSWER)
        continuations = [
            self._tokens(f" {answer.strip()}", start=False)[:_MAX_ANSWER_TOKENS]
            for answer in answers
        ]
        pairs = [(prefix, tokens) for tokens in continuations for prefix in (given, alone)]
        likelihoods = self._mean_log_likelihoods(pairs)
        return [
            _score_of(conditional, marginal)
            for conditional, marginal in zip(likelihoods[::2], likelihoods[1::2], strict=True)
        ]

    def _tokens(self, text: str, *, start: bool = True) -> list[int]:
        tokens: list[int] = self._tokenizer(well_formed(text), add_special_tokens=start).input_ids
        return tokens

    def _mean_log_likelihoods(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        """Mean log probability, in nats a token, of each continuation after its prefix."""
        means = [0.0] * len(pairs)
        lengths = [len(prefix) + len(continuation) for prefix, continuation in pairs]
        for batch in batches(lengths, self._max_tokens):
            device = self._thread.device
            rows = [[*prefix, *continuation] for prefix, continuation in (pairs[i] for i in batch)]
            hidden = self._model.model(**padded(rows, device)).last_hidden_state
            # the state before a token predicts it
            states = torch.cat(
                [hidden[row, len(pairs[i][0]) - 1 : lengths[i] - 1] for row, i in enumerate(batch)]
            )
            targets = torch.tensor([t for i in batch for t in pairs[i][1]], device=device)
            log_p = self._log_probabilities(states, targets)
            counts = [len(pairs[i][1]) for i in batch]
            for i, part in zip(batch, torch.split(log_p, counts), strict=True):
                means[i] = float(part.mean())
        return means

    def _log_probabilities(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Log probability of each target token (n) after its state (n, width), in float32."""
        vocabulary = self._model.get_output_embeddings().weight
        parts = []
        pieces = (torch.split(t, _POSITIONS_AT_ONCE) for t in (states, targets))
        for state, target in zip(*pieces, strict=True):
            normaliser = torch.logsumexp((state @ vocabulary.T).float(), dim=-1)
            # the target's own logit exactly: bfloat16 keeps no more than three digits of it
            logit = (state.float() * vocabulary[target].float()).sum(dim=-1)
            parts.append(logit - normaliser)
        return torch.cat(parts)


def _score_of(conditional: float, marginal: float) -> Score:
    relevance, fluency = conditional - marginal, marginal
    return Score(
        reward=relevance + _FLUENCY_WEIGHT * fluency,
        raw={"relevance": relevance, "fluency": fluency},
    )


def _load(folder: Path, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    use_all_cores()
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(
            f"{folder}: cannot be loaded: {first_line(error)}; remove it, and it is made again"
        ) from error
    torch.nn.Module.to(model, device)
    torch.nn.Module.eval(model)
    return tokenizer, model


def _converted(name: str) -> Path:
    """The model as a folder that opens in a second; converted from its GGUF once and kept."""
    if name not in weights.PACKAGED:
        known = ", ".join(weights.PACKAGED)
        raise ConfigError(f"reward.model: kind 'embedded' has no {name!r}; packaged are {known}")
    gguf = weights.locate(name)
    folder = weights.cache_folder() / f"{name}-{weights.PACKAGED[name].sha256[:12]}"
    if folder.is_dir():
        return folder
    _log.info("converting %s once; this takes about a minute", gguf.name)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(
            prefix=f"{folder.name}.", suffix=".partial", dir=folder.parent
        ) as partial:
            made = Path(partial) / folder.name
            _convert(gguf, made)
            with contextlib.suppress(OSError):
                made.rename(folder)  # another process may have been faster: its folder serves
    except (OSError, ValueError, SafetensorError) as error:
        message = f"{folder}: cannot be converted from {gguf}: {first_line(error)}"
        raise ConfigError(message) from error
    if not folder.is_dir():
        raise ConfigError(f"{folder}: the converted model cannot be written there")
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    """Writes a GGUF file's tokenizer and weights as transformers keeps them."""
    source = {"gguf_file": gguf.name, "local_files_only": True}
    with _quiet():
        AutoTokenizer.from_pretrained(gguf.parent, **source).save_pretrained(folder)
        AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
            **source,
        ).save_pretrained(folder)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Transformers' progress bars are not this program's."""
    bars: Any = transformers_logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
