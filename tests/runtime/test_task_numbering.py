"""One numbering for the tasks of several dags."""

from __future__ import annotations

from helixctl_runtime.measure.task_numbering import TaskNumbering
from tests.documents import SMALL, dag_of
from tests.runtime.unusual import MODEL


def test_a_number_is_a_task_of_one_dag() -> None:
    """As the launcher asks: the number is the one in the cell, less one, and ranks have orders of different lengths."""
    dags = [dag_of(SMALL, 1, 1, *MODEL, pipeline=2), dag_of(SMALL, 2, 1, *MODEL)]
    numbering = TaskNumbering(dags, ["staged", "cut"])
    assert numbering.first(0) == 0
    for which, (dag, name) in enumerate(zip(dags, numbering.names, strict=True)):
        for rank, order in enumerate(dag.order):
            found = [numbering.name(rank, numbering.first(which) + place) for place in range(len(order))]
            assert found == [f"{task} ({name})" for task in order]
    assert numbering.name(0, numbering.first(1) - 1) == "the start (cut)"


def test_a_dag_alone_needs_no_name() -> None:
    dag = dag_of(SMALL, 2, 1, *MODEL)
    assert [TaskNumbering([dag], ["x"]).name(1, place) for place in range(len(dag.order[1]))] == list(dag.order[1])
