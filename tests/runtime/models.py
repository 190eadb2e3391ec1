"""Small models with all that real ones have, and their dags."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from helixctl.dag import Dag
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.spec import ModelSpec, WorkloadSpec
from helixctl.spec.load import load_specs
from tests.documents import SMALL

LLAMA3 = {"kind": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_seq_len": 16}

# Nothing divides anything: 3 heads of keys for 6 of queries, a hidden size, a width and a vocabulary that are prime.
REAL: dict[str, Any] = {
    "name": "real",
    "layers": 2,
    "hidden_size": 37,
    "attention": {
        "heads": 6,
        "kv_heads": 3,
        "head_dim": 10,
        "causal": True,
        "qkv_bias": True,
        "output_bias": True,
        "qk_norm": True,
        "rotary": {"theta": 500.0, "scaling": LLAMA3},
    },
    "feed_forward": {"intermediate_size": 41, "activation": "silu", "gated": True},
    "vocabulary": {"size": 53},
    "dtype": "float32",
}
# The widths of queries, values and both vectors are all different, and no two of them divide each other.
LATENT: dict[str, Any] = {
    "name": "latent",
    "layers": 2,
    "hidden_size": 37,
    "attention": {
        "heads": 5,
        "kv_heads": 1,
        "head_dim": 13,
        "v_head_dim": 9,
        "causal": True,
        "rotary": {"theta": 500.0},
        "latent": {"q_rank": 11, "kv_rank": 7, "rope_dim": 6},
    },
    "feed_forward": {"intermediate_size": 41, "activation": "silu", "gated": True},
    "vocabulary": {"size": 53},
    "dtype": "float32",
}
# A choice of 3 keys by an indexer whose widths go with none of the others.
SPARSE: dict[str, Any] = {
    **LATENT, "name": "sparse",
    "attention": {**LATENT["attention"], "sparse": {"heads": 4, "head_dim": 9, "top_k": 3, "interleaved": True}},
}  # fmt: skip
EXPERTS = {"experts": {"count": 5, "top_k": 2, "renormalise": False}}
# DeepSeek V3's router and a shared expert that Qwen 2 scores; gpt-oss's experts.
GROUPED: dict[str, Any] = {
    "experts": {
        "count": 6, "top_k": 2, "shared": {"intermediate_size": 9, "scored": True},
        "router": {"scores": "sigmoid", "choice_bias": True, "groups": {"count": 3, "top_k": 2}, "scale": 2.5,
                   "sum_eps": 1e-20},
    }
}  # fmt: skip
BIASED: dict[str, Any] = {
    "experts": {"count": 5, "router": {"bias": True}},
    "bias": True,
    "clamp": {"limit": 7.0, "alpha": 1.702},
}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested dicts, the latter's entries over the former's."""
    both = dict(base)
    for key, value in changes.items():
        both[key] = merged(both[key], value) if isinstance(value, dict) and isinstance(both.get(key), dict) else value
    return both


def plan_for(
    model: dict[str, Any], workload: tuple[int, int], groups: int, slices: int, *, logits: str = "all", **axes: Any
) -> Plan:
    """The plan of a model for a batch and a sequence length, with a layout on one host."""
    layout = Layout.model_validate({"groups": groups, "slices": slices, **axes})
    _, cluster = load_specs(*SMALL, (f"devices_per_host={layout.devices}",))
    batch, seq_len = workload
    step = WorkloadSpec.model_validate({"batch": batch, "seq_len": seq_len, "logits": logits})
    return Plan.of(ModelSpec.model_validate(model), cluster, step, layout)


def real(groups: int, slices: int, changes: dict[str, Any] | None = None, **axes: Any) -> Dag:
    """The dag of ``REAL``, with some of it changed, on a layout; it never changes, so that tests share it."""
    return _real(groups, slices, json.dumps(changes or {}), json.dumps(axes))


@lru_cache(maxsize=64)
def _real(groups: int, slices: int, changes: str, axes: str) -> Dag:
    return lower(plan_for(merged(REAL, json.loads(changes)), (7, 8), groups, slices, **json.loads(axes)))
