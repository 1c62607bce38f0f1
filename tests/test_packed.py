"""Packed passes give, for trees of any shape, what each row gives alone."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification

from reward import packed
from reward.classifier import Classifier
from reward.trees import Tree
from tests.reward_models import CPU, make_classifier, packaged

PACKING = ["llama", "qwen3", "mistral", "gemma3"]
_tokens = st.lists(st.integers(3, 250), max_size=40).map(tuple)
_trees = st.builds(Tree, _tokens, st.lists(_tokens.filter(bool), min_size=1, max_size=5).map(tuple))


@cache
def model(architecture: str) -> Any:
    with TemporaryDirectory() as folder:
        name = make_classifier(Path(folder), architecture)
        return AutoModelForSequenceClassification.from_pretrained(name).eval()


@cache
def classifier(architecture: str) -> Classifier:
    return Classifier(model(architecture), CPU, 4096)


@cache
def _alone(architecture: str, row: tuple[int, ...]) -> float:
    plain = model(f"{architecture}")
    decoder = plain.model
    with torch.inference_mode():
        own = decoder.config._attn_implementation
        decoder.set_attn_implementation("sdpa")
        logit = float(plain(torch.tensor([row])).logits[0][0])
        decoder.set_attn_implementation(own)
    return logit


@pytest.mark.parametrize("architecture", PACKING)
@settings(max_examples=25, deadline=None)
@given(trees=st.lists(_trees, min_size=1, max_size=4))
def test_a_packed_batch_scores_every_row_as_if_it_were_alone(
    architecture: str, trees: list[Tree]
) -> None:
    assert classifier(architecture).packs
    scores = classifier(architecture).compute(trees)
    expected = [[_alone(architecture, row) for row in tree.rows] for tree in trees]
    assert scores == [pytest.approx(rewards, abs=1e-3) for rewards in expected]


def test_an_encoder_does_not_pack_and_keeps_its_attention() -> None:
    bert = model("bert")
    assert not packed.packs(bert.bert, CPU)
    assert bert.config._attn_implementation != "packed_trees"
    assert not classifier("bert").packs


def test_a_decoder_that_sees_what_follows_does_not_pack() -> None:
    with TemporaryDirectory() as folder:
        name = make_classifier(Path(folder), "gemma3", use_bidirectional_attention=True)
        bidirectional = AutoModelForSequenceClassification.from_pretrained(name).eval()
    assert not packed.packs(bidirectional.model, CPU)


def test_a_decoder_whose_attention_does_more_than_is_known_does_not_pack() -> None:
    with TemporaryDirectory() as folder:
        name = make_classifier(Path(folder), "gemma2")
        capped = AutoModelForSequenceClassification.from_pretrained(name).eval()
    assert capped.config.attn_logit_softcapping
    assert not packed.packs(capped.model, CPU)
    assert not Classifier(capped, CPU, 4096).packs


def test_another_way_of_packing_is_tried_where_one_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    with TemporaryDirectory() as folder:
        name = make_classifier(Path(folder))
        fresh = AutoModelForSequenceClassification.from_pretrained(name).eval()
    monkeypatch.setattr(packed, "varlen", None)
    monkeypatch.setattr(packed, "_ways", lambda _: ("packed_trees_at_once", "packed_trees"))
    assert packed.packs(fresh.model, CPU)
    assert fresh.config._attn_implementation == "packed_trees"


def test_the_packaged_model_packs() -> None:
    _, gemma = packaged()
    tree = Tree((2, 100, 200), ((300, 400), (500, 600, 700)))
    with torch.inference_mode():
        states, packing = packed.states(gemma.model, [tree], CPU)
    assert states.shape == (tree.tokens, gemma.config.hidden_size)
    assert [branch.own for branch in packing.branches[0]] == [slice(3, 5), slice(5, 8)]


def test_a_trunk_is_computed_once() -> None:
    tree = Tree(tuple(range(3, 103)), ((7,), (8, 9), (10,)))
    packing = packed.Packing([tree], CPU)
    assert packing.input_ids.shape == (1, 104)
    assert packing.position_ids[0, 100:].tolist() == [100, 100, 101, 100]


def reference_varlen(  # noqa: PLR0917 - torch's signature
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> torch.Tensor:
    """What the GPU's kernel promises: causal from the bottom right, with keys to the left."""
    parts = []
    ends = zip(pairwise(cu_seq_q.tolist()), pairwise(cu_seq_k.tolist()), strict=True)
    for (q0, q1), (k0, k1) in ends:
        assert q1 - q0 <= max_q
        assert k1 - k0 <= max_k
        q, k, v = query[q0:q1], key[k0:k1], value[k0:k1]
        if enable_gqa:
            repeats = q.shape[1] // k.shape[1]
            k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
        weights = torch.einsum("qhd,khd->hqk", q, k) * scale
        places = torch.arange(q1 - q0)[:, None] + (k1 - k0) - (q1 - q0)
        keys = torch.arange(k1 - k0)[None, :]
        left, right = window_size
        seen = keys <= places + right
        if left >= 0:
            seen &= keys >= places - left
        weights = weights.masked_fill(~seen, float("-inf")).softmax(-1)
        parts.append(torch.einsum("hqk,khd->qhd", weights, v))
    return torch.cat(parts)


@pytest.mark.parametrize("architecture", PACKING)
def test_the_gpus_kernel_is_told_what_each_segment_sees(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "varlen", SimpleNamespace(varlen_attn=reference_varlen))
    trees = [
        Tree(tuple(range(3, 40)), ((50, 51), tuple(range(60, 90)), (7,))),
        Tree((), (tuple(range(100, 130)),)),
    ]
    expected = classifier(architecture).compute(trees)
    decoder = model(architecture).model
    decoder.set_attn_implementation("packed_trees_at_once")
    try:
        at_once = classifier(architecture).compute(trees)
    finally:
        decoder.set_attn_implementation("packed_trees")
    assert at_once == [pytest.approx(rewards, abs=1e-3) for rewards in expected]


@given(rows=st.lists(_tokens.filter(bool), min_size=1, max_size=6))
def test_a_tree_of_rows_has_those_rows(rows: list[tuple[int, ...]]) -> None:
    tree = Tree.of(rows)
    assert tree.rows == rows
    assert all(tree.branches)


@given(tree=_trees, max_tokens=st.integers(1, 200))
def test_a_tree_in_parts_has_the_same_rows_and_each_part_fits(tree: Tree, max_tokens: int) -> None:
    parts = list(tree.split(max_tokens))
    assert [row for part in parts for row in part.rows] == tree.rows
    assert all(part.tokens <= max_tokens or len(part.branches) == 1 for part in parts)
