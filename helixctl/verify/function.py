"""Function: task by task, the dag computes the equations of the plan's model, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from helixctl.dag import Dag, Tensor
from helixctl.dag.function import Function, function_of
from helixctl.errors import Diagnostic
from helixctl.verify.findings import finding, op_text


def check_function(dag: Dag) -> Iterator[Diagnostic]:
    """The tensors are the model's, and every task computes its tensor's equation (HX411).

    Together with the region proofs this is the whole claim: a compute task makes a region of ``op(inputs)`` for the
    equation that defines its output, a collective moves or sums regions of one tensor, and so every declared value
    holds that region of the tensor that the unpartitioned model computes.
    """
    function = function_of(dag.plan.model, dag.work)
    for name in sorted(function.tensors.keys() - dag.tensor.keys()):
        yield Diagnostic("HX411", f"the model's tensor {name} is missing")
    for tensor in dag.tensors:
        if function.tensors.get(tensor.name) != tensor:
            yield Diagnostic(
                "HX411", f"tensor {tensor.name} is not the model's: {_difference(tensor, function)}", path=tensor.name
            )
    for task in dag.tasks:
        if task.moves:
            for part in task.parts:
                mixed = sorted({dag.value[v].tensor for v in (*part.inputs, *part.outputs)})
                if len(mixed) != 1:
                    yield finding("HX411", dag, task, f"mixes the tensors {', '.join(mixed)}")
            continue
        ins = tuple(dag.value[v].tensor for v in task.inputs)
        outs = tuple(dag.value[v].tensor for v in task.outputs)
        equation = function.defining.get(outs[0])
        if equation is not None and (equation.layer, equation.level) != (task.layer, task.level):
            labels = f"says layer {task.layer}, {task.level}"
            yield finding("HX411", dag, task, f"{labels}; {outs[0]} is of layer {equation.layer}, {equation.level}")
        if equation is None or (equation.op, equation.inputs, equation.outputs) != (task.op, ins, outs):
            want = f"{op_text(equation.op)} of {', '.join(equation.inputs)}" if equation else "given, not computed"
            yield finding(
                "HX411", dag, task, f"computes {op_text(task.op)} of {', '.join(ins)}; in the model {outs[0]} is {want}"
            )


def _difference(tensor: Tensor, function: Function) -> str:
    want = function.tensors.get(tensor.name)
    if want is None:
        return "it has none of this name"
    have = {k: v for k, v in asdict(tensor).items() if v != getattr(want, k)}
    return ", ".join(f"{k} {v}, not {getattr(want, k)}" for k, v in have.items())
