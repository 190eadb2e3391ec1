"""The space of layouts: every legal combination of the axes' values, some of them fixed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, permutations, product
from math import gcd
from typing import Any, Final

from helixctl.plan import Layout, illegalities
from helixctl.plan.layout import MESH_AXES, parts_a_group, sequences_needed, unsliced
from helixctl.records import record
from helixctl.solve.axes import Order
from helixctl.solve.constraints import PAIR_AXES, PARTITIONS, AxisConstraints
from helixctl.solve.families import Family, Orders, by_size, simplest
from helixctl.solve.hosts import host_pattern, uniform_placement
from helixctl.solve.objective import Objective
from helixctl.solve.places import alike
from helixctl.spec import ClusterSpec, ModelSpec, WorkloadSpec

# Up to this number of microbatches a stage is tried: more hardly fill a pipeline better. What does not fit in memory
# even so is tried with more, up to this number in all: the search takes a second for them.
FEW: Final = 16
MANY: Final = 1024
_INTERLEAVED: Final = (1, 2)  # two in turn hide either lane behind the other; a third has nothing left to hide
# What of the axes is tried, in words: a layout outside can be better.
_TRIED: Final = "microbatches that divide a replica's batch or are a power of two"
_SLICINGS: Final = ("head_dim", "batch", "query")
_SLICINGS_OF_A_CACHE: Final = ("head_dim", "batch", "key")


def slicings(workload: WorkloadSpec) -> Sequence[str]:
    """The ways in which the slices of a group may share its work, the plainest first."""
    return _SLICINGS if workload.output_len is None else _SLICINGS_OF_A_CACHE


def tried(objective: Objective) -> str:
    """Which values of the axes are tried under an objective, in words."""
    where = ", and only where stages or turns use them" if objective == "throughput" else ""
    return f"{_TRIED}{where}; at most 2 in turn"


def space(
    model: ModelSpec,
    cluster: ClusterSpec,
    workload: WorkloadSpec,
    constraints: AxisConstraints,
    most: int = FEW,
    objective: Objective = "throughput",
) -> Iterator[Layout]:
    """Every legal layout of all of the cluster's devices that is searched; where hosts differ, also of some of them.

    Left out are redundant ones: values of an axis that change nothing (a gather order of one group, a placement inside
    one host whose links are alike); for throughput, microbatches without stages to fill or turns to take; and partial
    sums in the model's dtype, as they cost a rounding.

    Args:
        model: what is planned.
        cluster: for which devices.
        workload: and which step.
        constraints: axes that have one value; it may be one that is not searched.
        most: microbatches per stage.
        objective: what is searched for.
    """
    for family in families(model, cluster, workload, constraints, most, objective):
        yield from family.layouts()


def families(
    model: ModelSpec,
    cluster: ClusterSpec,
    workload: WorkloadSpec,
    constraints: AxisConstraints,
    most: int = FEW,
    objective: Objective = "throughput",
) -> Iterator[Family]:
    """The same layouts, those together that differ only in the order of work and ranks; arguments as of ``space``."""
    # By the identity of the orders, which are kept with what is legal of them.
    known: dict[object, tuple[Orders, Order | None, Sequence[Order]]] = {}
    for first, orders in _Space(model, cluster, workload, constraints, most, objective).families():
        # Whether the others are legal depends on the sequences of a microbatch alone, and with shares of groups on the
        # placement.
        if illegalities(first, model, workload, cluster.devices, differs=cluster.differs):
            continue
        needed, sequences = sequences_needed(first, workload), first.fewest_sequences(workload.batch)
        key = (id(orders), needed, sequences, first.group_shares)
        if key not in known:
            legal = by_size(
                order
                for order in orders
                if sequences // order["microbatches"] >= needed and order["microbatches"] % order["interleave"] == 0
                if not (
                    first.group_shares and parts_a_group(first.model_copy(update={"placement": order["placement"]}))
                )
            )
            known[key] = legal, simplest(first, legal) if legal else None, orders
        legal, order, _ = known[key]
        if order:
            yield Family.beginning(first, order, legal)


def combinations(
    model: ModelSpec,
    cluster: ClusterSpec,
    workload: WorkloadSpec,
    constraints: AxisConstraints,
    most: int,
    objective: Objective,
) -> Iterator[Layout]:
    """The layouts that are looked at, legal or not; the arguments are those of ``space``."""
    return iter(_Space(model, cluster, workload, constraints, most, objective))


def pairs(devices: int, constraints: AxisConstraints, workload: WorkloadSpec) -> Iterator[Layout]:
    """All factor pairs groups x slices of the devices, legal or not; other axes as fixed, else at their default.

    Where the slicing is not fixed, each pair comes with every slicing. Empty where the fixed replicas and stages do not
    divide the devices.
    """
    axes = {axis: value for axis, value in constraints.items() if axis not in PAIR_AXES}
    teams = int(axes.get("data", 1)) * int(axes.get("pipeline", 1))
    partitions = devices // teams if devices % teams == 0 else 0
    for slices in _divisors(partitions):
        for slicing in [axes["slicing"]] if "slicing" in axes else slicings(workload)[: None if slices > 1 else 1]:
            pair = {"groups": partitions // slices, "slices": slices, "slicing": slicing}
            yield Layout.model_validate({**axes, **pair})


def _used(cluster: ClusterSpec, constraints: AxisConstraints) -> list[int]:
    """How many devices are used, the first of the cluster: all; where hosts differ also those of the first kinds.

    Where hosts differ, and replicas and stages are fixed, as many as any team of these takes.
    """
    if not cluster.differs:
        return [cluster.devices]
    found = {*accumulate(kind.devices for kind in cluster.kinds)}
    if "data" in constraints and "pipeline" in constraints:
        teams = int(constraints["data"]) * int(constraints["pipeline"])
        found.update(range(teams, cluster.devices + 1, teams))
    return sorted(found, reverse=True)


@record
class _Space:
    """The arguments of ``space``; iterating gives its layouts, legal or not."""

    model: ModelSpec
    cluster: ClusterSpec
    workload: WorkloadSpec
    constraints: AxisConstraints
    most: int
    objective: Objective

    def __iter__(self) -> Iterator[Layout]:
        for first, orders in self.families():
            yield from (first.model_copy(update=order) for order in orders)

    def families(self) -> Iterator[tuple[Layout, Sequence[Order]]]:
        """A layout in one microbatch, and the orders of work and of ranks in which it is tried, legal or not."""
        axes = {axis: value for axis, value in self.constraints.items() if axis != PARTITIONS}
        for sizes in self._meshes():
            mesh = Layout.model_validate({**axes, **sizes})
            for inner, orders in self._inner(mesh):
                yield mesh.model_copy(update={**inner, "microbatches": 1, "interleave": 1}), orders

    def _meshes(self) -> Iterator[dict[str, int]]:
        """Sizes of the four mesh axes that make up the devices and may be legal."""
        for devices in _used(self.cluster, self.constraints):
            yield from self._meshes_of(devices)

    def _meshes_of(self, left: int) -> Iterator[dict[str, int]]:
        constraints = self.constraints
        attentions = [self.model.alike(kind).attention for kind in self.model.kinds]
        most = {
            "groups": min(a.heads for a in attentions),
            "slices": min(min(a.head_dim, a.value_dim) for a in attentions),
        }
        sizes = [
            [int(constraints[axis])] if axis in constraints else [size for size in _divisors(left) if size <= whole]
            for axis, whole in {**most, "pipeline": self.model.layers}.items()
        ]
        for n, m, p in product(*sizes):
            data, rest = divmod(left, n * m * p)
            wanted = constraints.get("data", data) == data and constraints.get(PARTITIONS, n * m) == n * m
            if rest == 0 and wanted and data <= self.workload.batch:
                yield {"groups": n, "slices": m, "data": data, "pipeline": p}

    def _inner(self, mesh: Layout) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Values of the other axes on a mesh, and with each the orders of work."""
        blocks = [self.model.alike(kind) for kind in self.model.kinds]
        most = min((its.count for block in blocks if (its := block.feed_forward.experts)), default=1)
        choices: dict[str, Iterable[Any]] = {
            "slicing": _slicings(mesh, self.model, self.workload),
            "combine": ("concat", "reduce") if mesh.partitions > 1 else ("concat",),
            "experts": (),
            "residual": ("replicated", "sharded") if mesh.partitions > 1 else ("replicated",),
        }
        if self.workload.output_len is not None and any(block.attention.latent for block in blocks):
            choices["latent_prefill"] = ("absorbed", "expanded")
        if self.workload.output_len is not None and mesh.slices > 1:
            choices["key_prefill"] = ("key", "query")
        shared = self._replicas_that_share(mesh) if most > 1 and not self.cluster.differs else (1,)
        placements = [mesh.placement] if "placement" in self.constraints else _placements(mesh, self.cluster)
        for expert_data in [int(self.constraints["expert_data"])] if "expert_data" in self.constraints else shared:
            # Not fewer ways than replicas: an expert is cut over a team at most.
            ways = [x for x in _divisors(mesh.partitions * expert_data) if expert_data <= x <= most]
            some = {**choices, "experts": ways, "expert_data": (expert_data,)}
            yield from self._with_experts(mesh, some, placements)

    def _replicas_that_share(self, mesh: Layout) -> Sequence[int]:
        """How many replicas share experts: any number; of one pass one, those of a host or of a domain, or all.

        Where ways of experts are given it is any number, too.

        A decode step reads all experts that a device holds. In a pass they are read once for many tokens, and a number
        between exchanges between hosts as all do.
        """
        if "experts" in self.constraints or self.workload.output_len is not None:
            return _divisors(mesh.data)
        near = [max(1, size // mesh.partitions) for size in self.cluster.kinds[0].domain_sizes]
        return sorted({1, *[gcd(mesh.data, replicas) for replicas in near], mesh.data})

    def _with_experts(
        self, mesh: Layout, choices: Mapping[str, Iterable[Any]], placements: Sequence[str]
    ) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """The same where so many replicas share experts, as ``choices`` has it."""
        turns = list(self._turns(mesh, exchanges=mesh.partitions > 1 or choices["expert_data"] != (1,)))
        orders = {
            combine: [
                {"gather_order": order, "placement": placement, "microbatches": microbatches, "interleave": interleave}
                for order, placement, (microbatches, interleave) in product(
                    self._gather_orders(mesh, combine), placements, turns
                )
            ]
            for combine in ("concat", "reduce")
        }
        values = ([getattr(mesh, axis)] if axis in self.constraints else choices[axis] for axis in choices)
        for chosen in product(*values):
            inner = dict(zip(choices, chosen, strict=True))
            if inner.get("key_prefill") == "query" and inner["slicing"] != "key":
                continue
            yield inner, orders[inner["combine"]]

    def _gather_orders(self, mesh: Layout, combine: str) -> Sequence[str]:
        if "gather_order" in self.constraints:
            return [mesh.gather_order]
        both = combine == "concat" and mesh.groups > 1 and mesh.slices > 1
        return ["slices_first", "groups_first"][: 1 + both]

    def _turns(self, mesh: Layout, *, exchanges: bool) -> Iterator[tuple[int, int]]:
        """Pairs of microbatches and how many of them take turns, which hides communication inside a layer, if any."""
        given = self.constraints
        batch = self.workload.batch // mesh.data
        most = min(batch, self.most * mesh.pipeline, MANY)
        # To fill stages or to take turns; to be done with the first sequences early; to save memory.
        useful = mesh.pipeline > 1 or self.objective != "throughput" or self.most > FEW
        for turns in [int(given["interleave"])] if "interleave" in given else _INTERLEAVED:
            if turns > 1 and not exchanges and "interleave" not in given:
                continue
            if "microbatches" in given:
                yield int(given["microbatches"]), turns
            elif useful or turns > 1:
                yield from ((number, turns) for number in _microbatches(batch, most, turns))
            else:
                yield 1, turns


def _microbatches(batch: int, most: int, turns: int) -> list[int]:
    """In how many parts a replica's batch is tried, up to a limit: multiples of the turns, at least one of them.

    Divisors give equal parts. Powers of two are there for a batch that has few divisors.
    """
    powers = {turns * 2**i for i in range(max(1, most // turns).bit_length())}
    return sorted(powers | {number for number in _divisors(batch) if number <= most and number % turns == 0})


def _slicings(mesh: Layout, model: ModelSpec, workload: WorkloadSpec) -> Sequence[str]:
    """By head_dim where that is legal, as it exchanges nothing for it; else in all other ways."""
    cut = mesh.model_copy(update={"slicing": "head_dim"})
    every = slicings(workload)
    return every[:1] if not unsliced(cut, model, WorkloadSpec()) else every[1:]


def _placements(mesh: Layout, cluster: ClusterSpec) -> list[str]:
    """Orders of the axes that keep a team together and differ in what stays inside a host, or a domain of its links.

    Neither replicas nor stages come between the ranks of a team: it communicates in every layer, stages once, replicas
    never. Of equals the default, or else the first, stands.
    """
    default = Layout.model_fields["placement"].default
    if cluster.host_count == 1 and not cluster.has_domains:
        return [default]
    different: dict[object, str] = {}
    for team, others in product(permutations(MESH_AXES[:2]), permutations(MESH_AXES[2:])):
        placement = "-".join((*team, *others))
        placed = mesh.model_copy(update={"placement": placement})
        # An axis of one index lies anywhere.
        seen: object = frozenset(its for its in placed.strides.items() if getattr(mesh, its[0]) > 1)
        if cluster.differs:
            seen = frozenset(
                (its.stages, len(its.replicas)) for its in alike(placed, cluster, WorkloadSpec(batch=placed.data))
            )
        elif uniform_placement(placed, cluster):
            seen = host_pattern(placed, cluster)
        different.setdefault(seen, placement)
    return list(different.values()) or [default]


@lru_cache(maxsize=64)  # of the batches of replicas, which may be of any size; asked for with every other axis
def _divisors(number: int) -> tuple[int, ...]:
    """The divisors of a number, ascending; none of 0."""
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return tuple(sorted({*small, *(number // d for d in small)}))
