"""A frozen language model reads answers: after their question, and alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from reward import packed
from reward.head import Reading

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reward.trees import Tree

# the logits of 262,144 tokens after each position are more than a cache holds, or a GPU likes
_POSITIONS_AT_ONCE, _TOKENS_AT_ONCE = 512, 8192


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to one prompt as trees of the same branches."""

    given: Tree
    alone: Tree

    @property
    def tokens(self) -> int:
        """How many tokens a pass over both has to compute."""
        return self.given.tokens + self.alone.tokens


class Reader:
    """Computes a `Reading` of each answer, on one device.

    Args:
        model: a causal language model of Transformers whose attention packs.
    """

    def __init__(self, model: Any, device: torch.device) -> None:
        self._model = model
        self._device = device

    @torch.inference_mode()
    def compute(self, batch: Sequence[Answers]) -> list[list[Reading]]:
        """The readings of each prompt's answers, in order."""
        trees = [tree for answers in batch for tree in (answers.given, answers.alone)]
        states, packing = packed.states(self._model.model, trees, self._device)
        # the state before a token predicts it: a branch is read from its trunk's last on
        read = [
            torch.cat([states[branch.behind.stop - 1 : branch.behind.stop], states[branch.own]])
            for branches in packing.branches
            for branch in branches
            if branch.behind
        ]
        tokens = [branch for tree in trees for branch in tree.branches]
        passes = iter(zip(read, self._log_probabilities(read, tokens), strict=True))
        return [list(_readings(passes, len(answers.given.branches))) for answers in batch]

    def _log_probabilities(
        self, read: Sequence[torch.Tensor], tokens: Sequence[Sequence[int]]
    ) -> Sequence[torch.Tensor]:
        """Log probability of each token after the state before it, in float32."""
        vocabulary = self._model.get_output_embeddings().weight
        states = torch.cat([states[:-1] for states in read])
        targets = torch.tensor([t for row in tokens for t in row], device=self._device)
        pieces = torch.split(states, _POSITIONS_AT_ONCE)
        normalisers = [_normaliser(piece, vocabulary) for piece in pieces]
        # the target's own logit exactly: bfloat16 keeps no more than three digits of it
        logits = (states.float() * vocabulary[targets].float()).sum(dim=-1)
        return torch.split(logits - torch.cat(normalisers), [len(row) for row in tokens])


def _normaliser(states: torch.Tensor, vocabulary: torch.Tensor) -> torch.Tensor:
    """Logarithm of the sum of the exponentials of all logits after each state, in float32."""
    blocks = [
        torch.logsumexp((states @ tokens.T).float(), dim=-1)
        for tokens in torch.split(vocabulary, _TOKENS_AT_ONCE)
    ]
    return torch.logsumexp(torch.stack(blocks), dim=0)


def _readings(
    passes: Iterator[tuple[torch.Tensor, torch.Tensor]], answers: int
) -> Iterator[Reading]:
    """The next passes: those of a prompt's answers after the question, then those alone."""
    given = [next(passes) for _ in range(answers)]
    alone = [next(passes) for _ in range(answers)]
    for (states_given, log_p_given), (states_alone, log_p_alone) in zip(given, alone, strict=True):
        yield Reading(states_given, states_alone, log_p_given, log_p_alone)
