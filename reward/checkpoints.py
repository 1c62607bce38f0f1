"""What makes the weights that a configuration names a reward model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from arbitrage.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection


def source(model: str) -> str:
    """Where a model is loaded from: a folder that is there, or else its name on the hub.

    Raises:
        ConfigError: it is written as a path, and there is no such folder.
    """
    if not model.startswith((".", "/", "~")):
        return model
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"reward.model: {str(folder)!r}: no such folder")
    return str(folder)


def require_classifier(name: str, labels: int, missing: Collection[str], tokenizer: Any) -> None:
    """Takes classifiers with one label, all of their weights, and a chat template.

    Args:
        missing: weights that its files lack.

    Raises:
        ConfigError: it is another kind of model.
    """
    if labels != 1:
        raise ConfigError(f"reward.model: {name!r} has {labels} labels; a reward model has one")
    if missing:
        raise ConfigError(f"reward.model: {name!r} has no weights for {min(missing)!r}")
    if not tokenizer.chat_template:
        raise ConfigError(f"reward.model: {name!r} has no chat template in its tokenizer")
