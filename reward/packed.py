"""Packed passes: the trees of a batch as one sequence without padding, each trunk computed once.

The tokens of all trees lie end to end in one row. Whatever a decoder does token
by token, it does for all of them at once; only its attention has to know which
token may see which, and that is replaced: a trunk sees itself, a branch sees its
trunk and itself, and positions go on from the trunk's end. The states are those
of each row computed alone, so a reward model reads the same scores from them.

It takes a decoder that calls Transformers' attention interface and keeps nothing
between tokens but keys and values. Which do is not known by name, but tried:
`packs` compares a packed pass with plain ones.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from reward.trees import Tree

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_log = logging.getLogger(__name__)
try:
    from torch.nn.attention import varlen
except ImportError:  # torch before 2.10
    varlen = None  # type: ignore[assignment]

_BY_SEGMENT, _AT_ONCE = "packed_trees", "packed_trees_at_once"
_LONGEST_PROBE = 1100
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the flat sequence: a trunk, or a branch that sees the trunk `behind` it."""

    start: int
    end: int
    behind: slice | None = None

    @property
    def own(self) -> slice:
        """Where it lies."""
        return slice(self.start, self.end)

    @property
    def queries(self) -> int:
        """How many tokens it has."""
        return self.end - self.start

    @property
    def keys(self) -> int:
        """How many tokens its last one sees, itself included."""
        return self.queries + (self.behind.stop - self.behind.start if self.behind else 0)


class Packing:
    """Where the trees of a batch lie in their flat sequence.

    Attributes:
        input_ids, position_ids: `(1, tokens)`.
        branches: the segment of each branch, by tree.
        segments: all that there is to attend, trunks among them.
    """

    def __init__(self, trees: Sequence[Tree], device: torch.device) -> None:
        self.device = device
        self.branches: list[list[Segment]] = []
        self.segments: list[Segment] = []
        ids: list[int] = []
        positions: list[int] = []
        for tree in trees:
            trunk = self._add(tree.trunk, ids, positions) if tree.trunk else None
            behind = slice(trunk.start, trunk.end) if trunk else None
            self.branches.append([self._add(b, ids, positions, behind) for b in tree.branches])
        self.input_ids = torch.tensor([ids], device=device)
        self.position_ids = torch.tensor([positions], device=device)
        self._masks: dict[tuple[int, int, int | None], torch.Tensor] = {}

    def _add(
        self,
        tokens: Sequence[int],
        ids: list[int],
        positions: list[int],
        behind: slice | None = None,
    ) -> Segment:
        segment = Segment(len(ids), len(ids) + len(tokens), behind)
        before = segment.keys - segment.queries
        ids.extend(tokens)
        positions.extend(range(before, before + len(tokens)))
        self.segments.append(segment)
        return segment

    def mask(self, queries: int, keys: int, window: int | None) -> torch.Tensor:
        """Which of its keys each query sees, `(queries, keys)`: those up to its own place."""
        shape = (queries, keys, window if window and window < keys else None)
        if shape not in self._masks:
            seen = torch.ones(queries, keys, dtype=torch.bool, device=self.device)
            seen = seen.tril(keys - queries)
            if shape[2]:
                seen = seen.triu(keys - queries - shape[2] + 1)
            self._masks[shape] = seen
        return self._masks[shape]

    @cached_property
    def key_index(self) -> torch.Tensor:
        """The keys of all segments, one after the other, by their place in the flat sequence."""
        parts = []
        for segment in self.segments:
            if segment.behind:
                parts.append(torch.arange(segment.behind.start, segment.behind.stop))
            parts.append(torch.arange(segment.start, segment.end))
        return torch.cat(parts).to(self.device)

    @cached_property
    def query_ends(self) -> torch.Tensor:
        """Where the queries of each segment end, from 0, `(segments + 1,)`."""
        return self._ends([segment.queries for segment in self.segments])

    @cached_property
    def key_ends(self) -> torch.Tensor:
        """Where the keys of each segment end in `key_index`, from 0, `(segments + 1,)`."""
        return self._ends([segment.keys for segment in self.segments])

    def _ends(self, lengths: Sequence[int]) -> torch.Tensor:
        ends = torch.tensor([0, *lengths]).cumsum(0)
        return ends.to(self.device, torch.int32)


