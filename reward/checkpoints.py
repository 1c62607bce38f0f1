"""Weights that a configuration names: where they are, and what makes them a reward model."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils import logging as transformers_logging

from arbitrage.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


def source(model: str, key: str = "reward.model") -> str:
    """Where a model is loaded from: a folder by its whole path, or else its name on the hub.

    Args:
        model: as somebody wrote it; a folder begins with `.`, `/` or `~`.
        key: where it was written, for the error.

    Raises:
        ConfigError: it is written as a path, and there is no such folder.
    """
    if not model.startswith((".", "/", "~")):
        return model
    folder = Path(model).expanduser().resolve()
    if not folder.is_dir():
        raise ConfigError(f"{key}: {str(folder)!r}: no such folder")
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


@contextmanager
def quiet() -> Iterator[None]:
    """What Transformers reports while it loads is told in our words."""
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
