"""Regions: what every task makes, derived from its inputs by the rule of its kind, against what is declared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from helixctl.dag import Dag, Task, Tensor, Value
from helixctl.dag.dry_run import dry_run
from helixctl.dag.formulas import flops, nbytes
from helixctl.errors import Diagnostic
from helixctl.verify.computed import COMPUTED
from helixctl.verify.coverage import check_ownership
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
            message = f"value {value.id} is {value.dtype}; in a {dag.plan.model.dtype} model it is {due}"
            yield Diagnostic("HX413", message, path=value.id)
        if given and value.partial:
            message = f"value {value.id} is declared {partial_text(value.partial)}, but no task made it"
            yield Diagnostic("HX406", message, path=value.id)
    if any(_made(dag, dag.tasks, {})):
        done = dry_run(dag).done  # each task after those that make its inputs
        owned = {_tensor(dag, d): d for d in check_ownership(dag)}
        yield from _made(dag, tuple(dict.fromkeys((*done, *dag.tasks))), owned)


def _tensor(dag: Dag, owned: Diagnostic) -> str:
    """The tensor that a finding of ``check_ownership`` is about."""
    value = dag.value.get(owned.path or "")
    return value.tensor if value else owned.path or ""


def _made(dag: Dag, tasks: Iterable[Task], owned: dict[str, Diagnostic]) -> Iterator[Diagnostic]:
    """The outputs, task by task, each fault once: what reads a wrong one is checked with what it should be.

    ``owned`` has what is wrong with how tensors are owned. Where a task's inputs are so given, they are at fault.
    """
    really: dict[str, Value] = {}
    said: set[str] = set()
    for task in tasks:
        found = list(_of_task(dag, task, really))
        given = [v for v in task.inputs if v not in dag.producer and dag.value[v].tensor in owned] if found else []
        for value in given:
            tensor = dag.value[value].tensor
            if tensor not in said:
                said.add(tensor)
                region = region_text(dag.tensor[tensor], dag.value[value].region)
                message = f"value {value} is declared [{region}], which cannot be: {owned[tensor].message}"
                yield Diagnostic("HX406", message, path=value)
        if given:
            for value in task.outputs:
                really.pop(value, None)
        else:
            yield from found


def _of_task(dag: Dag, task: Task, really: dict[str, Value]) -> Iterator[Diagnostic]:
    """What is wrong with the outputs of a task; ``really`` takes what they should be."""
    try:
        made = RULES[task.kind](dag, task, [really.get(v) or dag.value[v] for v in task.inputs])
    except RuleError as error:
        yield finding("HX406", dag, task, str(error), value=error.value)
        return
    for value_id, want in zip(task.outputs, made, strict=True):
        value = dag.value[value_id]
        if (value.region, value.partial, value.dtype) == want:
            continue
        really[value_id] = replace(value, region=want.region, partial=want.partial, dtype=want.dtype)
        if (value.region, value.partial) != (want.region, want.partial):
            yield finding("HX406", dag, task, _mismatch(dag.tensor[value.tensor], value, want), value=value_id)
        if value.dtype != want.dtype:
            message = f"{value_id} is declared {value.dtype}, but it is {want.dtype}"
            yield finding("HX413", dag, task, message, value=value_id)


def check_costs(dag: Dag) -> Iterator[Diagnostic]:
    """Flops and bytes are what the kind's formulas give (HX412)."""
    for task in dag.tasks:
        inputs = [dag.value[v] for v in task.inputs]
        outputs = [dag.value[v] for v in task.outputs]
        moved = nbytes(task.op, len(task.ranks), inputs, outputs, dag.tensor)
        want = (flops(task.op, inputs, outputs, dag.tensor), moved)
        if (task.flops, task.nbytes) != want:
            have = f"{task.flops} flops and {task.nbytes} bytes"
            yield finding("HX412", dag, task, f"declares {have}; its regions give {want[0]} and {want[1]}")


def _mismatch(tensor: Tensor, value: Value, want: Made) -> str:
    declared = f"[{region_text(tensor, value.region)}; {partial_text(value.partial)}]"
    derived = (
        f"[{region_text(tensor, want.region)}; {partial_text(want.partial)}]"
        if len(want.region) == len(tensor.dims)
        else str(want.region)
    )
    return f"{value.id} is declared {declared}, but the task makes {derived}"
