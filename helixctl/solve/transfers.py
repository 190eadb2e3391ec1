"""What the way from one pipeline stage to the next takes a microbatch at least."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

from helixctl.cost.tasks import seconds
from helixctl.dag import Dag, Tensor
from helixctl.lower import OutlinedTask, outline_of, task_of
from helixctl.plan import Layout, Plan
from helixctl.plan.layout import Microbatch
from helixctl.plan.sharding import Shares, residual
from helixctl.plan.steps import new_tokens, step_of
from helixctl.solve.axes import of_the_residual_stream
from helixctl.spec import ClusterSpec, ModelSpec, Step, StepName, WorkloadSpec


@dataclass(slots=True)
class Transfers:
    """The transfers between the stages of the layouts of one problem; equal ones are priced once."""

    model: ModelSpec
    cluster: ClusterSpec
    workload: WorkloadSpec
    step: StepName | None = None
    _seconds: dict[object, list[float]] = field(default_factory=dict, init=False)
    _outlines: dict[object, tuple[OutlinedTask, Mapping[str, Tensor]]] = field(default_factory=dict, init=False)

    def between_stages(self, layout: Layout, sequences: int) -> list[float]:
        """Seconds from each stage to the next, on the first rank of the first replica.

        Args:
            layout: its stages.
            sequences: of a microbatch.
        """
        if layout.pipeline == 1:
            return []
        key = (sequences, self.sizes(layout))
        if key not in self._seconds:
            self._seconds[key] = self._priced(layout, sequences)
        across = self._seconds[key]
        ranks = [layout.rank(0, 0, stage) for stage in range(layout.pipeline)]
        sizes = self.cluster.only.domain_sizes
        levels = [sum([one // size != other // size for size in sizes]) for one, other in pairwise(ranks)]
        return [across[level] for level in levels]

    def sizes(self, layout: Layout) -> object:
        """Equal where stages send as much for each sequence."""
        return new_tokens(self.workload, layout, self.step), of_the_residual_stream(layout)

    def _priced(self, layout: Layout, sequences: int) -> list[float]:
        """Seconds inside the innermost domain of links, from there to another of the next level, up to another host."""
        devices = self.cluster.devices
        nearest = (1, *self.cluster.only.domain_sizes)
        return [self._sent(layout, sequences, (0, size)) if size < devices else 0.0 for size in nearest]

    def _sent(self, layout: Layout, sequences: int, ranks: tuple[int, int]) -> float:
        """Seconds of what the first rank of a stage receives, between two ranks."""
        shares = Shares(layout, self.model, self._step(layout))
        outlined, tensors = self._outlined(layout, sequences)
        task, values = task_of(outlined, "sent", tensors, shares, 0, Microbatch((0, sequences), (0, sequences)), ranks)
        plan = Plan.sketch(self.model, self.cluster, self._step(layout), layout)
        return seconds(Dag(plan, "", tuple(tensors.values()), tuple(values), (task,), ()), task)

    def _outlined(self, layout: Layout, sequences: int) -> tuple[OutlinedTask, Mapping[str, Tensor]]:
        """The transfer to the first rank of the second of two stages of one layer each, in one microbatch."""
        step = self._step(layout)
        stream = (residual(layout, step), step.seq_len)
        if stream not in self._outlines:
            plain = {"pipeline": 2, "data": 1, "microbatches": 1, "interleave": 1, "stages": None, "batch_shares": None}
            plain |= {"expert_data": 1, "experts": 1} if layout.expert_data > 1 else {}
            two = layout.model_copy(update=plain)
            model = self.model.model_copy(update={"layers": 2, "vocabulary": None})
            sketch = Plan.sketch(model, self.cluster, replace(step, batch=sequences), two)
            outline = outline_of(sketch, two.team(1, 0)[0])
            task = next(task for task in outline.tasks if task.level == "transfer")  # the residual stream's
            self._outlines[stream] = task, outline.tensors
        return self._outlines[stream]

    def _step(self, layout: Layout) -> Step:
        return step_of(self.workload, layout, self.step)
