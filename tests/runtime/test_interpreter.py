"""The runtime against tests/interpreter.py, which was written from docs/formats.md alone, on dags of random specs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from helixctl.dag import Dag, Tensor
from helixctl.dag.retype import retyped
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.plan.layout import MESH_AXES, illegalities
from helixctl.spec import Dtype
from helixctl.verify import verify
from helixctl_runtime.check.reference import evaluate
from helixctl_runtime.dtypes import TORCH
from helixctl_runtime.tensors.seeded import seeded_numbers
from tests.documents import PAPER, SMALL, dag_of
from tests.interpreter import execute
from tests.runtime.models import plan_for
from tests.runtime.random_mixtures import CLAMP, mixtures
from tests.runtime.together import run_together


def interpreted(dag: Dag) -> dict[str, np.ndarray]:
    """Every value of a dag by the interpreter, from the document's text."""
    return execute(json.loads(dag.to_json()))


def reference(dag: Dag) -> np.ndarray:
    def load(tensor: Tensor) -> torch.Tensor:
        return seeded_numbers(tensor, tensor.full, 0, TORCH[tensor.given_dtype("float64")])

    return evaluate(dag.plan, load, torch.float64).numpy()


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_small_twin(dtype: str) -> None:
    dag = retyped(dag_of(SMALL, 4, 4, "layers=1"), dtype)
    ran, numbers = run_together(dag, steps=1), interpreted(dag)
    for rank, output in enumerate(ran.outputs):
        mine = numbers[f"output@{rank}"].astype(np.float64)
        assert distance(output.double().numpy(), mine) <= 2 * ran.unpartitioned


