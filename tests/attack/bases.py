"""Good documents to break: small dags that together have every op and every axis of a layout."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from helixctl.dag import Dag
from helixctl.lower import lower
from helixctl.plan import Plan
from helixctl.spec import SamplingSpec, StepName
from tests.documents import SMALL, SMALL_MOE, plan_of
from tests.runtime.models import BIASED, EXPERTS, GROUPED, LATENT, REAL, SPARSE, merged, plan_for

# The paper's model, made so small that a dag fits on some pages.
DENSE = ("layers=1", "hidden_size=8", "attention.heads=4", "attention.head_dim=4", "attention.softmax_slices=2",
         "feed_forward.intermediate_size=16", "workload.batch=4", "workload.seq_len=3", "dtype=float64")  # fmt: skip
MOE = (*DENSE, "feed_forward.experts.count=4", "feed_forward.experts.top_k=2")
DEEP = ("layers=3",)


def _dense(groups: int, slices: int, *sets: str, **axes: int | str) -> Callable[[], Plan]:
    return lambda: plan_of(SMALL, groups, slices, *DENSE, *sets, **axes)


def _moe(groups: int, slices: int, *sets: str, **axes: int | str) -> Callable[[], Plan]:
    return lambda: plan_of(SMALL_MOE, groups, slices, *MOE, *sets, **axes)


def _real(
    groups: int, slices: int, changes: dict[str, Any], workload: tuple[int, int] = (4, 5), **axes: Any
) -> Callable[[], Plan]:
    bare = merged(REAL, {"layers": 1, "dtype": "float64"})
    if "rotary" in changes.get("attention", {}):
        bare["attention"] = {**bare["attention"], "rotary": None}
    model = merged(bare, changes)
    return lambda: plan_for(model, workload, groups, slices, **axes)


def _steps(
    groups: int,
    slices: int,
    changes: dict[str, Any] | None = None,
    prefill_tokens: int = 8192,
    sampling: SamplingSpec | None = None,
    **axes: Any,
) -> Callable[[], Plan]:
    """Prompts of 4 sequences of 5 tokens, and 6 after each."""
    one = _real(groups, slices, changes or {}, key_block=2, **axes)

    def made() -> Plan:
        plan = one()
        update = {"output_len": 6, "prefill_tokens": prefill_tokens, "sampling": sampling}
        return Plan.of(plan.model, plan.cluster, plan.workload.model_copy(update=update), plan.layout)

    return made


def _latent(
    groups: int, slices: int, *, steps: bool = False, model: dict[str, Any] = LATENT, layers: int = 1, **axes: Any
) -> Callable[[], Plan]:
    """A model with latent attention: one pass, or with ``steps`` 6 tokens after each prompt."""

    def made() -> Plan:
        plan = plan_for(merged(model, {"layers": layers, "dtype": "float64"}), (4, 5), groups, slices, **axes)
        if not steps:
            return plan
        work = plan.workload.model_copy(update={"output_len": 6, "prefill_tokens": 8})
        return Plan.of(plan.model, plan.cluster, work, plan.layout)

    return made


# The step that a dag is; of all others the plan has one alone.
STEPS: dict[str, StepName] = {
    "decode, by key": "decode",
    "decode, by key of three": "decode",
    "decode, by batch": "decode",
    "decode, in stages": "decode",
    "decode, by head_dim": "decode",
    "decode, sharded": "decode",
    "decode, sinks by key": "decode",
    "decode, chunks": "decode",
    "decode, in half": "decode",
    "decode, hidden states": "decode",
    "decode, around": "decode",
    "prefill, by key": "prefill",
    "prefill, in stages, by key": "prefill",
    "prefill, sharded": "prefill",
    "decode, drawn": "decode",
    "prefill, drawn in stages": "prefill",
    "decode, sparse by key": "decode",
    "decode, sparse": "decode",
    "prefill, sparse by batch": "prefill",
    "prefill, sparse by rows": "prefill",
    "decode, latent by key": "decode",
    "prefill, latent by batch": "prefill",
    "prefill, by rows": "prefill",
    "prefill, by rows, turns": "prefill",
    "prefill, latent by rows": "prefill",
    "prefill, latent expanded": "prefill",
    "prefill, latent expanded by key": "prefill",
    "decode, experts of replicas": "decode",
    "decode, unequal shares by key": "decode",
    "prefill, experts of replicas": "prefill",
}
WINDOW = {"sliding_window": 3, "sinks": True, "output_gate": True}
SCALED = {"position_scaling": {"factor": 0.5, "tokens": 2, "first": 1}}
CAPPED = {"scale": 0.25, "soft_cap": 1.5, "v_head_dim": 6, "chunk": 3, "value_scale": 0.7, **SCALED}
DRAWN = SamplingSpec(temperature=0.7, top_k=5, top_p=0.9)
# Over all heads of queries and keys together, with KV heads that several groups hold.
OVER_ALL = {
    "attention": {"qk_norm_over": "projection", "rotary": {"theta": 50.0, "scaling": None, "interleaved": True}},
    "norm": {"place": "after"}, "multipliers": {"embedding": 3.0, "residual": 0.25, "logits_cap": 4.0},
}  # fmt: skip
SIDE_BY_SIDE = {
    "attention": {"qk_norm_weight": "per_head", "rotary": {"theta": 50.0, "scaling": None, "dims": 4}},
    "norm": {"function": "layer_norm", "bias": True}, "side_by_side": True, "feed_forward": {"bias": True},
    "multipliers": {"embedding": 3.3, "embedding_in_dtype": True, "logits": 0.5},
}  # fmt: skip
APART = merged(
    {"norm": {"place": "around"}, "vocabulary": None, "feed_forward": GROUPED},
    {"feed_forward": {"experts": {"norms": "apart", "router": {"logits_scale": 0.3, "gate_scales": True}}}},
)
DIFFERENT = {
    "layers": 3, "pattern": ["main", "mixture"],
    "blocks": [{"name": "mixture", "feed_forward": {"intermediate_size": 7, "gated": True, **EXPERTS}}],
}  # fmt: skip
# Two layers choose keys, and the one between them shares the choice of the first.
_SHARED = {**SPARSE["attention"], "sparse": {**SPARSE["attention"]["sparse"], "shared": True}}
SHARING = {**SPARSE, "blocks": [{"name": "shared", "attention": _SHARED}], "pattern": ["main", "shared", "main"]}
AROUND = {
    "norm": {"place": "around", "unit_offset": True}, "layer_scale": True, "layers": 2,
    "attention": {"value_norm": True, "values": "keys", "output_gate": True},
}  # fmt: skip
CUT = {"attention": {"softmax_slices": 2, "rotary": None, "qk_norm": False}}
PLANS: dict[str, Callable[[], Plan]] = {
    "paper": _dense(2, 2),
    "paper, groups first": _dense(2, 2, gather_order="groups_first"),
    "paper, reduce": _dense(4, 1, combine="reduce"),
    "paper, in half": _dense(2, 2, "dtype=float16", "layers=2"),
    "paper, reduced in half": _dense(2, 1, "dtype=bfloat16", reduction_dtype="model", combine="reduce"),
    "sharded, paper": _dense(2, 2, "workload.seq_len=5", residual="sharded"),
    "sharded by sequences": _dense(2, 2, "layers=2", microbatches=1, combine="reduce", residual="sharded"),
    "one device": _dense(1, 1),
    "experts": _moe(2, 2, experts=2),
    "replicas and stages": _dense(2, 1, *DEEP, data=2, pipeline=2, placement="data-groups-slices-pipeline"),
    "microbatches": _dense(2, 1, *DEEP, pipeline=3, microbatches=4, combine="reduce"),
    "interleaved": _dense(2, 2, microbatches=4, interleave=2),
    "real, by batch": _real(2, 2, {}, slicing="batch"),
    "real, by query": _real(3, 2, {"vocabulary": {"size": 53, "tied": True}}, slicing="query", combine="reduce"),
    "real, by query of two": _real(2, 2, {"layers": 2}, (5, 4), slicing="query", microbatches=2, interleave=2),
    "keys held twice": _real(6, 1, {"attention": {"rotary": {"theta": 50.0, "scaling": None}}}),
    "norms over all heads": _real(6, 1, OVER_ALL, combine="reduce"),
    "norms over all heads, sliced": _real(2, 2, OVER_ALL, slicing="batch"),
    "side by side": _real(3, 1, SIDE_BY_SIDE, residual="sharded"),
    "decode, around": _steps(3, 2, AROUND, slicing="key"),
    "real experts": _real(
        2, 1, {"feed_forward": {"gated": True, **EXPERTS}, "vocabulary": None}, experts=2, combine="reduce"
    ),
    "shared expert, chosen by groups": _real(
        2, 2, {"feed_forward": GROUPED, "vocabulary": None}, slicing="batch", experts=2, combine="reduce"
    ),
    "experts with norms apart": _real(2, 2, APART, slicing="batch", experts=2, residual="sharded", combine="reduce"),
    "experts of replicas": _moe(1, 1, data=4, expert_data=2, experts=2),
    "experts of teams": _real(
        2, 1, {"feed_forward": GROUPED, "vocabulary": None}, data=2, expert_data=2, experts=4, combine="reduce"
    ),
    "experts of teams, sharded": _real(
        2, 1, APART, (9, 3), data=2, expert_data=2, experts=2, residual="sharded", microbatches=2, interleave=2
    ),
    "experts with biases": _real(3, 1, {"feed_forward": BIASED}, experts=3, residual="sharded", combine="reduce"),
    "sharded, last tokens": _real(
        3, 1, {"vocabulary": {"size": 53, "tied": True}}, residual="sharded", combine="reduce", logits="last"
    ),
    "last tokens": _real(
        3, 1, {"layers": 2, "vocabulary": {"size": 53, "tied": True}}, pipeline=2, microbatches=2, logits="last"
    ),
    "real, in stages": _real(
        3, 1, {"layers": 2, "attention": {"rotary": {"scaling": {"kind": "linear", "factor": 4.0}}, "causal": False}},
        pipeline=2, data=2, microbatches=2,
    ),
    "layers that differ, in stages": _real(2, 1, DIFFERENT, pipeline=2, stages="1-2", experts=2),
    "window and sinks": _real(3, 1, {"layers": 2, "attention": WINDOW}, slicing="query"),
    "capped, narrow values": _real(1, 2, {"attention": CAPPED}, slicing="query", combine="reduce"),
    "decode, sinks by key": _steps(3, 2, {"layers": 2, "attention": WINDOW}, slicing="key"),
    "decode, chunks": _steps(1, 2, {"attention": {"chunk": 4, "v_head_dim": 6, **SCALED}}, slicing="batch"),
    "decode, by key": _steps(3, 2, slicing="key"),
    "decode, by key of three": _steps(
        1, 3, {"layers": 2, "attention": {"softmax_slices": 2}}, slicing="key", combine="reduce"
    ),
    "decode, by batch": _steps(2, 2, slicing="batch"),
    "decode, in stages": _steps(2, 1, {"layers": 3}, pipeline=3, microbatches=2),
    "decode, by head_dim": _steps(1, 2, CUT, combine="reduce"),
    "decode, sharded": _steps(3, 1, {"vocabulary": {"tied": True}}, residual="sharded", combine="reduce"),
    "decode, in half": _steps(1, 2, {"dtype": "bfloat16"}, slicing="key", reduction_dtype="model"),
    "decode, hidden states": _steps(2, 1, {"vocabulary": None}, data=2),
    "prefill, by key": _steps(2, 2, {"attention": {"causal": False}}, 8, slicing="key", gather_order="groups_first"),
    "prefill, in stages, by key": _steps(
        1, 2, {"layers": 2}, 8, slicing="key", pipeline=2, microbatches=2, interleave=2
    ),
    "prefill, sharded": _steps(3, 1, prefill_tokens=16, residual="sharded"),
    "latent, by query": _latent(2, 2, slicing="query"),
    "latent, by batch": _latent(2, 2, slicing="batch", combine="reduce"),
    "decode, latent by key": _latent(2, 2, slicing="key", key_block=2, steps=True),
    "prefill, latent by batch": _latent(1, 2, slicing="batch", key_block=2, steps=True),
    "sparse, by query": _latent(2, 2, model=SPARSE, slicing="query"),
    "sparse, shared, in stages": _latent(2, 1, model=SHARING, layers=2, pipeline=2),
    "decode, sparse by key": _latent(2, 2, model=SPARSE, layers=2, slicing="key", key_block=2, steps=True),
    "decode, sparse": _latent(2, 1, model=SHARING, layers=3, key_block=2, combine="reduce", steps=True),
    "prefill, sparse by batch": _latent(1, 2, model=SPARSE, slicing="batch", key_block=2, steps=True),
    "prefill, sparse by rows": _latent(
        1, 2, model=SPARSE, slicing="key", key_prefill="query", latent_prefill="expanded", key_block=2, steps=True
    ),
    "prefill, by rows": _steps(3, 2, {"attention": WINDOW}, 8, slicing="key", key_prefill="query"),
    "prefill, by rows, turns": _steps(
        1, 2, {"layers": 2}, 16, slicing="key", microbatches=2, interleave=2, combine="reduce", key_prefill="query"
    ),
    "prefill, latent by rows": _latent(1, 2, slicing="key", key_block=2, steps=True, key_prefill="query"),
    "prefill, latent expanded": _latent(2, 2, slicing="batch", key_block=2, steps=True, latent_prefill="expanded"),
    "prefill, latent expanded by key": _latent(2, 2, slicing="key", key_block=2, steps=True, latent_prefill="expanded"),
    "decode, experts of replicas": _steps(
        2, 1, {"feed_forward": GROUPED}, data=2, expert_data=2, experts=4, residual="sharded", combine="reduce"
    ),
    "prefill, experts of replicas": _steps(
        1, 1, {"feed_forward": GROUPED}, data=2, expert_data=2, experts=2, microbatches=2
    ),
    "groups of unequal shares": _real(3, 1, {}, (4, 5), group_shares="5-1-2"),
    "experts of unequal shares": _real(2, 2, {"feed_forward": GROUPED}, slicing="batch", experts=2, group_shares="3-1"),
    "decode, unequal shares by key": _steps(2, 2, slicing="key", group_shares="1-3"),
    "replicas of unequal batches": _real(2, 1, {}, data=2, batch_shares="3-1"),
    "decode, drawn": _steps(3, 1, sampling=DRAWN),
    "prefill, drawn in stages": _steps(2, 1, {"layers": 2}, 8, DRAWN, pipeline=2, microbatches=2),
}  # fmt: skip


@cache
def plan(name: str) -> Plan:
    return PLANS[name]()


@cache
def dag(name: str) -> Dag:
    return lower(plan(name), step=STEPS.get(name))


@cache
def text(name: str, document: str) -> str:
    """The document as a file holds it."""
    return dag(name).to_json() if document == "dag" else plan(name).to_json()
