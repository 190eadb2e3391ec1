"""Models of all kinds, at sizes that are real and at sizes that are small, and every layout of a few devices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from helixctl.plan import Layout, Plan
from helixctl.solve import space
from helixctl.spec import ModelSpec, WorkloadSpec
from helixctl.spec.load import load_specs
from tests.documents import PAPER, SMALL
from tests.runtime.models import EXPERTS, REAL, merged

GROUPED = {"heads": 32, "kv_heads": 8, "head_dim": 128, "causal": True, "rotary": {"theta": 5e5}}
GATED = {"intermediate_size": 14336, "activation": "silu", "gated": True}
LLAMA: dict[str, Any] = {
    "name": "llama",
    "layers": 3,
    "hidden_size": 4096,
    "attention": GROUPED,
    "feed_forward": GATED,
    "vocabulary": {"size": 128256},
    "dtype": "bfloat16",
}
# As large as they are: Llama 3.1 8B, Mixtral 8x7B, Qwen2.5 7B, Qwen3 4B and the paper's, each with three layers.
LARGE: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "mixtral": merged(LLAMA, {"feed_forward": {"experts": {"count": 8, "top_k": 2}}, "vocabulary": {"size": 32000}}),
    "qwen2": merged(
        LLAMA,
        {
            "hidden_size": 3584,
            "attention": {"heads": 28, "kv_heads": 4, "qkv_bias": True},
            "feed_forward": {"intermediate_size": 18944},
            "vocabulary": {"size": 152064},
        },
    ),
    "qwen3": merged(
        LLAMA,
        {
            "hidden_size": 2560,
            "attention": {"qk_norm": True},
            "feed_forward": {"intermediate_size": 9728},
            "vocabulary": {"size": 151936, "tied": True},
        },
    ),
    "paper": {
        "name": "paper",
        "layers": 3,
        "hidden_size": 8192,
        "attention": {"heads": 16, "head_dim": 512, "softmax_slices": 4},
        "feed_forward": {"intermediate_size": 32768, "activation": "gelu"},
        "dtype": "float16",
    },
}
TINY: dict[str, dict[str, Any]] = {
    "real": REAL,
    "tied": merged(REAL, {"vocabulary": {"tied": True}}),
    "experts": merged(REAL, {"feed_forward": EXPERTS}),
    "plain": merged(
        REAL,
        {
            "attention": {"kv_heads": None, "qk_norm": False, "qkv_bias": False, "output_bias": False, "rotary": None},
            "feed_forward": {"gated": False, "activation": "gelu"},
            "vocabulary": None,
            "dtype": "float64",
        },
    ),
    "half": merged(REAL, {"attention": {"qk_norm": False, "heads": 4, "kv_heads": 1}, "dtype": "bfloat16"}),
    "sliced": merged(REAL, {"attention": {"softmax_slices": 5, "rotary": None, "qk_norm": False, "causal": False}}),
}


def every_plan(
    model: dict[str, Any], workload: tuple[int, int, str], devices: int, *, large: bool, step: int = 1
) -> Iterator[Plan]:
    """The plans of a model for each legal layout of a number of devices, or for each ``step``-th of them."""
    sets = ("hosts=1", f"devices_per_host={devices}") if large else (f"devices_per_host={devices}",)
    _, cluster = load_specs(*(PAPER if large else SMALL), sets)
    batch, seq_len, logits = workload
    spec = ModelSpec.model_validate(model)
    its = WorkloadSpec.model_validate(
        {"batch": batch, "seq_len": seq_len, "logits": logits if spec.vocabulary else "all"}
    )
    layouts: list[Layout] = list(space(spec, cluster, its, {}))
    for layout in layouts[::step]:
        yield Plan.of(spec, cluster, its, layout)
