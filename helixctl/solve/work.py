"""Of what the work of a step is made: one layer, and the ends of a model, lowered for one rank and priced."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Final, NamedTuple

from helixctl.cost.memory import peak_live_nbytes
from helixctl.cost.origin import Cost
from helixctl.cost.tasks import TaskCosts
from helixctl.dag import Dag, Task, Value
from helixctl.dag.function import function_of
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.plan.sharding import WHOLE_ALWAYS, Cut, Shares, Table, kind_of
from helixctl.plan.steps import step_of
from helixctl.solve.hosts import host_pattern
from helixctl.spec import DTYPE_NBYTES, ClusterSpec, ModelSpec, Step, WorkloadSpec


class LaneCosts(NamedTuple):
    """Costs of one microbatch on one rank: seconds by lane, of both where it is alone, bytes of weights."""

    compute_s: float = 0.0
    communication_s: float = 0.0
    alone_s: float = 0.0
    weight_nbytes: int = 0


class LayerCosts(NamedTuple):
    """The work of one microbatch on the first rank of a team, which has the largest pieces of all.

    ``least_compute_s`` is a layer's on the rank with the smallest, ``values_nbytes`` all values of a layer, whenever
    they are live, ``output_nbytes`` the output of a microbatch.
    """

    layer: LaneCosts
    embed: LaneCosts
    head: LaneCosts
    least_compute_s: float
    values_nbytes: int
    output_nbytes: int


class _Ends(NamedTuple):
    embed: LaneCosts
    head: LaneCosts
    output_nbytes: int


# The levels of a layer in groups whose computation depends on different axes of the layout.
_ATTENTION: Final = ("distribute", "exchange", "attend", "concat")
_PROJECT: Final = ("project",)
_NETWORK: Final = ("feed_forward",)
_GROUPS: Final = (_ATTENTION, _PROJECT, _NETWORK)
_LAYER: Final = (*_ATTENTION, *_PROJECT, *_NETWORK)


@dataclass(slots=True)
class LayoutCosts:
    """The work of the layouts of one problem; what layouts share is worked out once."""

    model: ModelSpec
    cluster: ClusterSpec
    workload: WorkloadSpec
    _layers: dict[object, LayerCosts] = field(default_factory=dict, init=False)
    _ends: dict[object, _Ends] = field(default_factory=dict, init=False)
    _patterns: dict[object, tuple[int, ...]] = field(default_factory=dict, init=False)
    _computing: dict[object, tuple[LaneCosts, float]] = field(default_factory=dict, init=False)
    _forms: dict[tuple[int, tuple[str, ...]], tuple[int, tuple[Cut, ...]]] = field(default_factory=dict, init=False)
    _numbers: dict[object, int] = field(default_factory=dict, init=False)
    _live: dict[object, int] = field(default_factory=dict, init=False)
    _prices: dict[object, Cost] = field(default_factory=dict, init=False)

    def with_communication(self, layout: Layout, sequences: int) -> LayerCosts:
        """The work of a microbatch of so many sequences."""
        keys = self._keys(layout, sequences)
        key = (*keys.values(), layout.groups, layout.gather_order, self._pattern(layout))
        if key not in self._layers:
            team = layout.team(0, 0)
            body, smallest = self._sketch(layout, sequences, team[0]), self._smallest(layout, sequences)
            layer = self._work(body, _LAYER)
            if layout.shared_dim != "head_dim":
                # No chain: values may still be on their way while queries and keys are normalised and rotated.
                beside = self._work(body, ["attend"], without="attention")
                layer = layer._replace(alone_s=layer.alone_s - beside.compute_s)
            ends = self._its_ends(layout, sequences, self._pattern(layout))
            least = layer.compute_s if smallest is None else self._work(smallest, _LAYER).compute_s
            most = sum(v.nbytes for v in body.values)
            self._layers[key] = LayerCosts(layer, ends.embed, ends.head, least, most, ends.output_nbytes)
        return self._layers[key]

    def live_nbytes(self, layout: Layout, sequences: int) -> int:
        """What is live in a layer beside weights, at its fullest."""
        key = (*self._keys(layout, sequences).values(), layout.groups, layout.gather_order)
        if key not in self._live:
            rank = layout.team(0, 0)[0]
            body = self._sketch(layout, sequences, rank)
            given = sum(v.nbytes for v in body.values if v.id not in body.producer and not _is_weight(body, v))
            self._live[key] = peak_live_nbytes(body, rank) - given
        return self._live[key]

    def compute_only(self, layout: Layout, sequences: int) -> LayerCosts:
        """The same as if nothing were exchanged, and nothing live: many layouts share what it is made of."""
        keys = self._keys(layout, sequences)
        if not all(key in self._computing for key in keys.items()):
            body = self._sketch(layout, sequences, layout.team(0, 0)[0])
            smallest = self._smallest(layout, sequences)
            for key in keys.items():
                work = self._work(body, key[0])
                quiet = work._replace(communication_s=0.0, alone_s=work.compute_s)
                least = work.compute_s if smallest is None else self._work(smallest, key[0]).compute_s
                self._computing[key] = (quiet, least)
        costs, leasts = zip(*(self._computing[key] for key in keys.items()), strict=True)
        layer = LaneCosts(*(sum(column) for column in zip(*costs, strict=True)))
        ends = self._its_ends(layout, sequences, None)
        return LayerCosts(layer, ends.embed, ends.head, sum(leasts), 0, ends.output_nbytes)

    def weights_nbytes(self) -> int:
        """Bytes of all weights of the model, each once."""
        whole = self.compute_only(Layout(groups=1, slices=1), 1)
        return self.model.layers * whole.layer.weight_nbytes + self.ends_nbytes(whole)

    def ends_nbytes(self, parts: LayerCosts) -> int:
        """Bytes of weights of a rank that has both ends of the model: tied ones are the embedding's and the head's."""
        ends = (parts.embed.weight_nbytes, parts.head.weight_nbytes)
        return max(ends) if self.model.vocabulary and self.model.vocabulary.tied else sum(ends)

    def _keys(self, layout: Layout, sequences: int) -> dict[tuple[str, ...], object]:
        """What the computation of each group of levels depends on: how its tensors are cut, and the largest shares."""
        shares, found = Shares(layout, self.model, self._step(layout)), dict[tuple[str, ...], object]()
        for levels in _GROUPS:
            form, cuts = self._form(shares.table, shares.step, levels)
            found[levels] = (form, sequences, layout.reduction_dtype, *_sizes(shares, cuts, sequences))
        return found

    def _form(self, table: Table, step: Step, levels: tuple[str, ...]) -> tuple[int, tuple[Cut, ...]]:
        """A number for how a table cuts what some levels read and make, and the cuts."""
        key = (id(table), levels)  # there are few tables, and they are kept
        if key not in self._forms:
            one = function_of(self._body(), step)
            equations = [equation for equation in one.equations if equation.level in levels]
            read = [table.get(kind_of(t), WHOLE_ALWAYS).read for eq in equations for t in eq.inputs]
            made = [table.get(kind_of(t), WHOLE_ALWAYS).made for eq in equations for t in eq.outputs]
            cuts = tuple(dict.fromkeys(c for its in (*read, *made) for c in (*its.cuts, *its.partial)))
            self._forms[key] = (self._numbers.setdefault((levels, *read, *made), len(self._numbers)), cuts)
        return self._forms[key]

    def _step(self, layout: Layout) -> Step:
        return step_of(self.workload, layout)

    def _body(self) -> ModelSpec:
        """One layer of the model, without its ends."""
        return self.model.model_copy(update={"layers": 1, "vocabulary": None})

    def _pattern(self, layout: Layout) -> tuple[int, ...]:
        place = (layout.groups, layout.slices, layout.data, layout.pipeline, layout.placement)
        if place not in self._patterns:
            self._patterns[place] = host_pattern(layout, self.cluster, stages=1)
        return self._patterns[place]

    def _smallest(self, layout: Layout, sequences: int) -> Dag | None:
        """A layer of the rank with the smallest pieces, where that is of interest: where ranks share cores."""
        shared = self.cluster.cores_per_host is not None
        return self._sketch(layout, sequences, layout.team(0, 0)[-1]) if shared else None

    def _work(self, dag: Dag, levels: Collection[str], without: str = "") -> LaneCosts:
        """The work of a sketch's tasks of some levels, less those of one kind, one after the other."""
        costs, lanes = TaskCosts(dag, self._prices), {"compute": 0.0, "communication": 0.0}
        weights: dict[str, int] = {}
        for task in dag.tasks:
            if task.level not in levels or task.kind == without or _brings_input(dag, task):
                continue
            lanes[task.lane] += costs.seconds(task)
            values = (dag.value[v] for v in task.inputs)
            weights |= {v.id: v.nbytes for v in values if _is_weight(dag, v)}
        return LaneCosts(lanes["compute"], lanes["communication"], sum(lanes.values()), sum(weights.values()))

    def _its_ends(self, layout: Layout, sequences: int, pattern: tuple[int, ...] | None) -> _Ends:
        """Embedding and head; without ``pattern`` as if nothing were exchanged."""
        key = (layout.partitions, layout.residual, sequences, pattern)
        if key not in self._ends and self.model.vocabulary is None:
            shares = Shares(layout, self.model, self._step(layout))
            region = shares.region(("batch", "seq", "hidden"), shares.of("output").made, 0, (0, sequences))
            nbytes = prod(stop - start for start, stop in region) * DTYPE_NBYTES[self.model.dtype]
            self._ends[key] = _Ends(LaneCosts(), LaneCosts(), nbytes)
        elif key not in self._ends:
            dag = self._sketch(layout, sequences, layout.team(0, 0)[0], ends=True)
            nbytes = next(v.nbytes for v in dag.values if dag.tensor[v.tensor].role == "output")
            embed, head = (self._work(dag, [level]) for level in ("embed", "head"))
            if pattern is None:
                embed, head = (w._replace(communication_s=0.0, alone_s=w.compute_s) for w in (embed, head))
            self._ends[key] = _Ends(embed, head, nbytes)
        return self._ends[key]

    def _sketch(self, layout: Layout, sequences: int, rank: int, *, ends: bool = False) -> Dag:
        """One rank's part of a microbatch of so many sequences, in one layer, with or without the model's ends."""
        model = self.model.model_copy(update={"layers": 1}) if ends else self._body()
        batch = sequences * layout.data * layout.microbatches
        plan = Plan.sketch(model, self.cluster, self.workload.model_copy(update={"batch": batch}), layout)
        return lower(plan, only={rank}, layers=range(1), microbatches=range(1))


def _sizes(shares: Shares, cuts: Sequence[Cut], sequences: int) -> list[int]:
    """The largest shares of some cuts, which are the first rank's.

    Where slices cut the dims of heads and nothing else, heads and dims matter by their product alone.
    """
    spans = {cut: shares.interval(cut, 0, (0, sequences)) for cut in cuts}
    sizes = {cut: stop - start for cut, (start, stop) in spans.items()}
    if [cut.dim for cut in cuts if cut.axis == "slices"] == ["head_dim"]:
        (dims,) = [size for cut, size in sizes.items() if cut.axis == "slices"]
        return [size * dims if cut.axis == "groups" else size for cut, size in sizes.items() if cut.axis != "slices"]
    return list(sizes.values())


def _is_weight(dag: Dag, value: Value) -> bool:
    return dag.tensor[value.tensor].role == "weight"


def _brings_input(dag: Dag, task: Task) -> bool:
    """Whether a task moves the model's input to the ranks, which is done in the first layer alone."""
    return task.moves and dag.tensor[dag.value[task.outputs[0]].tensor].role == "input"
