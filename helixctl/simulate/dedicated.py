"""Simulation of ranks that each have their own device or core: one pass over the tasks, with one clock per lane."""

from __future__ import annotations

from helixctl.cost.tasks import TaskCosts
from helixctl.dag import Dag, Task
from helixctl.dag.dry_run import dry_run
from helixctl.simulate.timeline import Record, Timeline
from helixctl.simulate.waits import awaited_collectives


def simulate_dedicated(dag: Dag) -> Timeline:
    """The timeline of a step.

    Args:
        dag: the dag; it may be partial, as for ``simulate``.

    Raises:
        ValueError: the dag deadlocks; a proved one does not.
    """
    return _DedicatedSimulation(dag).run()


class _DedicatedSimulation:
    """A dry run that works out the times of every task.

    Its order of tasks contains the order of every rank, so that all clocks of a task are known when its turn comes.
    """

    def __init__(self, dag: Dag) -> None:
        self.dag = dag
        self.ran = dry_run(dag)
        if self.ran.stuck:
            raise ValueError(f"deadlock: {len(self.ran.stuck)} ranks wait for ever")
        self.costs = TaskCosts(dag)
        self.record = Record(dag)
        self.lane_s = [0.0] * len(dag.order)  # when the last collective of each rank's communication lane ends
        self.issued_by = [frozenset(order) for order in dag.order]
        self.waits = awaited_collectives(dag)

    def run(self) -> Timeline:
        for task in self.ran.done:
            if task.is_collective:
                self._communicate(task)
            else:
                self._compute(task)
        record = self.record
        for rank, issued in enumerate(record.issued_s):
            for name in issued:
                record.wait(rank, name, record.end_s[name])
            record.copy(rank, "", record.copies.after_s[rank])
        return record.timeline()

    def _compute(self, task: Task) -> None:
        record, (rank,) = self.record, task.ranks
        self._wait(rank, task)
        begin = record.clock_s[rank]
        record.begin_s[task.id] = begin
        seconds = record.copies.ahead_s[rank].get(task.id, 0.0) + self.costs.seconds(task)
        record.end_s[task.id] = record.clock_s[rank] = begin + seconds

    def _communicate(self, task: Task) -> None:
        record = self.record
        ranks = [rank for rank in task.ranks if task.id in self.issued_by[rank]]
        for rank in ranks:
            self._wait(rank, task)
            record.copy(rank, task.id, record.copies.ahead_s[rank].get(task.id, 0.0))
        begin = max(max(record.clock_s[rank], self.lane_s[rank]) for rank in ranks)
        end = begin + self.costs.seconds(task)
        record.begin_s[task.id], record.end_s[task.id] = begin, end
        for rank in ranks:
            record.issued_s[rank][task.id] = record.clock_s[rank]
            self.lane_s[rank] = end

    def _wait(self, rank: int, task: Task) -> None:
        for name in self.waits[rank].get(task.id, ()):
            self.record.wait(rank, name, self.record.end_s[name])
