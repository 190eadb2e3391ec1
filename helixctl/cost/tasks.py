"""What one task takes on its dag's cluster, and the sources of that prediction."""

from __future__ import annotations

from helixctl.cost import constants as c
from helixctl.cost.collectives import collective_cost
from helixctl.cost.compute import compute_cost, rates_of_quantised, shape_key
from helixctl.cost.copies import copy_costs
from helixctl.cost.origin import Constant, Cost, Rule
from helixctl.dag import Dag, Task
from helixctl.dag.storage import Storage
from helixctl.program import Kernel, Programs, kernels
from helixctl.spec import Arithmetic, ClusterSpec, Dtype, EqualHosts, ModelSpec
from helixctl.spec.rates import rates_of


class TaskCosts:
    """The costs of a dag's tasks; equal work is priced once."""

    def __init__(self, dag: Dag, known: dict[object, Cost] | None = None) -> None:
        """Price nothing yet.

        Args:
            dag: whose tasks are priced.
            known: costs that other dags of the same model on the same cluster share with it.
        """
        self._dag = dag
        self._known = {} if known is None else known
        self._kernels: dict[int, dict[str, Kernel]] = {}
        cluster = dag.plan.cluster
        self._kind_of = cluster.kind_of if cluster.differs else None

    def seconds(self, task: Task) -> float:
        """Predicted duration of a task that has its devices (or a core each), and its links, to itself."""
        return self.cost(task).seconds

    def cost(self, task: Task) -> Cost:
        """The duration, and the origins of its numbers."""
        return self.cost_with(task, "own" if task.is_collective else self._kernel_of(task))

    def cost_with(self, task: Task, kernel: Kernel) -> Cost:
        """The same of a task of which it is known whether a kernel computes it alone (``program.kernels``)."""
        # What a collective takes depends on which of its ranks share a host.
        key: object = (task.op, task.nbytes, task.ranks) if task.is_collective else (kernel, shape_key(self._dag, task))
        if self._kind_of and not task.is_collective:
            key = (self._kind_of(task.ranks[0]), key)
        if key not in self._known:
            cluster = self._dag.plan.cluster
            self._known[key] = (
                collective_cost(task, cluster) if task.is_collective else compute_cost(self._dag, task, kernel)
            )
        return self._known[key]

    def _kernel_of(self, task: Task) -> Kernel:
        (rank,) = task.ranks
        if rank not in self._kernels:
            self._kernels[rank] = kernels(self._dag, rank)
        return self._kernels[rank].get(task.id, "own")


def seconds(dag: Dag, task: Task) -> float:
    """Predicted duration of one task; for many of a dag's tasks use one ``TaskCosts``."""
    return TaskCosts(dag).seconds(task)


def crosses_hosts(task: Task, cluster: ClusterSpec) -> bool:
    """Whether a collective's ranks sit on more than one host."""
    return len({cluster.host_of(rank) for rank in task.ranks}) > 1


def sources(dag: Dag) -> tuple[str, ...]:
    """A line for every constant that the prediction for this dag rests on: its value and where it comes from."""
    costs, cluster = TaskCosts(dag), dag.plan.cluster
    used: dict[Constant | Rule, None] = {}
    for task in dag.tasks:
        used.update(dict.fromkeys(costs.cost(task).origins))
    for cost in copy_costs(dag, Programs(dag)).costs:
        used.update(dict.fromkeys(cost.origins))
    for kind in cluster.kinds:
        if kind.cores_per_host is not None:
            used[Constant("cores_per_host", kind.cores_per_host, f"cluster spec {kind.name}")] = None
            used[collective_load(dag)] = None
    return tuple(str(origin) for origin in used)


def foundation(model: ModelSpec, cluster: ClusterSpec) -> str:
    """What the predictions of a model on a cluster rest on, in a few words."""
    sources = dict.fromkeys(rates.source for kind in cluster.kinds if (rates := rates_of(kind)))
    calibrated = f"measured rates ({'; '.join(sources)}), " if sources else ""
    phrases = dict.fromkeys(text for kind in cluster.kinds for text in products_of_quantised(model, kind))
    quantised = "".join(f"; {text}" for text in phrases)
    return f"{calibrated}datasheet rates and default constants{quantised}"


def products_of_quantised(model: ModelSpec, cluster: EqualHosts) -> tuple[str, ...]:
    """What products with quantised weights are predicted to be of: a phrase for each way to store them."""
    stored = [*(model.stored or ()), *(spec for block in model.blocks or () for spec in block.stored or ())]
    ways = {(spec.number, Storage.of(spec, ()).arithmetic): None for spec in stored}
    return tuple(dict.fromkeys(_products(model.dtype, cluster, *way) for way in ways))


def _products(dtype: Dtype, cluster: EqualHosts, number: str, arithmetic: Arithmetic | None) -> str:
    rates = rates_of_quantised(cluster, dtype, arithmetic)
    if arithmetic and rates:
        return f"products of {number} weights in {arithmetic.removesuffix('_blocks')} {rates}"
    without = f", as {cluster.device.name} has no rate of {arithmetic}" if arithmetic else ""
    return f"products of {number} weights in {dtype}{without}"


def collective_load(dag: Dag) -> Constant:
    """The share of a core that a rank keeps busy inside a collective, where devices share cores.

    Where hosts differ it is the largest that was measured on any of them.
    """
    found = [rates for kind in dag.plan.cluster.kinds if (rates := rates_of(kind))]
    if not found:
        return c.COLLECTIVE_LOAD
    calibration = max(found, key=lambda rates: rates.collective_load)
    return Constant("collective_load", calibration.collective_load, f"calibrated: {calibration.source}")
