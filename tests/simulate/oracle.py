"""A second model of a step, written with simpy: a process per rank and one per communication lane."""

from __future__ import annotations

from collections.abc import Generator
from math import prod
from typing import Any

import simpy

from helixctl.cost.compute import copy_cost
from helixctl.cost.tasks import seconds
from helixctl.dag import Dag, Task
from helixctl.program import Copy, program_of
from helixctl.spec import DTYPE_NBYTES

Process = Generator[simpy.Event, Any, None]


def copies_of(dag: Dag, rank: int) -> dict[int, float]:
    """Seconds of copies ahead of each place of a rank's order: what is read and written, and the start of a kernel."""
    found: dict[int, float] = {}
    for action in program_of(dag, rank).actions:
        if isinstance(action, Copy):
            for target, source in action.pairs:
                assert target.sizes == source.sizes
                nbytes = 2 * prod(target.sizes) * DTYPE_NBYTES[target.dtype]
                cost = copy_cost(dag, rank, target.dtype, nbytes).seconds
                found[action.place] = found.get(action.place, 0.0) + cost
    return found


class Oracle:
    def __init__(self, dag: Dag) -> None:
        self.dag = dag
        self.copies = [copies_of(dag, rank) if order else {} for rank, order in enumerate(dag.order)]
        self.env = simpy.Environment()
        self.spans: dict[tuple[str, int], tuple[float, float]] = {}
        self.lanes = [simpy.Store(self.env) for _ in dag.order]
        self.collectives = [t for t in dag.tasks if t.is_collective]
        self.ended = {t.id: self.env.event() for t in self.collectives}
        self.at_head = {t.id: {r: self.env.event() for r in t.ranks if t.id in dag.order[r]} for t in self.collectives}

    def run(self) -> dict[tuple[str, int], tuple[float, float]]:
        for task in self.collectives:
            self.env.process(self.collective(task))
        for rank in range(len(self.dag.order)):
            self.env.process(self.rank(rank))
            self.env.process(self.lane(rank))
        self.env.run()
        return self.spans

    def rank(self, rank: int) -> Process:
        issued = []
        sent: str | None = None
        issued_or_run: list[str] = []
        for name in self.dag.order[rank]:
            task = self.dag.task[name]
            for value in task.inputs:
                maker = self.dag.producer.get(value)
                if self.dag.value[value].rank == rank and maker is not None and maker.is_collective:
                    yield self.ended[maker.id]
            if task.kind == "send_receive" and task.ranks[0] == rank:
                if sent is not None:
                    yield self.ended[sent]
                sent = name
            copying = self.copies[rank].get(len(issued_or_run), 0.0)
            issued_or_run.append(name)
            if task.is_collective:
                issued.append(name)
                yield self.env.timeout(copying)
                yield self.lanes[rank].put(name)
            else:
                begin = self.env.now
                yield self.env.timeout(copying + seconds(self.dag, task))
                self.spans[name, rank] = (begin, self.env.now)
        yield self.env.all_of([self.ended[name] for name in issued])
        yield self.env.timeout(self.copies[rank].get(len(issued_or_run), 0.0))

    def lane(self, rank: int) -> Process:
        for _ in range(sum(self.dag.task[name].is_collective for name in self.dag.order[rank])):
            name = yield self.lanes[rank].get()
            self.at_head[name][rank].succeed()
            yield self.ended[name]

    def collective(self, task: Task) -> Process:
        heads = self.at_head[task.id]
        yield self.env.all_of(list(heads.values()))
        begin = self.env.now
        yield self.env.timeout(seconds(self.dag, task))
        self.spans |= {(task.id, rank): (begin, self.env.now) for rank in heads}
        self.ended[task.id].succeed()
