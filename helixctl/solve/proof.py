"""What is proved of a plan whose dag is too large to be proved while the user waits."""

from __future__ import annotations

from typing import Final

from helixctl.dag import Dag
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.plan.size import about
from helixctl.solve.deep import shallow
from helixctl.spec import WorkloadSpec

# Tasks of a dag that is lowered and proved whole: less than a second's worth.
MOST: Final = 5_000
_LAYERS = 2  # of the stage with fewest: a first, and one that follows another


def proof(plan: Plan) -> tuple[Dag, bool]:
    """The dag that is proved for a plan, and whether it is all of the plan's.

    Lowering does the same for every layer and for every microbatch. Where the whole dag is large, what is proved is
    that of two layers a stage and two rounds of microbatches, of which all others are copies. A run, or
    ``helixctl validate``, proves the whole.
    """
    layout = plan.layout
    if about(plan) <= MOST:
        return lower(plan), True
    model = shallow(plan.model, layout, _LAYERS)
    workload, fewer = _fewer_microbatches(plan.workload, layout)
    if (model, workload) == (plan.model, plan.workload):
        return lower(plan), True  # nothing repeats
    return lower(Plan.of(model, plan.cluster, workload, fewer)), False


def _fewer_microbatches(workload: WorkloadSpec, layout: Layout) -> tuple[WorkloadSpec, Layout]:
    """A smaller batch in fewer microbatches of the same size, where they are all of one size."""
    fewer = min(layout.microbatches, 2 * layout.interleave)
    each, more = divmod(workload.batch, layout.data * layout.microbatches)
    if more:
        return workload, layout
    smaller = workload.model_copy(update={"batch": each * layout.data * fewer})
    return smaller, layout.model_copy(update={"microbatches": fewer})
