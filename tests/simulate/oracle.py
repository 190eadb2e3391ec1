"""A second model of a step, written with simpy: a process per rank and one per communication lane."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import simpy

from helixctl.cost.tasks import seconds
from helixctl.dag import Dag, Task

Process = Generator[simpy.Event, Any, None]


class Oracle:
    def __init__(self, dag: Dag) -> None:
        self.dag = dag
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
            if task.is_collective:
                issued.append(name)
                yield self.lanes[rank].put(name)
            else:
                begin = self.env.now
                yield self.env.timeout(seconds(self.dag, task))
                self.spans[name, rank] = (begin, self.env.now)
        yield self.env.all_of([self.ended[name] for name in issued])

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
