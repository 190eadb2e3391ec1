"""SGLang: ``python -m sglang.launch_server``."""

from __future__ import annotations

from typing import Final

from helixctl.export import rules
from helixctl.export.engine import Engine
from helixctl.export.serving import Server, script, sizes, stage_sizes
from helixctl.plan import Plan

_LLAMA: Final = "sglang/srt/models/llama.py, LlamaAttention"


def _arguments(plan: Plan) -> list[tuple[str, ...]]:
    layout, room = plan.layout, sizes(plan)
    found: list[tuple[str, ...]] = [("--tp-size", str(layout.partitions)), ("--pp-size", str(layout.pipeline))]
    if layout.slices > 1:
        found.append(("--dcp-size", str(layout.slices)))
    if layout.experts > 1:
        found.append(("--ep-size", str(layout.experts)))
    return [
        *found,
        ("--dtype", plan.model.dtype),
        ("--kv-cache-dtype", "fp8_e4m3" if plan.workload.cache_dtype == "float8" else "auto"),
        ("--max-running-requests", str(room.sequences)),
        ("--context-length", str(room.positions)),
        ("--chunked-prefill-size", str(room.tokens)),
    ]


def _write(plan: Plan, model: str) -> str:
    notes = [f"# flags of SGLang {ENGINE.version}: {ENGINE.flags}"]
    if own := stage_sizes(plan):
        notes.append(f"export SGLANG_PP_LAYER_PARTITION={own}")
    command = ("python", "-m", "sglang.launch_server", "--model-path", model)
    across = [("--node-rank", '"$4"'), ("--dist-init-addr", '"$5:$3"')]
    return script(plan, "sglang", notes, Server(command, _arguments(plan), 30000, "--dp-size", across, "--nnodes"))


ENGINE: Final = Engine(
    "SGLang",
    "0.5.23",
    "sglang/srt/arg_groups/fields",
    (
        rules.known_model("sglang/srt/arg_groups/fields/model.py, dtype"),
        rules.even_heads(_LLAMA),
        rules.equal_shares(_LLAMA),
        rules.even_kv_heads(_LLAMA),
        rules.slices_by_key("docs.sglang.io/docs/advanced_features/dcp.md", "--dcp-size", latent=True),
        rules.own_experts("sglang/srt/distributed/parallel_state.py"),
        rules.even_widths("sglang/srt/distributed/utils.py, divide"),
        rules.even_experts("sglang/srt/layers/moe/fused_moe_triton/layer.py, FusedMoE"),
        rules.in_order("sglang/srt/distributed/parallel_state.py", ("slices", "groups", "pipeline")),
        rules.whole_hosts("sglang/srt/arg_groups/fields/parallel.py, nnodes"),
    ),
    {"combine": "reduce", "residual": "replicated", "interleave": 1},
    _write,
)
