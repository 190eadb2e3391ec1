"""torchtitan: the arguments of ``torchtitan.train`` over a configuration of its registry.

Since 0.3 a model's configuration is a Python function of the registry, and no file; arguments override its fields.
"""

from __future__ import annotations

from typing import Final

from helixctl.export import rules
from helixctl.export.engine import Engine, Rule
from helixctl.export.training import torchrun
from helixctl.plan import Layout, Plan
from helixctl.solve.problem import Specs

_DECODER: Final = "torchtitan/models/common/decoder.py, Decoder.Config.update_from_config"
# Layers, hidden size and heads of models that its registry has: module and configuration.
_REGISTRY: Final = {
    (32, 4096, 32): ("llama3", "llama3_8b"),
    (80, 8192, 64): ("llama3", "llama3_70b"),
    (126, 16384, 128): ("llama3", "llama3_405b"),
    (48, 2048, 32): ("qwen3", "qwen3_30b_a3b"),
    (61, 7168, 128): ("deepseek_v3", "deepseek_v3_671b"),
    (36, 2880, 64): ("gpt_oss", "gpt_oss_120b"),
}


def _untied(layout: Layout, specs: Specs) -> str | None:
    vocabulary = specs.model.vocabulary
    tied = vocabulary is not None and vocabulary.tied
    return (
        "a head of its own where there are stages: this model's is the embedding"
        if tied and layout.pipeline > 1
        else None
    )


def _even_rows(layout: Layout, specs: Specs) -> str | None:
    rows = specs.workload.seq_len
    if layout.residual == "sharded" and rows % layout.partitions:
        return f"tokens of a sequence divided evenly: {rows} on {layout.partitions}"
    return None


def _dealt(layout: Layout, specs: Specs) -> str | None:
    """Its own division of layers, the first stages one more, is the only one that an argument asks for."""
    even = layout.model_copy(update={"stages": None})
    for stage in range(layout.pipeline):
        if layout.layers(stage, specs.model) != even.layers(stage, specs.model):
            return f"stages as even as can be: the plan has {layout.stages}"
    return None


def _write(plan: Plan, model: str) -> str:
    layout, work, spec = plan.layout, plan.workload, plan.model
    known = _REGISTRY.get((spec.layers, spec.hidden_size, spec.attention.heads))
    module, config = known or ("MODULE", "CONFIG")
    notes = [f"# arguments of torchtitan {ENGINE.version}: {ENGINE.flags}"]
    if known is None:
        notes.append(f"# its registry has no model of the sizes of {model}: write your module and configuration")
    # Without stages a microbatch is a step of gradient accumulation.
    local, parts = work.batch // layout.data, layout.microbatches
    step = local if layout.pipeline > 1 else local // parts
    arguments: list[tuple[str, ...]] = [
        ("--module", module),
        ("--config", config),
        ("--parallelism.tensor_parallel_degree", str(layout.partitions)),
        ("--parallelism.pipeline_parallel_degree", str(layout.pipeline)),
        ("--parallelism.data_parallel_replicate_degree", str(layout.data)),
        ("--parallelism.data_parallel_shard_degree", "1"),
        (f"--parallelism.{'' if layout.residual == 'sharded' else 'no_'}enable_sequence_parallel",),
    ]
    if layout.experts > 1:
        arguments.append(("--parallelism.expert_parallel_degree", str(layout.experts)))
    if layout.pipeline > 1:
        arguments += [
            ("--parallelism.pipeline_parallel_schedule", "1F1B"),
            ("--parallelism.pipeline_parallel_first_stage_less_layers", "0"),
            ("--parallelism.pipeline_parallel_last_stage_less_layers", "0"),
            ("--parallelism.pipeline_parallel_microbatch_size", str(local // parts)),
        ]
    if layout.pipeline > 1 or layout.experts > 1:
        # On by default, and refused beside stages, and beside experts whose dispatcher waits for the host.
        arguments.append(("--training.disable_cuda_graphs",))
    arguments += [
        ("--training.local_batch_size", str(step)),
        ("--training.global_batch_size", str(work.batch)),
        ("--training.seq_len", str(work.positions)),
        ("--training.mixed_precision_param", spec.dtype),
    ]
    return torchrun(plan, "torchtitan", notes, ["-m", "torchtitan.train"], arguments)


ENGINE: Final = Engine(
    "torchtitan",
    "0.3.0",
    "torchtitan/config/configs.py, ParallelismConfig and TrainingConfig",
    (
        rules.known_model("torchtitan/config/configs.py, TrainingConfig", ("bfloat16", "float32")),
        rules.no_slices("torchtitan/distributed/parallel_dims.py, ParallelDims.build_mesh"),
        rules.even_heads(_DECODER),
        rules.equal_shares(_DECODER),
        rules.even_kv_heads(_DECODER, copies=False),
        Rule("a head of its own where there are stages", _DECODER, _untied),
        rules.own_experts("torchtitan/distributed/parallel_dims.py, ParallelDims.build_mesh"),
        rules.even_widths("torchtitan/distributed/parallel_dims.py, ParallelDims.build_mesh"),
        rules.experts_whole_or_cut("torchtitan/distributed/parallel_dims.py, ParallelDims.build_mesh"),
        Rule(
            "tokens of a sequence divide evenly where residual is sharded",
            "torchtitan/distributed/parallel_dims.py, ParallelDims.seq_len_divisor",
            _even_rows,
        ),
        Rule(
            "stages as even as can be",
            "torchtitan/distributed/pipeline_parallel.py, _generate_llm_fqn_per_model_part",
            _dealt,
        ),
        rules.even_batch("torchtitan/distributed/pipeline_parallel.py"),
        rules.in_order(
            "torchtitan/distributed/parallel_dims.py, ParallelDims.build_mesh", ("groups", "data", "pipeline")
        ),
    ),
    {"combine": "reduce", "interleave": 1},
    _write,
)
