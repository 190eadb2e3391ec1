"""The executor takes every dag that the proof accepts, not only those that ``lower`` makes; and in any order of events.

The numbers are float64: what is not right to rounding is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

import pytest
import torch

from helixctl.dag import Dag, Task
from helixctl.verify import verify
from helixctl_runtime.comm.collectives import exchange_together
from helixctl_runtime.compile.bound import BoundProgram, Compute, Exchange
from helixctl_runtime.measure.walk import fused
from tests.documents import SMALL, dag_of
from tests.runtime.models import real
from tests.runtime.together import Ran, computes, run_together
from tests.runtime.unusual import MODEL, REFUSED, VALID, Case, put_off_uses

EACH = [
    pytest.param(case, *layout, id=f"{name}, {layout[0]} x {layout[1]}")
    for name, case in VALID.items()
    for layout in case.layouts
]
LARGEST = [pytest.param(case, *case.layouts[-1], id=name) for name, case in VALID.items()]
INTERLEAVINGS = 6


@pytest.mark.parametrize("late", [False, True], ids=["in order", "uses put off"])
@pytest.mark.parametrize(("case", "groups", "slices"), EACH)
def test_an_unusual_dag_computes_the_model(case: Case, groups: int, slices: int, late: bool) -> None:
    dag = case.dag(groups, slices)
    runs_right(put_off_uses(dag) if late else dag)


@pytest.mark.parametrize(("case", "codes"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_run_is_refused(case: Case, codes: set[str]) -> None:
    assert {found.code for found in verify(case.dag(2, 2))} == codes


@pytest.mark.parametrize("late", [False, True], ids=["in order", "uses put off"])
@pytest.mark.parametrize(("case", "groups", "slices"), LARGEST)
def test_an_unusual_dag_in_any_order_of_events(case: Case, groups: int, slices: int, late: bool) -> None:
    dag = case.dag(groups, slices)
    dag = put_off_uses(dag) if late else dag
    runs_right_in_any_order_of_events(dag)


@pytest.mark.parametrize("late", [False, True], ids=["in order", "uses put off"])
@pytest.mark.parametrize(
    "axes",
    [
        {},
        {"microbatches": 2},
        {"microbatches": 2, "combine": "reduce"},
        {"microbatches": 2, "gather_order": "groups_first"},
        {"microbatches": 2, "pipeline": 2},
    ],
    ids=str,
)
def test_what_we_lower_in_any_order_of_events(axes: dict[str, int | str], late: bool) -> None:
    dag = dag_of(SMALL, 2, 2, *MODEL, **axes)
    runs_right_in_any_order_of_events(put_off_uses(dag) if late else dag)


@pytest.mark.parametrize("late", [False, True], ids=["in order", "uses put off"])
@pytest.mark.parametrize("combine", ["concat", "reduce"])
@pytest.mark.parametrize("slicing", ["batch", "query"])
def test_uneven_exchanges_in_any_order_of_events(slicing: str, combine: str, late: bool) -> None:
    axes = {"slicing": slicing, "combine": combine, "microbatches": 2, "interleave": 2}
    dag = real(2, 3, {"dtype": "float64"}, **axes)
    runs_right_in_any_order_of_events(put_off_uses(dag) if late else dag)


def runs_right(dag: Dag) -> Ran:
    """The dag is proved to compute the model, by its layout or not; and every value of the output is right."""
    assert computes(dag)
    ran = run_together(dag)
    assert len(ran.outputs) >= len(dag.order)
    assert ran.error < 1e-12
    return ran


def runs_right_in_any_order_of_events(dag: Dag) -> None:
    """Some ways in which the ranks may run beside each other give the same bits as task by task."""
    ran = runs_right(dag)
    expected = [output.clone() for output in ran.outputs]
    for seed in range(INTERLEAVINGS):
        for output in ran.outputs:
            output.fill_(float("nan"))
        with fused(ran.programs):
            walk_apart(ran.programs, Random(seed))
        assert all(torch.equal(*pair) for pair in zip(ran.outputs, expected, strict=True)), f"seed {seed}"


# --- ranks that run apart --------------------------------------------------------------------------------------------


@dataclass
class Flight:
    """A collective that some of its ranks have issued. It reads what they send at one moment, writes rank by rank."""

    task: Task
    issued: dict[int, Exchange] = field(default_factory=dict)
    results: dict[int, torch.Tensor] = field(default_factory=dict)
    written: set[int] = field(default_factory=set)

    @property
    def may_land(self) -> bool:
        """All ranks have issued it, and some still lack the result."""
        return len(self.issued) == len(self.task.ranks) > len(self.written)

    def land(self, ranks: tuple[int, ...]) -> None:
        """Write the result to these ranks, where it is not written yet."""
        if not self.results:
            sent = [self.issued[rank] for rank in self.task.ranks]
            moved = [replace(e, receive=torch.empty_like(e.receive)) for e in sent]
            exchange_together(moved)
            self.results = {rank: e.receive for rank, e in zip(self.task.ranks, moved, strict=True)}
        for rank in set(ranks) - self.written:
            self.issued[rank].receive.copy_(self.results[rank])
            self.written.add(rank)


def walk_apart(programs: list[BoundProgram], random: Random) -> None:
    """One step of all ranks as ``Walker`` and torch.distributed may run it: in one of all the orders of events.

    Each rank does its actions in their order, as far ahead of the others or behind as chance will have it. A collective
    reads what is sent at any moment after the last of its ranks has issued it and before it first writes; it writes a
    rank's buffer at any moment from then on, at the latest when that rank waits for it. So a buffer that is used again
    between the issue and the wait gives wrong numbers for some orders.

    Where all is well every order gives the same numbers. ``random`` picks the order; some of them have all collectives
    as early, or as late, as can be.
    """
    haste = random.choice((0.0, 0.1, 1.0))
    flights: dict[str, Flight] = {}
    left = {program.rank: list(reversed(program.actions)) for program in programs}
    while any(left.values()):
        rank = random.choice([rank for rank, actions in left.items() if actions])
        for _ in range(random.choice((1, 2, 5, 50))):
            if not left[rank] or not _act(left[rank][-1], rank, flights):
                break
            left[rank].pop()
            for flight in flights.values():
                if flight.may_land and random.random() < haste:
                    flight.land(random.choice((flight.task.ranks, flight.task.ranks[:1], flight.task.ranks[-1:])))


def _act(action: object, rank: int, flights: dict[str, Flight]) -> bool:
    """Do an action; false if it is to wait for a rank that has not issued the collective."""
    if isinstance(action, Compute):
        action.run()
    elif isinstance(action, Exchange):
        assert action.send.is_contiguous()
        assert action.receive.is_contiguous()
        flights.setdefault(action.task.id, Flight(action.task)).issued[rank] = action
    else:
        flight = flights[action.exchange.task.id]  # type: ignore[attr-defined]
        if len(flight.issued) < len(flight.task.ranks):
            return False
        flight.land((rank,))
    return True
