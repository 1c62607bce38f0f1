"""A sequence classifier with one label on one device: trees of tokens in, rewards out."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from arbitrage.errors import ConfigError
from reward import packed
from reward.devices import first_line
from reward.trees import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


_log = logging.getLogger(__name__)


class Classifier:
    """Computes `logits[0][0]` of each row, packed where the model allows it.

    Attributes:
        packs: whether it does; otherwise rows are padded to the longest of their batch.
    """

    def __init__(
        self, model: Any, device: torch.device, max_tokens_per_batch: int, *, compiles: bool = False
    ) -> None:
        self._model = model
        self._device = device
        self._max_tokens = max_tokens_per_batch
        self._pad: int | None = model.config.get_text_config().pad_token_id
        self._decoder = getattr(model, model.base_model_prefix)
        self.packs = hasattr(model, "score") and packed.packs(self._decoder, device)
        if not self.packs:
            _log.info("%s: batches are padded: its attention does not pack", type(model).__name__)
        if compiles:
            self._decoder.compile(dynamic=True)
            self._compile()

    def _compile(self) -> None:
        """Compiles at once what would otherwise be compiled for the first prompts."""
        try:
            for length in (8, 40):
                self.compute([Tree((3,) * length, ((4,) * length, (5,) * 2 * length))])
        except RuntimeError as error:
            reason = first_line(error)
            raise ConfigError(f"reward.compile: torch cannot compile here: {reason}") from error

    def tree(self, rows: Sequence[Sequence[int]]) -> Tree:
        """The tree of one prompt's rows.

        A classifier reads the last token that is not padding; where none follows it that
        could be read before, padding that a chat template ends with is as if it were not there.
        """
        return Tree.of([self._without_padding(row) for row in rows] if self.packs else rows)

    def cost(self, tree: Tree) -> int:
        """How many tokens of a batch a tree takes up."""
        return tree.tokens if self.packs else sum(map(len, tree.rows))

    @torch.inference_mode()
    def compute(self, batch: Sequence[Tree]) -> list[list[float]]:
        """The rewards of each tree's rows, in order."""
        return self._packed(batch) if self.packs else self._padded(batch)

    def _without_padding(self, row: Sequence[int]) -> Sequence[int]:
        end = len(row)
        while end > 1 and row[end - 1] == self._pad:
            end -= 1
        return row[:end]

    def _packed(self, batch: Sequence[Tree]) -> list[list[float]]:
        states, packing = packed.states(self._decoder, batch, self._device)
        last = [branch.end - 1 for branches in packing.branches for branch in branches]
        rewards = iter(self._model.score(states[last])[:, 0].float().tolist())
        return [[next(rewards) for _ in branches] for branches in packing.branches]

    def _padded(self, batch: Sequence[Tree]) -> list[list[float]]:
        rows = [row for tree in batch for row in tree.rows]
        rewards = [0.0] * len(rows)
        # a classifier finds an answer's end by the padding behind it: without a padding token,
        # no two answers share a batch
        max_tokens = self._max_tokens if self._pad is not None else 1
        for indices in batches([len(row) for row in rows], max_tokens):
            inputs = padded([rows[i] for i in indices], self._device, self._pad or 0)
            logits = self._model(**inputs).logits
            for i, logit in zip(indices, logits[:, 0].float().tolist(), strict=True):
                rewards[i] = logit
        in_order = iter(rewards)
        return [[next(in_order) for _ in tree.branches] for tree in batch]


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
