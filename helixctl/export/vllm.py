"""vLLM: ``vllm serve``."""

from __future__ import annotations

from typing import Final

from helixctl.export import rules
from helixctl.export.engine import Engine, Rule
from helixctl.export.serving import Server, script, sizes, stage_sizes
from helixctl.plan import Layout, Plan
from helixctl.solve.problem import Specs

_CONFIG: Final = "vllm/config/model.py, ModelConfig.verify_with_parallel_config"
_DCP: Final = "--decode-context-parallel-size"


def _few_slices(layout: Layout, specs: Specs) -> str | None:
    """Positions of a KV cache are shared by ranks that would else hold copies of it."""
    if layout.slices == 1:
        return None
    for block in rules.blocks_of(specs):
        heads, keys, tensor = block.attention.heads, block.attention.key_heads, layout.partitions
        if block.attention.latent is not None:
            continue
        if tensor <= keys or layout.slices > tensor // keys:
            return f"{_DCP} of at most {tensor} // {keys} KV heads: the plan has {layout.slices} slices"
        if heads // keys % layout.slices:
            return f"{_DCP} that divides the {heads // keys} heads of a KV head: the plan has {layout.slices} slices"
    return None


def _arguments(plan: Plan) -> list[tuple[str, ...]]:
    layout, room = plan.layout, sizes(plan)
    found: list[tuple[str, ...]] = [
        ("--tensor-parallel-size", str(layout.partitions)),
        ("--pipeline-parallel-size", str(layout.pipeline)),
    ]
    if layout.slices > 1:
        found += [(_DCP, str(layout.slices)), ("--cp-kv-cache-interleave-size", str(layout.key_block))]
    if layout.experts > 1:
        found.append(("--enable-expert-parallel",))
    return [
        *found,
        ("--dtype", plan.model.dtype),
        ("--kv-cache-dtype", "fp8" if plan.workload.cache_dtype == "float8" else "auto"),
        ("--max-num-seqs", str(room.sequences)),
        ("--max-model-len", str(room.positions)),
        ("--max-num-batched-tokens", str(room.tokens)),
        ("--enable-chunked-prefill",),
    ]


def _write(plan: Plan, model: str) -> str:
    notes = [f"# flags of vLLM {ENGINE.version}: {ENGINE.flags}"]
    if own := stage_sizes(plan):
        notes.append(f"export VLLM_PP_LAYER_PARTITION={own}")
    # With experts, data parallelism of vLLM spreads them over the replicas too: these are then servers of their own.
    mixture = any(plan.model.alike(kind).feed_forward.experts for kind in plan.model.kinds)
    across = [
        ("--node-rank", '"$4"'),
        ("--master-addr", '"$5"'),
        ("--master-port", '"$3"'),
        ("--distributed-executor-backend", "mp"),
        ('$([ "$4" = 0 ] || echo --headless)',),
    ]
    together = None if mixture else "--data-parallel-size"
    server = Server(("vllm", "serve", model), _arguments(plan), 8000, together, across, "--nnodes")
    return script(plan, "vllm", notes, server)


ENGINE: Final = Engine(
    "vLLM",
    "0.33.0",
    "vllm/engine/arg_utils.py, vllm/entrypoints/common/cli_args.py",
    (
        rules.known_model("vllm/config/model.py, ModelConfig.dtype"),
        rules.even_heads(_CONFIG),
        rules.equal_shares("vllm/model_executor/models/llama.py, LlamaAttention"),
        rules.even_kv_heads("vllm/model_executor/models/llama.py, LlamaAttention"),
        rules.slices_by_key(_CONFIG, _DCP, latent=False),
        Rule("slices at most TP // KV heads, and dividing the heads of a KV head", _CONFIG, _few_slices),
        rules.own_experts("vllm/config/parallel.py, ParallelConfig.enable_expert_parallel"),
        rules.even_widths("vllm/distributed/utils.py, divide"),
        rules.experts_whole_or_cut("vllm/config/parallel.py, ParallelConfig.enable_expert_parallel"),
        rules.in_order("vllm/distributed/parallel_state.py", ("slices", "groups", "pipeline")),
        rules.whole_hosts("vllm/engine/arg_utils.py, EngineArgs.create_engine_config"),
    ),
    {"combine": "reduce", "residual": "replicated", "interleave": 1},
    _write,
)
