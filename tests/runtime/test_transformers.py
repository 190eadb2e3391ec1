"""The five families beside transformers: on 1 to 16 ranks, with every way in which their heads can be cut."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from helixctl.dag import Dag, Tensor, Value
from helixctl.lower import lower
from helixctl.plan import Layout, Plan, illegalities
from helixctl.spec import ClusterSpec, ModelSpec, WorkloadSpec
from helixctl.spec.load import load_cluster, load_model
from helixctl_runtime.check.reference import evaluate, relative_error
from helixctl_runtime.compile import compile_rank
from helixctl_runtime.dtypes import TORCH
from helixctl_runtime.measure.walk import fused, walk_together
from helixctl_runtime.tensors.tensor_source import TensorSource
from tests.documents import SMALL

CPU = torch.device("cpu")
WORK = WorkloadSpec(batch=3, seq_len=19)
# The proportions of the published models: heads of queries and of keys, dims of a head against the hidden size, and how
# many experts of how many (Llama-3.1-8B, Qwen2.5-7B, Qwen3-30B-A3B's dense sisters, Mixtral-8x7B, Qwen3-30B-A3B).
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "llama": {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 16, "hidden_size": 128,
              "intermediate_size": 448, "rope_parameters": LLAMA3},
    "qwen2": {"num_attention_heads": 28, "num_key_value_heads": 4, "hidden_size": 448, "intermediate_size": 592},
    "qwen3": {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 16, "hidden_size": 160,
              "intermediate_size": 432, "tie_word_embeddings": True},
    "mixtral": {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 16, "hidden_size": 128,
                "intermediate_size": 448, "num_local_experts": 8, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 16, "hidden_size": 128,
                  "num_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 48, "norm_topk_prob": True},
    "qwen2_moe": {"num_attention_heads": 12, "num_key_value_heads": 4, "hidden_size": 192, "num_experts": 12,
                  "num_experts_per_tok": 4, "moe_intermediate_size": 48, "shared_expert_intermediate_size": 176,
                  "intermediate_size": 144, "mlp_only_layers": [0], "num_hidden_layers": 2},
    "dots1": {"num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 20, "hidden_size": 128,
              "n_routed_experts": 12, "num_experts_per_tok": 3, "moe_intermediate_size": 40, "n_shared_experts": 2,
              "n_group": 4, "topk_group": 2, "norm_topk_prob": True, "routed_scaling_factor": 2.5,
              "intermediate_size": 112, "first_k_dense_replace": 1, "num_hidden_layers": 2},
    "olmoe": {"num_attention_heads": 16, "num_key_value_heads": 16, "hidden_size": 256, "num_experts": 12,
              "num_experts_per_tok": 3, "intermediate_size": 40},
    "glm4_moe": {"num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 24, "hidden_size": 128,
                 "n_routed_experts": 12, "num_experts_per_tok": 3, "moe_intermediate_size": 40, "n_group": 4,
                 "topk_group": 2, "routed_scaling_factor": 2.5, "intermediate_size": 112, "use_qk_norm": True,
                 "attention_bias": True, "first_k_dense_replace": 1, "num_hidden_layers": 2},
    "ernie4_5_moe": {"num_attention_heads": 12, "num_key_value_heads": 4, "hidden_size": 240, "moe_num_experts": 12,
                     "moe_k": 3, "moe_intermediate_size": 40, "intermediate_size": 112, "num_hidden_layers": 2},
    "granitemoe": {"num_attention_heads": 12, "num_key_value_heads": 4, "hidden_size": 240, "num_local_experts": 12,
                   "num_experts_per_tok": 3, "intermediate_size": 40, "embedding_multiplier": 1.5,
                   "residual_multiplier": 0.7, "attention_multiplier": 0.125, "logits_scaling": 2.0},
    "gpt_oss": {"num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 20, "hidden_size": 128,
                "num_local_experts": 12, "num_experts_per_tok": 3, "intermediate_size": 40, "swiglu_limit": 0.5,
                "sliding_window": 7, "num_hidden_layers": 2},
    "phimoe": {"num_attention_heads": 12, "num_key_value_heads": 4, "hidden_size": 240, "num_local_experts": 12,
               "intermediate_size": 40, "router_jitter_noise": 0.2},
    "minimax_m2": {"num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 24, "hidden_size": 128,
                   "num_local_experts": 12, "num_experts_per_tok": 3, "intermediate_size": 40, "rotary_dim": 12},
}  # fmt: skip


ALWAYS = ("qwen2", "mixtral")  # heads that 8 does not divide; experts


@pytest.fixture(
    scope="module",
    params=[name if name in ALWAYS else pytest.param(name, marks=pytest.mark.sweep) for name in SIZES],
)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that transformers wrote, with the token ids and its float32 logits beside."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp(request.param)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layers = 2 if request.param == "llama" else 1  # a second layer is cut as the first is
        sizes = {"vocab_size": 301, "num_hidden_layers": layers, "max_position_embeddings": 256, **SIZES[request.param]}
        torch.manual_seed(1)
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(request.param, **sizes)
        ).eval()
        fill(model)
        model.save_pretrained(folder)
        ids = torch.randint(sizes["vocab_size"], (WORK.batch, WORK.seq_len))
        with torch.no_grad():
            torch.save({"ids": ids, "logits": model(ids).logits}, folder / "expected.pt")
    return folder


def fill(model: torch.nn.Module) -> None:
    """Give every weight numbers; norms and biases are constant as they are made, which would hide what they do."""
    stored = [*model.named_parameters(), *((name, b) for name, b in model.named_buffers() if "correction_bias" in name)]
    with torch.no_grad():
        for name, weight in stored:
            if "norm" in name or "bias" in name:
                weight.normal_(1.0 if "norm" in name else 0.0, 0.2)
            elif weight.dim() > 1:
                weight.normal_(0.0, weight.shape[-1] ** -0.5)


@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.sweep)])
def test_logits_of_cuts(every: int, family: Path) -> None:
    """Against float64, no cut is more than twice as far off as transformers' own float32 logits.

    In each run a family has every sixth, beginning with another; in the sweep it has all.
    """
    model = load_model(str(family)).model
    held = torch.load(family / "expected.pt")
    weights = TensorSource(0, str(family), None)

    def numbers(tensor: Tensor, region: Any) -> torch.Tensor:
        if tensor.role == "input":
            return held["ids"][tuple(slice(*interval) for interval in region)]
        return weights.region(tensor, region, torch.float32, CPU)

    sketch = Plan.sketch(model, cluster(1), WORK, Layout(groups=1, slices=1))
    expected = evaluate(sketch, lambda tensor: numbers(tensor, tensor.full), torch.float64)
    tolerated = 2 * relative_error(held["logits"], expected)
    assert tolerated < 1e-5  # the reference computes what transformers does
    layouts = [layout for devices in range(1, 17) for layout in cuts(devices, model)]
    assert {layout.partitions for layout in layouts} == set(range(1, 17))
    first = 1 if every > 1 and model.feed_forward.experts else 0
    for layout in [*layouts[first::every], *over_replicas(model)[first::every]]:
        plan = Plan.sketch(model, cluster(layout.devices), WORK, layout)
        found = output_of_all_ranks(lower(plan), numbers)
        assert relative_error(found, expected) <= tolerated, layout


def cuts(devices: int, model: ModelSpec) -> list[Layout]:
    """Every m x n of a number of devices, in every slicing; each combine and gather order with some of them."""
    found = []
    for groups in (n for n in range(1, devices + 1) if devices % n == 0):
        for slicing in ("batch", "query")[: 2 if groups < devices else 1]:
            choice = len(found) + devices
            axes = {"groups": groups, "slices": devices // groups, "slicing": slicing}
            axes |= {"combine": ("concat", "reduce")[choice % 2]}
            axes |= {"gather_order": ("slices_first", "groups_first")[choice // 2 % 2]}
            axes |= {"residual": ("replicated", "sharded")[choice // 4 % 2]}
            axes |= {"experts": groups if model.feed_forward.experts and groups <= 8 else 1}
            layout = Layout.model_validate(axes)
            if not illegalities(layout, model, WORK, devices):
                found.append(layout)
    return found


def over_replicas(model: ModelSpec) -> list[Layout]:
    """Of a mixture: replicas of one, two and four devices that share experts, whole or cut."""
    if model.feed_forward.experts is None:
        return []
    two = {"data": 2, "expert_data": 2}
    chosen: list[dict[str, Any]] = [
        {"groups": 1, "slices": 1, "experts": 2},
        {"groups": 2, "slices": 1, "experts": 4, "combine": "reduce"},
        {"groups": 2, "slices": 2, "experts": 2, "slicing": "query", "residual": "sharded"},
    ]
    layouts = [Layout.model_validate({**axes, **two}) for axes in chosen]
    assert not any(illegalities(layout, model, WORK, layout.devices) for layout in layouts)
    return layouts


def cluster(devices: int) -> ClusterSpec:
    return load_cluster(SMALL[1]).model_copy(update={"devices_per_host": devices})


def output_of_all_ranks(dag: Dag, numbers: Any) -> torch.Tensor:
    """The logits that all ranks of a dag have in the end, in one tensor; a copy of theirs must be the same."""

    def load(value: Value) -> torch.Tensor:
        return numbers(dag.tensor[value.tensor], value.region).to(TORCH[value.dtype])

    programs = [compile_rank(dag, rank, CPU, load) for rank in range(len(dag.order))]
    with fused(programs):
        walk_together(dag, programs)()
    whole = torch.full(dag.tensor["logits"].shape, float("nan"))
    for program in programs:
        for name, buffer in program.outputs.items():
            whole[tuple(slice(*interval) for interval in dag.value[name].region)] = buffer.data
    return whole
