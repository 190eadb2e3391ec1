"""Megatron-LM: the arguments of ``pretrain_gpt.py``, the model's among them."""

from __future__ import annotations

from typing import Any, Final

from helixctl.export import rules
from helixctl.export.engine import Engine, Rule, specs_of
from helixctl.export.serving import stage_sizes
from helixctl.export.training import torchrun
from helixctl.plan import Layout, Plan
from helixctl.solve.problem import Specs
from helixctl.spec import Llama3Scaling, ModelSpec, RotarySpec

_CONFIG: Final = "megatron/core/transformer/transformer_config.py, TransformerConfig"
_ARGUMENTS: Final = "megatron/training/arguments.py"
# rotary_pos_embedding.py, RotaryEmbedding._apply_scaling
_LLAMA3: Final[dict[str, Any]] = {
    "kind": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_seq_len": 8192
}  # fmt: skip
_NORMS: Final = {"rms_norm": "RMSNorm", "layer_norm": "LayerNorm"}
# What of a model the arguments below say, by its path in the spec; all else must be as in a plain GPT or Llama.
_SAID: Final = (
    "name", "layers", "hidden_size", "dtype", "max_positions", "vocabulary", "norm.function", "norm.eps", "norm.bias",
    "attention.heads", "attention.kv_heads", "attention.head_dim", "attention.qkv_bias", "attention.output_bias",
    "attention.qk_norm", "attention.rotary", "feed_forward.intermediate_size", "feed_forward.activation",
    "feed_forward.gated", "feed_forward.bias", "feed_forward.experts",
)  # fmt: skip


def _expressed(_: Layout, specs: Specs) -> str | None:
    """Arguments that say all of the model."""
    found = _unsaid(specs.model)
    return f"a model that helixctl can write as its arguments: {found} is not among them" if found else None


def _unsaid(model: ModelSpec) -> str | None:
    """The first field of a model that no argument says; None where there is none."""
    attention, network, norm = model.attention, model.feed_forward, model.norm
    plain = type(attention)(heads=1, head_dim=1, causal=True)
    for path, spec, usual in (
        ("attention.", attention, plain),
        ("feed_forward.", network, type(network)(intermediate_size=1)),
        ("norm.", norm, type(norm)()),
        ("", model, model.model_construct(**_defaults(model))),
    ):
        for name in type(spec).model_fields:
            nested = path == "" and name in {"attention", "feed_forward", "norm"}
            if not nested and path + name not in _SAID and getattr(spec, name) != getattr(usual, name):
                return path + name
    rotary, experts = attention.rotary, network.experts
    unscaled = rotary and rotary.model_copy(update={"scaling": None})
    biases = (attention.qkv_bias, attention.output_bias, network.bias)
    unlike = {
        "attention.rotary": rotary and (unscaled != type(rotary)(theta=rotary.theta) or rotary.theta % 1),
        "attention.rotary.scaling": rotary and rotary.scaling and _llama3_factor(rotary) is None,
        "feed_forward.experts": experts and experts != type(experts)(count=experts.count, top_k=experts.top_k),
        "feed_forward.activation": (network.activation, network.gated) not in {("silu", True), ("gelu", False)},
        "norm.bias": norm.bias != (norm.function == "layer_norm"),
        "attention.output_bias": biases not in {(False,) * 3, (True,) * 3, (True, False, False)},
    }
    return next((name for name, found in unlike.items() if found), None)


def _llama3_factor(rotary: RotarySpec) -> float | None:
    """The factor of a scaling of Llama 3.1 with the constants that Megatron-LM has; None of another scaling."""
    scaling = rotary.scaling
    if not isinstance(scaling, Llama3Scaling):
        return None
    return scaling.factor if scaling == Llama3Scaling(**_LLAMA3, factor=scaling.factor) else None


def _defaults(model: ModelSpec) -> dict[str, Any]:
    fields = type(model).model_fields
    return {name: field.get_default(call_default_factory=True) for name, field in fields.items()}


def _sharded_beside_experts(layout: Layout, specs: Specs) -> str | None:
    mixture = any(block.feed_forward.experts for block in rules.blocks_of(specs))
    if mixture and layout.partitions > 1 and layout.residual != "sharded":
        return "sequence parallelism (residual sharded) where there are experts and tensor parallelism"
    return None


