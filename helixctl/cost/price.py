"""The price of a dag: step time, what is moved, what is held."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from helixctl.cost.memory import peak_nbytes, weight_nbytes
from helixctl.cost.tasks import crosses_hosts, seconds
from helixctl.dag import Dag, Level
from helixctl.dag.dry_run import dry_run


@dataclass(frozen=True, slots=True)
class Price:
    """A prediction, never a measurement.

    Attributes:
        step_s: seconds of one step.
        communication_s: of it, in collectives that no computation hides (the busiest rank).
        levels: seconds by (level, "compute" or "communication"), summed over the layers, of the busiest rank.
        received_nbytes: bytes that one device receives in a step.
        between_hosts_nbytes: of them, in collectives that cross hosts.
        memory_nbytes: peak of the fullest device.
        weight_nbytes: weights of the fullest device.
        tokens: tokens per step.
    """

    step_s: float
    communication_s: float
    levels: dict[tuple[Level, str], float]
    received_nbytes: int
    between_hosts_nbytes: int
    memory_nbytes: int
    weight_nbytes: int
    tokens: int

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second."""
        return self.tokens / self.step_s


def price(dag: Dag) -> Price:
    """Walk the dag with one clock per rank: a collective starts when its last rank arrives; nothing overlaps."""
    cluster, dtype = dag.plan.cluster, dag.plan.model.dtype
    ranks = dag.plan.layout.devices
    clock, received, between = [0.0] * ranks, [0] * ranks, [0] * ranks
    levels: list[dict[tuple[Level, str], float]] = [defaultdict(float) for _ in range(ranks)]
    for task in dry_run(dag).done:
        begin = max(clock[r] for r in task.ranks)
        took = seconds(task, cluster, dtype)
        crosses = task.is_collective and crosses_hosts(task, cluster)
        for r in task.ranks:
            # Waiting for the last rank counts as communication, as it does on the machine.
            levels[r][task.level, task.lane] += begin + took - clock[r]
            clock[r] = begin + took
            if task.is_collective:
                received[r] += task.nbytes
                between[r] += task.nbytes if crosses else 0
    busiest = max(range(ranks), key=clock.__getitem__)
    return Price(
        step_s=clock[busiest],
        communication_s=sum(s for (_, lane), s in levels[busiest].items() if lane == "communication"),
        levels=dict(levels[busiest]),
        received_nbytes=max(received),
        between_hosts_nbytes=max(between),
        memory_nbytes=max(peak_nbytes(dag)),
        weight_nbytes=max(weight_nbytes(dag)),
        tokens=dag.plan.workload.tokens,
    )