LLAMA3 = {"kind": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_seq_len": 8}
YARN = {"kind": "yarn", "factor": 4.0, "original_seq_len": 5, "attention_factor": 1.2}
ACTIVATIONS = ["gelu", "relu", "silu", "gelu_tanh", "relu_squared"]
ROTARY = [
    None,
    {"theta": 50.0},
    {"scaling": {"kind": "linear", "factor": 3.7}},
    {"theta": 9.0, "scaling": LLAMA3},
    {"theta": 9.0, "scaling": YARN, "interleaved": True},
    {"theta": 9.0, "scaling": {"kind": "dynamic", "factor": 2.5, "original_seq_len": 3}},
    {"theta": 9.0, "scaling": {"kind": "proportional", "pairs": 1, "factor": 1.5}},
    {"theta": 9.0, "dims": 2, "scaling": {
        "kind": "longrope", "short_factors": [1.5], "long_factors": [2.5], "original_seq_len": 4,
    }},
]  # fmt: skip
NORMS = [
    {},
    {"place": "around", "unit_offset": True},
    {"place": "after", "eps": 1e-3},
    {"function": "layer_norm", "bias": True, "place": "around"},
    {"function": "layer_norm"},
]
MULTIPLIERS = [
    None,
    {"embedding": 3.3, "residual": 0.7, "logits": 0.3},
    {"embedding": 1.3, "embedding_in_dtype": True, "logits_cap": 1.5},
]


def values(draw: st.DrawFn, attention: dict[str, Any]) -> dict[str, Any]:
    """How values are made, of an attention whose heads are not cut."""
    if not draw(st.booleans()):
        return {}
    apart = attention.get("qk_norm_over") == "projection" or "v_head_dim" in attention
    return {"value_norm": True, "values": "own" if apart else draw(st.sampled_from(["own", "keys"]))}


@st.composite
def small_plans(draw: st.DrawFn, least: int = 1) -> Plan:
    """A random small model of any kind on a random layout of up to 7 ranks a team; of sizes that divide nothing.

    ``least``: tokens of a sequence and dims of a head, and half of the model's other widths, at least.
    """

    def size(least: int, more: int = 3) -> int:
        return draw(st.integers(least, least + more))

    def either() -> bool:
        return draw(st.booleans())

    groups, slices = draw(st.sampled_from([(g, s) for g in range(1, 8) for s in range(1, 8) if g * s < 8]))
    partitions = groups * slices
    ways = draw(st.sampled_from([way for way in range(1, partitions + 1) if partitions % way == 0]))
    data, pipeline, rounds, turns = (size(1, 1) for _ in range(4))
    slicing = draw(st.sampled_from(["head_dim", "batch", "query"]))
    cut = slicing == "head_dim" and slices > 1  # the dims of a head
    causal = either()
    norm = draw(st.sampled_from(NORMS))

    def qk_norm() -> dict[str, Any]:
        kinds = ["projection"] if cut else ["head", "projection"]
        over = draw(st.sampled_from([kind for kind in kinds if kind == "head" or "function" not in norm]))
        weights = ["shared", "per_head", "none"] if over == "head" else ["shared"]
        return {"qk_norm": True, "qk_norm_over": over, "qk_norm_weight": draw(st.sampled_from(weights))}

    def attention() -> dict[str, Any]:
        rotary = None if cut else draw(st.sampled_from(ROTARY))
        softmax_slices = slices * size(1, 1) if cut else size(1, 2)
        kv_heads = draw(st.sampled_from([k for k in range(1, groups + 3) if groups <= k or groups % k == 0]))
        reaches = [{}, {"sliding_window": size(1, 4)}, {"chunk": size(1, 4)}]
        one = {"sinks": either()} if softmax_slices == 1 else {}
        one |= {"v_head_dim": size(max(slices, least))} if softmax_slices == 1 and either() else {}
        norms = qk_norm() if either() and not (cut and "function" in norm) else {}
        return {
            "heads": kv_heads * size(-(-groups // kv_heads), 2),
            "kv_heads": kv_heads,
            "head_dim": softmax_slices * size(-(-max(slices, least) // softmax_slices)) * (1 + bool(rotary)),
            "softmax_slices": softmax_slices,
            "causal": causal,
            "qkv_bias": either(),
            "output_bias": either(),
            "rotary": rotary,
            "scale": draw(st.sampled_from([None, 0.3])),
            "soft_cap": draw(st.sampled_from([None, 0.7])),
            **({} if cut else values(draw, norms | one)),
            "value_scale": draw(st.sampled_from([1.0, 0.7])),
            "output_gate": either(),
            "position_scaling": draw(st.sampled_from([None, {"factor": 0.7, "tokens": size(1), "first": size(0, 1)}])),
            **one,
            **(draw(st.sampled_from(reaches)) if causal else {}),
            **norms,
        }

    def feed_forward() -> dict[str, Any]:
        experts = draw(mixtures(partitions, max(ways, 2), around=norm.get("place") == "around")) if either() else None
        alone = experts is None or "shared" not in experts
        clamped = experts is not None and alone and either()
        return {
            "intermediate_size": size(max(partitions, 2 * least), 9),
            "activation": "silu" if clamped else draw(st.sampled_from(ACTIVATIONS)),
            "gated": clamped or either(),
            "experts": experts,
            "bias": alone and either(),
            "clamp": CLAMP if clamped else None,
        }

    blocks: list[dict[str, Any]] = []
    for name in draw(st.sampled_from([[], [], ["a"], ["a", "b"]])):
        parts = {"attention": attention, "feed_forward": feed_forward}
        blocks.append({"name": name} | {part: make() for part, make in parts.items() if either()})
    layers = max(size(pipeline, 1), len(blocks))
    others = draw(st.permutations([block["name"] for block in blocks] + ["main"] * (layers - len(blocks))))
    own = feed_forward()
    model = {
        "name": "random",
        "layers": layers,
        "hidden_size": size(max(partitions, 5, 2 * least), 9),
        "attention": attention(),
        "feed_forward": own,
        "vocabulary": draw(st.sampled_from([None, {"size": 11, "tied": False}, {"size": 17, "tied": True}])),
        "dtype": "float64",
        "norm": norm,
        "layer_scale": either(),
        "multipliers": draw(st.sampled_from(MULTIPLIERS)),
        "side_by_side": "place" not in norm and either(),
        "blocks": blocks or None,
        "pattern": others if blocks else None,
    }
    spread = any(its.get("feed_forward", own)["experts"] for its in [{}, *blocks])
    residual, rows = draw(st.sampled_from(["replicated", "sharded"])), max(least, slices if slicing == "query" else 1)
    each = slices if slicing == "batch" else 1  # sequences of a microbatch
    if norm.get("place") == "after":
        residual = "replicated"
    if residual == "sharded":
        if either():
            rows = max(rows, partitions)
        else:
            each = max(each, partitions)
    batch = size(data * rounds * turns * each)
    plan = plan_for(
        model, (batch, size(rows, 6)), groups, slices, slicing=slicing,
        logits=draw(st.sampled_from(["all", "last"])) if model["vocabulary"] else "all",
        experts=ways if spread else 1, data=data, pipeline=pipeline, microbatches=rounds * turns, interleave=turns,
        placement="-".join(draw(st.permutations(MESH_AXES))),
        reduction_dtype=draw(st.sampled_from(["accumulator", "model"])),
        combine=draw(st.sampled_from(["concat", "reduce"])),
        gather_order=draw(st.sampled_from(["slices_first", "groups_first"])),
        residual=residual,
    )  # fmt: skip
    assert illegalities(plan.layout, plan.model, plan.workload, plan.layout.devices) == []
    others = [*weighed(plan), *(shared(plan) if spread else ())]
    layout = draw(st.sampled_from([plan.layout, *others]))
    return Plan.of(plan.model, plan.cluster, plan.workload, layout)


def weighed(plan: Plan) -> list[Layout]:
    """The legal layouts that differ from a plan's in that its groups have unequal shares."""
    weights = ([1 + 3 * group % 5 for group in range(plan.layout.groups)], [*range(plan.layout.groups, 0, -1)])
    every = [plan.layout.model_copy(update={"group_shares": "-".join(map(str, its))}) for its in weights]
    return [each for each in every if not illegalities(each, plan.model, plan.workload, each.devices)]


def shared(plan: Plan) -> list[Layout]:
    """The legal layouts that differ from a plan's in how replicas share experts."""
    layout, devices = plan.layout, plan.layout.devices
    ways = range(1, layout.partitions * layout.data + 1)
    every = [layout.model_copy(update={"expert_data": layout.data, "experts": way}) for way in ways if layout.data > 1]
    return [each for each in every if not illegalities(each, plan.model, plan.workload, devices)]


TRIALS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


@settings(TRIALS, max_examples=10)
@given(small_plans())
def test_random_specs_are_proved_and_computed(plan: Plan) -> None:
    proved_and_computed(plan)


@pytest.mark.sweep
@settings(TRIALS, max_examples=40)
@given(small_plans())
def test_more_random_specs_are_proved_and_computed(plan: Plan) -> None:
    proved_and_computed(plan)


def proved_and_computed(plan: Plan) -> None:
    """Spec -> plan -> lower -> verify is clean; interpreter, runtime and reference agree on every rank."""
    dag = lower(plan)
    assert verify(dag) == []
    expected, numbers = reference(dag), interpreted(dag)
    for program in run_together(dag, steps=1).programs:
        for name, buffer in program.outputs.items():
            part = expected[tuple(slice(*interval) for interval in dag.value[name].region)]
            assert distance(numbers[name], part) < 1e-12
            assert distance(buffer.data.numpy(), part) < 1e-12


@settings(TRIALS, max_examples=15)
@given(small_plans(least=16), st.sampled_from(["float32", "bfloat16", "float16"]))
def test_random_specs_in_other_dtypes(plan: Plan, dtype: Dtype) -> None:
    """The run is as near to the model as the unpartitioned computation, up to a factor of 2.

    Tokens and dims are enough for errors to be no matter of chance.
    """
    experts = plan.model.feed_forward.experts
    # In half precision a token may go to another expert for a rounding: all of them take it.
    assume(dtype == "float32" or experts is None or experts.top_k == experts.count)
    dag = retyped(lower(plan), dtype)
    assert verify(dag) == []
    ran = run_together(dag, steps=2)
    assert ran.overall <= 2 * ran.unpartitioned


def test_every_value_of_the_paper_s_layout_holds_its_region() -> None:
    """Not the output alone: values of one tensor agree wherever their regions meet."""
    dag = dag_of(SMALL, 4, 4, "layers=1", "dtype=float64", "workload.batch=2")
    numbers = interpreted(dag)
    for tensor in dag.tensors:
        values = [v for v in dag.values if v.tensor == tensor.name and not v.partial]
        whole = np.full(tensor.shape, np.nan)
        for v in sorted(values, key=lambda v: -v.numel):
            place = tuple(slice(*interval) for interval in v.region)
            if np.isnan(whole[place]).all():
                whole[place] = numbers[v.id]
            assert np.allclose(whole[place], numbers[v.id], rtol=1e-12, atol=1e-12), v.id
        assert not np.isnan(whole).any(), tensor.name


def test_the_paper_s_dag_is_the_small_twin_s_but_for_sizes() -> None:
    """Tests of the small twin hold for the paper's model, because both have the same tasks between the same values."""
    paper, small = dag_of(PAPER, 4, 4), dag_of(SMALL, 4, 4)
    assert [(t.id, t.inputs, t.outputs, t.ranks) for t in paper.tasks] == [
        (t.id, t.inputs, t.outputs, t.ranks) for t in small.tasks
    ]
