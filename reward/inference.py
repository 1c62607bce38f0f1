"""One inference thread a device: torch never runs on the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import torch

from arbitrage.errors import ConfigError, RewardError
from arbitrage.machine import usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")


class InferenceThread:
    """Runs one function at a time, in the order in which they were asked for."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"reward-{device}")
        self._closed = False

    async def run(self, function: Callable[[], T]) -> T:
        """Runs a function in inference mode. Cancelled before its turn, it does not run.

        Raises:
            RewardError: closed before the function's turn, or torch cannot go on, as
                when the device is out of memory.
        """

        def infer() -> T:
            self._check_open()
            try:
                with torch.inference_mode():
                    return function()
            except RuntimeError as error:
                raise RewardError(f"{self.device}: cannot score: {first_line(error)}") from error

        self._check_open()
        return await asyncio.get_running_loop().run_in_executor(self._thread, infer)

    async def close(self) -> None:
        """Waits for the function under way; those that wait for their turn fail."""
        self._closed = True
        await asyncio.to_thread(self._thread.shutdown)

    def _check_open(self) -> None:
        if self._closed:
            raise RewardError("the reward model is closed; open it again to score")


def device_named(name: str) -> torch.device:
    """The device that a configuration names; `auto` takes a GPU where there is one.

    Raises:
        ConfigError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
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


def batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Groups indices by length so that a padded batch holds at most `max_tokens`.

    A sequence longer than that is a batch of its own.

    >>> list(batches([5, 100, 6, 90], 200))
    [[0, 2], [3, 1]]
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[index] > max_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def padded(
    rows: Sequence[Sequence[int]], device: torch.device, pad: int = 0
) -> dict[str, torch.Tensor]:
    """Token rows as `input_ids` and `attention_mask`, both (rows, longest), padded on the right."""
    longest = max(len(row) for row in rows)
    ids = [[*row, *[pad] * (longest - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": torch.tensor(mask, device=device),
    }


def well_formed(text: str) -> str:
    r"""The text as tokenizers take it: U+FFFD for a lone surrogate, which UTF-8 cannot spell.

    >>> well_formed("Eis \ud83d schwimmt") == "Eis \ufffd schwimmt"
    True
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def first_line(error: Exception) -> str:
    """What an error of a library says, as one line of ours can quote it."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def use_all_cores() -> None:
    """Lets torch use the cores that this process may run on, not those of the machine."""
    torch.set_num_threads(usable_cores())
