"""The same dag in another dtype: what `helixctl run --dtype` executes."""

from __future__ import annotations

from dataclasses import replace

from helixctl.dag.document import Dag, Value
from helixctl.dag.dry_run import dry_run
from helixctl.dag.formulas import nbytes
from helixctl.dag.ops import made_dtype
from helixctl.plan import Plan
from helixctl.spec import Dtype


def retyped(dag: Dag, dtype: Dtype) -> Dag:
    """The dag of the same plan with the model's dtype replaced. The dag must be free of deadlock."""
    if dtype == dag.plan.model.dtype:
        return dag
    old = dag.plan
    plan = Plan.of(old.model.model_copy(update={"dtype": dtype}), old.cluster, old.workload, old.layout)
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
