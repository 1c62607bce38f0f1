"""Reward: gates that stop unusable answers, and models that rank the rest."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from arbitrage.errors import ConfigError
from reward.calibrate import open_calibration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from arbitrage import config
    from arbitrage.events import Event
    from arbitrage.ports import Pool, RewardModel
    from arbitrage.types import TeacherInfo

__all__ = ["Run", "open_calibration", "open_reward"]

_MODULES: Mapping[str, str] = {
    "embedded": "reward.embedded",
    "transformers": "reward.transformers",
    "vllm": "reward.vllm",
    "judge": "reward.judge",
    "rules": "reward.rules",
    "ensemble": "reward.ensemble",
    "scripted": "reward.scripted",
}
_EXTRAS = {"embedded": "embedded", "transformers": "reward", "vllm": "vllm"}


@dataclass(frozen=True, slots=True)
class Run:
    """What a reward may know of the run that it is opened for.

    Attributes:
        teachers: the pool's configuration, whose qualities the scripted reward knows.
        describe: the pool as it is now; a judge learns from it whose answers are its own.
        judges: where judges are asked, by their names.
        hear: is told of batches and of shifts, on the event loop.
    """

    teachers: Sequence[config.AnyTeacher] = ()
    describe: Callable[[], Sequence[TeacherInfo]] = tuple
    judges: Pool | None = None
    hear: Callable[[Event], None] = lambda _: None


async def open_reward(settings: config.AnyReward, run: Run | None = None) -> RewardModel:
    """Opens the reward model that a configuration names.

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
    model: RewardModel = await module.open_reward(settings, run or Run())
    return model
