"""Embeddings of any encoder or language model that Transformers opens: the mean over its tokens."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from arbitrage.errors import ConfigError
from arbitrage.machine import usable_cores
from router.encoders.worker import Worker, first_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import numpy.typing as npt

    from arbitrage import config

_AT_ONCE = 16
_MAX_TOKENS = 256  # of a text that are read: enough to tell what sort of prompt it is
_MAX_CHARACTERS = 16 * _MAX_TOKENS  # so that a tokenizer does not read a book


async def open_encoder(settings: config.Features) -> Worker:
    """Loads a model from a folder, or from the hub by its name.

    Raises:
        ConfigError: there is no such model or device, or the model does not embed text.
    """
    model = await asyncio.to_thread(load, settings.model or "", settings.device)
    return Worker(model.embed, at_once=_AT_ONCE, free=model.free)


def load(name: str, device: str, *, trains: bool = False, where: str = "policy.features.") -> Model:
    """Opens a model, and tries it; blocks for seconds.

    Args:
        name: a folder, which begins with `.`, `/` or `~`, or a name on the hub.
        device: cpu, cuda, cuda:1, ..., or auto for a GPU where there is one.
        trains: whether its weights are to learn, in float32 on any device.
        where: what stands before the names of the settings, for errors.

    Raises:
        ConfigError: there is no such model or device, or the model does not embed text.
    """
    place = _device(device, where)
    torch.set_num_threads(usable_cores())
    name = _source(name, where)
    dtype = torch.bfloat16 if place.type == "cuda" and not trains else torch.float32
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(name)
            network, found = AutoModel.from_pretrained(name, dtype=dtype, output_loading_info=True)
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(
            f"{where}model: {name!r} cannot be loaded: {first_line(error)}"
        ) from error
    # the pooler is a layer of BERT's that says what follows a sentence, and is left out of many
    if missing := [weight for weight in found["missing_keys"] if "pooler" not in weight]:
        raise ConfigError(f"{where}model: {name!r} has no weights for {min(missing)!r}")
    if network.config.is_encoder_decoder:
        if trains:
            raise ConfigError(f"{where}model: {name!r} has a decoder, too, and cannot be tuned")
        network = network.get_encoder()
    model = Model(tokenizer, network.to(place).eval(), place)
    try:
        model.embed(["1 + 1 = 2"])
    except Exception as error:  # a model of any kind may be named, and fails in its own way
        reason = first_line(error)
        raise ConfigError(f"{where}model: {name!r} does not embed text: {reason}") from error
    return model


@dataclass(slots=True)
class Model:
    """A tokenizer, and a network on its device."""

    tokenizer: Any
    network: Any
    device: torch.device

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The embeddings of texts, `(texts, width)`; zeros where a text has no token."""
        with torch.inference_mode():
            embeddings: npt.NDArray[np.float32] = self.pooled(self.tokens(texts)).cpu().numpy()
        return embeddings

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text's beginning, at most 256."""
        positions = getattr(self.network.config.get_text_config(), "max_position_embeddings", None)
        limits = (_MAX_TOKENS, self.tokenizer.model_max_length, positions or _MAX_TOKENS)
        cut = [text[:_MAX_CHARACTERS] for text in texts]
        read = self.tokenizer(cut, truncation=True, max_length=min(limits), padding=False)
        rows: list[list[int]] = read["input_ids"]
        return rows

    def pooled(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """The mean over the last states of each row's tokens, `(rows, width)`, in float32."""
        longest = max(1, *map(len, rows))
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        ids, mask = ids.to(self.device), mask.to(self.device)
        states = self.network(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        counts = mask.sum(dim=1, keepdim=True).clamp(min=1)
        # not by multiplying alone: what a model makes of padding need not be finite
        states = states.masked_fill(~mask.bool()[:, :, None], 0.0)
        pooled: torch.Tensor = states.sum(dim=1) / counts
        return pooled

    def free(self) -> None:
        """Gives up the network."""
        self.network = None


def _device(name: str, where: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        raise ConfigError(f"{where}device: {name!r} cannot be used here: {reason}") from None


def _source(name: str, where: str) -> str:
    if not name.startswith((".", "/", "~")):
        return name
    folder = Path(name).expanduser().resolve()
    if not folder.is_dir():
        raise ConfigError(f"{where}model: {str(folder)!r}: no such folder")
    return str(folder)


@contextmanager
def quiet() -> Iterator[None]:
    """What Transformers reports while it loads and saves is told in our words."""
    reports: Any = transformers_logging
    level, shown = reports.get_verbosity(), reports.is_progress_bar_enabled()
    reports.set_verbosity_error()
    reports.disable_progress_bar()
    try:
        yield
    finally:
        reports.set_verbosity(level)
        if shown:
            reports.enable_progress_bar()
