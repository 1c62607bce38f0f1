"""Encoders: what turns a prompt's text into the features that a policy sees.

The default needs no model. The others embed the text; each is a module with
`open_encoder`, imported when a configuration asks for it, since it brings a
heavy library.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from arbitrage.errors import ConfigError
from router.features import HashedNgrams

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arbitrage import config
    from arbitrage.ports import Encoder

__all__ = ["open_encoder"]

_MODULES: Mapping[str, str] = {
    "transformers": "router.encoders.transformers",
    "llama_cpp": "router.encoders.llama_cpp",
}
_EXTRAS: Mapping[str, str] = {"transformers": "reward", "llama_cpp": "embedded"}
_OURS = ("arbitrage", "router")


class _Module(Protocol):
    async def open_encoder(self, settings: config.Features) -> Encoder:
        """Opens an encoder of the module's kind."""


async def open_encoder(settings: config.Features) -> Encoder | None:
    """Opens the encoder that a configuration names; None where it wants no features.

    Raises:
        ConfigError: its extra is not installed, or the model cannot be loaded.
    """
    kind = settings.kind
    if kind == "none":
        return None
    if kind == "hashed":
        return HashedNgrams()
    try:
        module = cast("_Module", await asyncio.to_thread(import_module, _MODULES[kind]))
    except ImportError as error:
        # a module of our own that cannot be imported is a bug, not a missing extra
        if (error.name or "").partition(".")[0] in _OURS:
            raise
        raise ConfigError(
            f"policy.features.kind: {kind!r} needs {error.name}; "
            f"run: pip install 'data-arbitrage[{_EXTRAS[kind]}]'"
        ) from error
    return await module.open_encoder(settings)
