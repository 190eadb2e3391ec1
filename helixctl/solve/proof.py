"""What is proved of a plan: its whole dag, or where that is large the part of it that all else is a copy of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from helixctl.cost.memory import peak_nbytes, state_nbytes, weight_nbytes
from helixctl.dag import Dag
from helixctl.errors import Diagnostic, HelixError
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.plan.layout import chunk
from helixctl.plan.size import MANY_TASKS, about, too_large
from helixctl.program import Programs, programs_of
from helixctl.progress import at
from helixctl.records import record
from helixctl.solve.candidate import largest, largest_slices
from helixctl.solve.deep import extrapolated_memory, shallow
from helixctl.solve.places import alike
from helixctl.solve.replicas import ranks_of
from helixctl.spec import DeviceSpec, ModelSpec, WorkloadSpec
from helixctl.verify import verify_steps
from helixctl.verify.memory import exceeded, fullest

# Tasks of a dag that is lowered and proved whole: less than a second's worth.
MOST: Final = 5_000
_FEW = 2  # layers of the stage with fewest, rounds of microbatches, replicas: a first, and one that follows another


@record
class Proof:
    """What was lowered of a plan, and what is wrong with it.

    Attributes:
        plan: the plan that the proof is of.
        dags: the dags that were proved, one of each step, of this plan or of its part.
        findings: what is wrong; empty where the plan is proved.
    """

    plan: Plan
    dags: tuple[Dag, ...]
    findings: tuple[Diagnostic, ...]

    @property
    def dag(self) -> Dag:
        """The dag of the first step."""
        return self.dags[0]

    @property
    def part(self) -> str:
        """How much of each axis was proved, where it is not all: ``4 of 126 layers and 2 of 4 replicas``."""
        part, plan = self.dag.plan, self.plan
        axes = (
            (part.model.layers, plan.model.layers, "layers"),
            (part.layout.microbatches, plan.layout.microbatches, "microbatches"),
            (part.layout.data, plan.layout.data, "replicas"),
        )
        return _listed([f"{few:,} of {every:,} {noun}" for few, every, noun in axes if few < every])


def proof(plan: Plan, *, whole: bool = False, most: int = MOST) -> Proof:
    """Prove a plan whose specs and layout hold by themselves (``verify_plan``).

    Lowering does the same for every layer, every microbatch and every replica. Where the whole dag is large, what is
    proved is that of two layers a stage, two rounds of microbatches and two replicas (two sets of those that share
    experts). Memory is that of the plan in either case.

    Args:
        plan: what is to be proved.
        whole: prove all of a dag that is to be written.
        most: tasks of a dag that is proved whole all the same.

    Raises:
        HelixError: HX305, the part that is to be proved is too large as well.
    """
    part = plan if whole or about(plan) <= most else part_of(plan)
    if large := too_large(about(part), f"what is proved of layout {plan.layout}", MANY_TASKS):
        raise HelixError(large)
    at("lowering the plan")
    dags = tuple(lower(part, step=step) for step in plan.steps)
    programs = [programs_of(dag) for dag in dags]  # held here, so that the proof of each step takes the same
    if part is not plan or len(dags) > 1:
        found = fullest(plan.cluster, totals(dags, programs)) if part is plan else _exceeded(plan)
        if found:
            return Proof(plan, dags, (found,))
    return Proof(plan, dags, tuple(verify_steps(dags)))


def together(dags: Sequence[Dag]) -> int:
    """Bytes of the fullest device for all steps of a plan."""
    return max(totals(dags))


def totals(dags: Sequence[Dag], programs: Sequence[Programs] = ()) -> list[int]:
    """Bytes of every rank for all steps of a plan: weights and state once, and an arena for each step."""
    found = [0] * len(dags[0].order)
    for dag, its in zip(dags, programs or [programs_of(dag) for dag in dags], strict=True):
        kept = zip(peak_nbytes(dag, its), weight_nbytes(dag), state_nbytes(dag), strict=True)
        for rank, (peak, weights, state) in enumerate(kept):
            found[rank] += peak - weights - state
    weights_of_ranks = zip(*(weight_nbytes(dag) for dag in dags), strict=True)
    of_ranks = zip(found, weights_of_ranks, state_nbytes(dags[0]), strict=True)
    return [int(arenas + max(weights) + state) for arenas, weights, state in of_ranks]


def _exceeded(plan: Plan) -> Diagnostic | None:
    """HX410, where a device of a plan holds more than it has; told without the whole dag."""
    for device, nbytes in memory_of_devices(plan):
        who = "the fullest device" if not plan.cluster.differs else f"the fullest {device.name}"
        if found := exceeded(device, nbytes, who):
            return found
    return None


def part_of(plan: Plan) -> Plan:
    """The plan with fewer layers, microbatches and replicas: all others are copies. The plan itself if none repeats."""
    layout = plan.layout
    model, shallower = shallow(plan.model, layout, _FEW)
    workload, fewer = _fewer_sequences(plan.workload, shallower)
    if (model.layers, fewer) == (plan.model.layers, layout):
        return plan
    # What is proved does not depend on where the devices are, only on how many there are.
    # Where hosts differ memory is told of the plan itself.
    kinds = plan.cluster.kinds
    cluster = plan.cluster.of_kind(max(range(len(kinds)), key=lambda kind: kinds[kind].device.available))
    alone = {"hosts": 1, "devices_per_host": fewer.devices, "nics_per_host": None, "links": ()}
    cluster = cluster.model_copy(update=alone)
    return Plan.of(model, cluster if fewer.devices != layout.devices else plan.cluster, workload, fewer)


def _fewer_sequences(workload: WorkloadSpec, layout: Layout) -> tuple[WorkloadSpec, Layout]:
    """A smaller batch on fewer replicas, in fewer microbatches: of every size that there is in the whole, if in two."""
    if layout.batch_shares:  # replicas are of more sizes than two
        return workload, layout
    data, parts = min(layout.data, _FEW * layout.expert_data), min(layout.microbatches, _FEW * layout.interleave)
    each, more = divmod(workload.batch, layout.data * layout.microbatches)
    fewer = layout.model_copy(update={"data": data, "microbatches": parts})
    # Larger ones go first. Of sizes that differ, the first of the first replica is one longer here as well.
    batch = each * data * parts + (more > 0)
    smaller = workload.model_copy(update={"batch": batch})
    if workload.output_len is not None:  # as many tokens of each sequence go through the model in a step
        smaller = smaller.model_copy(update={"prefill_tokens": chunk(workload, layout) * -(-batch // data)})
    return (workload, layout) if fewer == layout else (smaller, fewer)


def memory_nbytes(plan: Plan) -> int:
    """What the fullest device of a plan holds at most, without its whole dag."""
    return max(nbytes for _, nbytes in memory_of_devices(plan))


def memory_of_devices(plan: Plan) -> list[tuple[DeviceSpec, int]]:
    """Every kind of device that has ranks, and what its fullest holds at most, without the whole dag."""
    cluster, layout = plan.cluster, plan.layout
    if not cluster.differs:
        return [(cluster.only.device, _peak(plan, largest(layout, plan.model, plan.workload)))]
    slices = largest_slices(layout, plan.model, plan.workload)
    if plan.model.pattern:  # buffers of the smallest pieces may be packed a little worse than those of the largest
        slices = {*slices, *range(layout.slices)}
    ranks = [rank for its in alike(layout, cluster, plan.workload) for rank in sorted(ranks_of(layout, its, slices))]
    found = []
    for kind, hosts in enumerate(cluster.kinds):
        if its_ranks := frozenset(rank for rank in ranks if cluster.kind_of(rank) == kind):
            found.append((hosts.device, _peak(plan, its_ranks)))
    return found


def _peak(plan: Plan, ranks: frozenset[int]) -> int:
    """What the fullest of some ranks holds."""

    def peak(model: ModelSpec) -> tuple[int, int]:
        sketch = Plan.sketch(model, plan.cluster, plan.workload, plan.layout)
        dags = [lower(sketch, ranks, step=step) for step in plan.steps]
        kept = [sum(its) for its in zip(weight_nbytes(dags[0]), state_nbytes(dags[0]), strict=True)]
        return together(dags), max(kept)

    return extrapolated_memory(peak, plan.model, plan.layout)


def _listed(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
