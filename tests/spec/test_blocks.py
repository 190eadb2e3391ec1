"""Layers of several kinds: which layer is of which block, and what a model refuses."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from helixctl.dag.function import function_of
from helixctl.spec import ModelSpec, WorkloadSpec
from helixctl.spec.hugging_face.families import pattern_of

DENSE = {"intermediate_size": 20}
MODEL: dict[str, Any] = {
    "name": "m",
    "layers": 5,
    "hidden_size": 8,
    "attention": {"heads": 2, "head_dim": 4},
    "feed_forward": {"intermediate_size": 6, "experts": {"count": 3}},
    "blocks": [{"name": "dense", "feed_forward": DENSE}, {"name": "wide", "attention": {"heads": 1, "head_dim": 8}}],
    "pattern": ["dense", "main", "wide"],
}


def model(**changes: Any) -> ModelSpec:
    return ModelSpec.model_validate(MODEL | changes)


def test_the_pattern_repeats() -> None:
    its = model()
    assert [its.kind(layer) for layer in range(5)] == ["dense", "main", "wide", "dense", "main"]
    assert its.kinds == ("dense", "main", "wide")
    assert its.alike("dense").feed_forward.intermediate_size == 20
    assert its.alike("dense").attention == its.attention
    assert its.alike("wide").attention.head_dim == 8
    assert its.alike("wide").feed_forward == its.alike("main").feed_forward == its.feed_forward


def test_every_layer_has_the_sizes_and_equations_of_its_block() -> None:
    its = model()
    function = function_of(its, WorkloadSpec(batch=2, seq_len=3).in_one_pass)
    for layer in range(its.layers):
        alone = function_of(its.alike(its.kind(layer)), WorkloadSpec(batch=2, seq_len=3).in_one_pass)
        assert function.layers[layer] == alone.layers[layer]
        own = [name for name in alone.tensors if name.startswith(f"l{layer}.")]
        assert [function.tensors[name] for name in own] == [alone.tensors[name] for name in own]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pattern": None}, "blocks and pattern go together"),
        ({"blocks": None}, "blocks and pattern go together"),
        ({"pattern": []}, "blocks and pattern go together"),
        ({"pattern": ["dense", "wide", "narrow"]}, "no block is named 'narrow'; there are main, dense, wide"),
        ({"pattern": ["main", "dense"]}, "no layer is of the block 'wide'"),
        ({"layers": 2}, "no layer is of the block 'wide'"),
        ({"blocks": [{"name": "main"}], "pattern": ["main"]}, "two blocks are named 'main'"),
        (
            {"blocks": [{"name": "a", "attention": {"heads": 1, "head_dim": 8, "causal": True}}], "pattern": ["a"]},
            "block 'a' differs from the model in what is causal",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        model(**changes)


@pytest.mark.parametrize(
    ("kinds", "pattern"),
    [
        ("aaaa", "a"),
        ("abab", "ab"),
        ("ababa", "ab"),
        ("aab", "aab"),
        ("abb", "abb"),
        ("a", "a"),
        ("aaabaaabaa", "aaab"),
    ],
)
def test_the_shortest_pattern(kinds: str, pattern: str) -> None:
    assert pattern_of(list(kinds)) == list(pattern)
