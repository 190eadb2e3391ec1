"""Plans of models that engines serve."""

from __future__ import annotations

from functools import cache
from typing import Any

from helixctl.export.engines import ENGINES
from helixctl.plan import Layout, Plan
from helixctl.spec.load import for_planning, load_specs
from tests.documents import ROOT

MODELS = ROOT / "plans/models"
SERVING = ("vllm", "sglang", "tensorrt-llm")
LLAMA = ("Llama-3.1-8B", "h100:1x8")
# Plans that an engine can run, on one host and on several, with replicas, stages, experts and slices.
PLANS: dict[str, tuple[tuple[str, str], dict[str, Any], tuple[str, ...]]] = {
    "tp": (LLAMA, {"groups": 8}, tuple(ENGINES)),
    "dp": (LLAMA, {"groups": 2, "data": 4}, tuple(ENGINES)),
    "pp": (LLAMA, {"groups": 4, "pipeline": 2, "microbatches": 2}, tuple(ENGINES)),
    "stages": (
        LLAMA,
        {"groups": 2, "pipeline": 4, "stages": "9-8-8-7"},
        (*SERVING, "megatron"),
    ),
    "sharded": (LLAMA, {"groups": 2, "data": 4, "residual": "sharded"}, ("megatron", "torchtitan")),
    "hosts": (("Llama-3.1-70B", "h100:2x8"), {"groups": 8, "pipeline": 2}, tuple(ENGINES)),
    "replicas": (("Llama-3.1-70B", "h100:4x8"), {"groups": 8, "pipeline": 2, "data": 2}, tuple(ENGINES)),
    "half-hosts": (("Llama-3.1-70B", "h100:2x8"), {"groups": 4, "data": 4}, tuple(ENGINES)),
    "experts": (("Mixtral-8x7B-v0.1", "h100:1x8"), {"groups": 8, "experts": 8}, SERVING),
    "mixture-dp": (("Mixtral-8x7B-v0.1", "h100:1x8"), {"groups": 4, "data": 2}, SERVING),
    "mixture": (
        ("Mixtral-8x7B-v0.1", "h100:1x8"),
        {"groups": 8, "experts": 4, "residual": "sharded"},
        ("megatron",),
    ),
    "experts-trained": (
        ("Qwen3-30B-A3B", "h100:1x8"),
        {"groups": 4, "data": 2, "experts": 4, "residual": "sharded"},
        ("torchtitan",),
    ),
    "gqa-slices": (("Qwen3-235B-A22B", "h100:2x8"), {"groups": 8, "slices": 2, "slicing": "key"}, ("vllm",)),
    "mla-slices": (
        ("DeepSeek-V3", "h200:2x8"),
        {"groups": 8, "slices": 2, "slicing": "key", "experts": 16},
        ("vllm", "sglang"),
    ),
    "prefill": (LLAMA, {"groups": 8, "output_len": None}, tuple(ENGINES)),
    "cache8": (LLAMA, {"groups": 8, "sets": ("workload.cache_dtype=float8",)}, SERVING),
    "quantised": (("DeepSeek-V3", "h200:1x8"), {"groups": 8, "experts": 8}, SERVING),
    "sinks": (("gpt-oss-120b", "h100:1x8"), {"groups": 8, "experts": 8}, SERVING),
    "helix": (
        ("DeepSeek-V3", "b200:2x8"),
        {"groups": 8, "slices": 2, "slicing": "key", "placement": "groups-slices-data-pipeline", "experts": 16},
        ("tensorrt-llm",),
    ),
}


@cache
def plan_of(
    model: str,
    cluster: str,
    batch: int = 16,
    output_len: int | None = 128,
    sets: tuple[str, ...] = (),
    **axes: int | str,
) -> Plan:
    """A plan of a published model for prompts of 1,024 tokens; ``axes`` are of the layout."""
    workload = [f"workload.batch={batch}", "workload.seq_len=1024", "workload.logits=last"]
    workload += [f"workload.output_len={output_len}"] if output_len else []
    document, devices = load_specs(str(MODELS / model), cluster, (*workload, *sets))
    document = for_planning(document, devices)
    layout = Layout.model_validate({"slices": 1, "combine": "reduce", **axes})
    return Plan.of(document.model, devices, document.workload, layout)


def case(name: str) -> Plan:
    specs, axes, _ = PLANS[name]
    return plan_of(*specs, **axes)
