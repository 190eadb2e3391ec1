"""Planning the points of a sweep, one after the other in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import helixctl
from helixctl.cost.tasks import sources
from helixctl.errors import Diagnostic, HelixError
from helixctl.plan import digest
from helixctl.plan.terms import in_field_terms
from helixctl.simulate.figures import figures
from helixctl.solve import Decision, Objective, decide, proof
from helixctl.solve.candidate import priced
from helixctl.solve.limits import Limits
from helixctl.solve.objective import OF_A_GENERATION
from helixctl.spec import ClusterSpec, ModelDocument
from helixctl.spec.load import for_planning
from helixctl.spec.rates import doubts
from helixctl.sweep.document import ClusterOfSweep, LimitsOfSweep, ModelOfSweep, Point, Provenance, Sweep
from helixctl.sweep.front import front
from helixctl.sweep.parts import part_of

# What says of one point that it has no plan; any other error is one of the whole sweep.
_OF_A_POINT: Final = {"HX201", "HX202", "HX203", "HX305"}


class Place(NamedTuple):
    """What a point is planned for."""

    input_len: int
    devices: int
    batch: int


@dataclass(frozen=True)
class Grid:
    """Every batch with every number of devices and every length: tokens of a sequence, or of its prompt."""

    batches: tuple[int, ...]
    devices: tuple[int, ...]
    input_lens: tuple[int, ...]

    def __iter__(self) -> Iterator[Place]:
        """The points in the order of the table."""
        for input_len in self.input_lens:
            for devices in self.devices:
                for batch in self.batches:
                    yield Place(input_len, devices, batch)

    def __len__(self) -> int:
        """How many points there are."""
        return len(self.batches) * len(self.devices) * len(self.input_lens)


def grid_of(
    model: ModelDocument,
    cluster: ClusterSpec,
    batches: Sequence[int] | None,
    lengths: Sequence[int] | None,
    devices: Sequence[int] | None,
) -> Grid:
    """The grid of some lists; None: what model and cluster say."""
    work = model.workload
    given = ((batches, work.batch), (devices, cluster.devices), (lengths, work.seq_len))
    return Grid(*((one,) if several is None else tuple(several) for several, one in given))


@dataclass(frozen=True)
class Wanted:
    """What is asked of the layout of every point, as of ``helixctl.make_plan``.

    Attributes:
        objective: what is made as small (throughput: as large) as can be.
        layout: axes that are fixed.
        plain: every other axis but groups and slices keeps its default.
        limits: what a layout may take to be chosen.
    """

    objective: Objective = "throughput"
    layout: Mapping[str, int | str] = field(default_factory=dict)
    plain: bool = False
    limits: Limits = Limits()  # noqa: RUF009  it cannot be changed


def sweep(
    model: ModelDocument,
    cluster: ClusterSpec,
    grid: Grid,
    wanted: Wanted,
    watch: Callable[[int, Place], None] | None = None,
) -> Sweep:
    """Plan every point of a grid, each as ``helixctl plan`` plans it.

    Args:
        model: the model; its workload gives all but batch and length. With ``output_len`` a point is a generation,
            without one pass.
        cluster: the devices; a point has some of one host, or whole hosts.
        grid: the points.
        wanted: of every layout.
        watch: is called before each point with the number of points done, and the point.

    Raises:
        ValueError: the cluster has no such part; or of one pass something is wanted that only a generation has.
        HelixError: what is wrong with model or cluster, or a proof refuses a plan.
    """
    if model.workload.output_len is None and (wanted.limits != Limits() or wanted.objective in OF_A_GENERATION):
        raise ValueError("limits and the objectives ttft and tpot are of a generation: the workload has no output_len")
    model = for_planning(model, cluster)
    parts = {devices: part_of(cluster, devices) for devices in grid.devices}
    points, found = [], dict[str, None]()
    for done, place in enumerate(grid):
        if watch:
            watch(done, place)
        point, lines = _planned(model, parts[place.devices], place, wanted)
        points.append(point)
        found |= dict.fromkeys(lines)
    best = {p for input_len in grid.input_lens for p in front(p for p in points if p.input_len == input_len)}
    return Sweep(
        model=ModelOfSweep(name=model.name, dtype=model.dtype, digest=digest(model.model)),
        cluster=ClusterOfSweep(
            name=cluster.name,
            devices=cluster.devices,
            hosts=cluster.host_count,
            device=cluster.device_names,
            memory_nbytes=min(kind.device.memory for kind in cluster.kinds),
            available_nbytes=min(kind.device.available for kind in cluster.kinds),
            digest=digest(cluster),
        ),
        output_len=model.workload.output_len,
        objective=wanted.objective,
        limits=LimitsOfSweep(max_ttft_s=wanted.limits.ttft_s, max_tpot_s=wanted.limits.tpot_s),
        points=tuple(p.model_copy(update={"on_front": p in best}) for p in points),
        notes=tuple(doubts(cluster)),
        provenance=Provenance(
            helixctl=helixctl.__version__,
            model=model.name,
            cluster=cluster.name,
            sets=(),
            layout=dict(wanted.layout),
            plain=wanted.plain,
        ),
        sources=tuple(found),
    )


def _planned(model: ModelDocument, cluster: ClusterSpec, place: Place, wanted: Wanted) -> tuple[Point, tuple[str, ...]]:
    """A point, and the sources of its figures.

    Where no layout keeps within the limits, the figures are of the one that comes nearest to the first of them.
    """
    work = model.workload.model_copy(update={"batch": place.batch, "seq_len": place.input_len})
    asked = model.model_copy(update={"workload": work})
    limits = wanted.limits
    try:
        return _point(place, cluster, _decided(asked, cluster, wanted, wanted.objective, limits))
    except HelixError as error:
        why = _why(error)
    if limits == Limits():
        return _refused(place, cluster, why), ()
    nearest: Objective = "ttft" if limits.tpot_s is None else "tpot"
    try:
        decision = _decided(asked, cluster, wanted, nearest, Limits())
    except HelixError as error:
        return _refused(place, cluster, _why(error)), ()
    point, lines = _point(place, cluster, decision)
    over = {"state": "over_limit", "code": why.code, "reason": limits.exceeded(decision.forecast), "hint": why.hint}
    return point.model_copy(update=over), lines


def _why(error: HelixError) -> Diagnostic:
    """Why a point has no plan; raised again where the error is not one of this point."""
    first = error.diagnostics[0]
    if first.code not in _OF_A_POINT:
        raise error
    return first


def _decided(
    model: ModelDocument, cluster: ClusterSpec, wanted: Wanted, objective: Objective, limits: Limits
) -> Decision:
    """The choice of ``helixctl plan``, proved on two layers a stage, of which all others are copies.

    No dag is written here, and to prove whole dags would take most of the time of a sweep.
    """
    decision = decide(model.model, cluster, model.workload, wanted.layout, objective, plain=wanted.plain, limits=limits)
    if findings := proof(decision.plan, most=0).findings:
        raise HelixError(findings)
    return decision


def _refused(place: Place, cluster: ClusterSpec, why: Diagnostic) -> Point:
    return Point(
        batch=place.batch,
        input_len=place.input_len,
        devices=place.devices,
        hosts=cluster.host_count,
        state="refused",
        code=why.code,
        reason=why.message,
        hint=why.hint,
    )


def _point(place: Place, cluster: ClusterSpec, decision: Decision) -> tuple[Point, tuple[str, ...]]:
    plan, found = decision.plan, decision.forecast
    its = found.generation
    point = Point(
        batch=place.batch,
        input_len=place.input_len,
        devices=place.devices,
        hosts=cluster.host_count,
        state="planned",
        layout=plan.layout.model_dump(),
        name=str(plan.layout),
        terms=in_field_terms(plan.layout),
        **figures(found),
        output_tokens_per_s_per_device=its and its.output_tokens_per_s / plan.layout.devices,
        tokens_per_s_per_device=found.tokens_per_s / plan.layout.devices,
        complete=decision.open_bound is None,
        plan_digest=plan.digest,
    )
    return point, sources(priced(plan))