def _of_the_model(model: ModelSpec) -> list[tuple[str, ...]]:
    attention, network = model.attention, model.feed_forward
    found: list[tuple[str, ...]] = [
        ("--num-layers", str(model.layers)),
        ("--hidden-size", str(model.hidden_size)),
        ("--ffn-hidden-size", str(network.intermediate_size)),
        ("--num-attention-heads", str(attention.heads)),
        ("--kv-channels", str(attention.head_dim)),
        ("--normalization", _NORMS[model.norm.function]),
        ("--norm-epsilon", str(model.norm.eps)),
    ]
    if attention.key_heads < attention.heads:
        found += [("--group-query-attention",), ("--num-query-groups", str(attention.key_heads))]
    if attention.rotary:
        found += [("--position-embedding-type", "rope"), ("--rotary-base", str(int(attention.rotary.theta)))]
        if factor := _llama3_factor(attention.rotary):
            found += [("--use-rope-scaling",), ("--rope-scaling-factor", f"{factor:g}")]
    else:
        found.append(("--position-embedding-type", "none"))
    if experts := network.experts:
        found += [("--num-experts", str(experts.count)), ("--moe-router-topk", str(experts.top_k))]
        found.append(("--moe-ffn-hidden-size", str(network.intermediate_size)))
    if model.vocabulary and not model.vocabulary.tied:
        found.append(("--untie-embeddings-and-output-weights",))
    asked = {
        "--swiglu": network.gated,
        "--qk-layernorm": attention.qk_norm,
        "--add-qkv-bias": attention.qkv_bias and not network.bias,
        "--disable-bias-linear": not network.bias,
        "--bf16": model.dtype == "bfloat16",
        "--fp16": model.dtype == "float16",
    }
    return [*found, *((flag,) for flag, wanted in asked.items() if wanted)]


def _of_the_layout(plan: Plan) -> list[tuple[str, ...]]:
    layout, work = plan.layout, plan.workload
    found: list[tuple[str, ...]] = [
        ("--tensor-model-parallel-size", str(layout.partitions)),
        ("--pipeline-model-parallel-size", str(layout.pipeline)),
    ]
    if own := stage_sizes(plan):
        stages = "|".join(f"t*{size}" for size in own.split(","))
        found.append(("--pipeline-model-parallel-layout", f"E{stages}L"))
    if plan.model.feed_forward.experts:
        found += [("--expert-model-parallel-size", str(layout.experts))]
        found += [("--expert-tensor-parallel-size", str(layout.partitions // layout.experts))]
    if layout.residual == "sharded":
        found.append(("--sequence-parallel",))
    if layout.placement.index("pipeline") < layout.placement.index("data") and min(layout.pipeline, layout.data) > 1:
        found.append(("--use-tp-pp-dp-mapping",))
    return [
        *found,
        ("--micro-batch-size", str(work.batch // (layout.data * layout.microbatches))),
        ("--global-batch-size", str(work.batch)),
        ("--seq-length", str(work.positions)),
        ("--max-position-embeddings", str(max(work.positions, plan.model.max_positions or 0))),
    ]


def _write(plan: Plan, model: str) -> str:
    vocabulary = plan.model.vocabulary
    data: list[tuple[str, ...]] = [
        ("--tokenizer-type", "NullTokenizer"),
        ("--vocab-size", str(vocabulary.size if vocabulary else 0)),
        ("--mock-data",),
        ("--train-iters", "20"),
        ("--lr", "1e-5"),
    ]
    notes = [f"# arguments of Megatron-LM {ENGINE.version}: {ENGINE.flags}; {model} as arguments, on made-up data"]
    if plan.layout.partitions > 1 and not rules.blackwell(specs_of(plan)):
        notes.append("export CUDA_DEVICE_MAX_CONNECTIONS=1")  # else validate_args refuses tensor parallelism
    arguments = [*_of_the_layout(plan), *_of_the_model(plan.model), *data]
    return torchrun(plan, "megatron", notes, ["pretrain_gpt.py"], arguments)


ENGINE: Final = Engine(
    "Megatron-LM",
    "core_v0.19.0",
    f"{_ARGUMENTS}, {_CONFIG.split(',', maxsplit=1)[0]}",
    (
        rules.known_model(_ARGUMENTS),
        Rule("a plain GPT, Llama or mixture, which arguments can say", _ARGUMENTS, _expressed),
        rules.no_slices("megatron/core/parallel_state.py, initialize_model_parallel"),
        rules.even_heads(_CONFIG),
        rules.equal_shares(_CONFIG),
        rules.even_kv_heads(_CONFIG),
        rules.own_experts("megatron/core/parallel_state.py, initialize_model_parallel"),
        rules.even_widths("megatron/core/utils.py, divide"),
        rules.even_experts(f"{_ARGUMENTS}, validate_args"),
        Rule(
            "sequence parallelism where there are experts and TP",
            "megatron/core/transformer/moe/moe_layer.py, MoELayer.forward",
            _sharded_beside_experts,
        ),
        rules.even_batch("megatron/core/num_microbatches_calculator.py"),
        rules.in_order(
            "megatron/training/initialize.py, the order of initialize_model_parallel",
            ("groups", "data", "pipeline"),
            ("groups", "pipeline", "data"),
        ),
    ),
    {"combine": "reduce", "interleave": 1},
    _write,
)
