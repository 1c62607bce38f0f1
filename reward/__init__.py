"""Reward: gates that stop unusable answers, and models that rank the rest."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from arbitrage.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arbitrage import config
    from arbitrage.ports import RewardModel

_MODULES: Mapping[str, str] = {
    "embedded": "reward.embedded",
    "transformers": "reward.transformers",
    "scripted": "reward.scripted",
}
_EXTRAS = {"embedded": "embedded", "transformers": "reward"}


async def open_reward(
    settings: config.Reward, teachers: Sequence[config.Teacher] = ()
) -> RewardModel:
    """Opens the reward model that a configuration names.

    Args:
        teachers: the pool's, whose qualities the scripted reward knows.

    Raises:
        ConfigError: its extra is not installed, or the model cannot be loaded.
    """
    try:
        module = import_module(_MODULES[settings.kind])
    except ImportError as error:
        extra = _EXTRAS.get(settings.kind)
        # a module of our own that cannot be imported is a bug, not a missing extra
        if extra is None or (error.name or "").partition(".")[0] in {"arbitrage", "reward"}:
            raise
        raise ConfigError(
            f"reward.kind: {settings.kind!r} needs {error.name}; "
            f"run: pip install 'data-arbitrage[{extra}]'"
        ) from error
    model: RewardModel = await module.open_reward(settings, teachers)
    return model
