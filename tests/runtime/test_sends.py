"""A rank goes on computing while it sends: it waits for a send at its next one, and for the last at the step's end."""

from __future__ import annotations

import pytest
import torch

from helixctl.dag import Dag, SendReceive
from helixctl_runtime.compile import compile_rank
from helixctl_runtime.compile.bound import Action, BoundProgram, Compute, Exchange, Wait
from tests.documents import SMALL, dag_of
from tests.liveness import last_needed
from tests.runtime.unusual import MODEL

STAGES = {"pipeline": 2, "microbatches": 3}


@pytest.fixture(scope="module")
def dag() -> Dag:
    """Two stages of one rank each; rank 0 sends three microbatches."""
    return dag_of(SMALL, 1, 1, *MODEL, "workload.batch=6", **STAGES)


def program_of(dag: Dag, rank: int) -> BoundProgram:
    device = torch.device("cpu")
    return compile_rank(dag, rank, device, lambda v: torch.ones(v.shape, dtype=torch.float64))


def sends(actions: tuple[Action, ...]) -> list[Exchange]:
    return [a for a in actions if isinstance(a, Exchange) and isinstance(a.task.op, SendReceive)]


def test_a_sender_computes_between_a_send_and_its_wait(dag: Dag) -> None:
    actions = program_of(dag, 0).actions
    first, second, last = sends(actions)
    for exchange, following in ((first, second), (second, last)):
        wait, issue = actions.index(Wait(exchange.place, exchange)), actions.index(exchange)
        assert wait == actions.index(following) - 1
        assert any(isinstance(a, Compute) for a in actions[issue:wait])
    assert actions[-1] == Wait(last.place, last)
    assert sum(isinstance(a, Wait) for a in actions) == 3


def test_a_receiver_waits_at_the_first_use(dag: Dag) -> None:
    actions = program_of(dag, 1).actions
    exchange = sends(actions)[0]
    assert isinstance(actions[actions.index(Wait(exchange.place, exchange)) + 1], Compute)


def test_what_is_sent_is_needed_until_the_next_send(dag: Dag) -> None:
    """The memory proof and the executor's buffers follow the same rule."""
    order, last = dag.order[0], last_needed(dag, 0)
    tasks = [dag.task[name] for name in order if isinstance(dag.task[name].op, SendReceive)]
    places = [order.index(t.id) for t in tasks]
    assert [last[t.inputs[0]] for t in tasks] == [places[1], places[2], len(order)]


def test_memory_that_is_being_sent_is_not_written(dag: Dag) -> None:
    actions = program_of(dag, 0).actions
    buffers = [e.send.data_ptr() for e in sends(actions)]
    assert buffers[0] != buffers[1]
    assert buffers[1] != buffers[2]
