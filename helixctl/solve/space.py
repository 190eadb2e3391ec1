"""The space of layouts: every legal combination of the axes' values, with those fixed that the user wishes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import permutations, product
from typing import Any, Final

from helixctl.plan import Layout, illegalities
from helixctl.plan.layout import MESH_AXES, unsliced
from helixctl.solve.hosts import alike, host_pattern
from helixctl.solve.wish import OF_PAIRS, Wish
from helixctl.spec import ClusterSpec, ModelSpec, WorkloadSpec

# Microbatches are tried in powers of two up to so many per stage: more hardly fill a pipeline better. What does not
# fit in memory even so is tried with more, up to so many in all.
FEW: Final = 16
MANY: Final = 1024
_INTERLEAVED: Final = (1, 2)
# What of the axes is tried, in words: a layout outside can be better.
TRIED: Final = "microbatches in powers of two, and only where stages or turns use them; at most 2 in turn"
SLICINGS: Final = ("head_dim", "batch", "query")


def space(
    model: ModelSpec, cluster: ClusterSpec, workload: WorkloadSpec, wish: Wish, most: int = FEW
) -> Iterator[Layout]:
    """Every legal layout of all of the cluster's devices that has the wished axes, with up to so many microbatches.

    A wish may go beyond what is searched. Left out of the search are twins: values of an axis that change nothing (a
    gather order of one group, a placement inside one host), microbatches without stages to fill or turns to take, and
    partial sums in the model's dtype, as they cost a rounding.
    """
    for layout in combinations(model, cluster, workload, wish, most):
        if not illegalities(layout, model, workload, cluster.devices):
            yield layout


def combinations(
    model: ModelSpec, cluster: ClusterSpec, workload: WorkloadSpec, wish: Wish, most: int
) -> Iterator[Layout]:
    """The layouts that are looked at, legal or not."""
    for mesh in _meshes(model, cluster, workload, wish):
        fixed = {**wish, **mesh}
        for axes in _inner(Layout.model_validate(fixed), model, cluster, workload, wish, most):
            yield Layout.model_validate({**fixed, **axes})


def pairs(devices: int, wish: Wish) -> Iterator[Layout]:
    """All factor pairs groups x slices of the devices, legal or not; other axes as wished, else at their default.

    Where the slicing is not wished for, each pair comes with every slicing. Empty where the wished replicas and stages
    do not divide the devices.
    """
    axes = {axis: value for axis, value in wish.items() if axis not in OF_PAIRS}
    teams = int(axes.get("data", 1)) * int(axes.get("pipeline", 1))
    partitions = devices // teams if devices % teams == 0 else 0
    for slices in _divisors(partitions):
        for slicing in [axes["slicing"]] if "slicing" in axes else SLICINGS[: None if slices > 1 else 1]:
            pair = {"groups": partitions // slices, "slices": slices, "slicing": slicing}
            yield Layout.model_validate({**axes, **pair})


def _meshes(model: ModelSpec, cluster: ClusterSpec, workload: WorkloadSpec, wish: Wish) -> Iterator[dict[str, int]]:
    """Sizes of the four mesh axes that make up the devices and may be legal."""
    left = cluster.devices
    most = {"groups": model.attention.heads, "slices": model.attention.head_dim, "pipeline": model.layers}
    sizes = [
        [int(wish[axis])] if axis in wish else [size for size in _divisors(left) if size <= whole]
        for axis, whole in most.items()
    ]
    for n, m, p in product(*sizes):
        data, rest = divmod(left, n * m * p)
        if rest == 0 and wish.get("data", data) == data and data <= workload.batch:
            yield {"groups": n, "slices": m, "data": data, "pipeline": p}


def _inner(
    mesh: Layout, model: ModelSpec, cluster: ClusterSpec, workload: WorkloadSpec, wish: Wish, most: int
) -> Iterator[dict[str, Any]]:
    """Values of the other axes on a mesh."""
    experts = model.feed_forward.experts
    ways = [ways for ways in _divisors(mesh.partitions) if ways <= experts.count] if experts else [1]
    combines = ("concat", "reduce") if mesh.partitions > 1 else ("concat",)
    choices: dict[str, Iterable[Any]] = {
        "slicing": _slicings(mesh, model),
        "combine": combines,
        "experts": ways,
        "placement": _placements(mesh, cluster),
    }
    fixed: dict[str, Iterable[Any]] = {axis: [value] for axis, value in wish.items() if axis in choices}
    for slicing, combine, way, placement in product(*(fixed.get(axis, values) for axis, values in choices.items())):
        both = combine == "concat" and mesh.groups > 1 and mesh.slices > 1
        orders = [wish["gather_order"]] if "gather_order" in wish else ["slices_first", "groups_first"][: 1 + both]
        for gather_order, (microbatches, interleave) in product(orders, _turns(mesh, workload, wish, most)):
            yield {
                "slicing": slicing,
                "combine": combine,
                "experts": way,
                "placement": placement,
                "gather_order": gather_order,
                "microbatches": microbatches,
                "interleave": interleave,
            }


def _slicings(mesh: Layout, model: ModelSpec) -> Sequence[str]:
    """By head_dim where that is legal, as it exchanges nothing for it; else in all other ways."""
    cut = mesh.model_copy(update={"slicing": "head_dim"})
    return SLICINGS[:1] if not unsliced(cut, model, WorkloadSpec()) else SLICINGS[1:]


def _turns(mesh: Layout, workload: WorkloadSpec, wish: Wish, per_stage: int) -> Iterator[tuple[int, int]]:
    """Pairs of microbatches and how many of them take turns."""
    most = min(workload.batch // mesh.data, per_stage * mesh.pipeline, MANY)
    for turns in [int(wish["interleave"])] if "interleave" in wish else _INTERLEAVED:
        fit = max(1, most // turns).bit_length()
        for number in [int(wish["microbatches"])] if "microbatches" in wish else [turns * 2**i for i in range(fit)]:
            useful = number == 1 or mesh.pipeline > 1 or turns > 1 or per_stage > FEW  # to save memory
            if (useful or "microbatches" in wish) and (turns == 1 or mesh.partitions > 1 or "interleave" in wish):
                yield number, turns


def _placements(mesh: Layout, cluster: ClusterSpec) -> list[str]:
    """Orders of the axes that keep a team together and differ in what stays inside a host.

    Neither replicas nor stages come between the ranks of a team: it communicates in every layer, stages once, replicas
    never. Of equals the default, or else the first, stands.
    """
    default = Layout.model_fields["placement"].default
    if cluster.hosts == 1:
        return [default]
    different: dict[object, str] = {}
    for team, others in product(permutations(MESH_AXES[:2]), permutations(MESH_AXES[2:])):
        placement = "-".join((*team, *others))
        placed = mesh.model_copy(update={"placement": placement})
        seen = host_pattern(placed, cluster) if alike(placed, cluster) else placement
        different.setdefault(seen, placement)
    return list(different.values()) or [default]


def _divisors(number: int) -> list[int]:
    """The divisors of a number, ascending; none of 0."""
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})
