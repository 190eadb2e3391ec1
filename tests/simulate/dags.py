"""Dags for the simulator: interleaved microbatches, dags of some ranks alone, and tasks of a given length."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from itertools import chain

import pytest

from helixctl.cost.tasks import TaskCosts
from helixctl.dag import Dag, Task


def interleaved(dag: Dag) -> Dag:
    """Two microbatches, task by task in turn, so that one computes while the other communicates."""

    def mixed(order: tuple[str, ...]) -> tuple[str, ...]:
        first, second = ([name for name in order if name.endswith(f".b{b}")] for b in (0, 1))
        return tuple(chain.from_iterable(zip(first, second, strict=True)))

    return replace(dag, order=tuple(mixed(order) for order in dag.order))


def part_of(dag: Dag, ranks: Collection[int]) -> Dag:
    """The orders, tasks and values of some ranks alone."""
    values = tuple(v for v in dag.values if v.rank in ranks)
    known = {v.id for v in values}

    def cut(task: Task) -> Task:
        inputs, outputs = (tuple(v for v in ids if v in known) for ids in (task.inputs, task.outputs))
        return replace(task, inputs=inputs, outputs=outputs)

    return replace(
        dag,
        values=values,
        tasks=tuple(cut(t) for t in dag.tasks if set(ranks) & set(t.ranks)),
        order=tuple(order if rank in ranks else () for rank, order in enumerate(dag.order)),
    )


def tasks_take(monkeypatch: pytest.MonkeyPatch, seconds: Callable[[Task], float]) -> None:
    """Let every task take what the test says."""
    monkeypatch.setattr(TaskCosts, "seconds", lambda self, task: seconds(task))