def states(
    decoder: Any, trees: Sequence[Tree], device: torch.device
) -> tuple[torch.Tensor, Packing]:
    """The last hidden states of a batch of trees, `(tokens, width)`, and where they lie.

    Args:
        decoder: one whose attention is `attending()`.
    """
    packing = Packing(trees, device)
    passed = decoder(
        input_ids=packing.input_ids,
        position_ids=packing.position_ids,
        use_cache=False,
        packing=packing,
    )
    return passed.last_hidden_state[0], packing


@torch.inference_mode()
def packs(decoder: Any, device: torch.device) -> bool:
    """Whether packed passes give what plain ones give; if so, the decoder is left to pack."""
    own = decoder.config._attn_implementation  # noqa: SLF001 - there is no other way to read it
    tree = _probe(decoder.config.get_text_config())
    rows = (tree.rows[0], *tree.rows)
    alone = [
        decoder(input_ids=torch.tensor([row], device=device)).last_hidden_state[0, -1]
        for row in rows
    ]
    trees = [Tree((), (rows[0],)), tree]
    for way in _ways(device):
        try:
            decoder.set_attn_implementation(way)
            flat, packing = states(decoder, trees, device)
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            _log.debug("%s: a packed pass fails: %s", way, error)
            continue
        together = [flat[branch.end - 1] for tree in packing.branches for branch in tree]
        if all(_alike(a, b) for a, b in zip(alone, together, strict=True)):
            return True
    decoder.set_attn_implementation(own)
    return False


def _ways(device: torch.device) -> tuple[str, ...]:
    return (_AT_ONCE, _BY_SEGMENT) if device.type == "cuda" else (_BY_SEGMENT,)


def _probe(config: Any) -> Tree:
    """A tree of random tokens, longer than the window that a token sees, where there is one."""
    length = min((getattr(config, "sliding_window", None) or 16) + 8, _LONGEST_PROBE)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, config.vocab_size, (length + 64,), generator=generator).tolist()
    return Tree(
        tuple(tokens[:length]),
        (tuple(tokens[length : length + 5]), tuple(tokens[length + 5 :])),
    )


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    difference = (a.float() - b.float()).norm()
    return bool(difference < _TOLERANCE[a.dtype] * a.float().norm())


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: object,
    *,
    packing: Packing,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **more: object,
) -> tuple[torch.Tensor, None]:
    """Attention within trees; from `(1, heads, tokens, width)` to `(1, tokens, heads, width)`."""
    del module, attention_mask
    _refuse_what_is_not_known(more)
    seen = []
    for segment in packing.segments:
        keys, values = key[:, :, segment.own], value[:, :, segment.own]
        if segment.behind:
            keys = torch.cat([key[:, :, segment.behind], keys], dim=2)
            values = torch.cat([value[:, :, segment.behind], values], dim=2)
        seen.append(
            scaled_dot_product_attention(
                query[:, :, segment.own],
                keys,
                values,
                attn_mask=packing.mask(segment.queries, segment.keys, sliding_window),
                scale=scaling,
                enable_gqa=key.shape[1] != query.shape[1],
            )
        )
    return torch.cat(seen, dim=2).transpose(1, 2), None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _attend_at_once(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: object,
    *,
    packing: Packing,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **more: object,
) -> tuple[torch.Tensor, None]:
    """The same in one call of the GPU's kernel for segments of any length."""
    del module, attention_mask
    _refuse_what_is_not_known(more)
    if varlen is None:
        raise RuntimeError("torch before 2.10 has no attention for segments of any length")
    keys, values = (t[0].transpose(0, 1)[packing.key_index] for t in (key, value))
    seen: Any = varlen.varlen_attn(
        query[0].transpose(0, 1),
        keys,
        values,
        packing.query_ends,
        packing.key_ends,
        max(segment.queries for segment in packing.segments),
        max(segment.keys for segment in packing.segments),
        scale=scaling,
        # the kernel counts the keys before a query's own
        window_size=(sliding_window - 1 if sliding_window else -1, 0),
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return seen.unsqueeze(0), None


def _refuse_what_is_not_known(more: Mapping[str, object]) -> None:
    for name in ("softcap", "s_aux"):
        if more.get(name) is not None:
            raise ValueError(f"attention with {name} does not pack")


def _no_mask(*_: object, **__: object) -> None:
    """The segments say what is seen."""


AttentionInterface.register(_BY_SEGMENT, _attend)
AttentionInterface.register(_AT_ONCE, _attend_at_once)
AttentionMaskInterface.register(_BY_SEGMENT, _no_mask)
AttentionMaskInterface.register(_AT_ONCE, _no_mask)
