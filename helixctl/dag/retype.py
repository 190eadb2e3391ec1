"""The same dag in another dtype, and with weights in it: what `helixctl run` executes."""

from __future__ import annotations

from dataclasses import replace

from helixctl.dag.document import Dag, Value
from helixctl.dag.dry_run import dry_run
from helixctl.dag.formulas import nbytes
from helixctl.dag.ops import made_dtype
from helixctl.plan import Plan
from helixctl.spec import Dtype, ModelSpec
from helixctl.spec.model import MAIN


def retyped(dag: Dag, dtype: Dtype | None = None) -> Dag:
    """The dag of the same plan as it runs: weights and cache in the dtype of the computation, which may be another.

    Args:
        dag: free of deadlock.
        dtype: in which to compute; None: the model's.
    """
    plan = as_run(dag.plan, dtype)
    if plan is dag.plan:
        return dag
    dtype = plan.model.dtype
    dag = replace(dag, tensors=tuple(replace(t, storage=None) for t in dag.tensors))
    values: dict[str, Value] = {v.id: replace(v, dtype=dag.tensor[v.tensor].given_dtype(dtype)) for v in dag.values}
    moved: dict[str, int] = {}
    for task in dry_run(dag).done:
        for part in task.parts:
            for place, value_id in enumerate(part.outputs):
                if part.moves:
                    kept = values[part.inputs[0]].dtype
                else:
                    partial = bool(values[value_id].partial)
                    kept = made_dtype(part.op, place, dtype, plan.partial_dtype, partial=partial)
                values[value_id] = replace(values[value_id], dtype=kept)
        ins, outs = [values[v] for v in task.inputs], [values[v] for v in task.outputs]
        moved[task.id] = nbytes(task.op, len(task.ranks), ins, outs, dag.tensor)
    tasks = tuple(replace(task, nbytes=moved[task.id]) for task in dag.tasks)
    return replace(dag, plan=plan, plan_digest=plan.digest, values=tuple(values.values()), tasks=tasks)


def as_run(plan: Plan, dtype: Dtype | None = None) -> Plan:
    """The plan of what is run for a plan: the plan itself where nothing of it is stored in other numbers.

    Args:
        plan: as it was made.
        dtype: in which to compute; None: the model's.
    """
    model = dequantised(plan.model)
    if dtype not in {None, model.dtype}:
        model = model.model_copy(update={"dtype": dtype})
    if model is plan.model and plan.workload.cache_dtype is None:
        return plan
    return Plan.of(model, plan.cluster, plan.workload.model_copy(update={"cache_dtype": None}), plan.layout)


def dequantised(model: ModelSpec) -> ModelSpec:
    """The model with all weights in its dtype; itself where they are. Blocks that are then alike become one."""
    if model.stored is None and not any(block.stored is not None for block in model.blocks or ()):
        return model
    name: dict[object, str] = {(None, None): MAIN}
    same = {MAIN: MAIN}
    for block in model.blocks or ():
        same[block.name] = name.setdefault((block.attention, block.feed_forward), block.name)
    blocks = tuple(b.model_copy(update={"stored": None}) for b in model.blocks or () if same[b.name] == b.name)
    pattern = tuple(same[kind] for kind in model.pattern or ())
    one_kind = {"blocks": blocks or None, "pattern": pattern if blocks else None}
    return model.model_copy(update={"stored": None, **one_kind})
