"""Which tasks have no kernel of their own: the kernel of the next task computes both.

An activation is merged into the product that directly follows it where nobody else reads what it makes: f(gate) * up is
three passes over memory instead of five. What the activation makes is then nowhere in memory. The program asks here
what a kernel computes, and so does the price of a task (docs/adr/0040-gated-products.md).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final, Literal

from helixctl.dag import Activation, Dag, Multiply, Task

# Whether a task has a kernel of its own, is computed by that of the next task, or computes the task before as well.
Kernel = Literal["own", "next", "both"]

# What is merged, and into what.
PAIRS: Final[tuple[tuple[type, type], ...]] = ((Activation, Multiply),)


def merged(dag: Dag, rank: int) -> dict[str, Task]:
    """The tasks of a rank that are merged into the next one.

    Args:
        dag: the whole, or a part that has this rank's tasks.
        rank: whose order is looked at.

    Returns:
        By the id of a task that computes the one before it as well: that one.
    """
    order = dag.order[rank]
    found: dict[str, tuple[Task, Task]] = {}  # by the value between them
    for name, following in pairwise(order):
        task, then = dag.task[name], dag.task[following]
        if any(isinstance(task.op, first) and isinstance(then.op, last) for first, last in PAIRS):
            (between,) = task.outputs
            if then.inputs.count(between) == 1 and _elementwise(dag, task, then):
                found[between] = task, then
    for name in order if found else ():
        for value in dag.task[name].inputs:
            if value in found and found[value][1].id != name:
                del found[value]
    return {then.id: task for task, then in found.values()}


def kernels(dag: Dag, rank: int) -> dict[str, Kernel]:
    """The tasks of a rank that a kernel does not compute alone, by their ids.

    Args:
        dag: as of ``merged``.
        rank: as of ``merged``.
    """
    found: dict[str, Kernel] = {}
    for name, before in merged(dag, rank).items():
        found[name], found[before.id] = "both", "next"
    return found


def _elementwise(dag: Dag, task: Task, then: Task) -> bool:
    """Whether all values are of one dtype, as one kernel takes them, and the one between is no output of the model."""
    values = [dag.value[v] for v in (*task.inputs, *then.inputs, *then.outputs)]
    return len({v.dtype for v in values}) == 1 and dag.tensor[dag.value[task.outputs[0]].tensor].role != "output"
