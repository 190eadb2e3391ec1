"""TensorRT-LLM: ``trtllm-serve`` with a file of the options that have no flag."""

from __future__ import annotations

import json
from typing import Any, Final

from helixctl.export import rules
from helixctl.export.engine import Engine, Rule
from helixctl.export.serving import heading, parts, quoted, sizes, stage_sizes
from helixctl.plan import Layout, Plan
from helixctl.solve.problem import Specs

_ATTENTION: Final = "tensorrt_llm/_torch/modules/attention.py, Attention"
_OPTIONS: Final = "trtllm-options.yaml"


def _on_blackwell(layout: Layout, specs: Specs) -> str | None:
    """Helix parallelism is of one generation of GPUs."""
    name = specs.cluster.only.device.name
    if layout.slices == 1 or rules.blackwell(specs):
        return None
    return f"a Blackwell GPU where slices share the KV cache by positions (cp_type HELIX): the cluster has {name}"


def _options(plan: Plan) -> dict[str, Any]:
    """What has no flag: Helix parallelism, the dtype of the cache, and layers of stages that are not equal."""
    layout = plan.layout
    found: dict[str, Any] = {}
    cache: dict[str, Any] = {"dtype": "fp8"} if plan.workload.cache_dtype == "float8" else {}
    if layout.slices > 1:
        found["cp_config"] = {"cp_type": "HELIX", "tokens_per_block": layout.key_block}
        cache["tokens_per_block"] = layout.key_block
    if cache:
        found["kv_cache_config"] = cache
    if own := stage_sizes(plan):
        found["pp_partition"] = [int(size) for size in own.split(",")]
    return found


def _write(plan: Plan, model: str) -> str:
    layout, cluster, room = plan.layout, plan.cluster, sizes(plan)
    lines = ["#!/bin/sh", *heading(plan, "tensorrt-llm"), f"# flags of TensorRT-LLM, {ENGINE.version}: {ENGINE.flags}"]
    lines.append(f"# the dtype is the checkpoint's: {plan.model.dtype}")
    if layout.slices > 1:
        lines.append("# Helix parallelism is of the decode servers of disaggregated serving")
    if options := _options(plan):
        # JSON is valid YAML.
        lines += [f"cat > {_OPTIONS} <<'END'", json.dumps(options, indent=2), "END"]
    arguments: list[tuple[str, ...]] = [
        ("--tp_size", str(layout.groups)),
        ("--pp_size", str(layout.pipeline)),
        *([("--cp_size", str(layout.slices))] if layout.slices > 1 else []),
        *([("--ep_size", str(layout.experts))] if layout.experts > 1 else []),
        ("--max_batch_size", str(room.sequences)),
        ("--max_seq_len", str(room.positions)),
        ("--max_num_tokens", str(room.tokens)),
        ("--enable_chunked_prefill",),
        *([("--config", _OPTIONS)] if options else []),
    ]
    command, ranks = ["trtllm-serve", model], layout.partitions * layout.pipeline
    hosts = max(part.hosts for part in parts(plan))
    if hosts > 1:
        each = ranks // hosts
        arguments.append(("--gpus_per_node", str(each)))
        srun = ["srun", "--nodes", str(hosts), "--ntasks", str(ranks), "--ntasks-per-node", str(each), "--mpi", "pmix"]
        command = [*srun, "trtllm-llmapi-launch", *command]
    if layout.data > 1:
        where = f"{hosts} hosts" if hosts > 1 else f"{ranks} of a host's {cluster.only.devices_per_host} devices"
        lines.append(
            f"# one of {layout.data} replicas, on {where}: start as many, each with its --port, and balance them"
        )
    return "\n".join([*lines, quoted(command, arguments), ""])


ENGINE: Final = Engine(
    "TensorRT-LLM",
    "main at 00209af",
    "tensorrt_llm/commands/serve.py, tensorrt_llm/llmapi/llm_args.py, docs/source/features/helix.md",
    (
        rules.known_model("tensorrt_llm/llmapi/llm_args.py, BaseLlmArgs.dtype"),
        rules.even_heads(_ATTENTION),
        rules.equal_shares("tensorrt_llm/_torch/models/modeling_utils.py, duplicate_kv_weight"),
        rules.even_kv_heads("tensorrt_llm/_torch/models/modeling_utils.py, duplicate_kv_weight", over="groups"),
        rules.slices_by_key("docs/source/features/helix.md", "cp_type HELIX", latent=True),
        Rule("a Blackwell GPU where there are slices", "docs/source/features/helix.md", _on_blackwell),
        rules.own_experts("tensorrt_llm/mapping.py, Mapping"),
        rules.even_widths("docs/source/features/parallel-strategy.md"),
        rules.even_experts("tensorrt_llm/mapping.py, Mapping.ep_experts"),
        rules.in_order("tensorrt_llm/mapping.py, Mapping", ("groups", "slices", "pipeline")),
        rules.whole_hosts("tensorrt_llm/llmapi/llm_args.py, _ParallelConfig.world_size_per_node"),
    ),
    {"combine": "reduce", "residual": "replicated", "interleave": 1},
    _write,
)
