"""Measuring on gloo ranks: steps begin together, dags take turns, and a trace shows what computation hides.

Programs are made by hand here: a computation sleeps, so that how long it takes is known. All times are multiplied by
how slow the machine is: what is no sleep must be short beside one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from helixctl.dag import AllReduce, SendReceive, Task
from helixctl_runtime.comm.group import Group
from helixctl_runtime.compile.bound import Action, BoundProgram, Compute, Exchange, Wait
from helixctl_runtime.measure.measure import StepTimes, affordable, measure
from helixctl_runtime.ranks import Rank, run_ranks
from tests.speed import slowness

PAIR = (0, 1)


def sleep(place: int, seconds: float) -> Compute:
    return Compute(place, lambda: time.sleep(seconds))


def exchange(place: int, op: Any) -> Exchange:
    task = Task("t", 0, "project", op, PAIR, (), (), 0, 0)
    data = torch.ones(8)
    return Exchange(place, task, data, data)


def program(rank: int, *actions: Action) -> BoundProgram:
    tasks = 1 + max(a.place for a in actions)
    return BoundProgram(rank, tasks, actions, {}, {}, frozenset(), 0, 0)


def on_ranks(
    make: Callable[[Rank], list[BoundProgram]], ranks: int = 2, **steps: float | None
) -> list[list[StepTimes]]:
    """What each rank measured of each of its programs."""

    def work(rank: Rank) -> list[StepTimes]:
        rank.init_process_group()
        processes = rank.new_groups([PAIR] if ranks > 1 else [])
        groups = {its: Group(process) for its, process in processes.items()}
        programs = make(rank)
        first = [10 * which for which in range(len(programs))]
        return measure(programs, first, groups, rank, **{"warmup": 1, "iters": 3, "trace_steps": 2} | steps)

    found: Any = run_ranks(work, world_size=ranks, device="cpu", timeout=60, task_name=lambda r, p: str(p))
    return found


def test_ranks_begin_a_step_together() -> None:
    """The second stage of a pipeline waits for the first in every step; else they would work side by side."""
    slow = slowness()

    def make(rank: Rank) -> list[BoundProgram]:
        send = exchange(1 - rank.rank, SendReceive())
        if rank.rank:
            return [program(1, send, Wait(0, send), sleep(1, 0.05 * slow))]
        return [program(0, sleep(0, 0.05 * slow), send, Wait(1, send))]

    (first,), (second,) = on_ranks(make, warmup=5)
    assert min(first.step_s) >= 0.05 * slow
    assert min(second.step_s) >= (0.1 - 0.01) * slow
    # Three steps; with the warm-up it would be eight.
    assert 3 * (0.05 - 0.01) * slow <= second.communication_s < 0.3 * slow


def test_programs_take_turns() -> None:
    """The order of the steps, and what the launcher is told of each: the step, and the task counted from its first."""

    def make(rank: Rank) -> list[BoundProgram]:
        def tell(name: str) -> Compute:
            return Compute(0, lambda: seen.append((name, *rank.progress.cell[:2])))

        return [program(0, tell("a")), program(0, tell("b"))]

    seen: list[tuple[str, int, int]] = []

    def work(rank: Rank) -> list[tuple[str, int, int]]:
        rank.init_process_group()
        measure(make(rank), [0, 10], {}, rank, warmup=1, iters=2, trace_steps=1)
        return seen

    (found,) = run_ranks(work, world_size=1, device="cpu", timeout=60, task_name=lambda r, p: str(p))
    assert found == [(name, begun, step) for step in range(4) for name, begun in (("a", 1), ("b", 11))]


def test_a_collective_is_on_its_way_until_it_is_complete() -> None:
    """Not until it is waited for: the rank learns of that only then."""
    slow = slowness()

    def make(rank: Rank) -> list[BoundProgram]:
        reduce = exchange(0, AllReduce())
        return [program(rank.rank, reduce, sleep(1, 0.2 * slow), Wait(0, reduce))]

    for (measured,) in on_ranks(make, iters=1, trace_steps=2):
        assert measured.step_s[0] >= 0.2 * slow
        for step in measured.traced:
            (begin, end), (computing, computed) = step.tasks
            assert begin < end < begin + 0.1 * slow
            assert computed - computing >= 0.2 * slow
            assert [place for place, _, _ in step.exposed] == [0, 0]
            assert step.begin_s <= begin < computed <= step.exposed[1][1] <= step.exposed[1][2] <= step.end_s


def test_a_rank_that_waits_is_exposed_and_one_that_computes_is_not() -> None:
    """Rank 1 comes late: rank 0 computes for some of the time, and waits for the rest."""
    slow = slowness()

    def make(rank: Rank) -> list[BoundProgram]:
        reduce = exchange(1, AllReduce())
        before, after = ((0, 0.1 * slow), (0.2 * slow, 0))[rank.rank]
        copy = sleep(1, 0.05 * slow)  # made for the collective, which begins after it
        return [program(rank.rank, sleep(0, before), copy, reduce, sleep(2, after), Wait(1, reduce))]

    (early,), (late,) = on_ranks(make, iters=1, trace_steps=1)
    assert early.communication_s >= (0.1 - 0.02) * slow
    assert late.communication_s < 0.1 * slow
    (step,) = early.traced
    begin, end = step.tasks[1]
    assert begin - step.begin_s >= 0.05 * slow
    assert end - begin >= (0.2 - 0.02) * slow
    assert sum(stop - start for _, start, stop in step.exposed) < (0.2 - 0.02) * slow


def test_a_copy_belongs_to_its_computation() -> None:
    """A task of several actions takes from the first to the last; what comes after all tasks belongs to none."""

    def make(rank: Rank) -> list[BoundProgram]:
        made = program(0, sleep(0, 0.01), sleep(0, 0.02), sleep(1, 0.03))
        return [BoundProgram(0, 1, made.actions, {}, {}, frozenset(), 0, 0)]

    ((measured,),) = on_ranks(make, ranks=1, iters=1, trace_steps=1)
    ((begin, end),) = measured.traced[0].tasks
    assert 0.03 <= end - begin < measured.traced[0].end_s - measured.traced[0].begin_s - 0.03


def test_a_task_that_is_merged_into_the_next_takes_no_time() -> None:
    """It has no action: it begins and ends where the next one begins."""

    def make(rank: Rank) -> list[BoundProgram]:
        return [program(0, sleep(0, 0.01), sleep(2, 0.02), sleep(3, 0.01))]

    ((measured,),) = on_ranks(make, ranks=1, iters=1, trace_steps=1)
    first, merged, both, last = measured.traced[0].tasks
    assert first[1] <= merged[0] == merged[1] == both[0] < both[1] <= last[0]


@pytest.mark.parametrize(
    ("step_s", "steps"),
    [(0.001, (100, 1000)), (0.0545455, (50, 500)), (1.0, (3, 27)), (60.0, (3, 5)), (0.0, (100, 1000))],
)
def test_steps_that_a_budget_affords(step_s: float, steps: tuple[int, int]) -> None:
    found = affordable(step_s, 30.0, (100, 1000))
    assert found == pytest.approx(steps, abs=1)


def test_a_budget_decides_how_many_steps_are_measured() -> None:
    """All ranks take the same."""

    def make(rank: Rank) -> list[BoundProgram]:
        return [program(rank.rank, sleep(0, 0.001))]

    (first,), (second,) = on_ranks(make, warmup=None, iters=None, budget_s=0.2)
    assert len(first.step_s) == len(second.step_s) >= 5
    assert first.warmup == second.warmup >= 3
    (given,), _ = on_ranks(make, warmup=0, iters=None, budget_s=0.2)
    assert given.warmup == 1
    (iters,), _ = on_ranks(make, warmup=None, iters=7, budget_s=0.2)
    assert len(iters.step_s) == 7
