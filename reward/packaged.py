"""Packaged weights as Transformers opens them: converted from their GGUF file once, and kept."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from arbitrage import weights
from arbitrage.errors import ConfigError
from reward.checkpoints import quiet
from reward.devices import first_line, use_all_cores

_log = logging.getLogger(__name__)
GEMMA = "gemma-3-270m"


def load(name: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """The tokenizer and the causal language model of packaged weights, a folder, or the hub.

    Raises:
        ConfigError: there is no such model, or it is damaged.
    """
    use_all_cores()
    source, hint = name, ""
    if name in weights.PACKAGED:
        source, hint = str(folder_of(name)), "; remove it, and it is made again"
    options = {"local_files_only": Path(source).is_dir()}
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **options)
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"{source}: cannot be loaded: {first_line(error)}{hint}") from error
    return tokenizer, model


def folder_of(name: str = GEMMA) -> Path:
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
    with quiet():
        AutoTokenizer.from_pretrained(gguf.parent, **source).save_pretrained(folder)
        AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
            **source,
        ).save_pretrained(folder)
