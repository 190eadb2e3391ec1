"""The same dag in another dtype: what `helixctl run --dtype` executes."""

from __future__ import annotations

from dataclasses import replace

from helixctl.dag.document import Dag, Value
from helixctl.dag.formulas import nbytes
from helixctl.plan import Plan
from helixctl.spec import Dtype


def accumulator(dtype: Dtype) -> Dtype:
    """The dtype of a partial sum: float32, or float64 where the model is float64."""
    return "float64" if dtype == "float64" else "float32"


def retyped(dag: Dag, dtype: Dtype) -> Dag:
    """The dag of the same plan with the model's dtype replaced; the document's order of tasks must be a valid one."""
    if dtype == dag.plan.model.dtype:
        return dag
    old = dag.plan
    plan = Plan.of(old.model.model_copy(update={"dtype": dtype}), old.cluster, old.workload, old.layout)
    values: dict[str, Value] = {v.id: replace(v, dtype=dtype) for v in dag.values}
    tasks = []
    for task in dag.tasks:
        for value_id in task.outputs:
            wide = values[value_id].partial or (task.is_collective and values[task.inputs[0]].dtype != dtype)
            values[value_id] = replace(values[value_id], dtype=accumulator(dtype) if wide else dtype)
        ins, outs = [values[v] for v in task.inputs], [values[v] for v in task.outputs]
        tasks.append(replace(task, nbytes=nbytes(task.op, ins, outs)))
    return replace(dag, plan=plan, plan_digest=plan.digest, values=tuple(values.values()), tasks=tuple(tasks))
