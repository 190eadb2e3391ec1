"""What the way from one pipeline stage to the next takes a microbatch at least."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

from helixctl.cost.tasks import TaskCosts
from helixctl.dag import Dag, Task
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.solve.axes import of_the_residual_stream
from helixctl.spec import ClusterSpec, ModelSpec, WorkloadSpec


@dataclass(slots=True)
class Transfers:
    """The transfers between the stages of the layouts of one problem; equal ones are priced once."""

    model: ModelSpec
    cluster: ClusterSpec
    workload: WorkloadSpec
    _seconds: dict[object, tuple[float, float]] = field(default_factory=dict, init=False)

    def between_stages(self, layout: Layout, sequences: int) -> list[float]:
        """Seconds from each stage to the next, on the first rank of the first replica.

        Args:
            layout: its stages.
            sequences: of a microbatch.
        """
        if layout.pipeline == 1:
            return []
        key = (sequences, *of_the_residual_stream(layout))
        if key not in self._seconds:
            self._seconds[key] = self._priced(layout, sequences)
        within, between = self._seconds[key]
        hosts = [self.cluster.host_of(layout.rank(0, 0, stage)) for stage in range(layout.pipeline)]
        return [within if one == other else between for one, other in pairwise(hosts)]

    def _priced(self, layout: Layout, sequences: int) -> tuple[float, float]:
        """Seconds inside a host and between two."""
        dag = self._sketch(layout, sequences)
        tasks = [task for task in dag.tasks if task.level == "transfer" and len(task.ranks) == 2]  # noqa: PLR2004
        size = self.cluster.devices_per_host
        within = _seconds(dag, tasks, (0, 1)) if size > 1 else 0.0
        return within, _seconds(dag, tasks, (0, size)) if self.cluster.hosts > 1 else 0.0

    def _sketch(self, layout: Layout, sequences: int) -> Dag:
        """The first rank of the second of two stages of one layer each, in one microbatch."""
        plain = {"pipeline": 2, "data": 1, "microbatches": 1, "interleave": 1}
        two = layout.model_copy(update=plain)
        model = self.model.model_copy(update={"layers": 2, "vocabulary": None})
        workload = self.workload.model_copy(update={"batch": sequences})
        return lower(Plan.sketch(model, self.cluster, workload, two), only={two.team(1, 0)[0]})


def _seconds(dag: Dag, tasks: list[Task], ranks: tuple[int, int]) -> float:
    """What tasks between two ranks would take between these two, one after the other."""
    costs = TaskCosts(dag)
    return sum(costs.seconds(replace(task, ranks=ranks)) for task in tasks)
