"""Regions: what every task makes, derived from its inputs by the rule of its kind, against what is declared."""

from __future__ import annotations

from collections.abc import Iterator

from helixctl.dag import Dag, Task, Tensor, Value
from helixctl.dag.formulas import flops, nbytes
from helixctl.errors import Diagnostic
from helixctl.verify.computed import COMPUTED
from helixctl.verify.exchanged import EXCHANGED
from helixctl.verify.findings import finding, partial_text, region_text
from helixctl.verify.rule import Made, RuleError

RULES = {**COMPUTED, **EXCHANGED}


def check_regions(dag: Dag) -> Iterator[Diagnostic]:
    """Every output is what its task makes of its inputs: region and partial sum (HX406), dtype (HX413)."""
    for value in dag.values:
        given = value.id not in dag.producer
        due = dag.tensor[value.tensor].given_dtype(dag.plan.model.dtype)
        if given and value.dtype != due:
            yield Diagnostic(
                "HX413", f"value {value.id} is {value.dtype}; in a {dag.plan.model.dtype} model it is {due}"
            )
        if given and value.partial:
            yield Diagnostic(
                "HX406", f"value {value.id} is declared {partial_text(value.partial)}, but no task made it"
            )
    for task in dag.tasks:
        try:
            made = derive(dag, task)
        except RuleError as error:
            yield finding("HX406", dag, task, str(error))
            continue
        for value_id, want in zip(task.outputs, made, strict=True):
            value = dag.value[value_id]
            if (value.region, value.partial) != (want.region, want.partial):
                yield finding("HX406", dag, task, _mismatch(dag.tensor[value.tensor], value, want))
            if value.dtype != want.dtype:
                yield finding("HX413", dag, task, f"{value_id} is declared {value.dtype}, but it is {want.dtype}")


def check_costs(dag: Dag) -> Iterator[Diagnostic]:
    """Flops and bytes are what the kind's formulas give (HX412)."""
    for task in dag.tasks:
        inputs = [dag.value[v] for v in task.inputs]
        outputs = [dag.value[v] for v in task.outputs]
        want = (flops(task.op, inputs, outputs, dag.tensor), nbytes(task.op, len(task.ranks), inputs, outputs))
        if (task.flops, task.nbytes) != want:
            have = f"{task.flops} flops and {task.nbytes} bytes"
            yield finding("HX412", dag, task, f"declares {have}; its regions give {want[0]} and {want[1]}")


def derive(dag: Dag, task: Task) -> list[Made]:
    """The outputs of a task by the rule of its kind.

    Raises:
        RuleError: the inputs do not fit each other.
    """
    return RULES[task.kind](dag, task, [dag.value[v] for v in task.inputs])


def _mismatch(tensor: Tensor, value: Value, want: Made) -> str:
    declared = f"[{region_text(tensor, value.region)}; {partial_text(value.partial)}]"
    derived = (
        f"[{region_text(tensor, want.region)}; {partial_text(want.partial)}]"
        if len(want.region) == len(tensor.dims)
        else str(want.region)
    )
    return f"{value.id} is declared {declared}, but the task makes {derived}"
