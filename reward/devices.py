"""The devices that torch computes on, and what it computes in."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from arbitrage.errors import ConfigError
from arbitrage.machine import usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

C = TypeVar("C")


def devices_named(names: str) -> list[torch.device]:
    """The devices that a configuration names; `auto` takes every GPU, or else the CPU.

    Raises:
        ConfigError: there is no such device here.
    """
    if names == "auto":
        count = torch.cuda.device_count()
        return [torch.device("cuda", n) for n in range(count)] or [torch.device("cpu")]
    return [_device_named(name.strip()) for name in names.split(",")]


def _device_named(name: str) -> torch.device:
    try:
        # that of a tensor has its number, so that `cuda` and `cuda:0` are one
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        raise ConfigError(f"reward.device: {name!r} cannot be used here: {reason}") from None
    return device


def dtype_named(name: str, device: torch.device) -> torch.dtype:
    """The precision that a configuration names; `auto` is bfloat16 where that is fast."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    if device.type == "cuda":
        return torch.bfloat16
    capabilities = torch.cpu.get_capabilities()
    fast = capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")
    return torch.bfloat16 if fast else torch.float32


def replicas(
    model: Any, devices: Sequence[torch.device], compute: Callable[[Any, torch.device], C]
) -> dict[str, C]:
    """What computes with a model on each device, under a name of its own.

    A device that is named twice has the weights once.
    """
    first, *others = dict.fromkeys(devices)
    # copied first: what computes with a model may change it
    weights = {first: model} | {device: copy.deepcopy(model) for device in others}
    computes = {device: compute(own.to(device).eval(), device) for device, own in weights.items()}
    named: dict[str, C] = {}
    for place, device in enumerate(devices):
        name = f"{device}" if f"{device}" not in named else f"{device}#{place}"
        named[name] = computes[device]
    return named


def use_all_cores() -> None:
    """Lets torch use the cores that this process may run on, not those of the machine."""
    torch.set_num_threads(usable_cores())


def first_line(error: Exception) -> str:
    """What an error of a library says, as one line of ours can quote it."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
